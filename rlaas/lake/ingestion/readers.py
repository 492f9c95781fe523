"""Files as batches of rows, a bounded number of them in memory at a time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
from pyarrow import parquet as pq

from rlaas.errors import InvalidInputError
from rlaas.lake.ingestion.decoding import Item

__all__ = ["FORMATS", "check_readable", "format_of", "read_items"]

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_MAX_ROW = 16 * 2**20  # bytes, or characters; as of a record in the write-ahead log
_CHUNK = 2**20
_SHOWN = 4096  # of a row that is too long to be kept
_decoder = msgspec.json.Decoder()
_elements = json.JSONDecoder()


def format_of(path: Path) -> str:
    """Format of a file by the end of its name.

    Raises:
        InvalidInputError: another one; names those there are.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    plain = suffixes[:-1] if suffixes and suffixes[-1] in _COMPRESSED else suffixes
    found = FORMATS.get(plain[-1]) if plain else None
    if found is None or (found == "parquet" and plain != suffixes):
        raise InvalidInputError(
            f"{path}: its name does not tell what is in it; allowed: {', '.join(FORMATS)}, all but .parquet also with "
            f"{', '.join(_COMPRESSED)}",
            field="path",
        )
    return found


def read_items(path: Path, *, skip: int = 0, batch_rows: int = 8192) -> Iterator[list[Item]]:
    """Rows of a file by number, from 0; those that cannot be read come with the reason.

    Args:
        path: Parquet, CSV with a header, one JSON object a line, or JSON objects in a list or one after the other.
        skip: rows that are known already.
        batch_rows: rows of one batch, at most.

    Raises:
        InvalidInputError: the file as a whole is not what its name says.
        OSError: it cannot be read.
    """
    kind = format_of(path)
    batch: list[Item] = []
    try:
        if kind == "parquet":
            items = _parquet(path, skip, batch_rows)
        else:
            items = {"csv": _csv, "jsonl": _lines, "json": _objects}[kind](path)
        for item in items:
            if item.position < skip:
                continue
            batch.append(item)
            if len(batch) >= batch_rows:
                yield batch
                batch = []
    except (pa.ArrowInvalid, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the system's; Arrow's own, of compressed data that are cut short, has no number
        raise InvalidInputError(
            f"{path}: not {kind}: {' '.join(str(problem).split())[:300]}", field="path"
        ) from problem
    if batch:
        yield batch


def check_readable(path: Path) -> None:
    """Read a file to its end where an error at the end would leave it half ingested.

    A row that cannot be read is one row. A list that does not close, or compressed data cut short, is the whole file,
    and a mended file has another hash: its rows would be in the table twice.

    Raises:
        InvalidInputError: the file as a whole is not what its name says.
        OSError: it cannot be read.
    """
    if format_of(path) == "json" or path.suffix.lower() in _COMPRESSED:
        for _ in read_items(path):
            pass


def _parquet(path: Path, skip: int, batch_rows: int) -> Iterator[Item]:
    with pq.ParquetFile(path) as file:
        position = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position + rows <= skip:
                position += rows
                continue
            for batch in file.iter_batches(batch_rows, row_groups=[group], use_threads=False):
                for row in batch.to_pylist():
                    yield Item(position, row)
                    position += 1


def _binary(path: Path) -> io.BufferedReader:
    return io.BufferedReader(cast("Any", pa.input_stream(path, compression="detect")), _CHUNK)


def _text(stream: BinaryIO) -> io.TextIOWrapper:
    # What is not UTF-8 spoils its own row, not the file.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv(path: Path) -> Iterator[Item]:
    csv.field_size_limit(_MAX_ROW)
    with _binary(path) as stream:
        reader = csv.reader(_text(stream), strict=True)
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise InvalidInputError(f"{path}: a column is named twice: {', '.join(header)}", field="path")
        position = 0
        while True:
            try:
                values = next(reader, None)
            except csv.Error as problem:
                yield Item(position, None, b"", f"not CSV: {problem} (near line {reader.line_num})")
                position += 1
                continue
            if values is None:
                return
            if not values:
                continue  # an empty line
            if len(values) == len(header):
                # Without a value and with an empty one are the same in CSV.
                yield Item(position, {name: value for name, value in zip(header, values, strict=True) if value != ""})
            else:
                payload = ",".join(values).encode(errors="surrogateescape")
                yield Item(position, None, payload, f"{len(values)} values, the header has {len(header)}")
            position += 1


def _lines(path: Path) -> Iterator[Item]:
    with _binary(path) as stream:
        position = 0
        while line := stream.readline(_MAX_ROW):
            if len(line) == _MAX_ROW and not line.endswith(b"\n"):
                while (rest := stream.readline(_MAX_ROW)) and not rest.endswith(b"\n"):
                    pass
                yield Item(position, None, line[:_SHOWN], f"longer than {_MAX_ROW} bytes")
            elif not line.strip():
                continue
            else:
                yield _line(position, line.strip())
            position += 1


def _line(position: int, line: bytes) -> Item:
    try:
        row = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Item(position, None, line, f"not JSON: {problem}")
    if not isinstance(row, dict):
        return Item(position, None, line, "not a JSON object")
    return Item(position, row, line)


def _objects(path: Path) -> Iterator[Item]:
    with _binary(path) as stream:
        text = _text(stream)
        buffer, at, position = text.read(_CHUNK), 0, 0
        is_list = buffer.lstrip()[:1] == "["
        if is_list:
            at = buffer.index("[") + 1
        while True:
            while at < len(buffer) and (buffer[at].isspace() or (is_list and buffer[at] == ",")):
                at += 1
            if is_list and buffer[at : at + 1] == "]":
                return
            try:
                row, end = _elements.raw_decode(buffer, at)
            except ValueError as problem:
                # Cut off by the end of the buffer, or broken: more text tells. Twice as much each time: what is long
                # is not read again and again.
                more = text.read(max(_CHUNK, len(buffer) - at))
                if not more:
                    if not is_list and not buffer[at:].strip():
                        return
                    raise InvalidInputError(f"{path}: not JSON in row {position}: {problem}", field="path") from problem
                if len(buffer) - at > _MAX_ROW:
                    raise InvalidInputError(
                        f"{path}: row {position} is no JSON, or longer than {_MAX_ROW} characters", field="path"
                    ) from problem
                buffer, at = buffer[at:] + more, 0
                continue
            if isinstance(row, dict):
                yield Item(position, row)
            else:
                yield Item(position, None, json.dumps(row).encode(), "not a JSON object")
            position, at = position + 1, end
            if at > _CHUNK:
                buffer, at = buffer[at:], 0
