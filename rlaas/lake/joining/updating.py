"""Keeps ``silver.transitions`` up to date: one update, the rebuild, and what to do when somebody else was faster."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from rlaas.errors import LakeError
from rlaas.lake.joining.affected import Rows, collect
from rlaas.lake.joining.changes import Fresh, LostHistoryError, fresh_rows, rows_at
from rlaas.lake.joining.index import DECISION_KEYS, OUTCOME_KEYS, KeyIndex
from rlaas.lake.joining.matching import join_outcomes
from rlaas.lake.joining.silver import Marks, read_marks, write_affected, write_marks, write_refused
from rlaas.lake.schemas import table_spec
from rlaas.lake.segments import STREAMS, Stream
from rlaas.lake.tables import Lake

__all__ = ["rebuild", "update_transitions"]

_ATTEMPTS = 5
_MAX_ROWS = 200_000
"""Of one stream that one step takes in: what it holds in memory."""
_MAX_COMMITS = 100
"""Without anything new for this tenant that are looked at again and again, before it is remembered that they were."""
_COMPACT_EVERY = 64
"""Versions of ``silver.transitions``."""

_log = structlog.get_logger("rlaas.lake")


def update_transitions(
    lake: Lake, *, orphan_after_s: float = 3600.0, now_us: int | None = None, index: Path | None = None
) -> int:
    """Bring ``silver.transitions`` to what ``bronze`` says; reads and writes only what changed.

    The cost follows the number of rows that are new in ``bronze`` since the last update, not the number that it holds.
    A table that no update has seen yet is built as a whole (:func:`rebuild`).

    Outcomes that contradict an earlier delivery of the same revision, and outcomes whose decision has not shown up
    ``orphan_after_s`` after they arrived, are listed in ``quarantine.outcomes``; the listing follows as well, so that a
    decision that turns up even later still gets its outcome.

    Args:
        lake: the tables.
        orphan_after_s: how long an outcome may wait for its decision, seconds.
        now_us: present time, UTC microseconds; default the clock's.
        index: file of the index, a cache; default ``.index/join-<tenant>.sqlite`` in the lake's folder, and in the
            folder for temporary files where the lake is an object store.

    Returns:
        Number of rows that ``silver.transitions`` holds.

    Raises:
        LakeError: other writers replaced the table again and again meanwhile, or a table is damaged.
    """
    watermark_us = _watermark(orphan_after_s, now_us)
    return _retrying(partial(_update, lake, watermark_us, index or _index_path(lake)))


def rebuild(lake: Lake, *, orphan_after_s: float = 3600.0, now_us: int | None = None, index: Path | None = None) -> int:
    """Make ``silver.transitions`` anew from all that ``bronze`` holds: the repair of whatever may be wrong with it.

    Reads both tables into memory. Days before the first that ``bronze.decisions`` still holds are left as they are.
    The arguments, the result and the errors are those of :func:`update_transitions`.
    """
    watermark_us = _watermark(orphan_after_s, now_us)
    return _retrying(partial(_rebuild, lake, watermark_us, index or _index_path(lake)))


def _watermark(orphan_after_s: float, now_us: int | None) -> int:
    return (time.time_ns() // 1000 if now_us is None else now_us) - round(orphan_after_s * 1e6)


def _index_path(lake: Lake) -> Path:
    if lake.is_local:
        return Path(lake.root) / ".index" / f"join-{lake.tenant}.sqlite"
    place = hashlib.sha256(lake.root.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "rlaas-index" / place / f"join-{lake.tenant}.sqlite"


def _retrying(attempt: Callable[[], int]) -> int:
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except CommitFailedError as problem:
            if number == _ATTEMPTS - 1:
                raise LakeError(f"silver.transitions: {_ATTEMPTS} commits refused: {problem}") from problem
            time.sleep(0.05 * 2**number)
        except DeltaError as problem:  # its own message shows rows, which do not belong into logs
            raise LakeError(f"silver.transitions: {str(problem).splitlines()[0]}") from problem
    raise AssertionError("unreachable: the last attempt returns or raises")


def _update(lake: Lake, watermark_us: int, index_path: Path) -> int:
    while True:
        # Opened before bronze is read: a concurrent update that read less can then not overwrite one that read more.
        transitions = lake.open_or_create("silver.transitions")
        quarantine = lake.open_or_create("quarantine.outcomes")
        marks, listed = read_marks(transitions, lake.tenant), read_marks(quarantine, lake.tenant)
        if marks is None or listed is None:
            return _rebuild(lake, watermark_us, index_path)
        begun = int(transitions.version())
        try:
            with KeyIndex(index_path) as index:
                done = _step(lake, transitions, quarantine, index, listed.seen_by_both(marks), watermark_us)
        except LostHistoryError as problem:
            _log.warning("transitions_rebuilt", tenant=lake.tenant, reason=str(problem))
            return _rebuild(lake, watermark_us, index_path)
        if int(transitions.version()) // _COMPACT_EVERY > begun // _COMPACT_EVERY:
            _compact(lake)
        if done:
            return _count(lake, transitions)


def _step(
    lake: Lake, transitions: DeltaTable, quarantine: DeltaTable, index: KeyIndex, before: Marks, watermark_us: int
) -> bool:
    """Process what is new, or the first part of it; whether that was all."""
    # Outcomes first: a decision is committed before its outcome, so that what is read here mostly finds its match.
    tables = {f"bronze.{stream}": lake.open(f"bronze.{stream}") for stream in ("outcomes", "decisions")}
    specs = {name: table_spec(name) for name in tables}
    outcomes, decisions = (
        fresh_rows(lake, specs[name], tables[name], mark, max_rows=_MAX_ROWS)
        for name, mark in (("bronze.outcomes", before.outcomes), ("bronze.decisions", before.decisions))
    )
    after = Marks(decisions.version, outcomes.version, watermark_us)
    _cover(lake, index, tables, before, {"decisions": decisions, "outcomes": outcomes})
    waiting = index.waiting(*sorted((before.watermark_us, watermark_us)))
    if waiting or decisions.rows.num_rows or outcomes.rows.num_rows:
        name = "bronze.decisions"
        decision_rows = Rows(decisions.rows, partial(rows_at, lake, specs[name], tables[name], "time_us"))
        name = "bronze.outcomes"
        outcome_rows = Rows(outcomes.rows, partial(rows_at, lake, specs[name], tables[name], "received_us"))
        affected = collect(index, decision_rows, outcome_rows, waiting=waiting, orphan_before_us=watermark_us)
        write_refused(lake, quarantine, affected, after)
        write_affected(lake, transitions, affected, before, after)
    elif after.commits_since(before) >= _MAX_COMMITS:
        write_marks(lake, quarantine, after)
        write_marks(lake, transitions, after)
    reached = {"bronze.decisions": after.decisions, "bronze.outcomes": after.outcomes}
    return all(delta is None or delta.version() == reached[name] for name, delta in tables.items())


def _cover(
    lake: Lake,
    index: KeyIndex,
    tables: dict[str, DeltaTable | None],
    before: Marks,
    fresh: dict[Stream, Fresh],
) -> None:
    """Index the new rows, and everything where the index is not as far as the join."""
    marks = {"decisions": before.decisions, "outcomes": before.outcomes}
    ids = {stream: _table_id(tables[f"bronze.{stream}"]) for stream in STREAMS}
    if all(index.position(stream, ids[stream]) >= marks[stream] for stream in STREAMS):
        index.add(
            {stream: found.rows for stream, found in fresh.items()},
            {stream: (ids[stream], found.version) for stream, found in fresh.items()},
        )
        return
    _log.info("join_index_filled", tenant=lake.tenant, path=str(index.path))
    index.clear()
    keys: dict[Stream, tuple[str, ...]] = {"decisions": DECISION_KEYS, "outcomes": OUTCOME_KEYS}
    for stream, columns in keys.items():
        delta = tables[f"bronze.{stream}"]
        if delta is not None:
            rows = lake.read_open(table_spec(f"bronze.{stream}"), delta, columns=columns)
            index.add({stream: rows}, {stream: (ids[stream], int(delta.version()))})


def _rebuild(lake: Lake, watermark_us: int, index_path: Path) -> int:
    transitions = lake.open_or_create("silver.transitions")
    quarantine = lake.open_or_create("quarantine.outcomes")
    found: dict[Stream, pa.Table] = {}
    versions: dict[Stream, int] = {}
    tables: dict[Stream, DeltaTable | None] = {}
    for stream in ("outcomes", "decisions"):
        tables[stream] = delta = lake.open(f"bronze.{stream}")
        versions[stream] = -1 if delta is None else int(delta.version())
        spec = table_spec(f"bronze.{stream}")
        found[stream] = spec.schema.empty_table() if delta is None else lake.read_open(spec, delta)
    joined = join_outcomes(found["decisions"], found["outcomes"], orphan_before_us=watermark_us)
    with KeyIndex(index_path) as index:
        index.clear()
        index.add(found, {stream: (_table_id(tables[stream]), versions[stream]) for stream in STREAMS})
    since = pc.min(found["decisions"].column("date")).as_py() or ""

    spec = table_spec("quarantine.outcomes")
    stage = pc.field("stage") == "join"
    marks = Marks(versions["decisions"], versions["outcomes"], watermark_us)
    if _same(spec.order_by, joined.refused, lake.read_open(spec, quarantine, filter=stage)):
        write_marks(lake, quarantine, marks)
    else:
        where = f"tenant = '{lake.tenant}' AND stage = 'join'"
        lake.replace(quarantine, joined.refused, where, transactions=marks.transactions(lake.tenant))
    spec = table_spec("silver.transitions")
    stored = lake.read_open(spec, transitions, filter=pc.field("date") >= since)
    if _same(spec.order_by, joined.transitions, stored):
        write_marks(lake, transitions, marks)
    else:
        where = f"tenant = '{lake.tenant}' AND date >= '{since}'"
        lake.replace(transitions, joined.transitions, where, transactions=marks.transactions(lake.tenant))
    return _count(lake, transitions)


def _compact(lake: Lake) -> None:
    try:
        lake.compact("silver.transitions")
    except CommitFailedError as problem:  # somebody changed the files meanwhile; there is a next time
        _log.info("compaction_overtaken", table="silver.transitions", tenant=lake.tenant, reason=str(problem))


def _count(lake: Lake, delta: DeltaTable) -> int:
    files = pa.table(delta.get_add_actions(flatten=True))
    if not files.num_rows:
        return 0
    mine = pc.equal(files.column("partition.tenant"), lake.tenant)
    return int(pc.sum(files.filter(mine).column("num_records")).as_py() or 0)


def _table_id(delta: DeltaTable | None) -> str:
    return "" if delta is None else str(delta.metadata().id)


def _same(order: tuple[str, ...], left: pa.Table, right: pa.Table) -> bool:
    keys = [(column, "ascending") for column in order]
    return left.num_rows == right.num_rows and bool(
        left.sort_by(keys).combine_chunks().equals(right.sort_by(keys).combine_chunks())
    )
