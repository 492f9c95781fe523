"""How many units an experiment needs, what it can find with those it has, and how many days it takes.

Means by Student's noncentral t; proportions by the z test with the pooled proportion under the null and each arm's own
under the alternative (Fleiss, Levin & Paik 2003, ch. 4). A ratio metric is a mean of linearised values: give
:func:`ratio_deviation` as its standard deviation. The options of every test are those of :class:`DesignOptions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from scipy import optimize, stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.inference.checks import Side, checked_level, checked_number, checked_side
from rlaas.experiments.inference.sequences import mixture_radius, planned_ratio

__all__ = [
    "DesignOptions",
    "duration_days",
    "mde_mean",
    "mde_proportion",
    "power_mean",
    "power_proportion",
    "ratio_deviation",
    "sample_size_mean",
    "sample_size_proportion",
    "sequential_inflation",
]

_LARGEST = 1e12
"""Units per arm beyond which an effect counts as out of reach."""


class DesignOptions(TypedDict, total=False):
    """What may be said of a test, by keyword.

    Attributes:
        ratio: units of the treatment per unit of the control; default 1.
        alpha: level of the test; default 0.05.
        alternative: side on which the effect is looked for; default ``two-sided``.
    """

    ratio: float
    alpha: float
    alternative: Side


class _Design(NamedTuple):
    """The options with their defaults, as they were given."""

    ratio: float = 1.0
    alpha: float = 0.05
    alternative: Side = "two-sided"


def power_mean(effect: float, deviation: float, n: float, **options: Unpack[DesignOptions]) -> float:
    """Probability of finding a difference of means.

    Args:
        effect: treatment - control.
        deviation: standard deviation of a unit's value, in both arms.
        n: units of the control, > 1.
        options: of the test.

    Raises:
        InvalidInputError: an impossible option.
    """
    design = _Design(**options)
    level, side = checked_level(design.alpha), checked_side(design.alternative)
    control = checked_number(n, "n", above=1)
    treatment = control * checked_number(design.ratio, "ratio", above=0)
    spread = checked_number(deviation, "deviation", above=0) * math.sqrt(1 / control + 1 / treatment)
    degrees = control + treatment - 2
    if degrees <= 0:
        raise InvalidInputError(f"n is {n}; expected more than 2 units in both arms together", field="n")
    shift = checked_number(effect, "effect") / spread
    return _found(shift, float(stats.t.isf(_tail(level, side), degrees)), side, stats.nct(degrees, shift))


def power_proportion(base: float, effect: float, n: float, **options: Unpack[DesignOptions]) -> float:
    """Probability of finding a difference of proportions.

    Args:
        base: the control's proportion, in (0, 1).
        effect: treatment - control; their sum is in (0, 1).
        n: units of the control.
        options: of the test.

    Raises:
        InvalidInputError: an impossible option.
    """
    design = _Design(**options)
    level, side, p = checked_level(design.alpha), checked_side(design.alternative), checked_level(base, "base")
    q = p + checked_number(effect, "effect")
    if not 0 < q < 1:
        raise InvalidInputError(f"base + effect is {q:g}; expected a proportion in (0, 1)", field="effect")
    share, control = checked_number(design.ratio, "ratio", above=0), checked_number(n, "n", above=0)
    pooled = (p + share * q) / (1 + share)
    null = math.sqrt(pooled * (1 - pooled) * (1 + 1 / share) / control)
    actual = math.sqrt((p * (1 - p) + q * (1 - q) / share) / control)
    bar = float(stats.norm.isf(_tail(level, side))) * null
    return _found(q - p, bar, side, stats.norm(q - p, actual))


def sample_size_mean(effect: float, deviation: float, *, power: float = 0.8, **options: Unpack[DesignOptions]) -> int:
    """Units of the control with which a difference of means is found with probability ``power``.

    Raises:
        InvalidInputError: an impossible option, or an effect that no sample finds.
    """
    least = max(1.001, 2.002 / (1 + checked_number(_Design(**options).ratio, "ratio", above=0)))
    return _least(lambda n: power_mean(effect, deviation, n, **options), least, power)


def sample_size_proportion(base: float, effect: float, *, power: float = 0.8, **options: Unpack[DesignOptions]) -> int:
    """Units of the control with which a difference of proportions is found with probability ``power``.

    Raises:
        InvalidInputError: an impossible option, or an effect that no sample finds.
    """
    return _least(lambda n: power_proportion(base, effect, n, **options), 1.0, power)


def mde_mean(n: float, deviation: float, *, power: float = 0.8, **options: Unpack[DesignOptions]) -> float:
    """Smallest difference of means, as a size, that ``n`` units of the control find with probability ``power``.

    Raises:
        InvalidInputError: an impossible option.
    """
    design = _Design(**options)
    sign = -1.0 if checked_side(design.alternative) == "less" else 1.0
    scale = checked_number(deviation, "deviation", above=0)
    target = _above(power, design.alpha)

    def missing(size: float) -> float:
        return power_mean(sign * size * scale, scale, n, **options) - target

    top = 1e-9
    while missing(top) < 0:
        top *= 2
    return scale * float(optimize.brentq(missing, 0.0, top, xtol=1e-14))


def mde_proportion(base: float, n: float, *, power: float = 0.8, **options: Unpack[DesignOptions]) -> float:
    """Smallest difference of proportions, as a size, that ``n`` units of the control find with probability ``power``.

    Two-sided, it is that of an increase, or of a decrease where no increase is large enough.

    Raises:
        InvalidInputError: an impossible option, or too few units to find any difference.
    """
    design = _Design(**options)
    side, p, target = checked_side(design.alternative), checked_level(base, "base"), _above(power, design.alpha)
    for sign, room in ((1.0, 1 - p), (-1.0, p)):
        if side == ("less" if sign > 0 else "greater"):
            continue

        def missing(size: float, sign: float = sign) -> float:
            return power_proportion(p, sign * size, n, **options) - target

        top = room * (1 - 1e-9)
        if missing(top) >= 0:
            return float(optimize.brentq(missing, 0.0, top, xtol=1e-14))
    raise InvalidInputError(f"{n} units find no difference from {p:g} with power {power}", field="n")


def ratio_deviation(
    mean_top: float, mean_bottom: float, variance_top: float, variance_bottom: float, covariance: float
) -> float:
    """Standard deviation of a unit's linearised value of the ratio sum(top) / sum(bottom).

    By the delta method (Deng, Knoblich & Lu 2018): (top - R bottom) / mean(bottom).

    Raises:
        InvalidInputError: a mean of the denominator that is not above 0, or moments that no data has.
    """
    bottom = checked_number(mean_bottom, "mean_bottom", above=0)
    top_variance = checked_number(variance_top, "variance_top", least=0)
    bottom_variance = checked_number(variance_bottom, "variance_bottom", least=0)
    shared = checked_number(covariance, "covariance")
    if shared * shared > top_variance * bottom_variance * (1 + 1e-9):
        raise InvalidInputError(f"covariance is {covariance:g}, beyond what these variances allow", field="covariance")
    ratio = checked_number(mean_top, "mean_top") / bottom
    return math.sqrt(max(top_variance - 2 * ratio * shared + ratio * ratio * bottom_variance, 0.0)) / bottom


def duration_days(units: float, units_per_day: float, *, share: float = 1.0, whole_weeks: bool = True) -> int:
    """Days until ``units`` of all arms together have come.

    Args:
        units: needed, of all arms.
        units_per_day: new ones.
        share: of the traffic that is in the experiment, in (0, 1].
        whole_weeks: round up to whole weeks, so that every day of the week weighs the same.

    Raises:
        InvalidInputError: an impossible option.
    """
    part = checked_number(share, "share", above=0)
    if part > 1:
        raise InvalidInputError(f"share is {share}; expected a number in (0, 1]", field="share")
    daily = checked_number(units_per_day, "units_per_day", above=0) * part
    days = max(1, math.ceil(checked_number(units, "units", above=0) / daily - 1e-9))
    return 7 * math.ceil(days / 7) if whole_weeks else days


def sequential_inflation(*, power: float = 0.8, alpha: float = 0.05, alternative: Side = "two-sided") -> float:
    """Times as many units to plan for where the experiment may be stopped at any look, as a most.

    ((b + z_power) / (z_alpha + z_power))^2, where b is the radius of the confidence sequence in standard errors at the
    planned size (:func:`~rlaas.experiments.inference.sequences.mixture_radius`): with so many units it excludes the
    null at that size with probability ``power``, and by then more often. Most such experiments end before.

    Raises:
        InvalidInputError: an impossible option.
    """
    side, level, beta = checked_side(alternative), checked_level(alpha), float(stats.norm.isf(1 - _above(power, alpha)))
    radius = float(mixture_radius(planned_ratio(level, side), level, side))
    return ((radius + beta) / (float(stats.norm.isf(_tail(level, side))) + beta)) ** 2


def _tail(alpha: float, side: Side) -> float:
    return alpha / 2 if side == "two-sided" else alpha


def _found(shift: float, bar: float, side: Side, distribution: Any) -> float:
    """Probability beyond the bar on the alternative's side; two-sided, on both."""
    above, below = float(distribution.sf(bar)), float(distribution.cdf(-bar))
    if side == "two-sided":
        # The far tail of a noncentral t may not converge, and is nothing.
        return (
            above + (below if np.isfinite(below) else 0.0)
            if shift >= 0
            else below + (above if np.isfinite(above) else 0.0)
        )
    return above if side == "greater" else below


def _above(power: float, alpha: float) -> float:
    target = checked_level(power, "power")
    if not target > alpha:
        raise InvalidInputError(f"power is {power}; expected a number above alpha = {alpha}", field="power")
    return target


def _least(achieved: Callable[[float], float], least: float, power: float) -> int:
    """Smallest whole n with the power."""
    target = checked_level(power, "power")
    if achieved(least) >= target:
        return max(2, math.ceil(least))
    if not achieved(_LARGEST) >= target:
        raise InvalidInputError(
            f"no sample of up to {_LARGEST:g} units finds the effect with power {power}", field="effect"
        )
    n = float(optimize.brentq(lambda log: achieved(math.exp(log)) - target, math.log(least), math.log(_LARGEST)))
    return math.ceil(math.exp(n) * (1 - 1e-10))
