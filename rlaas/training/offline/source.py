"""Reading a Delta table of the lake through Ray Data: exactly the rows of one version, a block at a time.

The files of the version come from the table's log, so that removed files are left out and older versions can be read;
rows that a deletion vector marks are dropped. Folders that the filter rules out are never opened. Ray Data reads the
rest in tasks that yield blocks, so no process ever holds the table.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from rlaas.errors import ConfigurationError, InvalidInputError, LakeError, NotFoundError
from rlaas.lake import Lake
from rlaas.training.offline.columns import NEEDED, OPTIONAL
from rlaas.training.offline.config import SourceSettings

__all__ = ["LoggedTable", "open_source"]

_FILTERED = ("tenant", "scenario", "policy", "version", "date")
ROWS_PER_BLOCK = 16_384
BYTES_PER_TASK = 64 * 2**20
_FEATURES = frozenset({"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    partition: Mapping[str, Any]
    # Rows to keep [n]; what lies beyond its end is kept too. None keeps all.
    keep: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTable:
    """A table at one version, with the filter that chooses its rows.

    Attributes:
        name: ``<layer>.<table>``.
        version: Delta version that is read.
        columns: what is read of each row.
    """

    name: str
    version: int
    columns: tuple[str, ...]
    _schema: pa.Schema
    _read: tuple[str, ...]
    _files: tuple[_File, ...]
    _filesystem: pa_fs.FileSystem
    _filter: pc.Expression

    def batches(self, rows: int = ROWS_PER_BLOCK) -> Iterator[pa.Table]:
        """The chosen rows as tables of at most ``rows`` rows, in the order of the version's files.

        Ray has to be running; its workers read ahead while the caller works on a table.

        Raises:
            ConfigurationError: Ray is not running.
            LakeError: a file is damaged or gone (vacuumed away).
        """
        import ray

        if not self._files:
            return
        if not ray.is_initialized():
            raise ConfigurationError("Ray is not running, and a table is read on its workers: call ray.init() first")
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        dataset = ray.data.read_datasource(_DeltaFiles(self))
        # The same rows in the same order give the same policy.
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False
        dataset.context.target_max_block_size = BYTES_PER_TASK // 2
        try:
            for batch in dataset.iter_batches(batch_size=rows, batch_format="pyarrow", prefetch_batches=1):
                if batch.num_rows:
                    yield batch
        except ray.exceptions.RayError as problem:
            cause = getattr(problem, "cause", None) or problem
            reason = str(cause).strip().splitlines()[-1]
            raise LakeError(f"table {self.name} version {self.version} cannot be read: {reason}") from problem


def open_source(lake: Lake, source: SourceSettings, scenario: str) -> LoggedTable:
    """Find the files and the filter of a source.

    Args:
        lake: the tenant's view of the tables.
        source: which rows.
        scenario: name of the scenario whose decisions are wanted.

    Raises:
        NotFoundError: no such table or version.
        InvalidInputError: the table lacks a column that is needed, named.
        LakeError: the table is damaged, or needs what this reader cannot do.
    """
    delta = _open(lake, source)
    schema = pa.schema(delta.schema().to_arrow())
    for name in NEEDED:
        _has(schema, name, source.table, "what is fitted to")
    features = set(delta.protocol().reader_features or ())
    if features - _FEATURES:
        raise LakeError(f"table {source.table} uses {', '.join(sorted(features - _FEATURES))}, which is not read here")
    location = f"{lake.root}/{source.table.replace('.', '/')}"
    filesystem, path = pa_fs.FileSystem.from_uri(location)
    columns = (*NEEDED, *(name for name in OPTIONAL if name in schema.names))
    return LoggedTable(
        name=source.table,
        version=int(delta.version()),
        columns=columns,
        _schema=schema,
        _read=tuple(name for name in schema.names if name in (*columns, *_FILTERED)),
        _files=tuple(_files(delta, source, lake.tenant)),
        _filesystem=pa_fs.SubTreeFileSystem(path, filesystem),
        _filter=_filter(schema, source, lake.tenant, scenario),
    )


def _open(lake: Lake, source: SourceSettings) -> DeltaTable:
    location = f"{lake.root}/{source.table.replace('.', '/')}"
    try:
        delta = DeltaTable(location)
    except TableNotFoundError:
        raise NotFoundError(
            f"there is no table {source.table} under {lake.root}: nothing was joined there yet "
            "(rlaas lake commit joins decisions with their outcomes)",
            field="source.table",
        ) from None
    newest = int(delta.version())
    if source.version is not None:
        if source.version > newest:
            raise NotFoundError(
                f"table {source.table} has no version {source.version}; allowed: 0 to {newest}", field="source.version"
            )
        try:
            delta.load_as_version(source.version)
        except DeltaError as problem:
            raise LakeError(f"table {source.table} version {source.version} is gone: {problem}") from problem
    return delta


def _has(schema: pa.Schema, name: str, table: str, purpose: str) -> None:
    if name not in schema.names:
        raise InvalidInputError(
            f"table {table} lacks the column {name!r} ({purpose}); it has: {', '.join(schema.names)}", field=name
        )


def _files(delta: DeltaTable, source: SourceSettings, tenant: str) -> Iterator[_File]:
    """Files of the loaded version by path, without those in folders of other tenants or days."""
    root = unquote(delta.table_uri).rstrip("/") + "/"
    kept = {}
    if "deletionVectors" in (delta.protocol().reader_features or ()):
        kept = {
            unquote(row["filepath"]).removeprefix(root): np.array(row["selection_vector"], dtype=np.bool_)
            for row in pa.table(delta.deletion_vectors()).to_pylist()
        }
    keys = delta.metadata().partition_columns
    for add in sorted(pa.table(delta.get_add_actions(flatten=True)).to_pylist(), key=lambda add: str(add["path"])):
        partition = {key: add[f"partition.{key}"] for key in keys}
        day = partition.get("date")
        if "tenant" in partition and partition["tenant"] != tenant:
            continue
        if day is not None and not _within(str(day), source):
            continue
        path = unquote(add["path"])
        yield _File(path, int(add["size_bytes"]), partition, kept.get(path))


def _within(day: str, source: SourceSettings) -> bool:
    after = source.first_date is None or day >= source.first_date.isoformat()
    return after and (source.last_date is None or day <= source.last_date.isoformat())


def _filter(schema: pa.Schema, source: SourceSettings, tenant: str, scenario: str) -> pc.Expression:
    _has(schema, "tenant", source.table, "whose rows they are")
    chosen = pc.field("tenant") == tenant
    # A gold table may be of one scenario by its name.
    if "scenario" in schema.names:
        chosen &= pc.field("scenario") == scenario
    if source.policy is not None:
        _has(schema, "policy", source.table, "source.policy")
        chosen &= pc.field("policy") == source.policy
    if source.policy_versions:
        _has(schema, "version", source.table, "source.policy_versions")
        chosen &= pc.field("version").isin(list(source.policy_versions))
    for day, keep in ((source.first_date, pc.greater_equal), (source.last_date, pc.less_equal)):
        if day is not None:
            _has(schema, "date", source.table, "source.first_date, source.last_date")
            chosen &= keep(pc.field("date"), day.isoformat())
    return chosen


class _DeltaFiles(Datasource):
    """The files of a table as read tasks; adjoining files share one until it is large enough."""

    def __init__(self, table: LoggedTable) -> None:
        super().__init__()
        self._table = table

    def get_name(self) -> str:
        """For Ray's own messages."""
        return "Delta"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self._table._files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Adjoining files together, in their order."""
        groups: list[list[_File]] = [[]]
        held = 0
        for file in self._table._files:
            if groups[-1] and held + file.size > BYTES_PER_TASK:
                groups.append([])
                held = 0
            groups[-1].append(file)
            held += file.size
        table = self._table
        schema = pa.schema([table._schema.field(name) for name in table._read])
        tasks = []
        for group in groups:
            read = functools.partial(_read_files, group, table._filesystem, schema, table.columns, table._filter)
            metadata = BlockMetadata(
                num_rows=None,
                size_bytes=sum(file.size for file in group),
                exec_stats=None,
                input_files=tuple(file.path for file in group),
            )
            tasks.append(ReadTask(read, metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def _read_files(
    files: Sequence[_File],
    filesystem: pa_fs.FileSystem,
    schema: pa.Schema,
    columns: Sequence[str],
    chosen: pc.Expression,
) -> Iterator[pa.Table]:
    """Chosen rows of some files, a block at a time; runs in a worker. At least one block, so that there is a schema."""
    result = pa.schema([schema.field(name) for name in columns])
    yield result.empty_table()
    for file in files:
        with filesystem.open_input_file(file.path) as opened:
            parquet = pq.ParquetFile(opened)
            stored = [name for name in schema.names if name in parquet.schema_arrow.names]
            first = 0
            for batch in parquet.iter_batches(ROWS_PER_BLOCK, columns=stored):
                rows = _whole(pa.Table.from_batches([batch]), file.partition, schema)
                if file.keep is not None:
                    kept = np.ones(batch.num_rows, dtype=np.bool_)
                    said = file.keep[first : first + batch.num_rows]
                    kept[: len(said)] = said
                    rows = rows.filter(pa.array(kept))
                first += batch.num_rows
                rows = rows.filter(chosen).select(list(columns)).cast(result)
                if rows.num_rows:
                    yield rows


def _whole(rows: pa.Table, partition: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Rows with the columns and types of the table's schema, whatever a writer stored them as.

    Columns of the folder's name are filled in, and those that came later are null.
    """
    columns = []
    for field in schema:
        if field.name in partition:
            columns.append(pa.repeat(pa.scalar(partition[field.name], type=field.type), rows.num_rows))
        elif field.name in rows.column_names:
            columns.append(rows.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(columns, names=schema.names)
