"""Reading TensorBoard's event files by their format: length, checksum, record, checksum."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def events(folder: Path) -> Iterator[Any]:
    """All events of the files in ``folder``, in the order of the files' names."""
    for file in sorted(folder.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            header = content[at : at + 8]
            (length,) = struct.unpack("<Q", header)
            (header_sum,) = struct.unpack("<I", content[at + 8 : at + 12])
            record = content[at + 12 : at + 12 + length]
            (record_sum,) = struct.unpack("<I", content[at + 12 + length : at + 16 + length])
            assert (header_sum, record_sum) == (masked_crc32c(header), masked_crc32c(record))
            yield Event.FromString(record)
            at += 16 + length


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
