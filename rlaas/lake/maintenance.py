"""Keeps the files of tables in shape: merged, sorted, few in number, and gone when nobody needs them.

When each was done last stands in the state of the table (Delta's application transactions), so a process that starts
anew goes on where another one ended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from rlaas.lake.compaction import Compacted, compact
from rlaas.lake.datafiles import DataFile, Mark, exchange, live_files
from rlaas.lake.lifecycle import MaintenancePlan, TableUpkeep
from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["Maintained", "maintain"]

_DAY_S = 86_400
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one table.

    Attributes:
        table: its name.
        files: files of the tenant afterwards.
        merged: files that were merged away.
        sorted_days: days whose files were sorted along a Z-curve.
        deleted: files that no version needs any more.
        checkpoint: whether the state of the table was written down as a whole.
    """

    table: str
    files: int
    merged: int = 0
    sorted_days: int = 0
    deleted: int = 0
    checkpoint: bool = False


def maintain(
    lake: Lake,
    plan: MaintenancePlan,
    *,
    tables: Sequence[str] | None = None,
    now_s: float | None = None,
    force: bool = False,
) -> list[Maintained]:
    """Do what is due to the tenant's tables. Writers go on meanwhile and never fail because of it.

    Args:
        lake: the tables.
        plan: what is due when.
        tables: only these; default all that there are.
        now_s: seconds since 1970; default the clock's.
        force: whatever the plan says about when.

    Returns:
        A report for every table.

    Raises:
        ConfigurationError: unknown table.
        LakeError: a table is damaged, or others committed before every attempt.
    """
    now = time.time() if now_s is None else now_s
    reports = []
    for table in sorted(lake.versions()) if tables is None else tables:
        if lake.open(table) is not None:
            with lake.writing():
                reports.append(_Upkeep(lake, table, plan.of(table), now, force).run())
    return reports


class _Upkeep:
    """One table at one time."""

    def __init__(self, lake: Lake, table: str, upkeep: TableUpkeep, now: float, force: bool) -> None:
        self._lake, self._table, self._upkeep, self._now, self._force = lake, table, upkeep, now, force
        self._location, self._spec = lake.location(table), table_spec(table)
        self._open = partial(DeltaTable, self._location)

    def run(self) -> Maintained:
        # Sorting merges too, so that a day that ended is not merged right before it is sorted.
        days = self._sort()
        merged = self._merge()
        checkpoint = self._checkpoint()
        deleted = self._vacuum()
        files = len(live_files(self._open(), {"tenant": self._lake.tenant}))
        return Maintained(self._table, files, merged.removed, days, deleted, checkpoint)

    def _sort(self) -> int:
        """Sort the days that ended since the last time, each once; late rows of a day are merged, not sorted in."""
        if not self._upkeep.z_order or "date" not in self._spec.partition_by:
            return 0
        app_id = self._app_id("sorted-through-day")
        before = self._open().transaction_version(app_id)
        # Not the day that ended just now: its rows are still on their way.
        through = int((self._now - self._upkeep.z_order_every_h * 3600) // _DAY_S)
        if before is not None and before >= through:
            return 0
        first, last = "" if before is None else _date(before), _date(through)
        days = {file.partition["date"] for file in self._files() if first <= file.partition["date"] < last}
        for day in sorted(days):
            self._compact({"date": day}, order_by=self._upkeep.z_order)
        self._note(app_id, before, through)
        return len(days)

    def _merge(self) -> Compacted:
        small = Counter(
            tuple(sorted(file.partition.items())) for file in self._files() if file.size < self._target_bytes // 2
        )
        # A day of which there is one small file is as merged as it gets.
        mergeable = sum(count for count in small.values() if count > 1)
        app_id = self._app_id("compacted")
        before = self._open().transaction_version(app_id)
        due = self._is_due(before, self._upkeep.compact_every_h)
        if not mergeable or not (due or mergeable >= self._upkeep.max_small_files):
            return Compacted()
        done = self._compact({})
        self._note(app_id, before, int(self._now))
        return done

    def _checkpoint(self) -> bool:
        app_id = self._app_id("checkpoint")
        before = self._open().transaction_version(app_id)
        if not self._is_due(before, self._upkeep.checkpoint_every_h) or not self._note(app_id, before, int(self._now)):
            return False
        self._open().create_checkpoint()
        return True

    def _vacuum(self) -> int:
        app_id = self._app_id("vacuumed")
        delta = self._open()
        if not self._is_due(delta.transaction_version(app_id), self._upkeep.vacuum_every_h):
            return 0
        mark = Transaction(app_id, int(self._now))
        try:
            gone = delta.vacuum(
                retention_hours=self._upkeep.keep_versions_h,
                dry_run=False,
                # Delta's own least is what the table says; ours is the plan's, at least an hour.
                enforce_retention_duration=False,
                commit_properties=CommitProperties(custom_metadata={"rlaas": "vacuum"}, app_transactions=[mark]),
            )
        except CommitFailedError:  # somebody else is at it
            return 0
        return len(gone)

    def _compact(self, where: dict[str, str], *, order_by: Sequence[str] = ()) -> Compacted:
        return compact(
            self._open,
            self._location,
            self._spec,
            {"tenant": self._lake.tenant, **where},
            target_bytes=self._target_bytes,
            order_by=order_by,
        )

    def _note(self, app_id: str, before: int | None, after: int) -> bool:
        """Write down when something was done; False where somebody else did it meanwhile."""
        if before is not None and after <= before:
            return False
        return exchange(self._open, [], [], marks=[Mark(app_id, before, after)], metadata={"rlaas": "upkeep"})

    def _is_due(self, last: int | None, every_h: float) -> bool:
        return self._force or last is None or self._now - last >= every_h * 3600

    def _files(self) -> list[DataFile]:
        return live_files(self._open(), {"tenant": self._lake.tenant})

    def _app_id(self, what: str) -> str:
        # Vacuum and checkpoint are of the whole table, the rest of a tenant's partitions.
        whose = "" if what in ("vacuumed", "checkpoint") else f"/{self._lake.tenant}"
        return f"rlaas/upkeep{whose}/{what}"

    @property
    def _target_bytes(self) -> int:
        return self._upkeep.target_mb * _MB


def _date(day: int) -> str:
    """The date of a day since 1970."""
    return date_of(day * _DAY_S * 10**6)
