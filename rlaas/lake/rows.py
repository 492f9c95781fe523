"""Records as rows of the declared tables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlaas.lake.batches import DecisionBatch
from rlaas.lake.records import DecisionCommon, DecisionRecord, OutcomeRecord
from rlaas.lake.schemas import table_spec

__all__ = ["Refused", "batch_rows", "date_of", "decision_rows", "outcome_rows", "refused_rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is kept out of ``bronze`` and why."""

    payload: bytes
    reason: str
    producer: str
    receipt_id: str | None


def date_of(time_us: int) -> str:
    """The UTC day ``yyyy-mm-dd`` of a time in microseconds since 1970."""
    return _date_of_day(time_us // _DAY_US)


@lru_cache(maxsize=4096)
def _date_of_day(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d").rjust(10, "0")


def decision_rows(records: Sequence[DecisionRecord]) -> pa.Table:
    """Decisions as rows of ``bronze.decisions``, by the day they were decided."""
    columns = _columns(DecisionRecord, records)
    columns["date"] = _dates(columns["time_us"])
    columns["preference"] = _each(_entries, columns["preference"])
    columns["context"] = _each(_text, columns["context"])
    return _table("bronze.decisions", columns)


def batch_rows(batches: Sequence[DecisionBatch]) -> pa.Table:
    """Decisions made together as rows of ``bronze.decisions``; the same as :func:`decision_rows` of their records."""
    schema = table_spec("bronze.decisions").schema
    counts = [len(batch) for batch in batches]
    which = pa.array(np.repeat(np.arange(len(batches)), counts))
    ids = pa.array(chain.from_iterable(batch.columns.decision_ids for batch in batches), type=pa.string())
    made: dict[str, pa.Array] = {
        "receipt_id": ids,
        "decision_id": ids,
        "observation": _lists([batch.observations for batch in batches], schema.field("observation").type),
        "action": _lists([batch.actions for batch in batches], schema.field("action").type),
    }
    for name, of_batch in _OWN_OF_A_BATCH.items():
        values = [getattr(batch.columns, of_batch) for batch in batches]
        kind = schema.field(name).type
        if all(column is None for column in values):
            made[name] = pa.nulls(len(ids), kind)
            continue
        each = [[None] * n if column is None else column for column, n in zip(values, counts, strict=True)]
        column = list(chain.from_iterable(each))
        made[name] = pa.array(_each(_text, column) if name == "context" else column, type=kind)
    for field in schema:
        if field.name not in made:
            make = _SHARED.get(field.name, operator.attrgetter(field.name))
            shared = pa.array([make(batch.common) for batch in batches], type=field.type)
            made[field.name] = shared.take(which)
    return pa.Table.from_arrays([made[field.name] for field in schema], schema=schema)


def outcome_rows(records: Sequence[OutcomeRecord]) -> pa.Table:
    """Outcomes as rows of ``bronze.outcomes``, by the day they arrived (the other time is the caller's word)."""
    columns = _columns(OutcomeRecord, records)
    columns["date"] = _dates(columns["received_us"])
    columns["outcome"] = _each(_entries, columns["outcome"])
    return _table("bronze.outcomes", columns)


def refused_rows(refused: Sequence[Refused], tenant: str, time_us: int) -> pa.Table:
    """Refused records as rows of a quarantine table."""
    rows = [
        {
            "tenant": tenant,
            "stage": "commit",
            "date": date_of(time_us),
            "time_us": time_us,
            "producer": item.producer,
            "receipt_id": item.receipt_id,
            "reason": item.reason,
            "payload": item.payload,
        }
        for item in refused
    ]
    return pa.Table.from_pylist(rows, schema=table_spec("quarantine.outcomes").schema)


def _lists(blocks: Sequence[NDArray[np.float64]], kind: pa.DataType) -> pa.Array:
    """The rows of all blocks as one array of lists."""
    lengths = np.repeat([block.shape[1] for block in blocks], [len(block) for block in blocks])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([block.ravel() for block in blocks]) if blocks else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=kind)


def _columns(kind: type[msgspec.Struct], records: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    """The fields of records, each as a column."""
    values = zip(*map(msgspec.structs.astuple, records), strict=True) if records else [()] * len(kind.__struct_fields__)
    return dict(zip(kind.__struct_fields__, values, strict=True))


def _dates(times_us: Sequence[int]) -> Sequence[str]:
    if not times_us:
        return []
    first = date_of(min(times_us))
    return [first] * len(times_us) if date_of(max(times_us)) == first else [date_of(time_us) for time_us in times_us]


def _each(make: Callable[[Any], Any], values: Sequence[Any]) -> Sequence[Any]:
    """What is made of every value but null."""
    if values.count(None) == len(values):
        return values
    return [None if value is None else make(value) for value in values]


def _table(name: str, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    schema = table_spec(name).schema
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values as an array; one that all rows share, as most do of one batch, is made once."""
    first = values[0] if values else 0.0
    if first is None or isinstance(first, str | int):
        # Looked at in three places first, so that columns of which no two are alike cost nothing here.
        alike = values[-1] == first and values[len(values) // 2] == first
        if alike and values.count(first) == len(values):
            return pa.repeat(pa.scalar(first, type=kind), len(values))
    return pa.array(values, type=kind)


def _entries(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Entries of a map column, by name: equal maps are then equal columns."""
    return sorted(values.items())


def _text(context: Mapping[str, Any]) -> str:
    """A context as the text of a JSON object."""
    return msgspec.json.encode(context).decode()


_OWN_OF_A_BATCH = {
    "variant_propensity": "variant_propensities",
    "action_propensity": "action_propensities",
    "session": "sessions",
    "step": "steps",
    "unit": "units",
    "context": "contexts",
    "proposed_action": "proposed_actions",
    "candidate": "candidates",
}
_SHARED: dict[str, Callable[[DecisionCommon], Any]] = {
    "date": lambda common: date_of(common.time_us),
    "preference": lambda common: None if common.preference is None else _entries(common.preference),
}
