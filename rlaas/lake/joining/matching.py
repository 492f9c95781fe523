"""The join itself, of rows in memory: decisions with their outcomes, s, a, r, s'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.records import OutcomeRecord, encode
from rlaas.lake.schemas import table_spec

__all__ = ["Joined", "join_outcomes"]

_Indices = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]

NO_DECISION = "no decision with this id"
CONFLICT = "conflicting revision: another outcome with this id and revision arrived first"
SECOND = "conflicting revision: another outcome of this decision at this revision arrived first"


@dataclass(frozen=True, slots=True)
class Joined:
    """Result of a join.

    Attributes:
        transitions: rows of ``silver.transitions``, by time.
        refused: rows of ``quarantine.outcomes`` (stage ``"join"``).
    """

    transitions: pa.Table
    refused: pa.Table


def join_outcomes(decisions: pa.Table, outcomes: pa.Table, *, orphan_before_us: int) -> Joined:
    """Join rows of ``bronze.decisions`` with rows of ``bronze.outcomes`` of the same tenant.

    1. Deliveries of one (``outcome_id``, ``revision``): the first to arrive counts. A repetition is ignored; one that
       says something else is refused.
    2. Of the outcomes of one decision the highest revision counts; among equal revisions (under different outcome
       ids) again the first to arrive, and one that says something else is refused.
    3. ``next_observation`` is the observation of the decision of the same policy and session at the next step. It is
       null after a terminated or truncated step: what follows then is the start of another episode.

    Args:
        decisions: rows of ``bronze.decisions``, in any order.
        outcomes: rows of ``bronze.outcomes``, in any order.
        orphan_before_us: outcomes without a decision that arrived before this time (UTC microseconds) are refused.

    Returns:
        One transition for every decision that has an outcome, and the refused outcomes.
    """
    decisions = _ordered(decisions, ("time_us", "decision_id", "producer"))
    decisions = _take(decisions, np.flatnonzero(_is_first(_codes(decisions, "decision_id"))))
    outcomes = _ordered(outcomes, ("received_us", "receipt_id"))

    revision = _ints(outcomes, "revision")
    first = _first_of(_pairs(_codes(outcomes, "outcome_id"), revision))
    counts = first == np.arange(len(first))
    conflicting = _differs(outcomes, first, ("decision_id", "outcome", "terminated", "truncated"))
    reasons = dict.fromkeys(np.flatnonzero(conflicting).tolist(), CONFLICT)

    found = pc.index_in(outcomes.column("decision_id"), value_set=decisions.column("decision_id").combine_chunks())
    row = found.combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    late = _ints(outcomes, "received_us") < orphan_before_us
    reasons |= dict.fromkeys(np.flatnonzero(counts & (row < 0) & late).tolist(), NO_DECISION)

    matched = np.flatnonzero(counts & (row >= 0))
    first_matched = _first_of(_pairs(row[matched], revision[matched]))
    same_revision = np.arange(outcomes.num_rows, dtype=np.int64)
    same_revision[matched] = matched[first_matched]
    second = _differs(outcomes, same_revision, ("outcome", "terminated", "truncated"))
    reasons |= dict.fromkeys(np.flatnonzero(second).tolist(), SECOND)

    # lexsort is stable and its last key is the first one: by decision, then the highest revision, then arrival.
    by_decision = matched[np.lexsort((-revision[matched], row[matched]))]
    winners = by_decision[np.unique(row[by_decision], return_index=True)[1]]
    return Joined(_transitions(decisions, outcomes, row[winners], winners), _refused(outcomes, reasons))


def _transitions(decisions: pa.Table, outcomes: pa.Table, row: _Indices, winners: _Indices) -> pa.Table:
    schema = table_spec("silver.transitions").schema
    left, right = _take(decisions, row), _take(outcomes, winners)
    ended = _bools(right, "terminated") | _bools(right, "truncated")
    following = _next_rows(decisions)[row]
    following_or_null = pa.array(following, mask=ended | (following < 0))
    columns = {
        **{name: left.column(name) for name in left.column_names if name in schema.names},
        **{name: right.column(name) for name in ("outcome", "revision", "terminated", "truncated")},
        "next_observation": decisions.column("observation").combine_chunks().take(following_or_null),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _next_rows(decisions: pa.Table) -> _Indices:
    """For every decision the row of the one at the next step of its session; -1 where there is none."""
    result = np.full(decisions.num_rows, -1, dtype=np.int64)
    has_place = pc.and_(decisions.column("session").is_valid(), decisions.column("step").is_valid())
    placed = np.flatnonzero(has_place.to_numpy())
    if not len(placed):
        return result
    some = _take(decisions, placed)
    session = _pairs(_codes(some, "policy"), _codes(some, "session"))
    steps, rank = np.unique(_ints(some, "step"), return_inverse=True)
    # Ranks instead of the steps themselves: the combined key cannot overflow, whatever numbers callers count with.
    key = session * len(steps) + rank
    keys, first = np.unique(key, return_index=True)
    next_exists = np.append(steps[1:] == steps[:-1] + 1, np.False_)[rank]
    at = np.minimum(np.searchsorted(keys, key + 1), len(keys) - 1)
    hit = next_exists & (keys[at] == key + 1)
    result[placed[hit]] = placed[first[at[hit]]]
    return result


def _refused(outcomes: pa.Table, reasons: dict[int, str]) -> pa.Table:
    schema = table_spec("quarantine.outcomes").schema
    chosen = sorted(reasons)
    rows = []
    for index, row in zip(chosen, _take(outcomes, np.array(chosen, dtype=np.int64)).to_pylist(), strict=True):
        date = row.pop("date")
        record = OutcomeRecord(**{**row, "outcome": dict(row["outcome"])})
        rows.append(
            {
                "tenant": record.tenant,
                "stage": "join",
                "date": date,
                "time_us": record.received_us,
                "producer": record.producer,
                "receipt_id": record.receipt_id,
                "reason": reasons[index],
                "payload": encode(record),
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


def _differs(table: pa.Table, other: _Indices, columns: tuple[str, ...]) -> _Mask:
    """Whether a row says something else than the row that it points to."""
    result = np.zeros(table.num_rows, dtype=np.bool_)
    pointing = np.flatnonzero(other != np.arange(table.num_rows))
    said = table.select(list(columns))
    mine, theirs = _take(said, pointing).to_pylist(), _take(said, other[pointing]).to_pylist()
    result[pointing] = [left != right for left, right in zip(mine, theirs, strict=True)]
    return result


def _ordered(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in columns]).combine_chunks()


def _take(table: pa.Table, rows: _Indices) -> pa.Table:
    return table.take(pa.array(rows, type=pa.int64()))


def _codes(table: pa.Table, column: str) -> _Indices:
    """Equal strings as equal small integers."""
    encoded = table.column(column).combine_chunks().dictionary_encode()
    codes: _Indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _ints(table: pa.Table, column: str) -> _Indices:
    values: _Indices = table.column(column).to_numpy().astype(np.int64)
    return values


def _bools(table: pa.Table, column: str) -> _Mask:
    values: _Mask = table.column(column).to_numpy().astype(np.bool_)
    return values


def _pairs(left: _Indices, right: _Indices) -> _Indices:
    """Equal pairs as equal integers; both are ranked first, so that the product cannot overflow."""
    left_rank = np.unique(left, return_inverse=True)[1]
    right_values, right_rank = np.unique(right, return_inverse=True)
    return np.asarray(left_rank * max(len(right_values), 1) + right_rank, dtype=np.int64)


def _first_of(codes: _Indices) -> _Indices:
    """For every row the first row with the same code."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _is_first(codes: _Indices) -> _Mask:
    return np.asarray(_first_of(codes) == np.arange(len(codes)), dtype=np.bool_)
