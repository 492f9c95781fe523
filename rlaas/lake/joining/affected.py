"""Which decisions a change can touch, and every row of ``bronze`` that says what becomes of them.

The transition of a decision depends on its own row, on the outcomes that name it, on every delivery of those outcomes'
ids and revisions (the first one counts), and on the decision of the same session at the next step. A new row can
therefore change: the decision that it is or names, the decisions that other deliveries of the same outcome name, and
the decision one step before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.joining.index import Found, KeyIndex, row_keys
from rlaas.lake.joining.matching import Joined, join_outcomes

__all__ = ["Affected", "Rows", "collect"]


class Rows:
    """Rows of one ``bronze`` table that are in memory, each once.

    Args:
        rows: those there are already.
        read: gives the rows at these times (UTC microseconds), and others too.
    """

    def __init__(self, rows: pa.Table, read: Callable[[list[int]], pa.Table]) -> None:
        self._read = read
        self._known: set[int] = set()
        self._parts: list[pa.Table] = [rows.slice(0, 0)]
        self._keep(rows, row_keys(rows))

    @property
    def table(self) -> pa.Table:
        """All of them."""
        if len(self._parts) > 1:
            self._parts = [pa.concat_tables(self._parts).combine_chunks()]
        return self._parts[0]

    def fetch(self, found: Found) -> None:
        """Read those of the candidates that are not here yet; a candidate that is gone from the table is none."""
        missing = {(time_us, row) for time_us, row in found if row not in self._known}
        if not missing:
            return
        rows = self._read(sorted({time_us for time_us, _ in missing}))
        wanted = {row for _, row in missing}
        keys = row_keys(rows)
        chosen = [at for at, key in enumerate(keys) if key in wanted]
        self._keep(rows.take(pa.array(chosen, type=pa.int64())), [keys[at] for at in chosen])

    def column(self, name: str) -> list[object]:
        """Values of a column."""
        values: list[object] = self.table.column(name).to_pylist()
        return values

    def _keep(self, rows: pa.Table, keys: list[int]) -> None:
        fresh = []
        for at, key in enumerate(keys):
            if key not in self._known:
                self._known.add(key)
                fresh.append(at)
        if fresh:
            self._parts.append(rows if len(fresh) == rows.num_rows else rows.take(pa.array(fresh, type=pa.int64())))


@dataclass(frozen=True, slots=True)
class Affected:
    """What a change amounts to.

    Attributes:
        decisions: ids of the decisions whose transition may be another one now.
        times: when they were decided (UTC microseconds), by every row that there is of them.
        joined: their transitions and their refused outcomes as they should be.
        judged: receipts of all their outcomes: what was refused of them before and is not in ``joined`` is no longer.
        judged_dates: days on which those arrived.
    """

    decisions: frozenset[str]
    times: tuple[int, ...]
    joined: Joined
    judged: frozenset[str]
    judged_dates: frozenset[str]


def collect(index: KeyIndex, decisions: Rows, outcomes: Rows, *, waiting: Found, orphan_before_us: int) -> Affected:
    """Work out what new rows change.

    Args:
        index: covers the new rows.
        decisions: the new ones; more are fetched.
        outcomes: the new ones; more are fetched.
        waiting: outcomes whose waiting ended, or began again, because the watermark moved.
        orphan_before_us: see :func:`~rlaas.lake.joining.matching.join_outcomes`.
    """
    outcomes.fetch(waiting)
    outcomes.fetch(index.revisions(_revisions(outcomes.table)))
    affected = _ids(outcomes.table)
    decisions.fetch(index.repeated(_ids(decisions.table)))
    decisions.fetch(index.steps(_places(decisions.table, -1)))
    # Of a decision that no outcome names there is no transition, whatever else is new about it.
    affected |= index.answered(_ids(decisions.table))

    decisions.fetch(index.decisions(affected))
    decisions.fetch(index.steps(_places(_of(decisions.table, affected), +1)))
    decisions.fetch(index.repeated(_ids(decisions.table)))  # another row of a next decision may be the one that counts
    outcomes.fetch(index.outcomes(affected))
    outcomes.fetch(index.revisions(_revisions(_of(outcomes.table, affected))))

    concerned = _of(decisions.table, affected | _at(decisions.table, set(_places(_of(decisions.table, affected), +1))))
    joined = join_outcomes(concerned, outcomes.table, orphan_before_us=orphan_before_us)
    judged = _of(outcomes.table, affected)
    receipts = frozenset(judged.column("receipt_id").to_pylist())
    mine = pc.is_in(joined.refused.column("receipt_id"), value_set=pa.array(sorted(receipts), type=pa.string()))
    return Affected(
        decisions=frozenset(affected),
        times=tuple(_of(decisions.table, affected).column("time_us").to_pylist()),
        joined=Joined(_of(joined.transitions, affected), joined.refused.filter(mine)),
        judged=receipts,
        judged_dates=frozenset(judged.column("date").to_pylist()),
    )


def _ids(rows: pa.Table) -> set[str]:
    return set(rows.column("decision_id").to_pylist())


def _of(rows: pa.Table, decisions: Set[str]) -> pa.Table:
    wanted = pa.array(sorted(decisions), type=pa.string())
    return rows.filter(pc.is_in(rows.column("decision_id"), value_set=wanted))


def _at(rows: pa.Table, places: Set[tuple[str, str, int]]) -> set[str]:
    """Decisions at one of the places."""
    if not places:
        return set()
    columns = (rows.column(name).to_pylist() for name in ("decision_id", "policy", "session", "step"))
    return {name for name, *place in zip(*columns, strict=True) if tuple(place) in places}


def _revisions(rows: pa.Table) -> Iterator[tuple[str, int]]:
    return zip(rows.column("outcome_id").to_pylist(), rows.column("revision").to_pylist(), strict=True)


def _places(rows: pa.Table, shift: int) -> Iterator[tuple[str, str, int]]:
    """Policy, session and step so many steps on of the rows that have a session."""
    columns = (rows.column(name).to_pylist() for name in ("policy", "session", "step"))
    for policy, session, step in zip(*columns, strict=True):
        if session is not None and step is not None:
            yield policy, session, step + shift
