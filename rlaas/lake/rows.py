"""Records as rows of the declared tables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.schemas import table_spec

__all__ = ["Refused", "date_of", "decision_rows", "outcome_rows", "refused_rows"]

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
    special: dict[str, Callable[[DecisionRecord], Any]] = {
        "date": lambda record: date_of(record.time_us),
        "preference": lambda record: _entries(record.preference),
        "context": lambda record: None if record.context is None else msgspec.json.encode(record.context).decode(),
    }
    return _table("bronze.decisions", records, special)


def outcome_rows(records: Sequence[OutcomeRecord]) -> pa.Table:
    """Outcomes as rows of ``bronze.outcomes``, by the day they arrived (the other time is the caller's word)."""
    special: dict[str, Callable[[OutcomeRecord], Any]] = {
        "date": lambda record: date_of(record.received_us),
        "outcome": lambda record: _entries(record.outcome),
    }
    return _table("bronze.outcomes", records, special)


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


def _table(name: str, records: Sequence[Any], special: Mapping[str, Callable[[Any], Any]]) -> pa.Table:
    schema = table_spec(name).schema
    columns = []
    for column in schema:
        make = special.get(column.name, operator.attrgetter(column.name))
        columns.append(pa.array([make(record) for record in records], type=column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _entries(values: Mapping[str, float] | None) -> list[tuple[str, float]] | None:
    """Entries of a map column, by name: equal maps are then equal columns."""
    return None if values is None else sorted(values.items())
