"""The byte scan: no live file may hold a byte of an erased subject."""

from __future__ import annotations

import gzip
import io
import mmap
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlaas.errors import LakeError
from rlaas.lake.privacy.needles import Needles
from rlaas.lake.privacy.pages import parquet_parts
from rlaas.lake.segments import HEADER, read_segment

__all__ = ["Scan", "holds", "live_files", "scan", "sqlite_cells"]

_SQLITE = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm", "-journal")
_STREAMS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_PIECE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan saw.

    Attributes:
        files: number of files.
        size: their bytes, as they lie on the disk.
        hits: files that hold a text that was looked for.
    """

    files: int
    size: int
    hits: tuple[Path, ...]


def scan(roots: Iterable[Path], needles: Needles, *, tenant: str, without: Path | None = None) -> Scan:
    """Look into every file below some folders.

    Parquet pages, gzip, zstd, bz2, lz4 and zip are decompressed. Of a table and of the write-ahead log, what belongs to
    another tenant is left out: an id of theirs that reads the same is another subject's.

    Args:
        roots: folders, or files.
        needles: what is looked for.
        tenant: whose files.
        without: a database that is left out, with the files beside it.

    Raises:
        LakeError: a file is damaged, so that nobody can say what it holds.
    """
    files = size = 0
    hits = []
    left_out = () if without is None else (without.name, *(f"{without.name}{ending}" for ending in _BESIDE))
    for path in live_files(roots, tenant=tenant):
        if without is not None and path.parent == without.parent and path.name in left_out:
            continue
        try:
            length = path.stat().st_size
            if holds(path, needles):
                hits.append(path)
        except FileNotFoundError:
            continue  # it was live when the scan began
        files, size = files + 1, size + length
    return Scan(files, size, tuple(hits))


def live_files(roots: Iterable[Path], *, tenant: str) -> Iterator[Path]:
    """Every plain file, each once; without other tenants'."""
    seen = set()
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            others = [part for part in path.parts if part.startswith("tenant=") and part != f"tenant={tenant}"]
            others += [part for part in path.relative_to(root).parts[1:2] if _is_log_of_others(path, root, tenant)]
            if others or path in seen or path.is_symlink() or not path.is_file():
                continue
            seen.add(path)
            yield path


def holds(path: Path, needles: Needles) -> bool:
    """Whether a file holds one of the texts.

    Raises:
        LakeError: it is damaged.
    """
    with path.open("rb") as file:
        head = file.read(16)
    base = _database_of(path)
    if head[:4] == b"PAR1":
        return _parquet_holds(path, needles)
    if head == _SQLITE or base is not None:
        return _sqlite_holds(path, base or path, needles)
    if head.startswith(HEADER):
        return any(needles.said_in(payload) for payload in read_segment(path))
    if head[:4] == b"PK\3\4":
        return _zip_holds(path, needles)
    codec = next((name for magic, name in _STREAMS.items() if head.startswith(magic)), None)
    if codec is not None:
        return _stream_holds(path, codec, needles)
    return _plain_holds(path, needles)


def sqlite_cells(file: Path) -> Iterator[bytes]:
    """Every text and blob of every table of an SQLite database."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=15)) as connection:
        connection.text_factory = bytes
        tables = [name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield from (cell for cell in row if isinstance(cell, bytes))


def _is_log_of_others(path: Path, root: Path, tenant: str) -> bool:
    parts = path.relative_to(root).parts if root.is_dir() else ()
    return len(parts) > 2 and parts[0] == "wal" and parts[1] != tenant


def _database_of(path: Path) -> Path | None:
    """The database that a file beside it belongs to."""
    for ending in _BESIDE:
        base = path.with_name(path.name.removesuffix(ending))
        if path.name.endswith(ending) and base.is_file():
            return base
    return None


def _parquet_holds(path: Path, needles: Needles) -> bool:
    if not any(needles.inside(part) for part in parquet_parts(path)):
        return False
    # There are such bytes, and in a page nothing parts one value from the next: longer words account for them, or else
    # they are the subject's, or left over in a dictionary or a statistic.
    explained = False
    for batch in pq.ParquetFile(path).iter_batches():
        for leaf in (leaf for column in batch.columns for leaf in _leaves(column)):
            values = pc.unique(leaf).drop_null()
            if pc.any(needles.matches(pa.chunked_array([values]))).as_py():
                return True
            explained = explained or any(
                needles.inside(value.encode() if isinstance(value, str) else value) for value in values.to_pylist()
            )
    return not explained


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    """The arrays of text and bytes that a column consists of."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _leaves(column.dictionary)
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):  # what DataFusion writes
        yield column.cast(pa.string() if pa.types.is_string_view(kind) else pa.binary())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        yield column
    elif pa.types.is_map(kind):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(column.flatten())
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from _leaves(part)


def _sqlite_holds(path: Path, database: Path, needles: Needles) -> bool:
    # In a record one value follows the other with nothing between them: see above.
    if not needles.inside(path.read_bytes()):
        return False
    try:
        cells = list(sqlite_cells(database))
    except sqlite3.Error as problem:
        raise LakeError(f"{database} is damaged: {problem}") from problem
    return any(needles.said_in(cell) for cell in cells) or not any(needles.inside(cell) for cell in cells)


def _zip_holds(path: Path, needles: Needles) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return needles.inside(path.read_bytes()) or any(
                needles.inside(archive.read(name)) for name in archive.namelist()
            )
    except (zipfile.BadZipFile, OSError) as problem:
        raise LakeError(f"{path} is damaged: {problem}") from problem


def _stream_holds(path: Path, codec: str, needles: Needles) -> bool:
    try:
        if codec == "gzip":
            return _any_in(gzip.GzipFile(path), needles)
        with pa.input_stream(str(path), compression=codec) as stream:
            return _any_in(stream, needles)
    except (OSError, EOFError) as problem:
        raise LakeError(f"{path} is damaged: {problem}") from problem


def _any_in(stream: io.BufferedIOBase, needles: Needles) -> bool:
    before = b""
    while piece := stream.read(_PIECE):
        if needles.inside(before + piece):
            return True
        before = piece[-4096:]
    return False


def _plain_holds(path: Path, needles: Needles) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not needles.inside(data):  # type: ignore[arg-type]
            return False
        try:
            text = data[:].decode()
        except UnicodeDecodeError:
            return True  # not a text: nothing says where one word ends and another begins
        return needles.said_in(text.encode())
