"""Appends what lies between two positions of a source, so that every position is in the table once.

A source is anything with positions that only grow: a partition of a topic (offsets), a file (row numbers). Delta keeps,
in the same commit as the rows, the position behind the last one as the version of an application transaction; so the
table itself says where to go on after a crash, and whoever comes second, however the rows were cut into batches, adds
only what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from numpy.typing import NDArray

from rlaas.errors import ConflictError, LakeError
from rlaas.lake.tables import Lake
from rlaas.lake.validation.commits import retrying

__all__ = ["FencedError", "Span", "append_spans", "committed_positions"]


class FencedError(ConflictError):
    """Somebody else has committed from this source meanwhile: what was read since then is theirs."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a source says from one position to another.

    Attributes:
        app_id: of the source, as Delta knows it.
        start: first position.
        end: position behind the last one.
        positions: of each row [n], ascending.
        rows: that came of it [n]; there may be fewer rows than positions.
        whole: the rows make sense only together (a state as of ``end``): they are not cut.
    """

    app_id: str
    start: int
    end: int
    positions: NDArray[np.int64]
    rows: pa.Table
    whole: bool = False


def committed_positions(lake: Lake, table: str, app_ids: Iterable[str]) -> dict[str, int]:
    """Position to go on at, by source; sources that the table knows nothing of are left out.

    Raises:
        LakeError: the table is damaged.
    """
    delta = lake.open(table)
    if delta is None:
        return {}
    found = {app_id: delta.transaction_version(app_id) for app_id in app_ids}
    return {app_id: int(position) for app_id, position in found.items() if position is not None}


def append_spans(lake: Lake, table: str, spans: Sequence[Span], *, sparse: bool = False, fsync: bool = True) -> int:
    """Append the rows of all spans in one commit, without those whose position is in the table already.

    Args:
        lake: the tables.
        table: where to.
        spans: at most one of each source, none of them empty.
        sparse: the table hears only of spans that have something for it (a quarantine): where it stands behind the
            start of a span, nothing is missing.
        fsync: flush a local table's new files to disk before returning.

    Returns:
        Number of rows appended.

    Raises:
        FencedError: somebody else has committed a part of a span that cannot be cut.
        LakeError: a span begins behind the position that the table has, and rows in between would be lost; or the
            table refused every attempt.
    """

    def attempt() -> int:
        seen = _Snapshot(lake, table, sparse)
        parts = {span.app_id: [(span.end, partial(seen.missing, span))] for span in spans}
        return lake.append_once(table, parts, fsync=fsync)

    return retrying(attempt, table)


class _Snapshot:
    """The table as it is a moment after ``append_once`` has looked at it.

    What was committed in between, for a source of ours, makes the commit fail on which ``append_once`` is at work: rows
    cut by a position that is too new for it are never written.
    """

    def __init__(self, lake: Lake, table: str, sparse: bool) -> None:
        self._lake, self._table, self._sparse = lake, table, sparse
        self._delta: DeltaTable | None = None

    def missing(self, span: Span) -> pa.Table:
        """Rows of the span that the table lacks."""
        if self._delta is None:
            self._delta = self._lake.open(self._table)
        position = None if self._delta is None else self._delta.transaction_version(span.app_id)
        if position is None or position == span.start or (self._sparse and position < span.start):
            return span.rows
        if position < span.start:
            raise LakeError(
                f"{self._table}: {span.app_id} is at {position}, and rows from {span.start} would leave a gap"
            )
        if span.whole:
            raise FencedError(f"{self._table}: {span.app_id} is at {position} already", field=span.app_id)
        return span.rows.slice(int(np.searchsorted(span.positions, position)))
