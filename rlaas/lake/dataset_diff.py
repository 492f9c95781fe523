"""What two named datasets have in common, and what not: rows, columns, distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import InvalidInputError
from rlaas.lake.datasets import dataset, read_dataset
from rlaas.lake.distribution import ColumnShift, column_shifts
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["DatasetDiff", "diff_datasets"]


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """The way from one dataset to another.

    Attributes:
        left: name of the first.
        right: name of the second.
        rows: number of rows of both.
        added: rows of the second whose key the first does not have.
        removed: rows of the first whose key the second does not have.
        changed: rows with a key of both that say something else in a column of both.
        columns_added: columns of the second that the first does not have.
        columns_removed: columns of the first that the second does not have.
        types_changed: columns of both whose type differs, as ``name: left -> right``.
        shifts: distributions of the columns of both, the most shifted first.
    """

    left: str
    right: str
    rows: tuple[int, int]
    added: int
    removed: int
    changed: int
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    types_changed: tuple[str, ...]
    shifts: tuple[ColumnShift, ...]


def diff_datasets(lake: Lake, left: str, right: str) -> DatasetDiff:
    """Compare two datasets; rows are told apart by the columns that order their table.

    Args:
        lake: the tables.
        left: name of the first.
        right: name of the second.

    Raises:
        NotFoundError: no such dataset, or its rows are gone.
        InvalidInputError: they share no column that rows could be told apart by.
        LakeError: a dataset is damaged.
    """
    records = dataset(lake, left), dataset(lake, right)
    rows = read_dataset(lake, left), read_dataset(lake, right)
    first, second = (dict(record.columns) for record in records)
    shared = [name for name in first if second.get(name) == first[name]]
    keys = [name for name in table_spec(records[0].table).order_by if name in shared]
    if not keys:
        raise InvalidInputError(
            f"{left} and {right} share none of {', '.join(table_spec(records[0].table).order_by)}, by which rows are "
            "told apart",
            field="dataset",
        )
    codes = _codes(rows[0].select(keys), rows[1].select(keys))
    common, at_left, at_right = np.intersect1d(codes[0], codes[1], return_indices=True)
    changed = np.zeros(len(common), dtype=np.bool_)
    for name in shared:
        changed |= _differs(rows[0].column(name).take(pa.array(at_left)), rows[1].column(name).take(pa.array(at_right)))
    return DatasetDiff(
        left=left,
        right=right,
        rows=(rows[0].num_rows, rows[1].num_rows),
        added=int((~np.isin(codes[1], common)).sum()),
        removed=int((~np.isin(codes[0], common)).sum()),
        changed=int(changed.sum()),
        columns_added=tuple(name for name in second if name not in first),
        columns_removed=tuple(name for name in first if name not in second),
        types_changed=tuple(
            f"{name}: {first[name]} -> {second[name]}"
            for name in first
            if name in second and first[name] != second[name]
        ),
        shifts=tuple(column_shifts(*rows)),
    )


def _codes(left: pa.Table, right: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Equal keys of both tables as equal numbers."""
    both = pa.concat_tables([left, right])
    codes = np.zeros(both.num_rows, dtype=np.int64)
    for column in both.columns:
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        ranks = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # Ranked again after each column, so that the product cannot overflow.
        codes = np.unique(codes * (int(ranks.max(initial=0)) + 1) + ranks, return_inverse=True)[1]
    return codes[: left.num_rows], codes[left.num_rows :]


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    if pa.types.is_nested(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.fromiter((one != other for one, other in pairs), dtype=np.bool_, count=len(left))
    same = pc.fill_null(pc.equal(left, right), False)
    both_null = pc.and_(left.is_null(), right.is_null())
    return np.asarray(~pc.or_(same, both_null).to_numpy())
