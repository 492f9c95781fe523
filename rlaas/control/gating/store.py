"""Gates in the state database: what was declared, what happened, and which versions have served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, fields_json, tenant_table
from rlaas.errors import ConflictError

__all__ = ["EventKind", "GateEvent", "GateStore", "StoredGate"]

EventKind = Literal["declared", "removed", "passed", "refused", "overridden", "promised"]

_TRIES = 5

_metadata = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    """A table of rows that belong to a policy of a tenant."""
    return tenant_table(_metadata, name, sa.Column("policy", sa.String(128), primary_key=True), *columns)


_gates = _table(
    "policy_gates",
    sa.Column("declaration", sa.Text, nullable=False),
    sa.Column("declared_us", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
)
_events = _table(
    "policy_gate_events",
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event", sa.Text, nullable=False),
)
_served = _table(
    "policy_served_versions",
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
)


@dataclass(frozen=True, slots=True)
class StoredGate:
    """A declaration that holds, since when (UTC microseconds) and by whom."""

    declaration: GateDeclaration
    declared_us: int
    actor: str


@dataclass(frozen=True, slots=True)
class GateEvent:
    """Something that happened at a policy's gate.

    Attributes:
        time_us: when, UTC microseconds.
        kind: what.
        actor, reason: who and why.
        version: that was judged; None for what concerns none.
        report: of the judgement, or what was declared.
        edge: whether it was about going to devices.
    """

    time_us: int
    kind: EventKind
    actor: str
    reason: str
    version: int | None = None
    report: Mapping[str, Any] | None = None
    edge: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The event as plain JSON types."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class GateStore(TenantStore):
    """Gates of a tenant. Thread-safe, and safe for several processes.

    Args:
        database: the state database; tables are made where they are missing.
        tenant: whose policies.
    """

    def __init__(self, database: StateDatabase, tenant: str) -> None:
        super().__init__(database, tenant, _metadata)

    def gate(self, policy: str) -> StoredGate | None:
        """What holds for a policy; None where nothing was declared."""
        row = self._row(sa.select(_gates).where(*self._mine(_gates, policy=policy)))
        if row is None:
            return None
        return StoredGate(GateDeclaration.model_validate_json(row.declaration), row.declared_us, row.actor)

    def declare(self, policy: str, gate: StoredGate, event: GateEvent) -> None:
        """Put a declaration in the place of the one before.

        Raises:
            ConflictError: somebody else has done so meanwhile.
        """
        row = {"declaration": gate.declaration.model_dump_json(), "declared_us": gate.declared_us, "actor": gate.actor}

        def write(connection: Connection) -> bool:
            connection.execute(_gates.delete().where(*self._mine(_gates, policy=policy)))
            connection.execute(_gates.insert().values(tenant=self._tenant, policy=policy, **row))
            return True

        self._change(policy, write, event)

    def remove(self, policy: str, event: GateEvent) -> bool:
        """Let a declaration go; whether there was one.

        Raises:
            ConflictError: somebody else has changed it meanwhile.
        """

        def write(connection: Connection) -> bool:
            return connection.execute(_gates.delete().where(*self._mine(_gates, policy=policy))).rowcount == 1

        return self._change(policy, write, event) > 0

    def record(self, policy: str, event: GateEvent) -> int:
        """Keep an event; its number in the history.

        Raises:
            ConflictError: others kept being faster.
        """
        return self._change(policy, lambda _: True, event)

    def events(self, policy: str) -> list[tuple[int, GateEvent]]:
        """What has happened at a policy's gate, with its number, newest first."""
        query = sa.select(_events).where(*self._mine(_events, policy=policy)).order_by(_events.c.number.desc())
        return [(row.number, GateEvent(**json.loads(row.event))) for row in self._rows(query)]

    def served(self, policy: str) -> set[int]:
        """Versions that have had live traffic by themselves."""
        return {row.version for row in self._rows(sa.select(_served).where(*self._mine(_served, policy=policy)))}

    def note_served(self, policy: str, versions: Iterable[int]) -> None:
        """Remember versions that have served."""
        for version in sorted(set(versions) - self.served(policy)):
            try:
                with self._engine.begin() as connection:
                    connection.execute(_served.insert().values(tenant=self._tenant, policy=policy, version=version))
            except IntegrityError:  # another process noted the same
                continue

    def _change(self, policy: str, write: Callable[[Connection], bool], event: GateEvent) -> int:
        """Do ``write`` and keep the event, both or neither; the event's number, 0 where there was nothing to do."""
        last = sa.select(sa.func.max(_events.c.number)).where(*self._mine(_events, policy=policy))
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    if not write(connection):
                        return 0
                    number = int(connection.execute(last).scalar_one() or 0) + 1
                    document = fields_json(event)
                    connection.execute(
                        _events.insert().values(tenant=self._tenant, policy=policy, number=number, event=document)
                    )
                    return number
            except IntegrityError:  # another process took the number
                continue
        raise ConflictError(f"the gate of {policy!r} was changed by somebody else meanwhile; try again", field="gate")
