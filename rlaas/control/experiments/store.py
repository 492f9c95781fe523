"""Experiments in the state database: what was declared, what happened, and how far the analysis has come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.control.experiments.entries import entry_from, entry_list
from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, fields_json, tenant_table
from rlaas.errors import ConflictError, NotFoundError
from rlaas.experiments.records import Entry

__all__ = ["ACTIVE", "Analysis", "AnalysisRows", "Event", "ExperimentStore", "State", "StoredExperiment"]

State = Literal["starting", "running", "stopping", "stopped", "failed"]
ACTIVE: tuple[State, ...] = ("starting", "running", "stopping")
_CHUNK = 500

_metadata = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    """A table of rows that belong to an experiment of a tenant."""
    return tenant_table(_metadata, name, sa.Column("id", sa.String(128), primary_key=True), *columns)


_experiments = _table(
    "experiments",
    sa.Column("policy", sa.String(128), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    # What was live when it began; null: nothing.
    sa.Column("before", sa.Text, nullable=True),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("stopped_us", sa.BigInteger, nullable=True),
    # Decision, variant, reason and actor, once one has been taken.
    sa.Column("verdict", sa.Text, nullable=True),
    sa.Index("experiments_by_state", "tenant", "state"),
)
# One row for each policy that an experiment holds: the database refuses a second one.
_claims = tenant_table(
    _metadata,
    "experiment_claims",
    sa.Column("claim", sa.String(160), primary_key=True),
    sa.Column("id", sa.String(128), nullable=False),
)
_events = _table(
    "experiment_events",
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("event", sa.Text, nullable=False),
)
_analyses = _table(
    "experiment_analyses",
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
)
_decisions = _table(
    "experiment_decisions",
    sa.Column("decision_id", sa.String(256), primary_key=True),
    sa.Column("unit", sa.String(256), nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
)
_entries = _table(
    "experiment_entries",
    sa.Column("metric", sa.String(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("entry", sa.Text, nullable=False),
)
_audit = _table(
    "experiment_audit",
    sa.Column("metric", sa.String(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an experiment.

    Attributes:
        time_us: when, UTC microseconds.
        actor: who.
        kind: what: ``created``, ``started``, ``stopping``, ``stopped`` or ``failed``.
        reason: why, in words.
    """

    time_us: int
    actor: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredExperiment:
    """An experiment and where it stands.

    Attributes:
        document: as declared.
        state: where it stands.
        revision: grows with every change.
        created_us, stopped_us: UTC microseconds.
        before: record of the deployment when it began, as JSON types; None: nothing was live.
        verdict: ``decision``, ``variant``, ``reason`` and ``actor`` of the stop; None before.
    """

    document: ExperimentDocument
    state: State
    revision: int
    created_us: int
    stopped_us: int | None = None
    before: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] | None = None

    @property
    def start_us(self) -> int:
        """From when decisions count, UTC microseconds."""
        return self.created_us if self.document.start_us is None else self.document.start_us


@dataclass(frozen=True, slots=True)
class Analysis:
    """How far an analysis has come: its state, and the result page that it made."""

    revision: int
    state: Mapping[str, Any]
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AnalysisRows:
    """What a run of the analysis adds.

    Attributes:
        decisions: unit and time by decision id.
        entries: by metric the number of the first, and the entries.
        audit: by metric the number of the first, and the records.
    """

    decisions: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    entries: Mapping[str, tuple[int, Sequence[Entry]]] = field(default_factory=dict)
    audit: Mapping[str, tuple[int, Sequence[Mapping[str, Any]]]] = field(default_factory=dict)


class ExperimentStore(TenantStore):
    """Experiments of a tenant. Thread-safe, and safe for several processes: every change is compared and set.

    Args:
        database: the state database; tables are made where they are missing.
        tenant: whose experiments.
    """

    def __init__(self, database: StateDatabase, tenant: str) -> None:
        super().__init__(database, tenant, _metadata)

    def insert(self, stored: StoredExperiment, event: Event) -> None:
        """Keep a new experiment, which claims its policy.

        Raises:
            ConflictError: there is one of this id, or another holds the policy.
        """
        document = stored.document
        claim = f"policy:{document.policy}"
        try:
            with self._engine.begin() as connection:
                connection.execute(_experiments.insert().values(tenant=self._tenant, **_values(stored)))
                connection.execute(_claims.insert().values(tenant=self._tenant, claim=claim, id=document.id))
                self._write_event(connection, stored, event)
        except IntegrityError as problem:
            raise self._conflict(document, claim) from problem

    def change(self, stored: StoredExperiment, event: Event) -> None:
        """Store the successor of the revision before; one that is no longer active lets go what it claimed.

        Raises:
            ConflictError: somebody else has changed it.
        """
        id_ = stored.document.id
        with self._engine.begin() as connection:
            changed = connection.execute(
                _experiments.update()
                .where(*self._mine(_experiments, id=id_, revision=stored.revision - 1))
                .values(**_values(stored))
            ).rowcount
            if changed != 1:
                raise ConflictError(
                    f"experiment {id_!r} was changed by somebody else meanwhile; read it and try again", field="id"
                )
            if stored.state not in ACTIVE:
                connection.execute(_claims.delete().where(*self._mine(_claims, id=id_)))
            self._write_event(connection, stored, event)

    def discard(self, id_: str) -> None:
        """Forget an experiment that could not be begun, so that its id may be used."""
        with self._engine.begin() as connection:
            for table in (_experiments, _claims, _events):
                connection.execute(table.delete().where(*self._mine(table, id=id_)))

    def get(self, id_: str) -> StoredExperiment:
        """One experiment.

        Raises:
            NotFoundError: there is none of this id.
        """
        row = self._row(sa.select(_experiments).where(*self._mine(_experiments, id=id_)))
        if row is None:
            raise NotFoundError(f"no experiment {id_!r}", field="experiment")
        return _stored(row)

    def all(self) -> list[StoredExperiment]:
        """Every experiment, newest first."""
        columns = _experiments.c
        query = sa.select(_experiments).where(*self._mine(_experiments))
        return [_stored(row) for row in self._rows(query.order_by(columns.created_us.desc(), columns.id))]

    def events(self, id_: str) -> list[Event]:
        """What has happened to an experiment, oldest first."""
        query = sa.select(_events.c.event).where(*self._mine(_events, id=id_)).order_by(_events.c.revision)
        return [Event(**json.loads(row.event)) for row in self._rows(query)]

    def analysis(self, id_: str) -> Analysis | None:
        """How far its analysis has come; None before the first run."""
        row = self._row(sa.select(_analyses).where(*self._mine(_analyses, id=id_)))
        return None if row is None else Analysis(row.revision, json.loads(row.state), json.loads(row.result))

    def entries(self, id_: str, metric: str) -> list[Entry]:
        """The entries of a metric, in their order."""
        query = sa.select(_entries.c.entry).where(*self._mine(_entries, id=id_, metric=metric))
        return [entry_from(json.loads(row.entry)) for row in self._rows(query.order_by(_entries.c.number))]

    def audit(self, id_: str) -> list[dict[str, Any]]:
        """What changed nothing, and why, by metric in the order in which it was found."""
        query = sa.select(_audit).where(*self._mine(_audit, id=id_)).order_by(_audit.c.metric, _audit.c.number)
        return [{"metric": row.metric, **json.loads(row.record)} for row in self._rows(query)]

    def units_of(self, id_: str, decisions: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Unit and time by decision id, of those that belong to the experiment."""
        wanted = sorted(set(decisions))
        found: dict[str, tuple[str, int]] = {}
        with self._engine.connect() as connection:
            for first in range(0, len(wanted), _CHUNK):
                chunk = wanted[first : first + _CHUNK]
                query = sa.select(_decisions).where(
                    *self._mine(_decisions, id=id_), _decisions.c.decision_id.in_(chunk)
                )
                found |= {row.decision_id: (row.unit, row.time_us) for row in connection.execute(query)}
        return found

    def commit(self, id_: str, analysis: Analysis, rows: AnalysisRows) -> None:
        """Store what a run of the analysis has made, all or nothing.

        Raises:
            ConflictError: another run has been here since ``analysis`` was read.
        """
        where = {"tenant": self._tenant, "id": id_}
        values = {
            "revision": analysis.revision,
            "state": json.dumps(analysis.state),
            "result": json.dumps(analysis.result, allow_nan=False),
        }
        try:
            with self._engine.begin() as connection:
                if analysis.revision == 1:
                    connection.execute(_analyses.insert().values(**where, **values))
                else:
                    changed = connection.execute(
                        _analyses.update()
                        .where(*self._mine(_analyses, id=id_, revision=analysis.revision - 1))
                        .values(**values)
                    ).rowcount
                    if changed != 1:
                        raise _overtaken(id_)
                _insert(
                    connection,
                    _decisions,
                    [
                        {**where, "decision_id": name, "unit": unit, "time_us": time_us}
                        for name, (unit, time_us) in rows.decisions.items()
                    ],
                )
                _insert(
                    connection,
                    _entries,
                    [
                        {**where, "metric": metric, "number": number, "entry": json.dumps(entry_list(entry))}
                        for metric, (first, found) in rows.entries.items()
                        for number, entry in enumerate(found, first)
                    ],
                )
                _insert(
                    connection,
                    _audit,
                    [
                        {**where, "metric": metric, "number": number, "record": json.dumps(record)}
                        for metric, (first, records) in rows.audit.items()
                        for number, record in enumerate(records, first)
                    ],
                )
        except IntegrityError as problem:
            raise _overtaken(id_) from problem

    def _write_event(self, connection: Connection, stored: StoredExperiment, event: Event) -> None:
        row = {"tenant": self._tenant, "id": stored.document.id, "revision": stored.revision}
        connection.execute(_events.insert().values(**row, event=fields_json(event)))

    def _conflict(self, document: ExperimentDocument, claim: str) -> ConflictError:
        held = self._row(sa.select(_claims).where(*self._mine(_claims, claim=claim)))
        if held is not None and held.id != document.id:
            return ConflictError(
                f"experiment {held.id!r} is running in policy {document.policy!r}; stop it first", field="policy"
            )
        return ConflictError(f"there is an experiment {document.id!r} already; choose another id", field="id")


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _overtaken(id_: str) -> ConflictError:
    return ConflictError(f"another run has analysed experiment {id_!r} meanwhile", field="experiment")


def _values(stored: StoredExperiment) -> dict[str, Any]:
    return {
        "id": stored.document.id,
        "policy": stored.document.policy,
        "state": stored.state,
        "revision": stored.revision,
        "document": stored.document.model_dump_json(),
        "before": None if stored.before is None else json.dumps(stored.before),
        "created_us": stored.created_us,
        "stopped_us": stored.stopped_us,
        "verdict": None if stored.verdict is None else json.dumps(stored.verdict),
    }


def _stored(row: Any) -> StoredExperiment:
    return StoredExperiment(
        document=ExperimentDocument.model_validate_json(row.document),
        state=row.state,
        revision=row.revision,
        created_us=row.created_us,
        stopped_us=row.stopped_us,
        before=None if row.before is None else json.loads(row.before),
        verdict=None if row.verdict is None else json.loads(row.verdict),
    )
