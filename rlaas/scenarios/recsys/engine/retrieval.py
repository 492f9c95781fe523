"""Retrieval: a score for every item, and the best of them that the session has not seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["add_linear", "collaborate", "neighbours", "select", "solve", "spread_of"]

Array = NDArray[Any]

_HALVINGS = 24
_SURPLUS = 12
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_TINY = np.float32(1e-20)


@njit(cache=True, _nrt=False)
def add_linear(score: Array, weights: Array, rows_ki: Array) -> None:
    """``score += weights @ rows`` by elementwise passes: the same bits wherever it runs, unlike a matrix product."""
    topics, items = rows_ki.shape
    k = 0
    while k + 4 <= topics:
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        r0, r1, r2, r3 = rows_ki[k], rows_ki[k + 1], rows_ki[k + 2], rows_ki[k + 3]
        for i in range(items):
            score[i] += (w0 * r0[i] + w1 * r1[i]) + (w2 * r2[i] + w3 * r3[i])
        k += 4
    while k < topics:
        w, row = weights[k], rows_ki[k]
        for i in range(items):
            score[i] += w * row[i]
        k += 1


# nnan and nsz let the compiler vectorise the search for extremes; they change no result, as no score is NaN.
@njit(cache=True, _nrt=False, fastmath={"nnan", "nsz"})
def _extremes(score: Array) -> tuple[np.float32, np.float32]:
    low, high = score[0], score[0]
    for i in range(len(score)):
        value = score[i]
        low = value if value < low else low
        high = value if value > high else high
    return low, high


@njit(cache=True, _nrt=False)
def _at_least(score: Array, edge: np.float32) -> int:
    count = np.int32(0)
    for i in range(len(score)):
        count += np.int32(1) if score[i] >= edge else np.int32(0)
    return int(count)


@njit(cache=True, _nrt=False)
def select(score: Array, hidden: Array, hidden_count: int, found: Array, chosen: Array) -> None:
    """The ``len(chosen)`` best items that are not hidden, exactly; ties at the edge go to the lower number.

    Halves the range of scores until little more than what is wanted lies above the middle (counting is one vectorised
    pass), collects that and drops the worst of it.

    Args:
        score: of all items; that of hidden items is overwritten [items].
        hidden, hidden_count: a list of items, and how many of it count.
        found: overwritten [items + 1].
        chosen: written, by number.
    """
    low, high = _extremes(score)
    worst = low - (high - low) - _ONE
    for h in range(hidden_count):
        score[hidden[h]] = worst
    wanted = len(chosen)
    count = len(score) - hidden_count
    for _ in range(_HALVINGS):
        middle = _HALF * (low + high)
        above = _at_least(score, middle)
        if above >= wanted:
            low, count = middle, above
        else:
            high = middle
        if count <= wanted + _SURPLUS:
            break
    # The place behind the last one is written and overwritten until something belongs there; no branch to mispredict.
    taken = 0
    for i in range(len(score)):
        found[taken] = i
        taken += 1 if score[i] >= low else 0
    while taken > wanted:
        last = 0
        for place in range(1, taken):
            if score[found[place]] <= score[found[last]]:
                last = place
        for place in range(last, taken - 1):
            found[place] = found[place + 1]
        taken -= 1
    for place in range(wanted):
        chosen[place] = found[place]


@njit(cache=True, _nrt=False)
def spread_of(
    spread: Array,
    scratch: Array,
    rows_ki: Array,
    squares_ki: Array,
    mean: Array,
    user_scale: np.float32,
    item_scale: np.float32,
    prior_i: Array,
    precision: Array,
) -> None:
    """Posterior standard deviation of every item's utility: ``sqrt(x' A^-1 x)`` of LinUCB plus the item's own part.

    ``A^-1`` is the covariance of the Dirichlet posterior of the user's taste, ``(diag m - m m') / (a0 + 1)``, so that
    the quadratic form is ``sum_k m_k x_k^2 - (m.x)^2``. Li et al. 2010 (arXiv 1003.0146) have a ridge regression's.

    Args:
        spread: written [items].
        scratch: overwritten [items].
        rows_ki, squares_ki: item vectors and their squares [topics, items].
        mean: m, posterior mean of the topic shares [topics].
        user_scale: squared weight of the match over ``(a0 + 1) |m|^2``.
        item_scale: squared weight of the quality.
        prior_i: prior variance of the quality [items].
        precision: what feedback adds [items].
    """
    for i in range(len(spread)):
        spread[i] = _ZERO
        scratch[i] = _ZERO
    if user_scale > _ZERO:
        add_linear(spread, mean, squares_ki)
        add_linear(scratch, mean, rows_ki)
    for i in range(len(spread)):
        taste = user_scale * max(spread[i] - scratch[i] * scratch[i], _ZERO)
        quality = item_scale * prior_i[i] / (_ONE + prior_i[i] * precision[i])
        spread[i] = np.float32(math.sqrt(taste + quality))


@njit(cache=True, _nrt=False)
def solve(matrix: Array, right: Array, answer: Array) -> None:
    """Solve ``matrix x = right`` for a symmetric positive definite matrix, overwritten by its Cholesky factor."""
    n = len(right)
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                matrix[i, i] = np.float32(math.sqrt(max(total, _TINY)))
            else:
                matrix[i, j] = total / matrix[j, j]
        total = right[i]
        for k in range(i):
            total -= matrix[i, k] * answer[k]
        answer[i] = total / matrix[i, i]
    for i in range(n - 1, -1, -1):
        total = answer[i]
        for k in range(i + 1, n):
            total -= matrix[k, i] * answer[k]
        answer[i] = total / matrix[i, i]


@njit(cache=True, _nrt=False)
def collaborate(
    score: Array,
    weight: np.float32,
    factors_ki: Array,
    content_ki: Array,
    gram: Array,
    confidence: np.float32,
    known_i: Array,
    recent: Array,
    recent_count: int,
    matrix: Array,
    rest: Array,
    scratch: Array,
) -> None:
    """Add implicit-feedback factorisation scores, extended by content for items that few have seen.

    The user is folded in as Hu, Koren and Volinsky 2008 do: ``x = (Y'Y + r I + c sum y y')^-1 (1 + c) sum y`` over the
    last clicks. An item's factor is its own as far as it is known and for the rest the regression of factors on
    content (Agarwal and Chen 2009, regression-based latent factors).
    """
    clicks = min(recent_count, len(recent))
    if clicks == 0:
        return
    n = len(gram)
    right, answer = rest[0], rest[1]
    for i in range(n):
        right[i] = _ZERO
        for j in range(n):
            matrix[i, j] = gram[i, j]
    for c in range(clicks):
        item = recent[c]
        known = known_i[item]
        for i in range(n):
            yi = known * factors_ki[i, item] + (_ONE - known) * content_ki[i, item]
            right[i] += (_ONE + confidence) * yi
            for j in range(i + 1):
                yj = known * factors_ki[j, item] + (_ONE - known) * content_ki[j, item]
                matrix[i, j] += confidence * yi * yj
    solve(matrix, right, answer)
    for i in range(len(score)):
        scratch[i] = _ZERO
    add_linear(scratch, answer, factors_ki)
    for i in range(len(score)):
        score[i] += weight * known_i[i] * scratch[i]
        scratch[i] = _ZERO
    add_linear(scratch, answer, content_ki)
    for i in range(len(score)):
        score[i] += weight * (_ONE - known_i[i]) * scratch[i]


@njit(cache=True, _nrt=False)
def neighbours(
    score: Array, weight: np.float32, similarity_ii: Array, known_i: Array, recent: Array, recent_count: int
) -> None:
    """Add item-to-item scores: the mean similarity with the last clicks, as far as an item is known."""
    clicks = min(recent_count, len(recent))
    if clicks == 0:
        return
    share = weight / np.float32(clicks)
    for c in range(clicks):
        row = similarity_ii[recent[c]]
        for i in range(len(score)):
            score[i] += share * known_i[i] * row[i]
