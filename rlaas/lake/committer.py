"""Moves sealed segments of the write-ahead log into ``bronze``, exactly once.

For each stream, one Delta commit holds the rows of several segments together with one application transaction for every
producer: ``("rlaas/<tenant>/<stream>/<producer>", number of its last segment)``. The rows and the bookkeeping therefore
appear at the same instant, and a segment is deleted only afterwards. A committer that dies anywhere leaves either a
segment that is not yet in the table, or one whose number says that it is.
"""

from __future__ import annotations

import fcntl
import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import CommitFailedError

from rlaas.errors import ConflictError, InvalidInputError, LakeError
from rlaas.lake.batches import DecisionBatch, decode_batch, is_batch
from rlaas.lake.decoding import decode_all
from rlaas.lake.records import DecisionRecord, OutcomeRecord, decode_decision, decode_outcome
from rlaas.lake.rows import Refused, batch_rows, decision_rows, outcome_rows, refused_rows
from rlaas.lake.segments import (
    STREAMS,
    Producer,
    Segment,
    Stream,
    list_producers,
    read_segment,
    remove_dead,
    seal_dead,
    take_over,
)
from rlaas.lake.tables import Lake

__all__ = ["CommitReport", "Committer", "application_id", "exclusive"]

_ATTEMPTS = 5
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What one run moved.

    Attributes:
        decisions: rows appended to ``bronze.decisions``.
        outcomes: rows appended to ``bronze.outcomes``.
        refused: rows put into a quarantine table instead.
        segments: segments that are done with and were deleted.
        adopted: open segments that were sealed on behalf of dead producers.
    """

    decisions: int = 0
    outcomes: int = 0
    refused: int = 0
    segments: int = 0
    adopted: int = 0

    def __add__(self, other: CommitReport) -> CommitReport:
        return CommitReport(
            self.decisions + other.decisions,
            self.outcomes + other.outcomes,
            self.refused + other.refused,
            self.segments + other.segments,
            self.adopted + other.adopted,
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A segment in memory: its good records, one by one and made together, and its bad ones."""

    segment: Segment
    size: int
    good: Sequence[DecisionRecord] | Sequence[OutcomeRecord]
    batches: Sequence[DecisionBatch]
    bad: Sequence[Refused]

    def rows(self, stream: Stream) -> pa.Table:
        """The good ones as rows of the stream's table."""
        if stream == "outcomes":
            return outcome_rows(self.good)  # type: ignore[arg-type]
        return pa.concat_tables([decision_rows(self.good), batch_rows(self.batches)])  # type: ignore[arg-type]


class Committer:
    """Commits the write-ahead logs of one tenant.

    Args:
        lake: where to.
        wal_root: folder of all write-ahead logs.
        tenant: owner; default the lake's.
        max_batch_bytes: size of the segments that go into one Delta commit.
        lock_timeout_s: how long a run waits for a run of another committer.
        compact_every: after so many commits to a table its small files are merged.
        fsync: flush the table's files to disk before segments are deleted (local lake); for logs that are fsynced.

    Raises:
        InvalidInputError: ``tenant`` is not the lake's.
    """

    def __init__(
        self,
        lake: Lake,
        wal_root: Path,
        *,
        tenant: str | None = None,
        max_batch_bytes: int = 64 * 2**20,
        lock_timeout_s: float = 10.0,
        compact_every: int = 256,
        fsync: bool = False,
    ) -> None:
        if tenant is not None and tenant != lake.tenant:
            raise InvalidInputError(f"tenant {tenant!r} is not the lake's; allowed: {lake.tenant}", field="tenant")
        self.lake = lake
        self.wal_root = Path(wal_root).absolute()
        self.tenant = lake.tenant
        self._max_batch_bytes = max_batch_bytes
        self._lock_timeout_s = lock_timeout_s
        self._compact_every = compact_every
        self._commits: Counter[str] = Counter()
        self._fsync = fsync

    def run_once(self) -> CommitReport:
        """Commit everything that is sealed, and what dead producers left open.

        Rows that cannot be read go to ``quarantine.<stream>`` with the reason. A segment that is damaged stops its own
        producer only: everything else is committed before the error is raised.

        Raises:
            ConflictError: another committer is at work on the same logs.
            LakeError: a segment is damaged (named with the offset), or the table refused every attempt.
        """
        report = CommitReport()
        damage: list[LakeError] = []
        with exclusive(self.wal_root, self.tenant, self._lock_timeout_s), _uncollected():
            for stream in STREAMS:
                report += self._run_stream(stream, damage)
        if damage:
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            raise LakeError(f"{damage[0].message}{more}") from damage[0]
        return report

    def _run_stream(self, stream: Stream, damage: list[LakeError]) -> CommitReport:
        producers = list_producers(self.wal_root, self.tenant, stream)
        report = CommitReport()
        for producer in producers:
            try:
                report += CommitReport(adopted=_adopt(producer))
            except LakeError as problem:
                damage.append(problem)  # its open segment; those sealed before it are good
        batch: list[_Loaded] = []
        size = 0
        for loaded in self._load(stream, producers, damage):
            batch.append(loaded)
            size += loaded.size
            if size >= self._max_batch_bytes:
                report += self._commit(stream, batch)
                batch, size = [], 0
        if batch:
            report += self._commit(stream, batch)
        for producer in producers:
            with take_over(producer) as dead:
                if dead:
                    remove_dead(producer)
        return report

    def _load(self, stream: Stream, producers: Sequence[Producer], damage: list[LakeError]) -> Iterator[_Loaded]:
        """Segments of each producer in order, up to a damaged one."""
        for producer in producers:
            for segment in producer.sealed():
                try:
                    loaded = _load(stream, self.tenant, segment)
                except LakeError as problem:
                    damage.append(problem)
                    break
                yield loaded

    def _commit(self, stream: Stream, batch: Sequence[_Loaded]) -> CommitReport:
        # Quarantine has transactions of its own: dying between the two commits repeats neither.
        now_us = time.time_ns() // 1000
        refused = self._append(
            f"quarantine.{stream}",
            stream,
            [(item.segment, partial(refused_rows, item.bad, self.tenant, now_us)) for item in batch if item.bad],
        )
        appended = self._append(
            f"bronze.{stream}",
            stream,
            [(item.segment, partial(item.rows, stream)) for item in batch if item.good or item.batches],
        )
        for item in batch:
            item.segment.path.unlink()
        is_decisions = stream == "decisions"
        return CommitReport(
            decisions=appended if is_decisions else 0,
            outcomes=0 if is_decisions else appended,
            refused=refused,
            segments=len(batch),
        )

    def _append(self, table: str, stream: Stream, items: Sequence[tuple[Segment, Callable[[], pa.Table]]]) -> int:
        if not items:
            return 0
        parts: dict[str, list[tuple[int, Callable[[], pa.Table]]]] = {}
        for segment, make in items:
            app_id = application_id(self.tenant, stream, segment.producer)
            parts.setdefault(app_id, []).append((segment.number, make))
        appended = self._append_retrying(table, parts)
        self._commits[table] += 1
        if self._commits[table] % self._compact_every == 0:
            self.lake.compact(table)
        return appended

    def _append_retrying(self, table: str, parts: dict[str, list[tuple[int, Callable[[], pa.Table]]]]) -> int:
        for attempt in range(_ATTEMPTS):
            try:
                return self.lake.append_once(table, parts, fsync=self._fsync)
            except CommitFailedError as problem:
                if attempt == _ATTEMPTS - 1:
                    raise LakeError(f"table {table} refused {_ATTEMPTS} commits: {problem}") from problem
                time.sleep(_POLL_S * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def exclusive(wal_root: Path, tenant: str, timeout_s: float) -> Iterator[None]:
    """Keep every committer of a tenant's logs out for the block.

    Raises:
        ConflictError: another one is at work for longer than ``timeout_s``.
    """
    folder = wal_root / tenant
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "committer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ConflictError(f"another committer is at work on {folder}", field="wal_root") from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without looking for cycles: records have none, and to look through all of a batch costs as much as to read it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def application_id(tenant: str, stream: Stream, producer: str) -> str:
    """Under which a table remembers the number of a producer's last segment in it."""
    return f"rlaas/{tenant}/{stream}/{producer}"


def _adopt(producer: Producer) -> int:
    with take_over(producer) as dead:
        return seal_dead(producer) if dead else 0


def _load(stream: Stream, tenant: str, segment: Segment) -> _Loaded:
    payloads = read_segment(segment.path)
    size = sum(map(len, payloads))
    batches: list[DecisionBatch] = []
    bad: list[Refused] = []

    def refuse(payload: bytes, reason: str, receipt_id: str | None) -> None:
        bad.append(Refused(payload, reason, segment.producer, receipt_id))

    if stream == "decisions":
        together = [payload for payload in payloads if is_batch(payload)]
        payloads = [payload for payload in payloads if not is_batch(payload)]
        for payload in together:
            try:
                batch = decode_batch(payload)
            except InvalidInputError as problem:
                refuse(payload, problem.message, None)
                continue
            if batch.common.tenant == tenant:
                batches.append(batch)
            else:
                refuse(payload, _stranger(batch.common.tenant, tenant), None)
    records = decode_all(stream, payloads)
    if records is not None and all(record.tenant == tenant for record in records):
        return _Loaded(segment, size, records, batches, bad)
    decode: Callable[[bytes], DecisionRecord | OutcomeRecord]
    decode = decode_decision if stream == "decisions" else decode_outcome
    good: list[DecisionRecord | OutcomeRecord] = []
    for payload in payloads:
        try:
            record = decode(payload)
        except InvalidInputError as problem:
            refuse(payload, problem.message, None)
            continue
        if record.tenant == tenant:
            good.append(record)
        else:
            refuse(payload, _stranger(record.tenant, tenant), record.receipt_id)
    return _Loaded(segment, size, good, batches, bad)  # type: ignore[arg-type]


def _stranger(owner: str, tenant: str) -> str:
    return f"tenant {owner!r} in a log of tenant {tenant!r}"
