"""What the stores beside the state database share: tables by tenant, and how their rows are read."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rlaas.control.state import StateDatabase

__all__ = ["TenantStore", "fields_json", "tenant_table"]


def tenant_table(metadata: sa.MetaData, name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    """A table whose rows belong to a tenant, which is the first part of their key."""
    return sa.Table(name, metadata, sa.Column("tenant", sa.String(63), primary_key=True), *items)


def fields_json(value: DataclassInstance) -> str:
    """The fields of a dataclass as the text of a JSON object."""
    return json.dumps({one.name: getattr(value, one.name) for one in fields(value)})


class TenantStore:
    """Rows of one tenant. Thread-safe, and safe for several processes where every change is compared and set.

    Args:
        database: the state database; tables are made where they are missing.
        tenant: whose rows.
        metadata: the tables.

    Raises:
        OperatorError: the database cannot be written.
    """

    def __init__(self, database: StateDatabase, tenant: str, metadata: sa.MetaData) -> None:
        database.create_tables(metadata)
        self._engine, self._tenant = database.engine, tenant

    def _mine(self, table: sa.Table, **values: Any) -> tuple[sa.ColumnElement[bool], ...]:
        """Conditions: the tenant's rows that have these values."""
        return table.c.tenant == self._tenant, *(table.c[name] == value for name, value in values.items())

    def _rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with self._engine.connect() as connection:
            return list(connection.execute(query))

    def _row(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        """The one row there may be."""
        with self._engine.connect() as connection:
            return connection.execute(query).one_or_none()
