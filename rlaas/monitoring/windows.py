"""Has one column of a window another distribution than in the reference? Many columns of a million rows in a second.

* Kolmogorov-Smirnov: the distance, and to 2e-6 the p-value, of ``scipy.stats.ks_2samp(..., method="asymp")``. The
  reference is sorted once; of a sorted window only those parts are passed through where the largest distance can lie.
* Population stability index over bins of equal share of the reference: ``sum (p - q) ln(p / q)``
  (Siddiqi, "Credit Risk Scorecards"); 0.1 is small and 0.25 is large by the usual rule.
* Chi-square for counts of discrete actions: equal to ``scipy.stats.chi2_contingency(..., correction=False)``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from rlaas.errors import InvalidInputError

__all__ = ["ColumnReference", "ColumnShift", "chi_square", "psi_of_counts"]

FloatArray = NDArray[np.float64]
_FLOOR = 1e-4
_TOGETHER = 8
"""Columns taken out of rows at a time: one cache line of numbers."""
_MOST_BINS, _MANY_PAIRS = 8192, 10_000


@dataclass(frozen=True, slots=True)
class ColumnShift:
    """How a column of the window lies to the reference.

    Attributes:
        statistic: largest distance between the distribution functions.
        p_value: of it, asymptotic.
        psi: population stability index.
        shift: of the mean, in standard deviations of the reference.
    """

    statistic: float
    p_value: float
    psi: float
    shift: float


class ColumnReference:
    """Columns of the reference, sorted and cut into bins of equal share.

    Args:
        values: [n, columns]; those that are no finite number are left out.
        workers: threads; default as many as there are processors.

    Raises:
        InvalidInputError: not a matrix, or a column without a finite number.
    """

    def __init__(self, values: ArrayLike, *, workers: int | None = None) -> None:
        rows = _matrix(values, "reference")
        self.workers = workers or _processors()
        with ThreadPoolExecutor(self.workers) as pool:
            parts = pool.map(lambda start: _columns(rows, start), range(0, rows.shape[1], _TOGETHER))
            self.columns = list(pool.map(_Binned, [column for part in parts for column in part]))
        for index, column in enumerate(self.columns):
            if not len(column.values):
                raise InvalidInputError(f"column {index} holds no finite number", field=f"reference.{index}")

    def compare(self, window: ArrayLike, *, bins: int = 10) -> list[ColumnShift]:
        """Compare each column of a window [m, columns] with that of the reference.

        Args:
            window: values that are no finite number are left out.
            bins: of the population stability index.

        Raises:
            InvalidInputError: another number of columns, or a column without a finite number.
        """
        rows = _matrix(window, "window")
        if rows.shape[1] != len(self.columns):
            raise InvalidInputError(
                f"the window has {rows.shape[1]} columns and the reference {len(self.columns)}", field="window"
            )

        def part(start: int) -> list[tuple[float, float, float, int]]:
            columns = _columns(rows, start)
            return [self.columns[start + i].against(column, bins) for i, column in enumerate(columns)]

        with ThreadPoolExecutor(self.workers) as pool:
            found = [one for some in pool.map(part, range(0, rows.shape[1], _TOGETHER)) for one in some]
        for index, (*_, size) in enumerate(found):
            if not size:
                raise InvalidInputError(f"column {index} holds no finite number", field=f"window.{index}")
        sizes = np.array([[len(c.values), one[3]] for c, one in zip(self.columns, found, strict=True)])
        pairs = np.round(sizes[:, 0] * sizes[:, 1] / sizes.sum(axis=1)).astype(np.int64)
        p_values = _tails(np.array([one[0] for one in found]), np.maximum(pairs, 1))
        return [
            ColumnShift(distance, float(p), index, shift)
            for (distance, index, shift, _), p in zip(found, p_values, strict=True)
        ]


class _Binned:
    """One column of the reference.

    The distance of the distribution functions is known at the edges of the bins once the window is counted into them;
    between two edges it can be larger than at them by no more than what lies there. Only where that may exceed the
    largest that is known are the values looked at, which is a small part of them.
    """

    def __init__(self, column: FloatArray) -> None:
        self.values = column = _ordered(column)
        if not len(column):
            return
        self.mean, self.spread = float(column.mean()), float(column.std())
        bins = max(2, min(_MOST_BINS, len(column) // 64))
        self.edges = np.unique(column[np.arange(1, bins) * len(column) // bins])
        self.below = np.searchsorted(column, self.edges, side="left")

    def against(self, column: FloatArray, bins: int) -> tuple[float, float, float, int]:
        """Distance, stability index, shift of the mean and number of values of a window's column [m], in any order."""
        window = _ordered(column)
        if not len(self.values) or not len(window):
            return 0.0, 0.0, 0.0, len(window)
        below = np.searchsorted(window, self.edges, side="left")
        moved = float(window.mean()) - self.mean
        shift = moved / self.spread if self.spread > 0 else float(np.sign(moved)) * np.inf if moved else 0.0
        distance = float(_distance(self.values, self.below, window, below))
        return distance, self._psi(window, below, bins), shift, len(window)

    def _psi(self, window: FloatArray, below: NDArray[np.int64], bins: int) -> float:
        n, size = len(self.values), len(window)
        cuts = np.unique(np.searchsorted(self.below, (np.arange(1, bins) * n) // bins, side="right") - 1).clip(0)
        before, now = self.below[cuts], below[cuts]
        # A value that many have gets a bin of its own: otherwise it would share one with all that is above it.
        upto = np.searchsorted(self.values, self.edges[cuts], side="right")
        tied = upto - before >= n / (2 * bins)
        if tied.any():
            here = np.searchsorted(window, self.edges[cuts][tied], side="right")
            before, places = np.unique(np.concatenate([before, upto[tied]]), return_index=True)
            now = np.concatenate([now, here])[places]
        return psi_of_counts(np.diff(before, prepend=0, append=n), np.diff(now, prepend=0, append=size))


def _ordered(column: FloatArray) -> FloatArray:
    """A copy of a column, put in order where it lies: another one would cost as much as half of the sorting."""
    ordered = column
    ordered.sort()
    # NaN sorts behind everything, infinities at the ends.
    if len(ordered) and not (np.isfinite(ordered[0]) and np.isfinite(ordered[-1])):
        ordered = ordered[np.isfinite(ordered)]
    return ordered


def psi_of_counts(reference: ArrayLike, window: ArrayLike) -> float:
    """Population stability index of counts [k]; a share below 1e-4 counts as that."""
    p, q = (np.asarray(counts, dtype=np.float64) for counts in (reference, window))
    p, q = (np.maximum(counts / max(counts.sum(), 1.0), _FLOOR) for counts in (p, q))
    return float(np.sum((q - p) * np.log(q / p)))


def chi_square(reference: Sequence[float], window: Sequence[float]) -> tuple[float, float]:
    """Statistic and p-value of the homogeneity of two rows of counts [k]; classes that nobody chose are left out."""
    table = np.array([reference, window], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0, 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic, float(stats.chi2.sf(statistic, table.shape[1] - 1))


def _tails(distance: FloatArray, pairs: NDArray[np.int64]) -> FloatArray:
    """P-values [n] of distances [n] with so many pairs ``n m / (n + m)``.

    SciPy's exact sum takes a time in proportion to the pairs, hundreds of milliseconds at a million rows. From 10,000
    on it is Kolmogorov's limit with the correction of Vrbik (2018), which is within 2e-6 of it.
    """
    root = np.sqrt(pairs)
    z = distance * root
    found = special.kolmogorov(np.maximum(z + 1 / (6 * root) + (z - 1) / (4 * pairs), 0.0))
    few = pairs < _MANY_PAIRS
    if few.any():
        found[few] = stats.kstwo.sf(distance[few], pairs[few])
    return np.asarray(np.clip(found, 0.0, 1.0))


def _matrix(values: ArrayLike, what: str) -> FloatArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or not rows.size:
        raise InvalidInputError(f"a {what} must be a matrix with rows, got shape {rows.shape}", field=what)
    return rows


def _columns(rows: FloatArray, start: int) -> FloatArray:
    """Copies of some columns [k, n] of rows [n, columns], each in one piece."""
    part = rows[:, start : start + _TOGETHER]
    columns = np.empty(part.shape[::-1])
    if part.flags.f_contiguous:
        columns[:] = part.T
    else:
        _transpose(part, columns)
    return columns


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _transpose(rows: FloatArray, columns: FloatArray) -> None:
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            columns[j, i] = rows[i, j]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distance(
    values: FloatArray, below: NDArray[np.int64], window: FloatArray, window_below: NDArray[np.int64]
) -> float:
    """Largest distance between the empirical distribution functions of two sorted samples.

    Args:
        values, window: the samples.
        below, window_below: how many of each are below the edges of the bins.
    """
    n, m, edges = len(values), len(window), len(below)
    largest = 0.0
    for b in range(edges):
        largest = max(largest, abs(below[b] / n - window_below[b] / m))
    for b in range(edges + 1):
        i, j = (0, 0) if b == 0 else (below[b - 1], window_below[b - 1])
        end, window_end = (n, m) if b == edges else (below[b], window_below[b])
        if max(abs(end / n - j / m), abs(i / n - window_end / m)) <= largest:
            continue
        while i < end or j < window_end:
            x = values[i] if j == window_end or (i < end and values[i] <= window[j]) else window[j]
            while i < end and values[i] <= x:
                i += 1
            while j < window_end and window[j] <= x:
                j += 1
            largest = max(largest, abs(i / n - j / m))
    return largest


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
