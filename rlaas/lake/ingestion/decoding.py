"""Foreign rows as records: held to the same contract as what comes by HTTP, and refused with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from rlaas.lake.ingestion.events import KINDS, Kind, KindName
from rlaas.lake.ingestion.mapping import RowMapping, mapper
from rlaas.lake.ingestion.once import Span
from rlaas.lake.privacy import ProtectedLake
from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["STAGE", "Decoded", "Item", "RowDecoder", "has_rules"]

STAGE = "ingest"

# Fields that a text holds as JSON.
_STRUCTURED = frozenset(
    {"observation", "action", "proposed_action", "preference", "context", "outcome", "values", "attributes"}
)
_encoder = msgspec.json.Encoder()
_numbers = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Item:
    """One row or message as it was read.

    Attributes:
        position: in its source.
        row: its columns; None where it could not be read.
        payload: as it came, for the quarantine; None: the row as JSON.
        reason: why it could not be read.
    """

    position: int
    row: Mapping[str, Any] | None
    payload: bytes | None = None
    reason: str = ""


@dataclass(slots=True)
class Decoded:
    """Records of one source, and what was refused."""

    kind: Kind
    records: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    refused_positions: list[int] = field(default_factory=list)

    def good(self, app_id: str, start: int, end: int) -> Span:
        """Rows of bronze, between these positions of the source."""
        rows = self.kind.rows(self.records)
        return Span(app_id, start, end, np.array(self.positions, dtype=np.int64), rows)

    def bad(self, app_id: str, start: int, end: int) -> Span:
        """Rows of the quarantine, between these positions of the source."""
        rows = pa.Table.from_pylist(self.refused, schema=table_spec(self.kind.quarantine).schema)
        return Span(app_id, start, end, np.array(self.refused_positions, dtype=np.int64), rows)


def has_rules(lake: Lake, kind: KindName) -> bool:
    """Whether the lake's privacy policy names fields of records of a kind."""
    if not isinstance(lake, ProtectedLake):
        return False
    rules = lake.policy.rules(KINDS[kind].table)
    return bool(rules.subject or rules.columns)


class RowDecoder:
    """Makes records of rows of one source.

    Args:
        kind: of the records.
        mapping: which field comes from where.
        tenant: owner of the rows; a row that names another one is refused.
        source: name of the topic or file, for events.
        producer: the partition or file.
        receipts: what receipts begin with; the position follows.
        place: where a position is, for reasons: ``a.csv row``.
        text: values are text (CSV): numbers, lists and objects are read out of it.
        guarded: a privacy policy names fields of the record: what is refused is kept under the record's names, so that
            rules and erasures find it there, and not as it came.

    Raises:
        ConfigurationError: the mapping names a field that the kind does not have.
    """

    def __init__(
        self,
        kind: KindName,
        mapping: RowMapping,
        *,
        tenant: str,
        source: str,
        producer: str,
        receipts: str,
        place: str,
        text: bool = False,
        guarded: bool = False,
    ) -> None:
        self.kind = KINDS[kind]
        self._mapped = mapper(mapping, kind, text=text)
        self._named = mapper(mapping, kind, text=text, lenient=True)
        self._decoder = msgspec.json.Decoder(self.kind.record, strict=not text)
        self._tenant, self._source, self._producer = tenant, source, producer
        self._receipts, self._place, self._text, self._guarded = receipts, place, text, guarded

    def decode(self, items: Iterable[Item], now_us: int) -> Decoded:
        """Records of what can be read, and why the rest cannot.

        Args:
            items: by position.
            now_us: when they arrived, UTC microseconds.
        """
        decoded = Decoded(self.kind)
        for item in items:
            try:
                record = self._record(item, now_us)
            except ValueError as problem:  # msgspec's errors are such, and the mapping's
                decoded.refused.append(self._refused(item, str(problem), now_us))
                decoded.refused_positions.append(item.position)
            else:
                decoded.records.append(record)
                decoded.positions.append(item.position)
        return decoded

    def _record(self, item: Item, now_us: int) -> Any:
        if item.row is None:
            raise ValueError(item.reason)
        values = self._mapped(item.row)
        for name in _STRUCTURED & values.keys():
            values[name] = self._structured(name, values[name])
        receipt = self._receipt(item)
        values.setdefault("tenant", self._tenant)
        values.setdefault("producer", self._producer)
        if self.kind.arrival is not None:
            values.setdefault(self.kind.arrival, now_us)
        if self.kind.name == "events":
            values.setdefault("source", self._source)
        # A decision's receipt is its id: it is what the caller holds.
        values.setdefault("receipt_id", values.get("decision_id", receipt) if self.kind.arrival is None else receipt)
        propensity = values.get("action_propensity")
        if isinstance(propensity, float) and not math.isfinite(propensity):
            raise ValueError(f"action_propensity is {propensity}; allowed: a finite number or null")
        # By way of JSON, which has no NaN: what passes here is what would have passed as a request.
        record: Any = self._decoder.decode(_encoder.encode(values))
        if record.tenant != self._tenant:
            raise ValueError(f"tenant is {record.tenant!r}; this lake is of {self._tenant!r}")
        return record

    def _structured(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and self._text:
            try:
                return _numbers.decode(value)
            except msgspec.DecodeError as problem:
                raise ValueError(f"{name} is not JSON: {problem}") from problem
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return dict(value)  # a map column of Arrow
        return value

    def _receipt(self, item: Item) -> str:
        return f"{self._receipts}:{item.position}"

    def _refused(self, item: Item, why: str, now_us: int) -> dict[str, Any]:
        return {
            "tenant": self._tenant,
            "stage": STAGE,
            "date": date_of(now_us),
            "time_us": now_us,
            "producer": self._producer,
            "receipt_id": self._receipt(item),
            "reason": f"{self._place} {item.position}: {' '.join(why.split())}",
            "payload": self._payload(item),
        }

    def _payload(self, item: Item) -> bytes:
        raw = json.dumps(item.row, default=str).encode() if item.payload is None else item.payload
        if not self._guarded or item.row is None:
            return raw
        return json.dumps(self._named(item.row), default=str).encode()
