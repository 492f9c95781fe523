"""What the Gateways count, on its way from their polls to the judge: kept in the database, differenced per process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rlaas.control.state import StateDatabase
from rlaas.experiments.canary import Counts
from rlaas.serving.tally import VersionTally

__all__ = ["GatewayReport", "GatewayReports", "counts_document", "counts_from", "counts_of", "increments"]

_metadata = sa.MetaData()
_reports = sa.Table(
    "gateway_reports",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("producer", sa.String(128), primary_key=True),
    sa.Column("replica", sa.String(256), nullable=False),
    sa.Column("seen_us", sa.BigInteger, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
)

_KEEP_US = 24 * 3600 * 1_000_000
Key = tuple[str, int]
"""A policy and its version."""


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """The latest word of one Gateway process.

    Attributes:
        producer: names the process; a restarted replica is another.
        replica: names its place in the pool.
        seen_us: when it came, UTC microseconds.
        generations: loaded generation by deployment.
        failures: reason by deployment that could not be loaded.
        counts: by policy and version, since the process began.
    """

    producer: str
    replica: str
    seen_us: int
    generations: Mapping[str, int]
    failures: Mapping[str, str]
    counts: Mapping[Key, Counts]


class GatewayReports:
    """Takes the Gateways' reports in, and has them written where every controller finds them. Thread-safe.

    Nothing is lost when this process dies: counters are cumulative, and the next poll brings them again.

    Args:
        database: the state database; the table is made where it is missing.
        tenant: whose Gateways.
        clock: UTC time in microseconds.
    """

    def __init__(
        self, database: StateDatabase, tenant: str, *, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        database.create_tables(_metadata)
        self._engine, self._tenant, self._clock = database.engine, tenant, clock
        self._waiting: dict[str, GatewayReport] = {}
        self._totals: dict[str, int] = {}
        self._lock = threading.Lock()

    def note(
        self,
        replica: str,
        producer: str,
        generations: Mapping[str, int],
        failures: Mapping[str, str],
        tallies: Sequence[VersionTally],
    ) -> None:
        """Take a report in; the database is not touched."""
        counts = {(tally.policy, tally.version): counts_of(tally) for tally in tallies}
        total = sum(c.decisions + c.errors + c.rewards for c in counts.values())
        name = producer or replica
        report = GatewayReport(name, replica, self._clock(), dict(generations), dict(failures), counts)
        with self._lock:
            # Two polls of a Gateway may overtake each other on their way; counters only grow.
            if total >= self._totals.get(name, 0):
                self._totals[name] = total
                self._waiting[name] = report

    def flush(self) -> None:
        """Write what has come in since the last time; forget processes that have been silent for a day."""
        with self._lock:
            reports, self._waiting = self._waiting, {}
            if len(self._totals) > 10 * len(reports) + 1000:
                self._totals = {name: total for name, total in self._totals.items() if name in reports}
        if not reports:
            return
        rows = [
            {
                "tenant": self._tenant,
                "producer": report.producer,
                "replica": report.replica,
                "seen_us": report.seen_us,
                "report": _encode(report),
            }
            for report in reports.values()
        ]
        columns = _reports.c
        old = columns.seen_us < self._clock() - _KEEP_US
        try:
            with self._engine.begin() as connection:
                mine = columns.producer.in_(list(reports))
                connection.execute(_reports.delete().where(columns.tenant == self._tenant, mine | old))
                connection.execute(_reports.insert(), rows)
        except sa.exc.SQLAlchemyError:
            with self._lock:  # they go out with the next flush, unless a newer one has come
                self._waiting = {**reports, **self._waiting}
            raise

    def all(self) -> list[GatewayReport]:
        """The latest report of every process, from the database."""
        query = sa.select(_reports).where(_reports.c.tenant == self._tenant).order_by(_reports.c.producer)
        with self._engine.connect() as connection:
            return [_decode(row) for row in connection.execute(query)]


def increments(
    reports: Sequence[GatewayReport], last: Mapping[str, Mapping[int, Counts]], policy: str, versions: Sequence[int]
) -> tuple[dict[int, Counts], dict[str, dict[int, Counts]]]:
    """What has been counted since ``last`` by version, and the new ``last`` of the processes whose counters grew.

    A process that is seen for the first time sets its baseline: what it counted before belongs to no rollout.
    """
    grown = {version: Counts() for version in versions}
    seen: dict[str, dict[int, Counts]] = {}
    for report in reports:
        now = {version: report.counts.get((policy, version), Counts()) for version in versions}
        before = last.get(report.producer)
        if before == now:
            continue
        if before is not None:
            new = {version: now[version].plus(before.get(version, Counts()), -1) for version in versions}
            if any(c.decisions < 0 or c.errors < 0 or c.rewards < 0 for c in new.values()):
                continue  # an older report, written later by another Control
            for version in versions:
                grown[version] = grown[version].plus(new[version])
        seen[report.producer] = now
    return grown, seen


def counts_of(tally: VersionTally) -> Counts:
    """A tally without its name."""
    return Counts(
        tally.decisions, tally.errors, tuple(tally.latency_us), tally.rewards, tally.reward_sum, tally.reward_squares
    )


def counts_document(counts: Counts) -> list[Any]:
    """Counts as short JSON types: most buckets are empty."""
    latency = [[bucket, count] for bucket, count in enumerate(counts.latency) if count]
    return [
        counts.decisions,
        counts.errors,
        [len(counts.latency), latency],
        counts.rewards,
        counts.reward_sum,
        counts.reward_squares,
    ]


def counts_from(document: Sequence[Any]) -> Counts:
    """Inverse of :func:`counts_document`."""
    decisions, errors, (width, pairs), rewards, reward_sum, reward_squares = document
    latency = [0] * width
    for bucket, count in pairs:
        latency[bucket] = count
    return Counts(decisions, errors, tuple(latency), rewards, reward_sum, reward_squares)


def _encode(report: GatewayReport) -> str:
    counts = [[policy, version, counts_document(c)] for (policy, version), c in sorted(report.counts.items())]
    return json.dumps({"generations": report.generations, "failures": report.failures, "counts": counts})


def _decode(row: Any) -> GatewayReport:
    document = json.loads(row.report)
    counts = {(policy, version): counts_from(c) for policy, version, c in document["counts"]}
    return GatewayReport(row.producer, row.replica, row.seen_us, document["generations"], document["failures"], counts)
