"""Two arms set against each other: treatment - k control + shift, with an interval at any level.

With k = 1 and no shift it is the effect; a margin of non-inferiority is a k or a shift, so that one arithmetic serves
comparisons and guardrails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError

__all__ = ["ArmMean", "ArmQuantile", "Contrast", "arm_mean", "arm_quantile", "contrast", "ratio_influence"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ArmMean:
    """A mean, or ratio of sums, of independent units.

    Attributes:
        n: units.
        value: the mean.
        variance: of the value.
    """

    n: int
    value: float
    variance: float


@dataclass(frozen=True, slots=True)
class ArmQuantile:
    """A quantile of values, several of which may be one unit's.

    Attributes:
        n: units with a value.
        value: the quantile.
        ordered: all values, ascending [n_values].
        quantile: which one, in (0, 1).
        spread: standard error of the share of values at or below the quantile.
    """

    n: int
    value: float
    ordered: FloatArray
    quantile: float
    spread: float

    def interval(self, tail: float) -> tuple[float, float]:
        """Ends that the quantile is beyond with probability ``tail`` each (Woodruff 1952).

        Raises:
            InvalidInputError: so few units that an end lies beyond all values.
        """
        reach = float(stats.t.isf(tail, self.n - 1)) * self.spread
        below, above = self.quantile - reach, self.quantile + reach
        if below <= 0 or above >= 1:
            raise InvalidInputError(
                f"{self.n} units are too few for an interval of quantile {self.quantile:g}: it reaches beyond all "
                "values; wait for more units",
                field="quantile",
            )
        low = np.quantile(self.ordered, below, method="inverted_cdf")
        high = np.quantile(self.ordered, above, method="higher")
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Contrast:
    """An estimated difference.

    Attributes:
        value: the estimate.
        low, high: ends that the truth is beyond with the asked probability each.
        p_value: two-sided, of a true difference of 0.
    """

    value: float
    low: float
    high: float
    p_value: float


def arm_mean(name: str, numerator: FloatArray, denominator: FloatArray | None, shift: FloatArray | None) -> ArmMean:
    """Mean of the units of an arm, or the ratio of their sums, whose variance the delta method gives.

    A unit of a ratio R = sum(N) / sum(D) enters by (N - R D) / mean(D) (Deng, Knoblich & Lu 2018).

    Args:
        name: of the arm.
        numerator: of each unit [n].
        denominator: of each unit of a ratio [n]; None for a mean.
        shift: taken off each unit [n], in the unit of the mean; it averages 0 in expectation.

    Raises:
        InvalidInputError: fewer than 2 units, or denominators that sum to 0.
    """
    n = len(numerator)
    if n < 2:
        raise InvalidInputError(f"arm {name!r} has {n} units; at least 2 are needed", field="arm")
    value, influence = ratio_influence(name, numerator, denominator)
    if shift is not None:
        value -= float(shift.mean())
        influence = influence - (shift - shift.mean())
    return ArmMean(n, value, float(influence @ influence) / (n - 1) / n)


def ratio_influence(name: str, numerator: FloatArray, denominator: FloatArray | None) -> tuple[float, FloatArray]:
    """The ratio of sums, or mean, and what each unit adds to it [n], which sums to 0.

    Raises:
        InvalidInputError: denominators that sum to 0.
    """
    if denominator is None:
        value = float(numerator.mean())
        return value, numerator - value
    below = float(denominator.mean())
    if below <= 0:
        raise InvalidInputError(f"denominators of arm {name!r} sum to 0; its ratio is not defined", field="denominator")
    value = float(numerator.mean()) / below
    return value, (numerator - value * denominator) / below


def arm_quantile(name: str, values: FloatArray, unit: IntArray, quantile: float) -> ArmQuantile:
    """Quantile of the values of an arm, whose units are independent but whose values within a unit are not.

    The share of values at or below the quantile is a ratio of sums over units, and has the variance of one (Deng,
    Knoblich & Lu 2018, section 4).

    Args:
        name: of the arm.
        values: of all units [n_values].
        unit: number of the unit of each value, from 0 without gaps [n_values].
        quantile: in (0, 1).

    Raises:
        InvalidInputError: fewer than 2 units with a value.
    """
    n = int(unit.max()) + 1 if len(unit) else 0
    if n < 2:
        raise InvalidInputError(f"arm {name!r} has {n} units with a value; at least 2 are needed", field="arm")
    ordered = np.sort(values)
    value = float(np.quantile(ordered, quantile, method="inverted_cdf"))
    below = np.bincount(unit, weights=values <= value).astype(np.float64)
    each = np.bincount(unit).astype(np.float64)
    _, influence = ratio_influence(name, below, each)
    return ArmQuantile(n, value, ordered, quantile, math.sqrt(float(influence @ influence) / (n - 1) / n))


def contrast(
    control: ArmMean | ArmQuantile,
    treatment: ArmMean | ArmQuantile,
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    tail: float = 0.025,
) -> Contrast:
    """Treatment - scale x control + shift.

    Means by Welch's t; quantiles from the interval of each, joined so that an end uses the side of each arm that it is
    about (Zou & Donner 2008, MOVER), which keeps the skewness that a quantile of a long tail has.

    Args:
        control: what is compared with.
        treatment: of the same kind.
        scale: factor of the control, >= 0.
        shift: added.
        tail: probability that the truth lies beyond each end, below 0.5.

    Raises:
        InvalidInputError: too few units for the interval of a quantile.
    """
    value = treatment.value - scale * control.value + shift
    if isinstance(control, ArmQuantile) and isinstance(treatment, ArmQuantile):
        (low_c, high_c), (low_t, high_t) = control.interval(tail), treatment.interval(tail)
        down = math.hypot(treatment.value - low_t, scale * (high_c - control.value))
        up = math.hypot(high_t - treatment.value, scale * (control.value - low_c))
        reach = float(stats.norm.isf(tail))
        error = (down if value > 0 else up) / reach
        return Contrast(value, value - down, value + up, _p_value(value, error, math.inf))
    assert isinstance(control, ArmMean)
    assert isinstance(treatment, ArmMean)
    scaled = scale**2 * control.variance
    variance = treatment.variance + scaled
    # Welch-Satterthwaite degrees of freedom, from shares of the variance, whose squares cannot underflow.
    a, b = (treatment.variance / variance, scaled / variance) if variance > 0 else (1.0, 0.0)
    degrees = 1 / (a**2 / (treatment.n - 1) + b**2 / (control.n - 1))
    error = math.sqrt(variance)
    half = float(stats.t.isf(tail, degrees)) * error
    return Contrast(value, value - half, value + half, _p_value(value, error, degrees))


def _p_value(value: float, error: float, degrees: float) -> float:
    if error <= 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) / error, degrees))
