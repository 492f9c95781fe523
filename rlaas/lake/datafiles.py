"""The files of a Delta table, exchanged under a strict rule.

deltalake 1.6 lets a commit pass whose files another commit exchanged meanwhile, as long as neither changes rows: two
overlapping ``optimize.compact`` then hold every row twice, and one that overlaps with a removal brings the rows back.
Here a commit is therefore made for exactly the state that was looked at, and for no later one: it fails when anybody
committed in between, and is tried again only while all the files that it takes away are still there.

Such a commit changes no row of the table (``dataChange`` is false): Delta lets it pass where ``delta.appendOnly`` is
set, and readers of the change feed do not see it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_ds
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from rlaas.errors import LakeError
from rlaas.files import sync
from rlaas.lake.schemas import TableSpec

__all__ = ["DataFile", "Mark", "discard", "exchange", "live_files", "read_files", "write_file"]

_ATTEMPTS = 30
_ROWS_PER_GROUP = 65_536
_STATISTICS_TEXT = 32
"""Longest text that the statistics of a file hold: a longer one would have to be cut, and the maximum raised."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that belongs to a table.

    Attributes:
        path: below the table's folder.
        size: bytes.
        rows: number of rows.
        partition: values of the partition columns.
    """

    path: str
    size: int
    rows: int
    partition: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """A number that a commit leaves in the state of the table, where it outlives checkpoints.

    Attributes:
        app_id: Delta's application id.
        before: what the table must say before; None for nothing.
        after: what it says afterwards, greater than before.
    """

    app_id: str
    before: int | None
    after: int


def live_files(delta: DeltaTable, where: Mapping[str, str] | None = None) -> list[DataFile]:
    """Files of the loaded version by path, of the partitions with these values.

    Raises:
        LakeError: another engine wrote the table with features that this reader does not know.
    """
    protocol = delta.protocol()
    if protocol.min_reader_version > 1:
        features = ", ".join(protocol.reader_features or ()) or f"reader version {protocol.min_reader_version}"
        raise LakeError(f"table {delta.metadata().name} uses {features}, and its files are not touched here")
    keys = delta.metadata().partition_columns
    found = []
    for add in pa.table(delta.get_add_actions(flatten=True)).to_pylist():
        partition = {key: str(add[f"partition.{key}"]) for key in keys}
        if all(partition[key] == value for key, value in (where or {}).items()):
            found.append(DataFile(unquote(add["path"]), int(add["size_bytes"]), int(add["num_records"]), partition))
    return sorted(found, key=lambda file: file.path)


def read_files(location: str, spec: TableSpec, files: Iterable[DataFile]) -> pa_ds.Scanner:
    """The rows of some files without their partition columns; what older files lack is null."""
    filesystem = _filesystem(location)
    schema = _stored(spec)
    dataset = pa_ds.dataset([file.path for file in files], schema=schema, format="parquet", filesystem=filesystem)
    return dataset.scanner(schema.names, batch_size=_ROWS_PER_GROUP, use_threads=True)


def write_file(
    location: str,
    spec: TableSpec,
    batches: Iterable[pa.RecordBatch],
    partition: Mapping[str, str],
    *,
    data_change: bool = False,
) -> AddAction:
    """Write rows as one file of a partition, flushed to disk where that is local; the table does not know it yet.

    Args:
        location: folder or URL of the table.
        spec: its declaration.
        batches: columns that are not of the partition.
        partition: values of the partition columns.
        data_change: the rows are new to the table.

    Raises:
        LakeError: it cannot be written.
    """
    folder = "/".join(f"{key}={quote(partition[key], safe='')}" for key in spec.partition_by)
    path = f"{folder}/part-{uuid.uuid4()}.zstd.parquet"
    filesystem = _filesystem(location)
    statistics = _Statistics()
    try:
        filesystem.create_dir(folder, recursive=True)
        with pq.ParquetWriter(path, _stored(spec), filesystem=filesystem, compression="zstd") as writer:
            for batch in batches:
                rows = pa.Table.from_batches([batch]).cast(_stored(spec))
                statistics.add(rows)
                writer.write_table(rows, row_group_size=_ROWS_PER_GROUP)
        if "://" not in location:
            for written in (Path(location, path), Path(location, folder)):
                sync(written)
        size = filesystem.get_file_info(path).size
    except OSError as problem:
        raise LakeError(f"table {spec.name}: {path} cannot be written: {problem}") from problem
    return AddAction(
        path=path,
        size=size,
        partition_values=dict(partition),
        modification_time=time.time_ns() // 1_000_000,
        data_change=data_change,
        stats=statistics.document(),
    )


def discard(location: str, added: Iterable[AddAction]) -> None:
    """Delete files that the table never came to know."""
    filesystem = _filesystem(location)
    for action in added:
        filesystem.delete_file(action.path)


def exchange(
    open_table: Callable[[], DeltaTable],
    removed: Sequence[DataFile],
    added: Sequence[AddAction],
    *,
    marks: Sequence[Mark] = (),
    metadata: Mapping[str, Any] | None = None,
) -> bool:
    """Take files out of a table and put others in, in one commit that changes none of its rows.

    Args:
        open_table: opens the newest state; called again after every commit of somebody else.
        removed: files to take out.
        added: files that hold the same rows, or none where the rows have been brought elsewhere.
        marks: numbers to leave in the table's state.
        metadata: what the table's history shows with the commit.

    Returns:
        False, and nothing is changed, where one of ``removed`` is gone or a mark says something else by now.

    Raises:
        LakeError: others committed before every one of many attempts.
    """
    wanted = {file.path for file in removed}
    for attempt in range(_ATTEMPTS):
        delta = open_table()
        if attempt and _is_done(delta, added, marks):
            # The answer to the attempt before was lost, not the attempt: a store may say of its own write that it
            # found it there.
            return True
        if not wanted <= {file.path for file in live_files(delta)}:
            return False
        if any(delta.transaction_version(mark.app_id) != mark.before for mark in marks):
            return False
        actions: list[AddAction | RemoveAction] = [_removal(file) for file in removed]
        try:
            delta.create_write_transaction(
                [*actions, *added],
                mode="append",
                schema=delta.schema(),
                partition_by=delta.metadata().partition_columns,
                commit_properties=CommitProperties(
                    custom_metadata=dict(metadata or {}),
                    # With a single retry of deltalake's own the state would be a later one than was looked at.
                    max_commit_retries=0,
                    app_transactions=[Transaction(mark.app_id, mark.after) for mark in marks],
                ),
            )
        except CommitFailedError as problem:
            if attempt == _ATTEMPTS - 1:
                raise LakeError(
                    f"table {delta.metadata().name}: others committed before {_ATTEMPTS} attempts: {problem}"
                ) from problem
            time.sleep(0.005 * min(2**attempt, 64))
        else:
            return True
    raise AssertionError("unreachable: the last attempt returns or raises")


def _is_done(delta: DeltaTable, added: Sequence[AddAction], marks: Sequence[Mark]) -> bool:
    paths = {action.path for action in added}
    if paths:
        return paths <= {file.path for file in live_files(delta)}
    return bool(marks) and all(delta.transaction_version(mark.app_id) == mark.after for mark in marks)


def _removal(file: DataFile) -> RemoveAction:
    return RemoveAction(
        path=file.path,
        data_change=False,
        deletion_timestamp=time.time_ns() // 1_000_000,
        size=file.size,
        partition_values=dict(file.partition),
    )


def _stored(spec: TableSpec) -> pa.Schema:
    """Columns that lie in the files; those of the partition are in the log."""
    return pa.schema([field for field in spec.schema if field.name not in spec.partition_by])


def _filesystem(location: str) -> pa_fs.FileSystem:
    base, path = pa_fs.FileSystem.from_uri(location)
    return pa_fs.SubTreeFileSystem(path, base)


class _Statistics:
    """What readers skip a file by: rows, and least, greatest and number of nulls of the plain columns."""

    def __init__(self) -> None:
        self._rows = 0
        self._least: dict[str, Any] = {}
        self._greatest: dict[str, Any] = {}
        self._nulls: dict[str, int] = {}
        self._without: set[str] = set()

    def add(self, rows: pa.Table) -> None:
        """Count these rows too."""
        self._rows += rows.num_rows
        for field in rows.schema:
            kind = field.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind)):
                continue
            column = rows.column(field.name)
            self._nulls[field.name] = self._nulls.get(field.name, 0) + column.null_count
            # NaN compares with nothing, so that a file that has one is never skipped by this column.
            if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
                self._without.add(field.name)
            least, greatest = (value.as_py() for value in pc.min_max(column).values())
            if least is None:
                continue
            if isinstance(least, str) and max(len(least), len(greatest)) > _STATISTICS_TEXT:
                self._without.add(field.name)
            self._least[field.name] = min(least, self._least.get(field.name, least))
            self._greatest[field.name] = max(greatest, self._greatest.get(field.name, greatest))

    def document(self) -> str:
        """As Delta's log has it."""
        return json.dumps(
            {
                "numRecords": self._rows,
                "minValues": {name: value for name, value in self._least.items() if name not in self._without},
                "maxValues": {name: value for name, value in self._greatest.items() if name not in self._without},
                "nullCount": self._nulls,
            },
            allow_nan=True,
        )
