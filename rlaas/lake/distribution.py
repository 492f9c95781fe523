"""How the values of columns are distributed, and how far two of them are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["ColumnShift", "column_shifts", "stability_index"]

_BINS = 10
_WIDEST = 256
"""Elements of a list column that are looked at one by one."""
_QUANTILES = (0.05, 0.5, 0.95)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColumnShift:
    """One column (an element of a list, an entry of a map) in two datasets.

    Attributes:
        column: ``step``, ``observation[3]``, ``outcome.latency``.
        psi: population stability index, see :func:`stability_index`; below 0.1 is commonly called stable, above 0.25
            shifted.
        nulls: share of rows without a value, in both.
        mean: of numbers, in both; None for texts and where there are no values.
        quantiles: 5, 50 and 95 % of numbers, in both; None likewise.
        distinct: number of different values, in both.
    """

    column: str
    psi: float
    nulls: tuple[float, float]
    mean: tuple[float | None, float | None]
    quantiles: tuple[tuple[float, ...] | None, tuple[float, ...] | None]
    distinct: tuple[int, int]


def stability_index(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Population stability index of two histograms over the same bins [n_bins]: sum of (p - q) ln(p / q).

    It is the Jeffreys divergence (Jeffreys, 1946) of the two. Half a count is added to each bin, so that an empty one
    does not make it infinite (Yurdakul and Naranjo, 2020, discuss its distribution).
    """
    p, q = np.asarray(left, dtype=np.float64) + 0.5, np.asarray(right, dtype=np.float64) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def column_shifts(left: pa.Table, right: pa.Table) -> list[ColumnShift]:
    """Compare the columns that two tables share, those that shifted most first."""
    found = []
    for field in left.schema:
        if field.name in right.column_names and right.schema.field(field.name).type.equals(field.type):
            one, other = dict(_parts(field.name, left)), dict(_parts(field.name, right))
            found += [
                _shift(name, one.get(name), other.get(name), left.num_rows, right.num_rows)
                for name in (*one, *(name for name in other if name not in one))
            ]
    return sorted(found, key=lambda shift: (-shift.psi, shift.column))


def _parts(name: str, rows: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """The column as columns of single values, without nulls."""
    column = rows.column(name).combine_chunks()
    kind = column.type
    if pa.types.is_map(kind):
        entries = column.drop_null().cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))).flatten()
        keys, values = pc.struct_field(entries, [0]), pc.struct_field(entries, [1])
        for key in sorted(keys.unique().to_pylist()):
            yield f"{name}.{key}", values.filter(pc.equal(keys, key)).drop_null()
    elif pa.types.is_list(kind):
        lists = column.drop_null()
        lengths = pc.list_value_length(lists)
        for place in range(min(pc.max(lengths).as_py() or 0, _WIDEST)):
            yield f"{name}[{place}]", pc.list_element(lists.filter(pc.greater(lengths, place)), place).drop_null()
    else:
        yield name, column.drop_null()


def _shift(name: str, left: pa.Array | None, right: pa.Array | None, left_rows: int, right_rows: int) -> ColumnShift:
    kind = (left if left is not None else right).type  # type: ignore[union-attr]
    one, other = (pa.array([], kind) if values is None else values for values in (left, right))
    nulls = tuple(1 - len(values) / max(rows, 1) for values, rows in ((one, left_rows), (other, right_rows)))
    distinct = (len(one.unique()), len(other.unique()))
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    counts: tuple[Any, Any]
    if numeric:
        a, b = (np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False)) for values in (one, other))
        counts = _histograms(a, b)
        return ColumnShift(
            name,
            stability_index(*counts),
            nulls,  # type: ignore[arg-type]
            (_mean(a), _mean(b)),
            (_quantiles(a), _quantiles(b)),
            distinct,
        )
    texts = tuple(Counter(values.cast(pa.string()).to_pylist()) for values in (one, other))
    # Values that hardly ever occur, such as ids, share a bin: a bin of one each would say nothing.
    common = sorted({value for value, count in (texts[0] + texts[1]).items() if count >= _BINS})
    counts = tuple([*(seen[value] for value in common), seen.total() - sum(seen[v] for v in common)] for seen in texts)  # type: ignore[assignment]
    return ColumnShift(name, stability_index(*counts), nulls, (None, None), (None, None), distinct)  # type: ignore[arg-type]


def _histograms(left: Floats, right: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Counts of both over the deciles of the first."""
    left, right = left[np.isfinite(left)], right[np.isfinite(right)]
    base = left if len(left) else right
    if not len(base):
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    edges = np.unique(np.quantile(base, np.linspace(0, 1, _BINS + 1)[1:-1]))
    # A value that is an edge itself lies in a bin of its own side: columns of a few numbers keep them apart.
    bins = len(edges) + 1
    return (
        np.bincount(np.searchsorted(edges, left, side="left"), minlength=bins),
        np.bincount(np.searchsorted(edges, right, side="left"), minlength=bins),
    )


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _quantiles(values: Floats) -> tuple[float, ...] | None:
    return tuple(float(value) for value in np.quantile(values, _QUANTILES)) if len(values) else None
