"""Rollouts in the state database: where each stands, what has happened, and up to where its evidence was counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.control.rollouts.evidence import counts_document, counts_from
from rlaas.control.rollouts.lease import Lease
from rlaas.control.rollouts.plan import ReplicaBounds, Strategy, parse_strategy
from rlaas.control.state import StateDatabase, write_over
from rlaas.control.tables import TenantStore, fields_json, tenant_table
from rlaas.errors import ConflictError
from rlaas.experiments.canary import Counts
from rlaas.serving.live import DeploymentRecord, Variant

__all__ = ["RUNNING", "Event", "OvertakenError", "Rollout", "RolloutStore", "State"]

State = Literal["running", "paused", "warming", "standby", "switched", "succeeded", "rolled_back", "aborted"]
RUNNING: tuple[State, ...] = ("running", "paused", "warming", "standby", "switched")
SCHEMA_VERSION = 1

_metadata = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    """A table of rows that belong to a rollout of a tenant."""
    keys = (sa.Column("policy", sa.String(128), primary_key=True), sa.Column("number", sa.Integer, primary_key=True))
    return tenant_table(_metadata, name, *keys, *columns)


_rollouts = _table(
    "rollouts",
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("deployment", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("judge", sa.Text, nullable=True),
    sa.Column("started_us", sa.BigInteger, nullable=False),
    sa.Column("step_us", sa.BigInteger, nullable=False),
    sa.Column("ended_us", sa.BigInteger, nullable=True),
    # Set where the registry's alias has yet to follow.
    sa.Column("mirror", sa.Integer, nullable=True),
    sa.Index("rollouts_by_state", "tenant", "state"),
)
_events = _table(
    "rollout_events",
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
)
_counters = _table(
    "rollout_counters",
    sa.Column("producer", sa.String(128), primary_key=True),
    sa.Column("counts", sa.Text, nullable=False),
)
_scaling = tenant_table(_metadata, "pool_scaling", sa.Column("bounds", sa.Text, nullable=False))


class OvertakenError(ConflictError):
    """Somebody else has changed the rollout since it was read."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a rollout.

    Attributes:
        time_us: when, UTC microseconds.
        actor: ``controller``, or the operator as he named himself.
        kind: what, for example ``advanced``.
        step: at which this left the rollout.
        reason: why, in words.
        evidence: by metric, as the judge gave it; empty where nothing was judged.
    """

    time_us: int
    actor: str
    kind: str
    step: int
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a rollout stands.

    Attributes:
        policy, number: which; numbers of a policy count from 1.
        strategy: how the new version comes in.
        before: what was served when it began, and is again after a rollback.
        target: the variant that serves alone once it has succeeded.
        state: where it stands; see :data:`RUNNING`.
        step: of a canary, from 0.
        held: whether the present step has timed out and is held.
        generation: of the deployment, as this rollout wrote it last.
        revision: grows with every change of the row.
        started_us, step_us, ended_us: when it, and its present step or state, began, and when it ended.
        judge: state of the judge, if there is one.
        mirror: version that the registry's alias has yet to follow.
    """

    policy: str
    number: int
    strategy: Strategy
    before: DeploymentRecord
    target: Variant
    state: State
    step: int
    held: bool
    generation: int
    revision: int
    started_us: int
    step_us: int
    ended_us: int | None = None
    judge: Mapping[str, Any] | None = None
    mirror: int | None = None

    @property
    def stable(self) -> Variant:
        """The variant that served before."""
        return next(variant for variant in self.before.variants if variant.weight > 0)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state in RUNNING


class RolloutStore(TenantStore):
    """Rollouts of a tenant. Thread-safe, and safe for several processes: every change is compared and set.

    Args:
        database: the state database; tables are made where they are missing.
        tenant: whose rollouts.
    """

    def __init__(self, database: StateDatabase, tenant: str) -> None:
        super().__init__(database, tenant, _metadata)

    def next_number(self, policy: str) -> int:
        """Number of the policy's next rollout."""
        query = sa.select(sa.func.max(_rollouts.c.number).label("last"))
        (row,) = self._rows(query.where(*self._mine(_rollouts, policy=policy)))
        return (row.last or 0) + 1

    def running(self, policy: str | None = None) -> list[Rollout]:
        """Rollouts that have not ended, by policy."""
        query = sa.select(_rollouts).where(*self._mine(_rollouts), _rollouts.c.state.in_(RUNNING))
        if policy is not None:
            query = query.where(_rollouts.c.policy == policy)
        return [_rollout(row) for row in self._rows(query.order_by(_rollouts.c.policy))]

    def unmirrored(self) -> list[Rollout]:
        """Rollouts that have succeeded and that the registry's alias has yet to follow."""
        query = sa.select(_rollouts).where(*self._mine(_rollouts), _rollouts.c.mirror.is_not(None))
        return [_rollout(row) for row in self._rows(query)]

    def mirrored(self, rollout: Rollout) -> None:
        """The alias has followed."""
        with self._engine.begin() as connection:
            connection.execute(_rollouts.update().where(*self._of(_rollouts, rollout)).values(mirror=None))

    def history(self, policy: str) -> list[tuple[Rollout, list[Event]]]:
        """Every rollout of a policy with its events, newest first."""
        rollouts = sa.select(_rollouts).where(*self._mine(_rollouts, policy=policy)).order_by(_rollouts.c.number.desc())
        events = sa.select(_events).where(*self._mine(_events, policy=policy))
        events = events.order_by(_events.c.number, _events.c.revision)
        with self._engine.connect() as connection:
            found = [_rollout(row) for row in connection.execute(rollouts)]
            happened: dict[int, list[Event]] = {rollout.number: [] for rollout in found}
            for row in connection.execute(events):
                happened.setdefault(row.number, []).append(Event(**json.loads(row.event)))
        return [(rollout, happened[rollout.number]) for rollout in found]

    def counters(self, rollout: Rollout) -> dict[str, dict[int, Counts]]:
        """Counts by process and version up to which the evidence is in."""
        rows = self._rows(sa.select(_counters).where(*self._of(_counters, rollout)))
        return {
            row.producer: {version: counts_from(counts) for version, counts in json.loads(row.counts)} for row in rows
        }

    def start(self, rollout: Rollout, record: DeploymentRecord, event: Event) -> None:
        """Begin a rollout, and write what is live from now on, both or neither.

        Raises:
            ConflictError: the deployment was changed, or another rollout begun, meanwhile.
        """
        try:
            with self._engine.begin() as connection:
                _write_record(connection, record)
                connection.execute(_rollouts.insert().values(tenant=self._tenant, **_values(rollout)))
                self._write_event(connection, rollout, event)
        except IntegrityError as problem:
            raise ConflictError(
                f"another rollout of {rollout.policy!r} was begun meanwhile; read its status and try again",
                field="strategy",
            ) from problem

    def commit(
        self,
        rollout: Rollout,
        *,
        event: Event | None = None,
        record: DeploymentRecord | None = None,
        counters: Mapping[str, Mapping[int, Counts]] | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Store a changed rollout and everything that belongs to the change, all or nothing.

        Args:
            rollout: the successor, of the revision after the stored one.
            event: that led to it.
            record: what is live from now on.
            counters: of the processes whose evidence has come in, up to which it is counted now.
            lease: that must still be held.

        Raises:
            OvertakenError: the rollout was changed by somebody else meanwhile.
            ConflictError: the lease is lost, or the deployment was changed meanwhile.
        """
        with self._engine.begin() as connection:
            if lease is not None:
                lease.fence(connection)
            if record is not None:
                _write_record(connection, record)
            changed = connection.execute(
                _rollouts.update()
                .where(*self._of(_rollouts, rollout), _rollouts.c.revision == rollout.revision - 1)
                .values(**_values(rollout))
            ).rowcount
            if changed != 1:
                raise OvertakenError(
                    f"rollout {rollout.number} of {rollout.policy!r} was changed by somebody else meanwhile; "
                    "read its status and try again",
                    field="rollout",
                )
            if event is not None:
                self._write_event(connection, rollout, event)
            self._write_counters(connection, rollout, counters or {})

    def scaling(self) -> ReplicaBounds | None:
        """Between how many Gateways the pool may be; None if nobody has said."""
        row = self._row(sa.select(_scaling).where(*self._mine(_scaling)))
        return None if row is None else ReplicaBounds.model_validate_json(row.bounds)

    def set_scaling(self, bounds: ReplicaBounds | None) -> None:
        """Keep the bounds of the pool, which all deployments share; None: back to those of the configuration."""
        with self._engine.begin() as connection:
            connection.execute(_scaling.delete().where(*self._mine(_scaling)))
            if bounds is not None:
                connection.execute(_scaling.insert().values(tenant=self._tenant, bounds=bounds.model_dump_json()))

    def _write_event(self, connection: Connection, rollout: Rollout, event: Event) -> None:
        connection.execute(
            _events.insert().values(
                tenant=self._tenant,
                policy=rollout.policy,
                number=rollout.number,
                revision=rollout.revision,
                time_us=event.time_us,
                event=fields_json(event),
            )
        )

    def _write_counters(
        self, connection: Connection, rollout: Rollout, counters: Mapping[str, Mapping[int, Counts]]
    ) -> None:
        mine = self._of(_counters, rollout)
        if not rollout.running:  # nobody will take differences again
            connection.execute(_counters.delete().where(*mine))
        elif counters:
            connection.execute(_counters.delete().where(*mine, _counters.c.producer.in_(list(counters))))
            rows = [
                {
                    "tenant": self._tenant,
                    "policy": rollout.policy,
                    "number": rollout.number,
                    "producer": producer,
                    "counts": json.dumps([[version, counts_document(c)] for version, c in sorted(counts.items())]),
                }
                for producer, counts in counters.items()
            ]
            connection.execute(_counters.insert(), rows)

    def _of(self, table: sa.Table, rollout: Rollout) -> tuple[sa.ColumnElement[bool], ...]:
        return self._mine(table, policy=rollout.policy, number=rollout.number)


def _write_record(connection: Connection, record: DeploymentRecord) -> None:
    row = {"generation": record.generation, "record": record.model_dump_json(), "updated_us": record.updated_us}
    write_over(connection, record.tenant, record.policy, record.generation, row)


_COLUMNS = (
    "policy",
    "number",
    "state",
    "step",
    "held",
    "generation",
    "revision",
    "started_us",
    "step_us",
    "ended_us",
    "mirror",
)


def _values(rollout: Rollout) -> dict[str, Any]:
    document = {
        "strategy": rollout.strategy.model_dump(mode="json"),
        "before": rollout.before.model_dump(mode="json"),
        "target": rollout.target.model_dump(mode="json"),
    }
    return {
        **{name: getattr(rollout, name) for name in _COLUMNS},
        "schema_version": SCHEMA_VERSION,
        "deployment": rollout.before.id,
        "document": json.dumps(document),
        "judge": None if rollout.judge is None else json.dumps(rollout.judge),
    }


def _rollout(row: Any) -> Rollout:
    document = json.loads(row.document)
    return Rollout(
        **{name: getattr(row, name) for name in _COLUMNS},
        strategy=parse_strategy(document["strategy"]),
        before=DeploymentRecord.model_validate(document["before"]),
        target=Variant.model_validate(document["target"]),
        judge=None if row.judge is None else json.loads(row.judge),
    )
