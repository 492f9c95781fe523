"""The user: a conditional logit over a slate with an exit, an order after a click, satisfaction, return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import ChoiceConstants, ConversionConstants, SessionConstants

__all__ = [
    "choice_probabilities",
    "click_satisfaction",
    "conversion_probability",
    "dot",
    "exit_utility",
    "pick",
    "position_penalty",
    "return_probability",
    "sigmoid",
    "slate_utility",
    "unit",
]

FloatArray = NDArray[np.float64]


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Inner product over the last axis, with the same bits however many rows there are (BLAS makes no such promise)."""
    return np.asarray((a * b).sum(axis=-1))


def unit(a: FloatArray) -> FloatArray:
    """Scaled to unit length over the last axis."""
    return np.asarray(a / np.sqrt((a * a).sum(axis=-1, keepdims=True)))


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def slate_utility(
    c: ChoiceConstants,
    *,
    match: FloatArray,
    quality: FloatArray,
    freshness: FloatArray,
    trend: FloatArray,
    price: FloatArray,
    price_sensitivity: FloatArray,
    satiation: FloatArray,
) -> FloatArray:
    """Utility of each item before its position counts [num_envs, slate].

    Args:
        c: weights.
        match: cosine of taste and item [num_envs, slate].
        quality, freshness, trend: of the items [num_envs, slate].
        price: relative to the mean price [num_envs, slate].
        price_sensitivity: of the user [num_envs].
        satiation: how much of this the user has just seen, 0 to 1 [num_envs, slate].
    """
    return np.asarray(
        c.match * match
        + c.quality * quality
        + c.freshness * freshness
        + c.trend * trend
        - c.price * price_sensitivity[:, None] * (price - 1.0)
        - c.satiation * satiation
    )


def position_penalty(c: ChoiceConstants, mobile: NDArray[np.bool_], slate: int) -> FloatArray:
    """Utility lost by position [num_envs, slate]: logarithmic in the position, steeper on a small screen."""
    steepness = np.where(mobile, c.position * c.mobile_position, c.position)
    return np.asarray(steepness[:, None] * np.log1p(np.arange(slate, dtype=np.float64)))


def exit_utility(c: ChoiceConstants, hour: FloatArray) -> FloatArray:
    """Utility of clicking nothing [num_envs]; lowest at the evening peak (hour in 0 to 24)."""
    return np.asarray(c.exit_utility - c.evening * np.cos(2 * np.pi * (hour - c.evening_peak_hour) / 24))


def choice_probabilities(utility: FloatArray, exit_: FloatArray) -> FloatArray:
    """Conditional logit [num_envs, slate]: P(j) = exp(u_j) / (exp(u_exit) + sum_i exp(u_i)).

    RecSim (Ie et al. 2019, arXiv 1909.04847), user choice model with a null item; the rest to 1 is the exit.
    """
    peak = np.maximum(utility.max(axis=1), exit_)
    weight = np.exp(utility - peak[:, None])
    return np.asarray(weight / (weight.sum(axis=1) + np.exp(exit_ - peak))[:, None])


def pick(probability: FloatArray, uniform: FloatArray) -> NDArray[np.int64]:
    """Position of the clicked item [num_envs] by inverting the distribution at ``uniform``; -1 for the exit."""
    chosen = (uniform[:, None] >= np.cumsum(probability, axis=1)).sum(axis=1)
    return np.where(chosen < probability.shape[1], chosen, -1)


def conversion_probability(
    c: ConversionConstants, match: FloatArray, quality: FloatArray, price: FloatArray, price_sensitivity: FloatArray
) -> FloatArray:
    """Probability that a click becomes an order; the arguments broadcast together."""
    return sigmoid(c.intercept + c.match * match + c.quality * quality - c.price * price_sensitivity * (price - 1.0))


def click_satisfaction(
    c: SessionConstants, match: FloatArray, quality: FloatArray, price: FloatArray, price_sensitivity: FloatArray
) -> FloatArray:
    """How well a clicked item pleased, 0 to 1 [num_envs]."""
    pleased = (
        c.satisfaction_base
        + c.satisfaction_match * match
        + c.satisfaction_quality * quality
        - c.satisfaction_price * price_sensitivity * (price - 1.0)
    )
    return np.clip(pleased, 0.0, 1.0)


def return_probability(c: SessionConstants, satisfaction: FloatArray) -> FloatArray:
    """Probability that the user of an ended session comes back [num_envs]."""
    return sigmoid(c.return_intercept + c.return_satisfaction * satisfaction)
