"""Merging the small files of a table, in the order they are or along a Z-curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from rlaas.lake.datafiles import DataFile, discard, exchange, live_files, read_files, write_file
from rlaas.lake.schemas import TableSpec

__all__ = ["TARGET_BYTES", "Compacted", "compact", "z_order"]

TARGET_BYTES = 128 * 2**20
"""Size that files are merged up to."""
_BITS = 16


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done to the files of a table; rows are untouched.

    Attributes:
        removed: files that were merged away.
        added: files that took their place.
    """

    removed: int = 0
    added: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(self.removed + other.removed, self.added + other.added)


def compact(
    open_table: Callable[[], DeltaTable],
    location: str,
    spec: TableSpec,
    where: Mapping[str, str],
    *,
    target_bytes: int = TARGET_BYTES,
    order_by: Sequence[str] = (),
) -> Compacted:
    """Merge the small files of some partitions, one commit for each partition that has any.

    A file smaller than half the target is small. Writers may go on meanwhile: they never wait nor fail, and what they
    add is left for the next time. Where somebody else merged or removed one of the files first, the merged file is
    thrown away.

    Args:
        open_table: opens the newest state of the table.
        location: folder or URL of the table.
        spec: declaration of the table.
        where: values of partition columns.
        target_bytes: size to merge up to.
        order_by: sort the rows along a Z-curve through these columns; all files of a partition count as small then.

    Raises:
        LakeError: a file cannot be read or written, or others committed before every attempt.
    """
    done = Compacted()
    partitions: defaultdict[tuple[str, ...], list[DataFile]] = defaultdict(list)
    for file in live_files(open_table(), where):
        partitions[tuple(file.partition[key] for key in spec.partition_by)].append(file)
    for _, files in sorted(partitions.items()):
        small = files if order_by else [file for file in files if file.size < target_bytes // 2]
        bins = [part for part in _bins(small, target_bytes) if len(part) > 1 or order_by]
        if not bins:
            continue
        merged = [
            write_file(location, spec, _merged(location, spec, part, order_by), part[0].partition) for part in bins
        ]
        gone = [file for part in bins for file in part]
        if exchange(open_table, gone, merged, metadata={"rlaas": "z-order" if order_by else "compaction"}):
            done += Compacted(len(gone), len(merged))
        else:
            discard(location, merged)
    return done


def _merged(
    location: str, spec: TableSpec, files: Sequence[DataFile], order_by: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    scanner = read_files(location, spec, files)
    if not order_by:
        yield from scanner.to_batches()
        return
    rows = scanner.to_table().combine_chunks()
    yield from rows.take(pa.array(z_order(rows, order_by))).to_batches(max_chunksize=65_536)


def _bins(files: Iterable[DataFile], target_bytes: int) -> Iterator[list[DataFile]]:
    """Files in groups that together are no larger than the target."""
    held: list[DataFile] = []
    size = 0
    for file in sorted(files, key=lambda file: (file.size, file.path)):
        if held and size + file.size > target_bytes:
            yield held
            held, size = [], 0
        held.append(file)
        size += file.size
    if held:
        yield held


def z_order(rows: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """The order of rows [n] along a Z-curve (Morton, 1966) through the ranks of some columns.

    Rows that are near in all of the columns come to lie near each other, so that a reader who looks for a value of any
    of them skips most of a file. Null counts as the smallest value.
    """
    key = np.zeros(rows.num_rows, dtype=np.uint64)
    bits = min(_BITS, 64 // len(columns))
    for place, name in enumerate(columns):
        ranks = _ranks(rows.column(name))
        top = max(int(ranks.max(initial=0)), 1)
        # Ranks are stretched over all the bits, so that columns with few and with many values count alike.
        scaled = (ranks * ((1 << bits) - 1) // top).astype(np.uint64)
        for bit in range(bits):
            found = (scaled >> np.uint64(bit)) & np.uint64(1)
            key |= found << np.uint64(bit * len(columns) + (len(columns) - 1 - place))
    return np.argsort(key, kind="stable")


def _ranks(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank_of = np.empty(len(order), dtype=np.int64)
    rank_of[order] = np.arange(1, len(order) + 1)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(codes < 0, 0, rank_of[codes] if len(order) else 0)
