"""Telemetry as records: what happened to an entity, as numbers and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa

from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.rows import date_of, decision_rows, outcome_rows
from rlaas.lake.schemas import table_spec

__all__ = ["KINDS", "EventRecord", "Kind", "KindName", "event_rows"]

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999_999)]  # 1970 to 9999, as of decisions

KindName = Literal["decisions", "outcomes", "events"]


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event as it was received.

    Attributes:
        receipt_id: id of this delivery.
        tenant: owner.
        source: topic or file that it came by.
        kind: what happened.
        time_us: when it happened, UTC microseconds, as the sender says.
        received_us: when it arrived, UTC microseconds.
        values: numbers by name, in the sender's units.
        producer: partition or file that it came by, whose positions the receipt counts.
        event_id: the sender's id of it: repeated deliveries share it.
        entity: what it happened to (a cell, a user).
        attributes: whatever else was sent.
        schema_version: version of this document.
    """

    receipt_id: _Name
    tenant: _Name
    source: _Name
    kind: _Name
    time_us: _Time
    received_us: _Time
    values: dict[str, float]
    producer: _Name
    event_id: _Name | None = None
    entity: _Name | None = None
    attributes: dict[str, Any] | None = None
    schema_version: Literal[1] = 1


def event_rows(records: Sequence[EventRecord]) -> pa.Table:
    """Events as rows of ``bronze.events``, by the day they arrived."""
    special: dict[str, Callable[[EventRecord], Any]] = {
        "date": lambda record: date_of(record.received_us),
        "values": lambda record: sorted(record.values.items()),
        "attributes": lambda record: (
            None if record.attributes is None else msgspec.json.encode(record.attributes).decode()
        ),
    }
    schema = table_spec("bronze.events").schema
    columns = []
    for column in schema:
        name = column.name
        make = special.get(name)
        found = [make(record) for record in records] if make else [getattr(record, name) for record in records]
        columns.append(pa.array(found, type=column.type))
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class Kind:
    """What rows are ingested as.

    Attributes:
        name: of the kind.
        record: its record.
        rows: records as rows of its table.
        arrival: field that says when a row arrived, and gets the present time where a row does not say.
    """

    name: KindName
    record: type[msgspec.Struct]
    rows: Callable[[Sequence[Any]], pa.Table]
    arrival: str | None

    @property
    def table(self) -> str:
        """Where good rows go."""
        return f"bronze.{self.name}"

    @property
    def quarantine(self) -> str:
        """Where bad rows go."""
        return f"quarantine.{self.name}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the record."""
        return self.record.__struct_fields__


KINDS: Mapping[KindName, Kind] = {
    "decisions": Kind("decisions", DecisionRecord, decision_rows, None),
    "outcomes": Kind("outcomes", OutcomeRecord, outcome_rows, "received_us"),
    "events": Kind("events", EventRecord, event_rows, "received_us"),
}
