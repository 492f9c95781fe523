"""The user's answer to a slate: conditional logit with an exit, order, satisfaction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import circle, exp2, inner, sigmoid

__all__ = ["exit_at", "logit", "order_chance", "pick", "pleasure"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_LOG2_E = np.float32(math.log2(math.e))
_DAY = np.float32(1.0 / 24.0)


@inner
def exit_at(exit_utility: np.float32, evening: np.float32, peak_hour: np.float32, hour: np.float32) -> np.float32:
    """Utility of clicking nothing; lowest at the evening peak (hour in 0 to 24)."""
    cosine, _ = circle(np.float32((hour - peak_hour) * _DAY))
    return np.float32(exit_utility - evening * cosine)


@inner(inline=False, no_nan=True)
def logit(utility: Array, leave: np.float32, probability: Array) -> np.float32:
    """Conditional logit: P(j) = exp(u_j) / (exp(u_exit) + sum_i exp(u_i)); the rest to 1 is the exit.

    RecSim (Ie et al. 2019, arXiv 1909.04847), user choice model with a null item.

    Args:
        utility: [slate]; very low for what is not there.
        leave: of the exit.
        probability: written [slate].

    Returns:
        The probability of any click.
    """
    peak = leave
    for j in range(len(utility)):
        peak = utility[j] if utility[j] > peak else peak
    total = _ZERO
    for j in range(len(utility)):
        probability[j] = exp2((utility[j] - peak) * _LOG2_E)
        total += probability[j]
    share = _ONE / (total + exp2((leave - peak) * _LOG2_E))
    for j in range(len(utility)):
        probability[j] *= share
    return np.float32(total * share)


@inner
def pick(probability: Array, uniform: np.float32) -> int:
    """Position of the click by inverting the distribution at ``uniform``; -1 for the exit."""
    total = _ZERO
    for j in range(len(probability)):
        total += probability[j]
        if uniform < total:
            return j
    return -1


@inner
def order_chance(
    intercept: np.float32,
    match_weight: np.float32,
    quality_weight: np.float32,
    price_weight: np.float32,
    match: np.float32,
    quality: np.float32,
    burden: np.float32,
) -> np.float32:
    """Probability that a click becomes an order; ``burden`` is the price sensitivity times the price above the mean."""
    odds = intercept + match_weight * match + quality_weight * quality - price_weight * burden
    return np.float32(sigmoid(np.float32(odds)))


@inner
def pleasure(
    base: np.float32,
    match_weight: np.float32,
    quality_weight: np.float32,
    price_weight: np.float32,
    match: np.float32,
    quality: np.float32,
    burden: np.float32,
) -> np.float32:
    """How well a clicked item pleased, 0 to 1."""
    value = base + match_weight * match + quality_weight * quality - price_weight * burden
    return np.float32(min(max(value, _ZERO), _ONE))
