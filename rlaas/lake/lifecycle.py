"""What becomes of tables with time, as configuration: when files are merged, and how long rows stay where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.lake.schemas import TableSpec, table_spec

__all__ = ["Ages", "LakePlan", "MaintenancePlan", "RetentionPlan", "TableUpkeep", "load_lake_plan"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableUpkeep(_Document):
    """How the files of one table are kept in shape; hours are counted from the last time it was done."""

    compact_every_h: float = Field(default=1.0, gt=0, description="merge small files so often")
    max_small_files: int = Field(default=64, ge=2, description="or as soon as a tenant has so many")
    target_mb: int = Field(default=128, ge=1, le=4096, description="size that files are merged up to")
    z_order: tuple[str, ...] = Field(default=(), max_length=4, description="columns that readers look for")
    z_order_every_h: float = Field(default=24.0, gt=0, description="sort days that ended so often; each day once")
    vacuum_every_h: float = Field(default=24.0, gt=0, description="delete files that no version needs so often")
    keep_versions_h: int = Field(default=168, ge=1, description="how far back versions can be read")
    checkpoint_every_h: float = Field(default=24.0, gt=0, description="write the state of the table so often")


def _default_upkeep() -> dict[str, TableUpkeep]:
    return {
        "bronze.decisions": TableUpkeep(z_order=("policy", "session")),
        "silver.transitions": TableUpkeep(z_order=("policy", "session")),
    }


class MaintenancePlan(_Document):
    """Upkeep by table."""

    default: TableUpkeep = Field(default=TableUpkeep(), description="of tables that are not named")
    tables: dict[str, TableUpkeep] = Field(default_factory=_default_upkeep)

    @model_validator(mode="after")
    def _known(self) -> MaintenancePlan:
        for name, upkeep in self.tables.items():
            spec = _checked(name)
            for column in upkeep.z_order:
                sortable = [
                    field.name
                    for field in spec.schema
                    if field.name not in spec.partition_by and not _is_nested(field.type)
                ]
                if column not in sortable:
                    raise ConfigurationError(
                        f"unknown column {column!r} of {name}; allowed: {', '.join(sortable)}",
                        field=f"tables.{name}.z_order",
                    )
        for column in self.default.z_order:
            raise ConfigurationError(
                f"column {column!r} is not one of every table; name the tables", field="default.z_order"
            )
        return self

    def of(self, table: str) -> TableUpkeep:
        """Upkeep of a table."""
        return self.tables.get(table, self.default)


class Ages(_Document):
    """How old the rows of a table are, in days since their ``date``, when they leave a storage class."""

    hot_days: int = Field(default=30, ge=1, description="then they are moved to the warm location")
    warm_days: int = Field(default=365, ge=1, description="then to the cold one")
    cold_days: int = Field(default=2557, ge=1, description="then they are removed; seven years")

    @model_validator(mode="after")
    def _ascending(self) -> Ages:
        if not self.hot_days < self.warm_days < self.cold_days:
            raise ConfigurationError(
                f"ages must grow: hot_days {self.hot_days} < warm_days {self.warm_days} < cold_days {self.cold_days}",
                field="hot_days",
            )
        return self


def _default_ages() -> dict[str, Ages]:
    # An outcome may come a week late: the join still has to find its decision then.
    return {"bronze.decisions": Ages(hot_days=37)}


class RetentionPlan(_Document):
    """Where rows lie, by their age."""

    warm: str | None = Field(default=None, description="folder or URL; default archive/warm in the lake")
    cold: str | None = Field(default=None, description="folder or URL; default archive/cold in the lake")
    default: Ages = Field(default=Ages(), description="of tables that are not named")
    tables: dict[str, Ages] = Field(default_factory=_default_ages)

    @field_validator("tables")
    @classmethod
    def _known(cls, value: dict[str, Ages]) -> dict[str, Ages]:
        for name in value:
            _checked(name)
        return value

    def of(self, table: str) -> Ages:
        """Ages of a table's rows."""
        return self.tables.get(table, self.default)


class LakePlan(_Document):
    """The lake's housekeeping: one document."""

    maintenance: MaintenancePlan = Field(default_factory=MaintenancePlan)
    retention: RetentionPlan = Field(default_factory=RetentionPlan)


def load_lake_plan(path: str | Path | None) -> LakePlan:
    """Read a plan from YAML; the default plan where no file is named.

    Raises:
        ConfigurationError: no such file, or a wrong key or value; names it and what is allowed.
    """
    return LakePlan() if path is None else read_config(path, LakePlan)


def _checked(name: str) -> TableSpec:
    try:
        return table_spec(name)
    except ConfigurationError as problem:
        raise ConfigurationError(problem.message, field=f"tables.{name}") from problem


def _is_nested(kind: Any) -> bool:
    return bool(getattr(kind, "num_fields", 0))
