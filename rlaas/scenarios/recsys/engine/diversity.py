"""From a shortlist to a slate: maximal marginal relevance, and greedy inference for a determinantal point process."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import exp2, inner

__all__ = ["OUT", "RIDGE", "determinantal", "first_largest", "list_diversity", "marginal_relevance"]

Array = NDArray[Any]

RIDGE = np.float32(0.05)
"""Added to the diagonal of the similarity: more items than topics would make every determinant 0."""

OUT = np.float32(-1e30)
"""Relevance of what is no candidate."""

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_SMALLEST = np.float32(1e-6)
_LOG2_E = np.float32(math.log2(math.e))


@inner(no_nan=True)
def first_largest(values: Array) -> int:
    """Index of the largest value, the first of equals: two passes that are vectorised."""
    top = OUT
    for j in range(len(values)):
        top = values[j] if values[j] > top else top
    first = np.int32(len(values))
    for j in range(len(values)):
        here = np.int32(j) if values[j] >= top else np.int32(len(values))
        first = here if here < first else first
    return int(first)


@inner(inline=False)
def _similarities(local: Array, column: int, out: Array) -> None:
    """Cosines of every candidate with the one in ``column``."""
    topics, n = local.shape
    for j in range(n):
        out[j] = _ZERO
    k = 0
    while k + 4 <= topics:
        r0, r1, r2, r3 = local[k], local[k + 1], local[k + 2], local[k + 3]
        w0, w1, w2, w3 = r0[column], r1[column], r2[column], r3[column]
        for j in range(n):
            out[j] += (w0 * r0[j] + w1 * r1[j]) + (w2 * r2[j] + w3 * r3[j])
        k += 4
    while k < topics:
        weight, row = local[k, column], local[k]
        for j in range(n):
            out[j] += weight * row[j]
        k += 1


@inner(inline=False, no_nan=True)
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
        relevance: of each candidate, 0 to 1, or :data:`OUT` [shortlist].
        second: a second opinion [shortlist], for the positions where ``use_second`` [slate] says so.
        local: vectors of the candidates, not negative, of unit length [topics, shortlist].
        strength: s, 0 (relevance alone) to 1.
        nearest, gain: overwritten [shortlist].
        taken: written: columns in order [slate].
    """
    n = local.shape[1]
    trust = _ONE - strength
    for j in range(n):
        # What is no candidate stays behind even at s = 1.
        nearest[j] = _ZERO if relevance[j] > OUT else -OUT
    for position in range(len(taken)):
        opinion = second if use_second[position] else relevance
        for j in range(n):
            gain[j] = trust * opinion[j] - strength * nearest[j]
        best = first_largest(gain)
        taken[position] = best
        if position + 1 == len(taken):
            break
        if strength > _ZERO:
            _similarities(local, best, gain)
            for j in range(n):
                nearest[j] = gain[j] if gain[j] > nearest[j] else nearest[j]
        # Out of the race for good, in both opinions and at any strength.
        relevance[best] = OUT
        second[best] = OUT
        nearest[best] = -OUT


@inner(inline=False, no_nan=True)
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
    n = local.shape[1]
    scale = _TWO * trust * _LOG2_E
    for j in range(n):
        residual[j] = _ONE + RIDGE
        # Squared quality, in place of the relevance.
        relevance[j] = OUT if relevance[j] <= OUT else exp2(scale * relevance[j])
        second[j] = OUT if second[j] <= OUT else exp2(scale * second[j])
    for position in range(len(taken)):
        quality = second if use_second[position] else relevance
        for j in range(n):
            gain[j] = quality[j] * residual[j]
        best = first_largest(gain)
        taken[position] = best
        if position + 1 == len(taken):
            break
        _similarities(local, best, gain)
        for p in range(position):
            weight, row = factor[p, best], factor[p]
            for j in range(n):
                gain[j] -= weight * row[j]
        share = _ONE / np.float32(math.sqrt(residual[best]))
        row = factor[position]
        for j in range(n):
            value = gain[j] * share
            row[j] = value
            left = residual[j] - value * value
            residual[j] = left if left > _SMALLEST else _SMALLEST
        relevance[best] = OUT
        second[best] = OUT


@inner
def list_diversity(length: int, total: Array) -> np.float32:
    """Mean over the pairs of a list of 1 - cosine, from the sum of its vectors, which have unit length.

    ``|sum v|^2`` counts each pair twice and each vector once.

    Args:
        length: items in the list.
        total: sum of their vectors [topics].
    """
    n = np.float32(length)
    square = _ZERO
    for value in total:
        square += value * value
    return np.float32(_ONE - (square - n) / (n * (n - _ONE)))
