"""What a feature is: a named quantity of an entity, and how it follows from rows of a source."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.lake.features.expressions import Expression
from rlaas.names import check_name

__all__ = ["Aggregate", "FeatureDefinition", "FeatureFile", "FeatureSource", "Transformation", "load_features", "named"]

Aggregate = Literal["last", "count", "sum", "mean", "min", "max"]

_KNOWN_ARRIVALS = {"bronze.decisions": "time_us", "bronze.outcomes": "received_us", "bronze.events": "received_us"}
"""Columns of the lake that say when a row arrived."""

_REFERENCE = re.compile(r"(?P<name>[^@]+)(?:@(?P<version>[1-9][0-9]{0,8}))?")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureSource(_Document):
    """Rows that a feature is made of: events of entities."""

    table: str | None = Field(default=None, description="table of the lake; or")
    path: str | None = Field(default=None, description="Parquet file or folder, or Delta table, local or by URL")
    entity: str = Field(description="path to the id of the entity: a column, map.key, struct.field or json.key")
    time: str = Field(default="time_us", description="column: when it happened, UTC microseconds or a timestamp")
    arrived: str | None = Field(default=None, description="column: when it was known here, as time")
    delay_s: float | None = Field(
        default=None, ge=0, le=31_536_000, description="seconds from arrival (or from time) until it can be used"
    )
    where: str | None = Field(default=None, description="expression; rows for which it is not true are left out")

    @model_validator(mode="after")
    def _known(self) -> FeatureSource:
        if (self.table is None) == (self.path is None):
            raise ConfigurationError("give exactly one of table and path", field="table")
        if self.arrived is None and self.delay_s is None and self.table not in _KNOWN_ARRIVALS:
            raise ConfigurationError(
                f"{self.name} does not say when a row was known; give arrived (a column), delay_s (seconds after "
                "time), or both: without it a training set would see the future",
                field="arrived",
            )
        Expression(self.entity, field="entity").path()
        if self.where is not None:
            Expression(self.where, field="where")
        return self

    @property
    def name(self) -> str:
        """Table or path."""
        return str(self.table or self.path)

    @property
    def arrival(self) -> str:
        """Column that says when a row arrived; the time itself where only a delay is known."""
        return self.arrived or _KNOWN_ARRIVALS.get(self.table or "", self.time)


class Transformation(_Document):
    """How events up to a moment become a value."""

    aggregate: Aggregate = "last"
    window_s: float | None = Field(
        default=None, gt=0, le=315_360_000, description="only events of the last seconds before the newest; null: all"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Transformation:
        if self.aggregate == "last" and self.window_s is not None:
            raise ConfigurationError("window_s does nothing for last; leave it out", field="window_s")
        return self


class FeatureDefinition(_Document):
    """One version of a feature, without its number: that is given by the registry."""

    name: str
    entity: str = Field(description="kind of entity that has it, for example cell or user")
    description: str = Field(default="", max_length=500)
    type: Literal["float", "int", "bool"] = "float"
    source: FeatureSource
    value: str | None = Field(default=None, description="expression over columns; may be left out for count")
    transformation: Transformation = Transformation()
    ttl_s: float = Field(gt=0, le=315_360_000, description="seconds after its newest event for which it is fresh")
    default: float | None = Field(
        default=None, description="stands in for what is missing or stale; null: a request is refused then"
    )
    owner: str = Field(min_length=1, max_length=128)
    tags: tuple[str, ...] = Field(default=(), max_length=32)

    @field_validator("name", "entity")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name", error=ConfigurationError)

    @model_validator(mode="after")
    def _whole(self) -> FeatureDefinition:
        aggregate = self.transformation.aggregate
        if self.value is None and aggregate != "count":
            raise ConfigurationError(f"value is needed by {aggregate}", field="value")
        if self.value is not None:
            Expression(self.value, field="value")
        allowed = {"int": ("last", "count", "sum", "min", "max"), "bool": ("last", "min", "max")}.get(self.type)
        if allowed is not None and aggregate not in allowed:
            raise ConfigurationError(
                f"{aggregate} does not give {self.type}; allowed: {', '.join(allowed)}", field="type"
            )
        if self.default is not None and self.type != "float" and self.shown(self.default) != self.default:
            raise ConfigurationError(f"default {self.default:g} is no {self.type}", field="default")
        return self

    @property
    def digest(self) -> str:
        """What makes it another version when it changes: everything."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def window_us(self) -> int:
        """Length of the window, microseconds; -1 for all events."""
        window = self.transformation.window_s
        return -1 if window is None else round(window * 1e6)

    @property
    def ttl_us(self) -> int:
        """Freshness, microseconds."""
        return round(self.ttl_s * 1e6)

    def shown(self, value: float) -> float | int | bool:
        """A stored value in the feature's type."""
        if self.type == "bool":
            return value != 0
        return round(value) if self.type == "int" else value


class FeatureFile(_Document):
    """A file under ``configs/features/``."""

    features: tuple[FeatureDefinition, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _once(self) -> FeatureFile:
        names = [feature.name for feature in self.features]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"feature {twice!r} is defined twice", field="features")
        return self


def load_features(path: str | Path) -> FeatureFile:
    """Read a file of definitions.

    Raises:
        ConfigurationError: it cannot be read, or holds an unknown key or an impossible value; names file and key.
    """
    return read_config(path, FeatureFile)


def named(reference: Any, *, field: str = "features") -> tuple[str, int | None]:
    """Name and version of ``"cell_load"`` (newest) or ``"cell_load@2"``.

    Raises:
        InvalidInputError: another form.
    """
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise InvalidInputError(f"{field}: {reference!r:.80} is not like 'name' or 'name@2'", field=field)
    version = found["version"]
    return check_name(found["name"], field=field), None if version is None else int(version)
