"""What every table is held to: one frozen document, from Python or YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlaas.configfiles import read_config
from rlaas.lake.schemas import TABLES
from rlaas.lake.validation.volume import VolumeConfig

__all__ = ["VALIDATED", "TableContract", "ValidationConfig", "load_validation_config"]

VALIDATED = ("bronze.decisions", "bronze.events", "bronze.outcomes", "silver.transitions")
"""Tables that have a contract."""


class TableContract(BaseModel):
    """What one table is held to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_rows: int = Field(default=0, ge=0, description="rows in the days that are checked")
    max_bad: float = Field(default=0.0, ge=0, le=1, description="share of rows that may break one and the same rule")
    complete: dict[str, float] = Field(default_factory=dict, description="least share of rows with a value, by column")
    max_age_s: float | None = Field(default=None, gt=0, description="age of the newest row; default any")
    ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="lowest and highest, by name of a value of an event"
    )
    volume: VolumeConfig | None = Field(default_factory=VolumeConfig, description="null: any number of rows is fine")

    @field_validator("complete")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        for name, share in value.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share}")
        return value

    @field_validator("ranges")
    @classmethod
    def _ordered(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if math.isnan(low) or math.isnan(high) or low > high:
                raise ValueError(f"{name} must be the lowest and the highest value, got {low}, {high}")
        return value


class ValidationConfig(BaseModel):
    """How the lake is validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last_days: int | None = Field(default=7, ge=1, description="newest days of what there is; null: all of them")
    scenarios: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of a scenario by its name: they say what is in range"
    )
    max_skew_s: float = Field(default=300.0, ge=0, description="how far ahead of this clock a row's time may be")
    orphan_after_s: float = Field(default=3600.0, ge=0, description="how long an outcome may wait for its decision")
    tables: dict[str, TableContract] = Field(default_factory=dict, description="default: the defaults of each")

    @field_validator("tables")
    @classmethod
    def _known(cls, value: dict[str, TableContract]) -> dict[str, TableContract]:
        for table, contract in value.items():
            if table not in VALIDATED:
                raise ValueError(f"unknown table {table[:80]!r}; allowed: {', '.join(VALIDATED)}")
            for column in contract.complete:
                if column not in TABLES[table].schema.names:
                    allowed = ", ".join(TABLES[table].schema.names)
                    raise ValueError(f"{table} has no column {column[:80]!r}; allowed: {allowed}")
            if contract.ranges and "values" not in TABLES[table].schema.names:
                raise ValueError(f"ranges of {table}: only values of bronze.events have them")
        return value

    def of(self, table: str) -> TableContract:
        """The contract of a table."""
        return self.tables.get(table, TableContract())


def load_validation_config(path: str | Path) -> ValidationConfig:
    """Read a YAML file.

    Raises:
        ConfigurationError: see :func:`rlaas.configfiles.read_config`.
    """
    return read_config(path, ValidationConfig)
