"""One partition on its way into the lake: what was read of it and not committed, and the windows over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from rlaas.lake.ingestion.decoding import Decoded, Item, RowDecoder, has_rules
from rlaas.lake.ingestion.events import KINDS, Kind
from rlaas.lake.ingestion.once import Span, committed_positions
from rlaas.lake.ingestion.streams import StreamConfig, TopicConfig, WindowConfig
from rlaas.lake.ingestion.window_tables import TABLE as WINDOWS
from rlaas.lake.ingestion.window_tables import load_fold, window_rows
from rlaas.lake.ingestion.windows import Event, Fold
from rlaas.lake.tables import Lake

__all__ = ["Partition", "position_in"]

_KEY, _TIMESTAMP = "$key", "$timestamp_us"


def position_in(lake: Lake, config: StreamConfig, topic: str, partition: int) -> int | None:
    """Offset to go on at, by what the lake says; None where it knows nothing of the partition.

    Windows are committed before bronze, so that what bronze holds is in them. Where they are less far all the same
    (nobody asked for them in between), what lies between is read again, and bronze adds nothing of it.

    Raises:
        LakeError: a table is damaged.
    """
    app_id = config.app_id(lake.tenant, topic, partition)
    bronze = committed_positions(lake, KINDS[config.topics[topic].kind].table, (app_id,)).get(app_id)
    if bronze is None:
        return None
    windows = [config.app_id(lake.tenant, topic, partition, window.name) for window in config.windows_of(topic)]
    behind = committed_positions(lake, WINDOWS, windows) if windows else {}
    return min(bronze, *behind.values()) if behind else bronze


@dataclass(slots=True)
class _Windows:
    """Windows over a partition, as of an offset of theirs."""

    config: WindowConfig
    fold: Fold
    position: int


@dataclass(slots=True)
class Partition:
    """A partition that this process reads.

    Attributes:
        lake: the tables.
        config: of the stream.
        topic: its topic.
        number: of the partition in it.
        position: offset behind what is committed.
        next_offset: offset behind what was read; greater from the beginning where messages are gone.
    """

    lake: Lake
    config: StreamConfig
    topic: str
    number: int
    position: int
    next_offset: int
    _items: list[Item] = field(init=False, default_factory=list)
    _sent_us: dict[int, int] = field(init=False, default_factory=dict)
    _decoder: RowDecoder = field(init=False)
    _windows: list[_Windows] = field(init=False)

    def __post_init__(self) -> None:
        name = f"{self.config.source}:{self.topic}:{self.number}"
        self._decoder = RowDecoder(
            self._topic.kind,
            self._topic.mapping,
            tenant=self.lake.tenant,
            source=self.topic,
            producer=name,
            receipts=name,
            place=f"{self.topic} partition {self.number} offset",
            guarded=has_rules(self.lake, self._topic.kind),
        )
        self._windows = []
        for window in self.config.windows_of(self.topic):
            fold, position = load_fold(self.lake, window, name)
            self._windows.append(_Windows(window, fold, self.position if position is None else position))

    @property
    def _topic(self) -> TopicConfig:
        return self.config.topics[self.topic]

    @property
    def kind(self) -> Kind:
        """What its messages become."""
        return self._decoder.kind

    @property
    def pending(self) -> int:
        """Messages that were read and are not committed."""
        return len(self._items)

    @property
    def moved(self) -> bool:
        """Whether there is something to commit."""
        return self.next_offset > self.position

    def take(self, offset: int, key: bytes | None, value: bytes | None, sent_us: int) -> None:
        """Take a message in; one that was taken before is ignored."""
        if offset < self.next_offset:
            return
        self._items.append(self._item(offset, key, value, sent_us))
        self._sent_us[offset] = sent_us
        self.next_offset = offset + 1

    def decode(self, now_us: int) -> Decoded:
        """What the pending messages say."""
        return self._decoder.decode(self._items, now_us)

    def span(self, decoded: Decoded, *, good: bool) -> Span:
        """Rows of bronze, or of the quarantine."""
        app_id = self.config.app_id(self.lake.tenant, self.topic, self.number)
        return (decoded.good if good else decoded.bad)(app_id, self.position, self.next_offset)

    def window_spans(self, decoded: Decoded) -> list[Span]:
        """The windows that the pending messages change, each as a span of its own."""
        spans = []
        name = f"{self.config.source}:{self.topic}:{self.number}"
        for windows in self._windows:
            if self.next_offset <= windows.position:
                continue  # committed, and bronze was not
            changed = windows.fold.apply(self._events(decoded, windows))
            rows = window_rows(self.lake.tenant, windows.config.name, name, self.next_offset, windows.fold, changed)
            app_id = self.config.app_id(self.lake.tenant, self.topic, self.number, windows.config.name)
            nowhere = np.full(rows.num_rows, windows.position, dtype=np.int64)
            spans.append(Span(app_id, windows.position, self.next_offset, nowhere, rows, whole=True))
        return spans

    def committed(self) -> None:
        """The pending messages are in the lake."""
        self._items.clear()
        self._sent_us.clear()
        self.position = self.next_offset
        for windows in self._windows:
            windows.position = max(windows.position, self.next_offset)

    def _events(self, decoded: Decoded, windows: _Windows) -> list[Event]:
        """The values that the windows are about and do not have yet."""
        wanted = windows.config
        return [
            Event(
                record.entity or "",
                record.time_us,
                record.values[wanted.value],
                record.receipt_id,
                self._sent_us[position],
            )
            for position, record in zip(decoded.positions, decoded.records, strict=True)
            if position >= windows.position and wanted.value in record.values and wanted.kind in (None, record.kind)
        ]

    def _item(self, offset: int, key: bytes | None, value: bytes | None, sent_us: int) -> Item:
        if value is None:
            return Item(offset, None, b"", "the message has no value")
        decode: Any = msgspec.json.decode if self._topic.format == "json" else msgspec.msgpack.decode
        try:
            row = decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            return Item(offset, None, value, f"not {self._topic.format}: {problem}")
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            return Item(offset, None, value, "not an object")
        return Item(offset, _Message(row, key, sent_us), value)


class _Message(dict[str, Any]):
    """The object of a message; its key and the broker's time are there for who asks, and no columns of it."""

    def __init__(self, row: Mapping[str, Any], key: bytes | None, sent_us: int) -> None:
        super().__init__(row)
        self._extra = {_KEY: None if key is None else key.decode(errors="replace"), _TIMESTAMP: sent_us}

    def get(self, name: str, default: Any = None) -> Any:
        """A column, or what stands beside the columns."""
        return self._extra[name] if name in self._extra else super().get(name, default)
