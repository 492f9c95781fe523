"""The pages of a Parquet file, decompressed: what a byte scan has to see, as dictionaries and values hide in them.

A page begins with a header in Thrift's compact protocol (``parquet.thrift``, struct ``PageHeader``): 1 type,
2 uncompressed size, 3 compressed size, and for data pages of version 2 (struct 8) 5 and 6 the lengths of the levels,
which are never compressed, and 7 whether the values are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaas.errors import LakeError

__all__ = ["parquet_parts"]

_CODECS = {
    "SNAPPY": "snappy",
    "GZIP": "gzip",
    "BROTLI": "brotli",
    "ZSTD": "zstd",
    "LZ4": "lz4_raw",  # as pyarrow calls what the format calls LZ4_RAW
}
_TYPE, _UNCOMPRESSED, _COMPRESSED, _V2 = 1, 2, 3, 8
_DEFINITION, _REPETITION, _IS_COMPRESSED = 5, 6, 7
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def parquet_parts(path: Path) -> Iterator[bytes]:
    """Every page of a file decompressed, and all bytes outside of pages (headers, indexes, the footer).

    Raises:
        LakeError: the file is damaged.
    """
    data = path.read_bytes()
    try:
        metadata = pq.read_metadata(path)
        outside = 0
        for start, end, codec in sorted(_chunks(metadata)):
            yield data[outside:start]
            at = start
            while at < end:
                reader = _Compact(data, at)
                header = reader.struct()
                body = reader.at
                yield data[at:body]  # statistics of the page
                at = body + header[_COMPRESSED]
                yield _decompressed(data[body:at], header, codec)
            outside = end
        yield data[outside:]
    except (OSError, pa.ArrowException, IndexError, KeyError, ValueError) as problem:
        raise LakeError(f"{path} is damaged: {problem}") from problem


def _chunks(metadata: Any) -> Iterator[tuple[int, int, str]]:
    """Begin, end and codec of every column of every row group."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            start = column.data_page_offset
            if column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            yield start, start + column.total_compressed_size, column.compression


def _decompressed(body: bytes, header: dict[int, Any], codec: str) -> bytes:
    levels = 0
    compressed = codec != "UNCOMPRESSED"
    if _V2 in header:
        second = header[_V2]
        levels = second[_DEFINITION] + second[_REPETITION]
        compressed = compressed and second.get(_IS_COMPRESSED, True)
    if not compressed or not body[levels:]:
        return body
    values = pa.Codec(_CODECS[codec]).decompress(body[levels:], header[_UNCOMPRESSED] - levels, asbytes=True)
    return body[:levels] + bytes(values)


class _Compact:
    """Reads Thrift's compact protocol as far as a page header needs it."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def struct(self) -> dict[int, Any]:
        """Fields by number."""
        fields: dict[int, Any] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return fields
            kind, delta = head & 0x0F, head >> 4
            number = number + delta if delta else self._zigzag()
            fields[number] = self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 0x0F) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"a page header holds a field of type {kind} at byte {self.at}")

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        value = self._data[self.at : self.at + count]
        self.at += count
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
