"""Moves rows to the storage class of their age: copied, checked, and only then taken out of the class before."""

from __future__ import annotations

import datetime
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow.dataset as pa_ds
import structlog
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from rlaas.errors import LakeError
from rlaas.lake.archives import MOVE, StorageClass, is_written_down, move_id, storage_classes
from rlaas.lake.datafiles import DataFile, Mark, exchange, live_files, read_files, write_file
from rlaas.lake.digest import rows_sha256
from rlaas.lake.evolution import declared
from rlaas.lake.lifecycle import RetentionPlan
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["Retained", "retain"]

_log = structlog.get_logger("rlaas.lake")

_ATTEMPTS = 3
_UNFINISHED_S = 24 * 3600.0
"""A copy whose move was not finished so long after it began is thrown away; a move gives up well before."""
_KEEP_H = 168
"""Hours that files of an archive outlive their rows, for who reads it meanwhile."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What was done to one table.

    Attributes:
        table: its name.
        to_warm: rows moved from hot to warm.
        to_cold: rows moved from warm to cold.
        removed: rows of the cold class that were too old for it.
        thrown_away: files of copies whose move was never finished.
    """

    table: str
    to_warm: int = 0
    to_cold: int = 0
    removed: int = 0
    thrown_away: int = 0


def retain(
    lake: Lake, plan: RetentionPlan, *, tables: Sequence[str] | None = None, today: datetime.date | None = None
) -> list[Retained]:
    """Bring every row of the lake's tenant to the storage class of its age.

    Whatever happens in between, :func:`~rlaas.lake.archives.read_across` gives every row once; a run that died is
    made good by the next. Several may run at the same time.

    Args:
        lake: the tables.
        plan: ages and places.
        tables: only these; default all that there are.
        today: UTC day that ages are counted to; default the clock's.

    Returns:
        A report for every table, in the order they were treated.

    Raises:
        ConfigurationError: unknown table.
        LakeError: a copy does not say what the rows say (the rows are left where they are), or a table is damaged.
    """
    day = today or datetime.datetime.now(datetime.UTC).date()
    # Derived tables first: as long as bronze is complete, what a crash leaves of them can be made again.
    chosen = sorted(lake.versions() if tables is None else tables, reverse=True)
    classes = storage_classes(lake, plan)
    reports = []
    for table in chosen:
        if "date" not in table_spec(table).partition_by:
            continue
        hot, warm, cold = classes
        ages = plan.of(table)
        with lake.writing():
            thrown = _throw_away(lake.tenant, table, hot, warm) + _throw_away(lake.tenant, table, warm, cold)
            # From the youngest: rows that were never moved in years go all the way in one run.
            to_warm = _Move(lake.tenant, table, None, hot, warm).all_before(_cutoff(day, ages.hot_days))
            to_cold = _Move(lake.tenant, table, hot, warm, cold).all_before(_cutoff(day, ages.warm_days))
            removed = _remove(lake.tenant, table, cold, _cutoff(day, ages.cold_days))
        if thrown or to_cold:
            _clean(warm, table)
        if thrown or removed:
            _clean(cold, table)
        reports.append(Retained(table, to_warm, to_cold, removed, thrown))
    return reports


def _cutoff(today: datetime.date, days: int) -> str:
    """First date that is not older than so many days."""
    return (today - datetime.timedelta(days=days)).isoformat()


@dataclass(frozen=True, slots=True)
class _Move:
    """Takes rows from one class to the next.

    Attributes:
        tenant: whose rows.
        table: their table.
        younger: the class before the source; its state tells which rows of the source count.
        source: where the rows lie.
        target: where they go.
    """

    tenant: str
    table: str
    younger: StorageClass | None
    source: StorageClass
    target: StorageClass

    def all_before(self, date: str) -> int:
        """Move the rows of all days before a date, one day at a time; returns their number."""
        moved = 0
        for day in sorted({file.partition["date"] for file in self._files()}):
            if day >= date:
                break
            for _ in range(_ATTEMPTS):
                rows = self._day(day)
                if rows is not None:
                    moved += rows
                    break
            else:
                # Others keep exchanging the files of that day. The rows are where they were, and there is a next run.
                _log.warning("move_overtaken", table=self.table, tenant=self.tenant, date=day, to=self.target.name)
        return moved

    def _day(self, day: str) -> int | None:
        """Rows moved; None where somebody exchanged files meanwhile, and nothing was moved."""
        files = [file for file in self._files() if file.partition["date"] == day]
        move = f"{time.time_ns() // 1000:016d}-{secrets.token_hex(4)}"
        place = self.target.location(self.table)
        declared(place, self.target.spec(self.table), self.target.open(self.table))
        reopen = partial(DeltaTable, place)
        copies = self._copy(files, move)
        exchange(reopen, [], [action for _, action in copies], metadata={"rlaas": f"copied from {self.source.name}"})
        try:
            for originals, action in copies:
                self._check(originals, action)
            if _age_s(move) > _UNFINISHED_S / 2:
                raise LakeError(f"table {self.table}: moving {day} to {self.target.name} took too long; nothing moved")
            finished = exchange(
                partial(DeltaTable, self.source.location(self.table)),
                files,
                [],
                marks=[Mark(move_id(self.tenant, move), None, 1)],
                metadata={"rlaas": f"moved to {self.target.name}"},
            )
        except LakeError:
            _void(reopen, self.tenant, move)
            raise
        if not finished:
            _void(reopen, self.tenant, move)
            return None
        return sum(file.rows for file in files)

    def _files(self) -> list[DataFile]:
        """The tenant's files in the source whose rows count."""
        # The younger class first: what is written down there is never taken back.
        younger = None if self.younger is None else self.younger.open(self.table)
        delta = self.source.open(self.table)
        if delta is None:
            return []
        files = live_files(delta, {"tenant": self.tenant})
        if self.younger is None:
            return files
        moves = {file.partition[MOVE] for file in files}
        counted = {move for move in moves if is_written_down(younger, self.tenant, move)}
        return [file for file in files if file.partition[MOVE] in counted]

    def _copy(self, files: Sequence[DataFile], move: str) -> list[tuple[list[DataFile], AddAction]]:
        """Write the rows to the target, one file for each partition, together with the files it is made of."""
        spec = self.target.spec(self.table)
        partitions: defaultdict[tuple[tuple[str, str], ...], list[DataFile]] = defaultdict(list)
        for file in files:
            values = {**file.partition, MOVE: move}
            partitions[tuple((key, values[key]) for key in spec.partition_by)].append(file)
        copies = []
        for partition, originals in sorted(partitions.items()):
            batches = self._read(self.source, originals).to_batches()
            place = self.target.location(self.table)
            copies.append((originals, write_file(place, spec, batches, dict(partition), data_change=True)))
        return copies

    def _check(self, originals: Sequence[DataFile], action: AddAction) -> None:
        """Compare number and hash of the rows, both read anew.

        Raises:
            LakeError: they differ.
        """
        before = self._read(self.source, originals).to_table()
        after = self._read(self.target, [DataFile(action.path, action.size, 0, {})]).to_table()
        expected = sum(file.rows for file in originals)
        if not before.num_rows == expected == after.num_rows:
            raise LakeError(
                f"table {self.table}: the copy in {self.target.root} has {after.num_rows} rows of {expected}; "
                "nothing moved"
            )
        if rows_sha256(before.select(after.column_names)) != rows_sha256(after):
            raise LakeError(
                f"table {self.table}: the copy {action.path} in {self.target.root} differs from its rows; nothing moved"
            )

    def _read(self, storage: StorageClass, files: Sequence[DataFile]) -> pa_ds.Scanner:
        return read_files(storage.location(self.table), storage.spec(self.table), files)


def _throw_away(tenant: str, table: str, source: StorageClass, target: StorageClass) -> int:
    """Take out of the target what moves left there that died long ago."""
    archive = target.open(table)
    if archive is None:
        return 0
    moves = {file.partition[MOVE] for file in live_files(archive, {"tenant": tenant})}
    left = source.open(table)
    thrown = 0
    for move in sorted(moves):
        if _age_s(move) > _UNFINISHED_S and not is_written_down(left, tenant, move):
            thrown += _void(partial(DeltaTable, target.location(table)), tenant, move)
    return thrown


def _void(reopen: partial[DeltaTable], tenant: str, move: str) -> int:
    """Take the copy of a move that will never be finished out of an archive."""
    files = live_files(reopen(), {"tenant": tenant, MOVE: move})
    return len(files) if files and exchange(reopen, files, [], metadata={"rlaas": "copy thrown away"}) else 0


def _remove(tenant: str, table: str, cold: StorageClass, before: str) -> int:
    """Remove rows for good; returns their number."""
    for _ in range(_ATTEMPTS):
        delta = cold.open(table)
        if delta is None:
            return 0
        rows = sum(file.rows for file in live_files(delta, {"tenant": tenant}) if file.partition["date"] < before)
        if not rows:
            return 0
        try:
            delta.delete(f"tenant = '{tenant}' AND date < '{before}'")
        except CommitFailedError:
            continue
        return rows
    _log.warning("removal_overtaken", table=table, tenant=tenant, before=before)
    return 0


def _clean(storage: StorageClass, table: str) -> None:
    """Delete the files of an archive that no reader needs any more."""
    delta = storage.open(table)
    if delta is not None:
        delta.vacuum(retention_hours=_KEEP_H, dry_run=False)


def _age_s(move: str) -> float:
    """Seconds since a move began."""
    return time.time() - int(move.partition("-")[0]) / 1e6
