"""Intervals of off-policy values, whose rows are skewed and whose largest weights may not have been drawn at all.

Student's interval fails there in two ways: a few rows make up the variance, and the rows that would pull the mean up
are missing from the sample that it is judged by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["per_unit", "skewed_interval", "standard_error", "t_quantile", "unlogged_share", "value_in_range"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_DIAGNOSIS = 0.95
"""Level at which a mean weight below 1 counts as missing; its own, so that higher confidence never narrows."""


def per_unit(values: FloatArray, unit: IntArray | None) -> FloatArray:
    """Sums of row values [n] by unit [n_units]; without units the rows themselves."""
    return values if unit is None else np.bincount(unit, weights=values).astype(np.float64)


def t_quantile(confidence: float, degrees: float) -> float:
    """Two-sided quantile of Student's distribution."""
    # From the tail: 0.5 + confidence / 2 rounds to 1 where the confidence is close to it.
    return float(stats.t.isf((1 - confidence) / 2, degrees))


def standard_error(sums: FloatArray, n: int) -> float:
    """Of a mean over ``n`` rows, from each unit's summed deviations [n_units], which sum to 0."""
    units = len(sums)
    return float(np.sqrt(sums @ sums * units / (units - 1)) / n)


def skewed_interval(sums: FloatArray, n: int, confidence: float) -> tuple[float, float]:
    """Lower and upper end relative to the mean, from each unit's summed deviations [n_units].

    The wider at each end of two: Student's, and Hall's (1992, "On the removal of skewness by transformation", the cubic
    one), which reaches further on the side of the long tail. Both have the degrees of freedom of the variance estimate
    by its fourth moment (Satterthwaite 1946): a variance made up by three rows is known like that of three.
    """
    units, error = len(sums), standard_error(sums, n)
    if error == 0:
        return 0.0, 0.0
    tail = t_quantile(confidence, _degrees(sums))
    half = tail * error
    slope = float((_scaled(sums) ** 3).mean()) / np.sqrt(units)

    def cubic(t: float) -> float:
        """Inverse of Hall's transformation: what t statistic a normal value stands for."""
        return t if abs(slope) < 1e-6 else float(3 / slope * (np.cbrt(1 + slope * (t - slope / 6)) - 1))

    return min(-half, -error * cubic(tail)), max(half, -error * cubic(-tail))


def unlogged_share(weight: FloatArray, unit: IntArray | None) -> float:
    """Share of the evaluation policy's choices that the log does not show: 1 - mean weight, where that is no chance.

    Weights average 1 in expectation. A mean significantly below says that what the policy would do is not logged, by
    design or because it is drawn rarely; the two look the same.
    """
    mean = float(weight.mean())
    sums = per_unit(weight - mean, unit)
    error = standard_error(sums, len(weight))
    return 1 - mean if mean + (t_quantile(_DIAGNOSIS, _degrees(sums)) * error if error > 0 else 0.0) < 1 else 0.0


def _scaled(sums: FloatArray) -> FloatArray:
    """To unit variance, so that powers stay within floating point."""
    return sums / np.sqrt(sums @ sums / len(sums))


def _degrees(sums: FloatArray) -> float:
    """Degrees of freedom of the variance of sums [n_units]: 2 n / (kurtosis - 1), at least 1 and at most n - 1."""
    units = len(sums)
    kurtosis = float((_scaled(sums) ** 4).mean())
    return min(max(2 * units / max(kurtosis - 1, 1e-9), 1.0), units - 1.0)


def value_in_range(
    reward: FloatArray,
    weight: FloatArray,
    unit: IntArray | None,
    reward_range: tuple[float, float],
    confidence: float,
) -> tuple[float, float]:
    """Interval of the value where rewards lie in a known range, however much of the weight was not drawn.

    With E[w] = 1 the value is low + E[w (r - low)] and also high - E[w (high - r)]. Both are means of values >= 0 with
    a long right tail, of which Student's lower bound errs on the safe side: what was not drawn can only add.
    """
    n, (low, high) = len(weight), reward_range

    def least(values: FloatArray) -> float:
        mean = float(values.mean())
        sums = per_unit(values - mean, unit)
        return max(mean - t_quantile(confidence, len(sums) - 1) * standard_error(sums, n), 0.0)

    return low + least(weight * (reward - low)), high - least(weight * (high - reward))
