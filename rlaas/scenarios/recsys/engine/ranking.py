"""Ranking: the relevance of the shortlist under a preset, as it is believed, hoped for or sampled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.compiled import normal_pair
from rlaas.scenarios.recsys.engine.streams import draw

__all__ = ["believe", "gather", "normals", "rank", "sample_taste", "to_unit_range", "uncertain"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_SMALL = np.float32(1e-9)


@njit(cache=True, _nrt=False)
def normals(key: np.uint64, step: int, stream: int, count: int, out: Array) -> None:
    """At least ``count`` standard normal numbers; ``out`` holds up to three more than that."""
    for block in range((count + 3) // 4):
        a, b, c, d = draw(key, step, stream, block)
        at = 4 * block
        out[at], out[at + 1] = normal_pair(a, b)
        out[at + 2], out[at + 3] = normal_pair(c, d)


@njit(cache=True, _nrt=False)
def believe(prior: Array, evidence: Array, mean: Array, direction: Array) -> tuple[np.float32, np.float32]:
    """Posterior of the topic shares under a Dirichlet prior and decayed counts.

    Args:
        prior, evidence: [topics].
        mean, direction: written: the posterior mean, and the same with unit length [topics].

    Returns:
        Total count a0, and the length of the mean.
    """
    total = _ZERO
    for k in range(len(mean)):
        mean[k] = prior[k] + evidence[k]
        total += mean[k]
    square = _ZERO
    for k in range(len(mean)):
        mean[k] /= total
        square += mean[k] * mean[k]
    length = np.float32(math.sqrt(square))
    for k in range(len(mean)):
        direction[k] = mean[k] / length
    return total, length


@njit(cache=True, _nrt=False)
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
        common += np.float32(math.sqrt(mean[k])) * normal[k]
    width = _ONE / np.float32(math.sqrt(total + _ONE))
    for k in range(len(mean)):
        moved = np.float32(math.sqrt(mean[k])) * normal[k] - mean[k] * common
        out[k] = max(mean[k] + width * moved, _ZERO) / length


@njit(cache=True, _nrt=False)
def gather(chosen: Array, vectors_ik: Array, local: Array) -> None:
    """Vectors of the chosen items, topic by topic [topics, shortlist]."""
    topics = len(local)
    for j in range(len(chosen)):
        item = chosen[j]
        for k in range(topics):
            local[k, j] = vectors_ik[item, k]


@njit(cache=True, _nrt=False)
def rank(
    relevance: Array,
    chosen: Array,
    local: Array,
    base_i: Array,
    weights: Array,
    quality: np.float32,
    estimate: Array,
    price: np.float32,
    dear_i: Array,
) -> None:
    """Score of each candidate: its own part, learned quality, price, and the user's part ``weights . vector``.

    Args:
        relevance: written [shortlist].
        chosen: items [shortlist].
        local: their vectors [topics, shortlist].
        base_i: what depends on the item and the day alone [items].
        weights: by topic [topics].
        quality: weight of what feedback says about an item's quality.
        estimate: that [items].
        price: weight of the price times the user's believed sensitivity.
        dear_i: price relative to the mean, minus 1 [items].
    """
    n = len(chosen)
    for j in range(n):
        item = chosen[j]
        relevance[j] = base_i[item] + quality * estimate[item] - price * dear_i[item]
    for k in range(len(local)):
        weight, row = weights[k], local[k]
        for j in range(n):
            relevance[j] += weight * row[j]


@njit(cache=True, _nrt=False)
def uncertain(
    deviation: Array,
    cosine: Array,
    chosen: Array,
    local: Array,
    mean: Array,
    user_scale: np.float32,
    item_scale: np.float32,
    prior_i: Array,
    precision: Array,
) -> None:
    """Posterior standard deviation of the score of each candidate [shortlist]; see ``retrieval.spread_of``.

    ``cosine`` [shortlist] is overwritten.
    """
    n = len(chosen)
    for j in range(n):
        deviation[j] = _ZERO
        cosine[j] = _ZERO
    if user_scale > _ZERO:
        for k in range(len(mean)):
            weight, row = mean[k], local[k]
            for j in range(n):
                part = weight * row[j]
                deviation[j] += part * row[j]
                cosine[j] += part
    for j in range(n):
        item = chosen[j]
        taste = user_scale * max(deviation[j] - cosine[j] * cosine[j], _ZERO)
        quality = item_scale * prior_i[item] / (_ONE + prior_i[item] * precision[item])
        deviation[j] = np.float32(math.sqrt(taste + quality))


@njit(cache=True, _nrt=False)
def to_unit_range(relevance: Array) -> None:
    """Shift and scale to 0 ... 1."""
    low, high = relevance[0], relevance[0]
    for value in relevance:
        low, high = min(low, value), max(high, value)
    scale = _ONE / max(high - low, _SMALL)
    for j in range(len(relevance)):
        relevance[j] = (relevance[j] - low) * scale
