"""Making a comparison sharper without moving it: winsorising, and what the time before the experiment explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.experiments.metrics import Winsorising

__all__ = ["Cuped", "Thresholds", "cuped_slope", "thresholds", "winsorised"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Ends to which values are pulled in.

    Attributes:
        low, high: the ends.
        share: of the values that were beyond them.
    """

    low: float
    high: float
    share: float


@dataclass(frozen=True, slots=True)
class Cuped:
    """What a covariate explains (Deng, Xu, Kohavi & Walker 2013).

    Attributes:
        covariate: its name.
        theta: units of the metric per unit of the covariate; 0 where the covariate does not vary.
        variance_reduction: share of the variance that is gone, in [0, 1].
        n_imputed: units without the covariate, which got its mean.
    """

    covariate: str
    theta: float
    variance_reduction: float
    n_imputed: int


def thresholds(values: FloatArray, rule: Winsorising) -> Thresholds:
    """Where values [n] of all arms together are to be cut.

    From the pooled values, so that both arms are cut alike; quantiles that are values themselves (the lower end takes
    the next one up, the upper end the next one down), so that a long tail cannot pull its own threshold out.
    """
    low = float(np.quantile(values, rule.lower, method="higher"))
    high = float(np.quantile(values, rule.upper, method="lower"))
    # With few values the two can cross; nothing is left to cut then but the order of the ends.
    low, high = min(low, high), max(low, high)
    return Thresholds(low, high, float(((values < low) | (values > high)).mean()))


def winsorised(values: FloatArray, ends: Thresholds) -> FloatArray:
    """Values [n] pulled in to the ends."""
    return np.clip(values, ends.low, ends.high)


def cuped_slope(
    name: str, influence: FloatArray, covariate: Sequence[float | None], arm: IntArray
) -> tuple[Cuped, FloatArray]:
    """The slope of the metric on a covariate, and the covariate [n] without its mean.

    The slope is pooled within arms, which makes the adjusted difference of means the coefficient of the arm in a
    regression of the metric on arm and covariate (analysis of covariance). A missing covariate becomes the mean of the
    others and so explains nothing.

    Args:
        name: of the covariate.
        influence: value of each unit, or of a ratio N - R D over mean(D) [n].
        covariate: of each unit from before its exposure [n]; None where it is missing.
        arm: number of each unit's arm [n].

    Raises:
        InvalidInputError: no unit has the covariate.
    """
    known = np.array([value is not None for value in covariate], dtype=np.bool_)
    if not known.any():
        raise InvalidInputError(f"no unit has covariate {name!r}; leave cuped out or record it", field="cuped")
    x = np.array([0.0 if value is None else value for value in covariate], dtype=np.float64)
    x = np.where(known, x - x[known].mean(), 0.0)
    within_x, within_y = _centred(x, arm), _centred(influence, arm)
    spread, total = float(within_x @ within_x), float(within_y @ within_y)
    theta = float(within_x @ within_y) / spread if spread > 0 else 0.0
    left = within_y - theta * within_x
    reduction = max(1 - float(left @ left) / total, 0.0) if total > 0 else 0.0
    return Cuped(name, theta, reduction, int((~known).sum())), x


def _centred(values: FloatArray, arm: IntArray) -> FloatArray:
    """Values [n] less the mean of their arm."""
    sizes = np.bincount(arm)
    means = np.bincount(arm, weights=values) / np.maximum(sizes, 1)
    return np.asarray(values - means[arm])
