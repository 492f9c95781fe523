"""From a shortlist to a slate: maximal marginal relevance, and greedy inference for a determinantal point process."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.compiled import exp2

__all__ = ["RIDGE", "determinantal", "list_diversity", "marginal_relevance"]

Array = NDArray[Any]

RIDGE = np.float32(0.05)
"""Added to the diagonal of the similarity: more items than topics would make every determinant 0."""

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_TAKEN = np.float32(-1e30)
_SMALLEST = np.float32(1e-6)
_LOG2_E = np.float32(math.log2(math.e))


# nnan and nsz let the compiler vectorise the maximum; no value is NaN.
@njit(cache=True, _nrt=False, fastmath={"nnan", "nsz"})
def _largest(values: Array) -> np.float32:
    top = values[0]
    for j in range(len(values)):
        value = values[j]
        top = value if value > top else top
    return np.float32(top)


@njit(cache=True, _nrt=False)
def _first_largest(values: Array) -> int:
    top = _largest(values)
    j = 0
    while values[j] < top:
        j += 1
    return j


@njit(cache=True, _nrt=False)
def marginal_relevance(
    relevance: Array,
    second: Array,
    use_second: Array,
    local: Array,
    strength: np.float32,
    nearest: Array,
    gain: Array,
    taken: Array,
) -> None:
    """Take again and again the largest ``(1 - s) * relevance - s * (largest cosine to those taken)``.

    Carbonell and Goldstein 1998, with lambda = 1 - s; ties go to the earlier column.

    Args:
        relevance: of each candidate, 0 to 1 [shortlist].
        second: a second opinion [shortlist], for the positions where ``use_second`` [slate] says so.
        local: vectors of the candidates, not negative, of unit length [topics, shortlist].
        strength: s, 0 (relevance alone) to 1.
        nearest, gain: overwritten [shortlist].
        taken: written: columns in order [slate].
    """
    topics, n = local.shape
    trust = _ONE - strength
    for j in range(n):
        nearest[j] = _ZERO
    for position in range(len(taken)):
        opinion = second if use_second[position] else relevance
        for j in range(n):
            gain[j] = trust * opinion[j] - strength * nearest[j]
        best = _first_largest(gain)
        taken[position] = best
        if position + 1 == len(taken):
            break
        if strength > _ZERO:
            for j in range(n):
                gain[j] = _ZERO
            for k in range(topics):
                weight, row = local[k, best], local[k]
                for j in range(n):
                    gain[j] += weight * row[j]
            for j in range(n):
                nearest[j] = max(nearest[j], gain[j])
        # Out of the race for good, in both opinions and at any strength.
        relevance[best] = _TAKEN
        second[best] = _TAKEN
        nearest[best] = -_TAKEN


@njit(cache=True, _nrt=False)
def determinantal(
    relevance: Array,
    second: Array,
    use_second: Array,
    local: Array,
    trust: np.float32,
    factor: Array,
    residual: Array,
    gain: Array,
    taken: Array,
) -> None:
    """Greedy maximum a posteriori inference for a DPP with the kernel ``q_i S_ij q_j``, ``q = exp(trust * relevance)``.

    Chen, Zhang and Zhou 2018 (arXiv 1709.05135), algorithm 1: the Cholesky factor grows by a row for each item taken,
    so that a slate costs ``slate^2 * shortlist`` operations. ``S`` are cosines plus :data:`RIDGE` on the diagonal.

    Args:
        relevance, second, use_second, local, taken: as in :func:`marginal_relevance`.
        trust: how much relevance counts against variety.
        factor: overwritten [slate, shortlist].
        residual, gain: overwritten [shortlist].
    """
    topics, n = local.shape
    for j in range(n):
        residual[j] = _ONE + RIDGE
        # Squared quality, in place of the relevance.
        relevance[j] = exp2(_TWO * trust * _LOG2_E * relevance[j])
        second[j] = exp2(_TWO * trust * _LOG2_E * second[j])
    for position in range(len(taken)):
        quality = second if use_second[position] else relevance
        for j in range(n):
            gain[j] = quality[j] * residual[j]
        best = _first_largest(gain)
        taken[position] = best
        if position + 1 == len(taken):
            break
        for j in range(n):
            gain[j] = _ZERO
        for k in range(topics):
            weight, row = local[k, best], local[k]
            for j in range(n):
                gain[j] += weight * row[j]
        for p in range(position):
            weight, row = factor[p, best], factor[p]
            for j in range(n):
                gain[j] -= weight * row[j]
        share = _ONE / np.float32(math.sqrt(residual[best]))
        row = factor[position]
        for j in range(n):
            row[j] = gain[j] * share
            residual[j] = max(residual[j] - row[j] * row[j], _SMALLEST)
        relevance[best] = _TAKEN
        second[best] = _TAKEN


@njit(cache=True, _nrt=False)
def list_diversity(slate: Array, vectors_ik: Array, total: Array) -> np.float32:
    """Mean over the pairs of a slate of 1 - cosine, from the length of the sum of its vectors.

    ``|sum v|^2`` counts each pair twice and each vector of unit length once. ``total`` [topics] is overwritten by the
    sum.
    """
    topics = vectors_ik.shape[1]
    for k in range(topics):
        total[k] = _ZERO
    for item in slate:
        for k in range(topics):
            total[k] += vectors_ik[item, k]
    n = np.float32(len(slate))
    square = _ZERO
    for k in range(topics):
        square += total[k] * total[k]
    return np.float32(_ONE - (square - n) / (n * (n - _ONE)))
