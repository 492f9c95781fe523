"""What an update writes, and what it remembers in the same commit.

How far ``bronze`` was processed stands in the application transactions of ``silver.transitions`` and of
``quarantine.outcomes``, in each for itself, so it becomes true together with the rows. Delta refuses a commit whose
application transactions somebody else moved since the table was opened: of two updates at the same time one starts
again. What one of the two tables has not seen yet is worked out again for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from rlaas.lake.joining.affected import Affected
from rlaas.lake.joining.changes import rows_at, time_ranges
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["Marks", "read_marks", "write_affected", "write_marks", "write_refused"]

_KEYS = ("tenant", "date", "time_us", "decision_id")


@dataclass(frozen=True, slots=True)
class Marks:
    """How far ``bronze`` was processed.

    Attributes:
        decisions: Delta version of ``bronze.decisions``; -1 for none.
        outcomes: Delta version of ``bronze.outcomes``; -1 for none.
        watermark_us: outcomes without a decision that arrived before it are refused, UTC microseconds.
    """

    decisions: int
    outcomes: int
    watermark_us: int

    def seen_by_both(self, other: Marks) -> Marks:
        """The versions that are behind both; the watermark is this one's."""
        return Marks(min(self.decisions, other.decisions), min(self.outcomes, other.outcomes), self.watermark_us)

    def commits_since(self, other: Marks) -> int:
        """Commits to both tables between two marks."""
        return self.decisions - other.decisions + self.outcomes - other.outcomes

    def transactions(self, tenant: str) -> list[Transaction]:
        """As they stand in a commit."""
        named = {"decisions": self.decisions, "outcomes": self.outcomes, "watermark": self.watermark_us}
        return [Transaction(f"rlaas/{tenant}/join/{name}", version) for name, version in named.items()]


def read_marks(delta: DeltaTable, tenant: str) -> Marks | None:
    """What an update remembered last; ``None`` where none ever did."""
    found = [
        delta.transaction_version(f"rlaas/{tenant}/join/{name}") for name in ("decisions", "outcomes", "watermark")
    ]
    return None if None in found else Marks(*found)


def write_affected(lake: Lake, delta: DeltaTable, affected: Affected, before: Marks, after: Marks) -> None:
    """Bring the affected rows of ``silver.transitions`` to what they should be.

    Rows that are there already are changed in place (only the files that hold them are rewritten), new ones appended.
    Where there are both it takes two commits, and the marks move with the second: an update that dies in between is
    done again, and finds the changed rows right already.

    Raises:
        deltalake.exceptions.CommitFailedError: somebody else wrote meanwhile; look again.
    """
    spec = table_spec("silver.transitions")
    stored = rows_at(lake, spec, delta, "time_us", affected.times)
    names = pa.array(sorted(affected.decisions), type=pa.string())
    stored = stored.filter(pc.is_in(stored.column("decision_id"), value_set=names))
    old, wanted = _by_key(stored), _by_key(affected.joined.transitions)
    changed = [key for key, row in wanted.items() if key in old and old[key] != row]
    new = [key for key in wanted if key not in old]
    gone = [key for key in old if key not in wanted]
    if changed or gone:
        _merge(lake, delta, [wanted[key] for key in changed], [old[key] for key in gone], before if new else after)
    if new:
        order = {key: at for at, key in enumerate(wanted)}
        rows = affected.joined.transitions.take(pa.array([order[key] for key in new], type=pa.int64()))
        _append(lake, delta, rows.combine_chunks(), after)
    elif not changed and not gone:
        write_marks(lake, delta, after)


def write_marks(lake: Lake, delta: DeltaTable, marks: Marks) -> None:
    """Remember how far ``bronze`` was processed, in a commit without rows.

    Raises:
        deltalake.exceptions.CommitFailedError: somebody else wrote meanwhile; look again.
    """
    _append(lake, delta, table_spec(str(delta.metadata().name)).schema.empty_table(), marks)


def write_refused(lake: Lake, delta: DeltaTable, affected: Affected, after: Marks) -> None:
    """Bring ``quarantine.outcomes`` (stage ``"join"``) to what the affected decisions' outcomes deserve.

    Days are replaced as a whole: there is little in them, or an operator has other worries.

    Args:
        lake: the tables.
        delta: the table, as it was opened before ``bronze`` was read.
        affected: what a change amounts to.
        after: the marks to remember.

    Raises:
        deltalake.exceptions.CommitFailedError: somebody else wrote meanwhile; look again.
    """
    spec = table_spec("quarantine.outcomes")
    dates = sorted(affected.judged_dates)
    days = pc.field("date").isin(pa.array(dates, type=pa.string()))
    listed = lake.read_open(spec, delta, filter=(pc.field("stage") == "join") & days)
    judged = pc.is_in(listed.column("receipt_id"), value_set=pa.array(sorted(affected.judged), type=pa.string()))
    before, wanted = listed.filter(judged), affected.joined.refused
    if _by_receipt(before) == _by_receipt(wanted):
        write_marks(lake, delta, after)
        return
    rows = pa.concat_tables([listed.filter(pc.invert(judged)), wanted]).combine_chunks()
    moved = {row["date"] for row in (*before.to_pylist(), *wanted.to_pylist())}
    rows = rows.filter(pc.is_in(rows.column("date"), value_set=pa.array(sorted(moved), type=pa.string())))
    listing = ", ".join(f"'{date}'" for date in sorted(moved))
    where = f"tenant = '{lake.tenant}' AND stage = 'join' AND date IN ({listing})"
    lake.replace(delta, rows, where, transactions=after.transactions(lake.tenant))


def _append(lake: Lake, delta: DeltaTable, rows: pa.Table, marks: Marks) -> None:
    properties = CommitProperties(app_transactions=marks.transactions(lake.tenant))
    write_deltalake(delta, rows, mode="append", commit_properties=properties)


def _merge(
    lake: Lake, delta: DeltaTable, changed: list[dict[str, Any]], gone: list[dict[str, Any]], marks: Marks
) -> None:
    spec = table_spec("silver.transitions")
    source = pa.Table.from_pylist([*changed, *gone], schema=spec.schema)
    source = source.append_column("_gone", pa.array([False] * len(changed) + [True] * len(gone)))
    times = np.unique(source.column("time_us").to_numpy())
    # The ranges say nothing that the keys do not say, but Delta leaves out files by them.
    ranges = " OR ".join(f"(t.time_us >= {low} AND t.time_us <= {high})" for low, high in time_ranges(times))
    predicate = " AND ".join([*(f"t.{key} = s.{key}" for key in _KEYS), f"t.tenant = '{lake.tenant}'", f"({ranges})"])
    merge = delta.merge(
        source,
        predicate,
        source_alias="s",
        target_alias="t",
        streamed_exec=False,
        commit_properties=CommitProperties(app_transactions=marks.transactions(lake.tenant)),
    )
    merge.when_matched_delete(predicate="s._gone").when_matched_update(
        {name: f"s.{name}" for name in spec.schema.names if name not in _KEYS}
    ).execute()


def _by_key(rows: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["decision_id"], row["time_us"]): row for row in rows.to_pylist()}


def _by_receipt(rows: pa.Table) -> Mapping[str, dict[str, Any]]:
    return {row["receipt_id"]: row for row in rows.to_pylist()}
