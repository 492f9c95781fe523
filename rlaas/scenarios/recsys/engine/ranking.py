"""Ranking: the relevance of the shortlist under a preset, as it is believed, hoped for or sampled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import inner
from rlaas.scenarios.recsys.engine.retrieval import moments

__all__ = ["believe", "gather", "rank", "sample_taste", "to_unit_range", "uncertain"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_SMALL = np.float32(1e-9)
_LARGE = np.float32(1e30)


@inner(inline=False)
def believe(
    prior: Array, evidence: Array, share: np.float32, mean: Array, direction: Array
) -> tuple[np.float32, np.float32]:
    """Posterior of the topic shares under a Dirichlet prior and decayed counts.

    Args:
        prior, evidence: [topics].
        share: of the evidence that counts.
        mean, direction: written: the posterior mean, and the same with unit length [topics].

    Returns:
        Total count a0, and the length of the mean.
    """
    total = _ZERO
    for k in range(len(mean)):
        mean[k] = prior[k] + share * evidence[k]
        total += mean[k]
    square, scale = _ZERO, _ONE / total
    for k in range(len(mean)):
        mean[k] *= scale
        square += mean[k] * mean[k]
    length = np.float32(math.sqrt(square))
    scale = _ONE / length
    for k in range(len(mean)):
        direction[k] = mean[k] * scale
    return total, length


@inner(inline=False)
def sample_taste(mean: Array, total: np.float32, length: np.float32, normal: Array, out: Array) -> None:
    """A taste from the posterior's normal approximation, scaled as the direction is: linear Thompson sampling.

    With n standard normal, ``sqrt(m_k) n_k - m_k sum_j sqrt(m_j) n_j`` has the covariance ``diag m - m m'`` of a
    Dirichlet with the mean m, up to the factor ``1 / (a0 + 1)``.

    Args:
        mean: m [topics].
        total: a0.
        length: of the mean.
        normal: n [topics or more].
        out: written [topics].
    """
    common = _ZERO
    for k in range(len(mean)):
        out[k] = np.float32(math.sqrt(mean[k])) * normal[k]
        common += out[k]
    width, scale = _ONE / np.float32(math.sqrt(total + _ONE)), _ONE / length
    for k in range(len(mean)):
        out[k] = max(mean[k] + width * (out[k] - mean[k] * common), _ZERO) * scale


@inner
def gather(chosen: Array, vectors_ik: Array, local: Array) -> None:
    """Vectors of the chosen items, topic by topic [topics, at least as many as chosen]."""
    topics = len(local)
    for j in range(len(chosen)):
        item = chosen[j]
        for k in range(topics):
            local[k, j] = vectors_ik[item, k]


@inner
def rank(
    relevance: Array,
    chosen: Array,
    local: Array,
    base: Array,
    weights: Array,
    quality: np.float32,
    estimate: Array,
    price: np.float32,
    dear: Array,
) -> None:
    """Score of each candidate: its own part, learned quality, price, and the user's part ``weights . vector``.

    Args:
        relevance: written [shortlist or more].
        chosen: items [shortlist].
        local: their vectors [topics, as relevance].
        base: what depends on the item and the day alone [items].
        weights: by topic [topics].
        quality: weight of what feedback says about an item's quality.
        estimate: that [items].
        price: weight of the price times the user's believed sensitivity.
        dear: price relative to the mean, minus 1 [items].
    """
    for j in range(len(chosen)):
        item = chosen[j]
        relevance[j] = base[item] + quality * estimate[item] - price * dear[item]
    for k in range(len(local)):
        weight, row = weights[k], local[k]
        for j in range(len(relevance)):
            relevance[j] += weight * row[j]


@inner(inline=False)
def uncertain(
    deviation: Array,
    cosine: Array,
    chosen: Array,
    local: Array,
    mean: Array,
    user_scale: np.float32,
    item_scale: np.float32,
    prior: Array,
    precision: Array,
) -> None:
    """Posterior standard deviation of the score of each candidate [shortlist]; see ``retrieval.spread_of``.

    ``cosine`` [shortlist] is overwritten.
    """
    moments(cosine, deviation, mean, local)
    for j in range(len(chosen)):
        item = chosen[j]
        taste = user_scale * max(deviation[j] - cosine[j] * cosine[j], _ZERO)
        quality = item_scale * prior[item] / (_ONE + prior[item] * precision[item])
        deviation[j] = np.float32(math.sqrt(taste + quality))


@inner(inline=False, no_nan=True)
def to_unit_range(relevance: Array, count: int, rest: np.float32) -> None:
    """Shift and scale the first ``count`` to 0 ... 1, and put ``rest`` in place of the others."""
    low, high = _LARGE, -_LARGE
    for j in range(count):
        value = relevance[j]
        low = value if value < low else low
        high = value if value > high else high
    scale = _ONE / max(high - low, _SMALL)
    for j in range(count):
        relevance[j] = (relevance[j] - low) * scale
    for j in range(count, len(relevance)):
        relevance[j] = rest
