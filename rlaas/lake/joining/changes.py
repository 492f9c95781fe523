"""Reads of a Delta table whose cost does not depend on how much it holds: what is new, and rows by their time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlaas.errors import LakeError
from rlaas.lake.schemas import TableSpec
from rlaas.lake.tables import Lake

__all__ = ["Fresh", "LostHistoryError", "fresh_rows", "rows_at", "time_ranges"]

_MAX_RANGES = 32
"""Of one question: more would make finding the files slower than reading a few too many."""


class LostHistoryError(Exception):
    """The log or the files of what is new are gone (expired, vacuumed): only the whole table can tell."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a table holds that it did not hold before.

    Attributes:
        rows: of this tenant, in no particular order.
        version: Delta version up to which they were read.
    """

    rows: pa.Table
    version: int


def fresh_rows(lake: Lake, spec: TableSpec, delta: DeltaTable | None, after: int, *, max_rows: int) -> Fresh:
    """Rows that were added by the commits behind version ``after``, up to that of ``delta``.

    Files that a compaction rewrote hold nothing new. Rows that something else rewrote (an erasure) count as new.

    Args:
        lake: the tables.
        spec: which one.
        delta: the table as it is read; ``None`` where there is none yet.
        after: version that was processed already; -1 for none.
        max_rows: no further commit is read once there are so many.

    Raises:
        LostHistoryError: a commit or a file is no longer there, or the table is older than ``after``.
    """
    if delta is None:
        if after >= 0:
            raise LostHistoryError(f"{spec.name} does not exist")
        return Fresh(spec.schema.empty_table(), -1)
    last = int(delta.version())
    if last < after:
        raise LostHistoryError(f"{spec.name} is at version {last}, and version {after} was processed")
    files = _filesystem(lake, spec)
    parquet = pa_dataset.ParquetFileFormat()
    fragments: list[pa_dataset.Fragment] = []
    found, version = 0, after
    for version in range(after + 1, last + 1):
        for add in _added(files, spec, version):
            if add["partitionValues"]["tenant"] != lake.tenant:
                continue
            part = [pc.field(name) == value for name, value in add["partitionValues"].items()]
            fragments.append(
                parquet.make_fragment(unquote(add["path"]), filesystem=files, partition_expression=_all(part))
            )
            found += json.loads(add.get("stats") or "{}").get("numRecords", 0)
        if found >= max_rows:
            break
    try:
        rows = pa_dataset.FileSystemDataset(fragments, spec.schema, parquet, files).to_table()
    except FileNotFoundError as problem:
        raise LostHistoryError(f"{spec.name}: a file of version {version} or before is gone: {problem}") from problem
    except OSError as problem:
        raise LakeError(f"table {spec.name} is damaged: {problem}") from problem
    return Fresh(rows.cast(spec.schema), version)


def rows_at(lake: Lake, spec: TableSpec, delta: DeltaTable | None, column: str, times: Sequence[int]) -> pa.Table:
    """Rows whose ``column`` (UTC microseconds, the one that ``date`` is made of) is one of ``times``.

    Only the files that can hold such a time are opened.

    Raises:
        LakeError: the table is damaged.
    """
    if delta is None or not times:
        return spec.schema.empty_table()
    wanted = np.unique(np.asarray(times, dtype=np.int64))
    files, parquet = _filesystem(lake, spec), pa_dataset.ParquetFileFormat()
    asked = pc.field(column).isin(pa.array(wanted))

    def dataset(some: list[pa_dataset.Fragment]) -> pa_dataset.FileSystemDataset:
        return pa_dataset.FileSystemDataset(some, spec.schema, parquet, files)

    try:
        fragments = [
            parquet.make_fragment(unquote(path), filesystem=files, partition_expression=_all(part))
            for path, part in _candidates(lake, spec, delta, column, wanted)
        ]
        # Only files that really hold one of the times are read as a whole: the first look is at one column.
        held = [one for one in fragments if dataset([one]).count_rows(filter=asked)]
        return dataset(held).to_table(filter=asked).cast(spec.schema)
    except (OSError, DeltaError) as problem:
        raise LakeError(f"table {spec.name} is damaged: {problem}") from problem


def _candidates(
    lake: Lake, spec: TableSpec, delta: DeltaTable, column: str, wanted: npt.NDArray[np.int64]
) -> list[tuple[str, list[pc.Expression]]]:
    """Path and place of the tenant's files that can hold one of the times, by the statistics in the log."""
    added = pa.table(delta.get_add_actions(flatten=True))
    if not added.num_rows:
        return []
    added = added.filter(pc.equal(added.column("partition.tenant"), lake.tenant))
    if f"min.{column}" in added.column_names:
        low, high = (added.column(f"{end}.{column}").to_numpy(zero_copy_only=False) for end in ("min", "max"))
        # A file without statistics has NaN here, which is in no order with anything: it is looked into.
        known = ~(np.isnan(low.astype(np.float64)) | np.isnan(high.astype(np.float64)))
        lows, highs = (np.where(known, ends, 0).astype(np.int64) for ends in (low, high))
        inside = np.searchsorted(wanted, lows, "left") < np.searchsorted(wanted, highs, "right")
        added = added.filter(pa.array(inside | ~known))
    parts = [added.column(f"partition.{name}").to_pylist() for name in spec.partition_by]
    return [
        (path, [pc.field(name) == value for name, value in zip(spec.partition_by, values, strict=True)])
        for path, *values in zip(added.column("path").to_pylist(), *parts, strict=True)
    ]


def time_ranges(times: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """A few ranges that hold all of the times (ascending, not empty), parted where the gaps between them are widest."""
    gaps = np.diff(times)
    widest = np.argsort(gaps, kind="stable")[::-1][: _MAX_RANGES - 1]
    # Times that are neighbours anyway are not worth a range of their own.
    cuts = np.sort(widest[gaps[widest] > 1_000_000])
    firsts, lasts = np.append(0, cuts + 1), np.append(cuts, len(times) - 1)
    return [(int(times[low]), int(times[high])) for low, high in zip(firsts, lasts, strict=True)]


def _added(files: pa_fs.FileSystem, spec: TableSpec, version: int) -> list[dict[str, Any]]:
    path = f"_delta_log/{version:020d}.json"
    try:
        with files.open_input_stream(path) as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError as problem:
        raise LostHistoryError(f"{spec.name}: the log of version {version} is gone") from problem
    actions = [json.loads(line)["add"] for line in lines if line.startswith(b'{"add"')]
    return [action for action in actions if action["dataChange"]]


def _all(expressions: Sequence[pc.Expression]) -> pc.Expression:
    result = expressions[0]
    for expression in expressions[1:]:
        result &= expression
    return result


def _filesystem(lake: Lake, spec: TableSpec) -> pa_fs.FileSystem:
    # Arrow's own instead of the one that deltalake hands it: see Lake.
    base, path = pa_fs.FileSystem.from_uri(f"{lake.root}/{spec.path}")
    return pa_fs.SubTreeFileSystem(path, base)
