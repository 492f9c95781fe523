"""Resolutions in the state database: they outlive Controls, of which there may be several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, tenant_table
from rlaas.decisions import Requirements
from rlaas.decisions.effectiveness import Effectiveness, Resolution, Settlement, effectiveness, settle
from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, shown
from rlaas.fronts import Front
from rlaas.objectives import ObjectiveVector

__all__ = ["ResolutionStore"]

_metadata = sa.MetaData()

_resolutions = tenant_table(
    _metadata,
    "resolutions",
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("scenario", sa.String(128), nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("step", sa.String(16), nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("rules_hit", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    # Null until settled.
    sa.Column("settled_us", sa.BigInteger, nullable=True),
    sa.Column("utility", sa.Double, nullable=True),
    sa.Column("best", sa.Text, nullable=True),
    sa.Column("best_utility", sa.Double, nullable=True),
    sa.Column("observed", sa.Boolean, nullable=True),
    sa.Index("resolutions_by_time", "tenant", "scenario", "time_us", "id"),
)

SCHEMA_VERSION = 1
LONGEST_SCENARIO = 128


@dataclass(frozen=True, slots=True)
class _Row:
    """The columns that figures need."""

    id: str
    time_us: int
    mode: str
    step: str
    candidate: str
    rules_hit: tuple[str, ...]


class ResolutionStore(TenantStore):
    """Resolutions of a tenant, and what became of them. Thread-safe, and safe for several processes.

    Args:
        database: the state database; the table is made where it is missing.
        tenant: whose resolutions.
        keep_s: how long a resolution is kept, in seconds before the newest of its scenario.

    Raises:
        ConfigurationError: ``keep_s`` is not positive.
        OperatorError: the database cannot be written.
    """

    def __init__(self, database: StateDatabase, tenant: str, *, keep_s: float = 90 * 86_400.0) -> None:
        if isinstance(keep_s, bool) or not isinstance(keep_s, int | float) or not 0 < keep_s <= 1e10:
            raise ConfigurationError(f"keep_s must be seconds > 0 and <= 1e10, got {shown(keep_s)}", field="keep_s")
        super().__init__(database, tenant, _metadata)
        self._keep_us = int(keep_s * 1e6)

    def record(self, resolution: Resolution) -> None:
        """Keep a resolution; the same one twice is kept once. Those past their time are forgotten.

        Raises:
            ConflictError: another one has this id.
            InvalidInputError: the scenario's name has more than 128 characters.
        """
        if len(resolution.scenario) > LONGEST_SCENARIO:
            raise InvalidInputError(
                f"scenario has {len(resolution.scenario)} characters; allowed: {LONGEST_SCENARIO}", field="scenario"
            )
        record = json.dumps(resolution.to_dict(), sort_keys=True)
        row = {
            "tenant": self._tenant,
            "id": resolution.id,
            "schema_version": SCHEMA_VERSION,
            "scenario": resolution.scenario,
            "time_us": resolution.time_us,
            "mode": resolution.mode,
            "step": resolution.step,
            "candidate": resolution.candidate,
            "rules_hit": json.dumps(resolution.rules_hit),
            "record": record,
        }
        past = (*self._of(resolution.scenario), _resolutions.c.time_us < resolution.time_us - self._keep_us)
        try:
            with self._engine.begin() as connection:
                connection.execute(_resolutions.insert().values(**row))
                connection.execute(_resolutions.delete().where(*past))
        except IntegrityError as problem:
            before = self._record_of(resolution.id)
            if before != record:
                raise ConflictError(
                    f"resolution {resolution.id} is recorded already and says something else", field="id"
                ) from problem

    def scenarios(self) -> tuple[str, ...]:
        """Scenarios that have resolutions, by name."""
        query = sa.select(_resolutions.c.scenario).where(*self._mine(_resolutions)).distinct()
        return tuple(sorted(row.scenario for row in self._rows(query)))

    def latest(self, scenario: str, *, limit: int = 100) -> tuple[tuple[Resolution, Settlement | None], ...]:
        """The newest resolutions, newest first, with what became of them."""
        columns = _resolutions.c
        query = (
            sa.select(_resolutions)
            .where(*self._of(scenario))
            .order_by(columns.time_us.desc(), columns.id.desc())
            .limit(limit)
        )
        return tuple((_resolution(row), _settlement(row)) for row in self._rows(query))

    def settle(
        self,
        front: Front,
        *,
        time_us: int,
        outcomes: Mapping[str, ObjectiveVector] | None = None,
        rules: Requirements | None = None,
    ) -> tuple[Settlement, ...]:
        """Judge resolutions of the front's scenario: all without a regret, and those with a new outcome again.

        Those over other objectives than the front's, and those of which nothing is known, are left open. Of two
        Controls that settle at the same time, one settles each resolution.

        Args:
            front: the best that is known now.
            time_us: now, UTC microseconds; later resolutions are left open.
            outcomes: objective values observed under the choices, by the resolutions' ids.
            rules: that held beside the modes'.

        Returns:
            The new settlements, by time of the resolution.

        Raises:
            InvalidInputError: an outcome of no resolution, or what :func:`rlaas.decisions.effectiveness.settle`
                refuses; nothing is settled then.
        """
        observed, columns = outcomes or {}, _resolutions.c
        wanted = columns.id.in_(list(observed)) | (columns.settled_us.is_(None) & self._judgeable(front))
        query = (
            sa.select(columns.id, columns.record)
            .where(*self._of(front.scenario), columns.time_us <= time_us, wanted)
            .order_by(columns.time_us, columns.id)
        )
        records = {row.id: row.record for row in self._rows(query)}
        for id_ in observed:
            if id_ not in records:
                raise InvalidInputError(f"outcome of an unknown resolution {shown(id_)}", field="outcomes")
        resolutions = [Resolution.from_dict(json.loads(record)) for record in records.values()]
        judged = [
            settle(one, front, time_us=time_us, outcome=observed.get(one.id), rules=rules)
            for one in resolutions
            if one.id in observed or set(one.weights) == set(front.names)
        ]
        settled: list[Settlement] = []
        with self._engine.begin() as connection:
            for one in judged:
                if one is None:
                    continue
                still_open = sa.true() if one.observed else columns.settled_us.is_(None)
                changed = connection.execute(
                    _resolutions.update()
                    .where(*self._mine(_resolutions, id=one.id), still_open)
                    .values(
                        settled_us=one.time_us,
                        utility=one.utility,
                        best=one.best,
                        best_utility=one.best_utility,
                        observed=one.observed,
                    )
                ).rowcount
                if changed:
                    settled.append(one)
        return tuple(settled)

    def effectiveness(self, scenario: str, *, since_us: int, until_us: int) -> Effectiveness:
        """Figures of a window, UTC microseconds; its end is not included."""
        columns = _resolutions.c
        wanted = (
            columns.id,
            columns.time_us,
            columns.mode,
            columns.step,
            columns.candidate,
            columns.rules_hit,
            (columns.best_utility - columns.utility).label("regret"),
        )
        mine = sa.select(*wanted).where(*self._of(scenario))
        window = mine.where(columns.time_us >= since_us, columns.time_us < until_us)
        before = mine.where(columns.time_us < since_us).order_by(columns.time_us.desc(), columns.id.desc()).limit(1)
        with self._engine.connect() as connection:
            found = [*connection.execute(before), *connection.execute(window)]
        rows = [
            _Row(row.id, row.time_us, row.mode, row.step, row.candidate, tuple(json.loads(row.rules_hit)))
            for row in found
        ]
        regrets = {row.id: row.regret for row in found if row.regret is not None}
        return effectiveness(rows, regrets, since_us=since_us, until_us=until_us)

    def _judgeable(self, front: Front) -> sa.ColumnElement[bool]:
        """Leaves out safe defaults that nothing is known of: they stay open for ever, and there may be many."""
        columns = _resolutions.c
        # In JSON the quotes of a text are escaped, so that no name looks like this.
        unknown = (columns.step == "safe_default") & columns.record.contains('"values": {}')
        query = (
            sa.select(columns.candidate)
            .where(*self._of(front.scenario), columns.settled_us.is_(None), unknown)
            .distinct()
        )
        names = {candidate.name for candidate in front.candidates}
        met = [row.candidate for row in self._rows(query) if row.candidate in names]
        return sa.not_(unknown) | columns.candidate.in_(met)

    def _of(self, scenario: str) -> tuple[sa.ColumnElement[bool], ...]:
        return self._mine(_resolutions, scenario=scenario)

    def _record_of(self, id_: str) -> str | None:
        row = self._row(sa.select(_resolutions.c.record).where(*self._mine(_resolutions, id=id_)))
        return None if row is None else row.record


def _resolution(row: Any) -> Resolution:
    return Resolution.from_dict(json.loads(row.record))


def _settlement(row: Any) -> Settlement | None:
    if row.settled_us is None:
        return None
    return Settlement(
        id=row.id,
        time_us=row.settled_us,
        utility=row.utility,
        best=row.best,
        best_utility=row.best_utility,
        observed=row.observed,
    )
