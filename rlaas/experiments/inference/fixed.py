"""Tests that are looked at once, at a sample size fixed beforehand: proportions, means, tables of counts.

They are the most powerful where that rule is kept, and wrong where it is not: looking daily and stopping at the first
p < 0.05 is wrong far more often than in one case of twenty. See :mod:`~rlaas.experiments.inference.sequences`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.comparison import numeric
from rlaas.experiments.inference.checks import Side, checked_counts, checked_level, checked_number, checked_side
from rlaas.experiments.inference.moments import Moments

__all__ = ["FixedResult", "chi_square", "proportions_z_test", "welch_test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedResult:
    """Treatment minus control, looked at once.

    Attributes:
        effect: treatment - control.
        low, high: confidence interval; infinite on the open side of a one-sided one.
        statistic: z or t.
        p_value: of effect = null against the alternative.
        degrees: of freedom of Student's distribution; infinite for a z test.
    """

    effect: float
    low: float
    high: float
    statistic: float
    p_value: float
    degrees: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite is null."""
        values = (self.effect, self.low, self.high, self.statistic, self.p_value, self.degrees)
        names = ("effect", "low", "high", "statistic", "p_value", "degrees")
        return {name: value if math.isfinite(value) else None for name, value in zip(names, values, strict=True)}


def proportions_z_test(
    control: tuple[int, int],
    treatment: tuple[int, int],
    *,
    alternative: Side = "two-sided",
    alpha: float = 0.05,
) -> FixedResult:
    """Difference of two proportions from (successes, trials) of each arm.

    The p-value is of the z test with the pooled proportion; the interval is Newcombe's hybrid of two score intervals
    (1998, method 10), which stays right for rare events. Near the level the two may disagree.

    Raises:
        InvalidInputError: impossible counts, or an arm without trials.
    """
    side, level = checked_side(alternative), checked_level(alpha)
    (x0, n0), (x1, n1) = _arm(control, "control"), _arm(treatment, "treatment")
    p0, p1, pooled = x0 / n0, x1 / n1, (x0 + x1) / (n0 + n1)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1))
    z = (p1 - p0) / error if error > 0 else 0.0
    quantile = float(stats.norm.isf(level / 2 if side == "two-sided" else level))
    (l0, u0), (l1, u1) = _wilson(x0, n0, quantile), _wilson(x1, n1, quantile)
    low = p1 - p0 - math.hypot(p1 - l1, u0 - p0)
    high = p1 - p0 + math.hypot(u1 - p1, p0 - l0)
    return FixedResult(
        effect=p1 - p0,
        low=-math.inf if side == "less" else low,
        high=math.inf if side == "greater" else high,
        statistic=z,
        p_value=_tail(z, side, stats.norm),
        degrees=math.inf,
    )


def welch_test(
    control: Moments,
    treatment: Moments,
    *,
    null: float = 0.0,
    alternative: Side = "two-sided",
    alpha: float = 0.05,
) -> FixedResult:
    """Difference of two means by Welch's t-test, from moments.

    Raises:
        InvalidInputError: fewer than 2 observations of an arm, or no spread in either.
    """
    side, level, base = checked_side(alternative), checked_level(alpha), checked_number(null, "null")
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n < 2:
            raise InvalidInputError(f"{name} has {arm.n} observations; expected at least 2", field=name)
    a, b = control.variance / control.n, treatment.variance / treatment.n
    if not a + b > 0:
        raise InvalidInputError("neither arm has any spread; a t-test says nothing", field="treatment")
    degrees = (a + b) ** 2 / (a * a / (control.n - 1) + b * b / (treatment.n - 1))
    error, effect = math.sqrt(a + b), treatment.mean - control.mean
    student = stats.t(degrees)
    half = float(student.isf(level / 2 if side == "two-sided" else level)) * error
    t = (effect - base) / error
    return FixedResult(
        effect=effect,
        low=-math.inf if side == "less" else effect - half,
        high=math.inf if side == "greater" else effect + half,
        statistic=t,
        p_value=_tail(t, side, student),
        degrees=degrees,
    )


def chi_square(table: ArrayLike) -> tuple[float, float, int]:
    """Pearson's test that the rows of a table of counts [arms, categories] have the same distribution.

    Returns:
        Statistic, p-value and degrees of freedom. Without a continuity correction, so that two arms of two categories
        give the square of :func:`proportions_z_test`.

    Raises:
        InvalidInputError: not a table of at least 2 x 2 whole numbers, or an empty row or column.
    """
    counts = numeric(table, "table")
    if counts.ndim != 2 or min(counts.shape) < 2:
        raise InvalidInputError(f"table has shape {counts.shape}; expected at least (2, 2)", field="table")
    checked_counts(counts.ravel(), "table", counts.size)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    if not (rows > 0).all() or not (columns > 0).all():
        raise InvalidInputError("table has a row or column without counts; leave it out", field="table")
    expected = np.outer(rows, columns) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return statistic, float(stats.chi2.sf(statistic, degrees)), degrees


def _arm(counts: Any, field: str) -> tuple[int, int]:
    if np.shape(counts) != (2,):
        raise InvalidInputError(f"{field} is {shown(counts)}; expected (successes, trials)", field=field)
    x, n = checked_counts(np.array(counts), field, 2).tolist()
    if not 0 <= x <= n or not n:
        raise InvalidInputError(f"{field} has {x} successes in {n} trials", field=field)
    return x, n


def _wilson(x: int, n: int, z: float) -> tuple[float, float]:
    p = x / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def _tail(value: float, side: Side, distribution: Any) -> float:
    if side == "two-sided":
        return min(1.0, float(2 * distribution.sf(abs(value))))
    return float(distribution.sf(value) if side == "greater" else distribution.cdf(value))
