"""Shows that what was acknowledged is in ``bronze`` exactly once: by receipts, and by the write-ahead log itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from rlaas.errors import InvalidInputError, LakeError
from rlaas.lake.batches import decode_batch, is_batch
from rlaas.lake.committer import application_id, exclusive
from rlaas.lake.records import decode_decision, decode_outcome
from rlaas.lake.schemas import table_spec
from rlaas.lake.segments import STREAMS, Producer, Stream, list_producers, read_segment
from rlaas.lake.tables import Lake

__all__ = ["LogVerification", "StreamVerification", "Verification", "Verifications", "verify", "verify_log"]


@dataclass(frozen=True, slots=True)
class Verification:
    """One stream, checked.

    Attributes:
        acknowledged: distinct receipts that callers hold.
        in_bronze: how many of them are in the table.
        duplicates: rows too many among them.
        missing: receipts that are not in the table.
    """

    acknowledged: int
    in_bronze: int
    duplicates: int
    missing: tuple[str, ...]

    @property
    def exactly_once(self) -> bool:
        """Every acknowledged receipt is in the table once."""
        return not self.missing and not self.duplicates


class Verifications(NamedTuple):
    """Both streams, checked."""

    decisions: Verification
    outcomes: Verification

    @property
    def exactly_once(self) -> bool:
        """Every acknowledged receipt of both streams is in its table once."""
        return self.decisions.exactly_once and self.outcomes.exactly_once


@dataclass(frozen=True, slots=True)
class StreamVerification:
    """The write-ahead log of one stream against its table.

    Attributes:
        producers: folders that there are.
        waiting: records in segments that are not committed yet, sealed or open.
        committed: records in segments that are committed and not yet removed.
        refused: records that cannot be read; the committer puts them into quarantine.
        rows: in the table.
        missing: receipts of committed segments that are not in the table: lost.
        early: receipts of segments that are not committed but are in the table: they would come twice.
        duplicates: rows too many in the table, over all receipts.
        gaps: segments that are neither committed nor there, as ``producer/number``: lost.
        damaged: what is wrong with segments that cannot be read, each with its path and offset.
    """

    producers: int
    waiting: int
    committed: int
    refused: int
    rows: int
    missing: tuple[str, ...]
    early: tuple[str, ...]
    duplicates: int
    gaps: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def exactly_once(self) -> bool:
        """Everything committed is in the table once, and everything else can still be committed."""
        return not (self.missing or self.early or self.duplicates or self.gaps or self.damaged)


class LogVerification(NamedTuple):
    """Both streams, log against table."""

    decisions: StreamVerification
    outcomes: StreamVerification

    @property
    def exactly_once(self) -> bool:
        """Both streams are in order."""
        return self.decisions.exactly_once and self.outcomes.exactly_once


def verify(lake: Lake, *, decisions: Iterable[str] = (), outcomes: Iterable[str] = ()) -> Verifications:
    """Look up acknowledged receipts in ``bronze``.

    Args:
        lake: the tables.
        decisions: receipt ids (decision ids) of acknowledged decisions.
        outcomes: receipt ids of acknowledged outcomes.
    """
    return Verifications(_check(lake, "bronze.decisions", decisions), _check(lake, "bronze.outcomes", outcomes))


def _check(lake: Lake, table: str, receipts: Iterable[str]) -> Verification:
    wanted = pa.array(sorted(set(receipts)), type=pa.string())
    stored = lake.read(table, columns=["receipt_id"]).column("receipt_id")
    found = stored.filter(pc.is_in(stored, value_set=wanted))
    distinct = len(found.unique())
    missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=found.unique())))
    return Verification(
        acknowledged=len(wanted),
        in_bronze=distinct,
        duplicates=len(found) - distinct,
        missing=tuple(missing.to_pylist()),
    )


def verify_log(lake: Lake, wal_root: Path, *, lock_timeout_s: float = 10.0) -> LogVerification:
    """Compare the write-ahead log itself with ``bronze``; nobody's receipts are needed, and nothing is changed.

    The table knows, for every producer, the number of its last segment in it. Every record of a segment up to that
    number has to be in the table, no record of a later one may be, and no number may be missing in between. Of segments
    that are removed already (the committer does so once they are committed) what can be shown is that their numbers are
    accounted for and that no receipt is in the table twice; for a record of one of them ask :func:`verify` with its
    receipt.

    Commits wait while the log is read.

    Args:
        lake: the tables.
        wal_root: folder of all write-ahead logs.
        lock_timeout_s: how long to wait for a commit in progress.

    Raises:
        ConflictError: a commit is in progress for longer than that.
        LakeError: a table is damaged.
    """
    root = Path(wal_root).absolute()
    with exclusive(root, lake.tenant, lock_timeout_s):
        logs = {stream: _LogReader(lake, root, stream) for stream in STREAMS}
    return LogVerification(*(logs[stream].verification() for stream in STREAMS))


class _LogReader:
    """What the log of one stream holds, and the table at that moment."""

    def __init__(self, lake: Lake, root: Path, stream: Stream) -> None:
        self._lake, self._stream = lake, stream
        self._table = lake.open(f"bronze.{stream}")
        self._refusals = lake.open(f"quarantine.{stream}")
        self._decode = decode_decision if stream == "decisions" else decode_outcome
        self._committed: list[str] = []
        self._waiting: list[str] = []
        self._refused = 0
        self._gaps: list[str] = []
        self._damaged: list[str] = []
        producers = list_producers(root, lake.tenant, stream)
        self._producers = len(producers)
        for producer in producers:
            self._read(producer)

    def verification(self) -> StreamVerification:
        """The comparison."""
        committed, waiting = (
            pa.array(sorted(set(names)), type=pa.string()) for names in (self._committed, self._waiting)
        )
        rows, duplicates = 0, 0
        found = pa.array([], type=pa.string())
        asked = pa.concat_arrays([committed, waiting])
        # A day at a time: a receipt's day is part of what it is a receipt for, and a table need not fit into memory.
        for receipts in self._receipts_by_day():
            rows += len(receipts)
            duplicates += len(receipts) - len(pc.unique(receipts))
            here = pc.unique(receipts.filter(pc.is_in(receipts, value_set=asked)))
            found = pa.concat_arrays([found, here.combine_chunks() if isinstance(here, pa.ChunkedArray) else here])
        missing = committed.filter(pc.invert(pc.is_in(committed, value_set=found)))
        early = waiting.filter(pc.is_in(waiting, value_set=found))
        return StreamVerification(
            producers=self._producers,
            waiting=len(self._waiting),
            committed=len(self._committed),
            refused=self._refused,
            rows=rows,
            missing=tuple(missing.to_pylist()),
            early=tuple(early.to_pylist()),
            duplicates=duplicates,
            gaps=tuple(self._gaps),
            damaged=tuple(self._damaged),
        )

    def _read(self, producer: Producer) -> None:
        app_id = application_id(self._lake.tenant, self._stream, producer.name)
        tables = [table for table in (self._table, self._refusals) if table is not None]
        last = max([table.transaction_version(app_id) or 0 for table in tables], default=0)
        paths = sorted(path for path in producer.folder.iterdir() if path.suffix in (".seg", ".open"))
        numbers = [int(path.stem) for path in paths]
        if numbers:
            lost = sorted(set(range(last + 1, max(numbers))) - set(numbers))
            self._gaps += [f"{producer.name}/{number:08d}" for number in lost]
        for path, number in zip(paths, numbers, strict=True):
            try:
                payloads = read_segment(path)
            except LakeError as problem:
                self._damaged.append(problem.message)
                continue
            names = self._committed if number <= last else self._waiting
            for payload in payloads:
                names += self._receipts(payload)

    def _receipts(self, payload: bytes) -> list[str]:
        try:
            if self._stream == "decisions" and is_batch(payload):
                batch = decode_batch(payload)
                tenant, receipts = batch.common.tenant, batch.columns.decision_ids
            else:
                record = self._decode(payload)
                tenant, receipts = record.tenant, [record.receipt_id]
        except InvalidInputError:
            tenant, receipts = None, []
        if tenant != self._lake.tenant:
            self._refused += 1
            return []
        return receipts

    def _receipts_by_day(self) -> Iterable[pa.ChunkedArray]:
        if self._table is None:
            return
        spec = table_spec(f"bronze.{self._stream}")
        for date in _dates(self._table, self._lake.tenant):
            rows = self._lake.read_open(spec, self._table, columns=["receipt_id"], filter=pc.field("date") == date)
            yield rows.column("receipt_id")


def _dates(table: DeltaTable, tenant: str) -> list[str]:
    days = {part["date"] for part in table.partitions() if part["tenant"] == tenant}
    return sorted(days)
