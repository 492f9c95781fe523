"""Retrieval: a score for every item, and the best of them that the session has not seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import inner

__all__ = ["HIDDEN", "add_linear", "collaborate", "moments", "neighbours", "select", "solve", "spread_of"]

Array = NDArray[Any]

HIDDEN = np.float32(-1e30)
"""Score of what must not be selected."""

_HALVINGS = 24
_FOUR = 4
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_EDGE = np.float32(-1e29)
_TINY = np.float32(1e-20)


@inner(inline=False)
def add_linear(score: Array, weights: Array, rows_ki: Array) -> None:
    """``score += weights @ rows`` by elementwise passes: the same bits wherever it runs, unlike a matrix product."""
    topics, items = rows_ki.shape
    k = 0
    while k + 6 <= topics:
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w4, w5 = weights[k + 4], weights[k + 5]
        r0, r1, r2, r3 = rows_ki[k], rows_ki[k + 1], rows_ki[k + 2], rows_ki[k + 3]
        r4, r5 = rows_ki[k + 4], rows_ki[k + 5]
        for i in range(items):
            score[i] += (w0 * r0[i] + w1 * r1[i]) + (w2 * r2[i] + w3 * r3[i]) + (w4 * r4[i] + w5 * r5[i])
        k += 6
    while k < topics:
        w, row = weights[k], rows_ki[k]
        for i in range(items):
            score[i] += w * row[i]
        k += 1


@inner(inline=False)
def moments(first: Array, second: Array, weights: Array, rows_ki: Array) -> None:
    """``first = weights @ rows`` and ``second = weights @ rows^2``, over the columns of ``rows``."""
    topics, items = rows_ki.shape
    for i in range(items):
        first[i] = _ZERO
        second[i] = _ZERO
    k = 0
    while k + 4 <= topics:
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        r0, r1, r2, r3 = rows_ki[k], rows_ki[k + 1], rows_ki[k + 2], rows_ki[k + 3]
        for i in range(items):
            a, b, c, d = w0 * r0[i], w1 * r1[i], w2 * r2[i], w3 * r3[i]
            first[i] += (a + b) + (c + d)
            second[i] += (a * r0[i] + b * r1[i]) + (c * r2[i] + d * r3[i])
        k += 4
    while k < topics:
        w, row = weights[k], rows_ki[k]
        for i in range(items):
            a = w * row[i]
            first[i] += a
            second[i] += a * row[i]
        k += 1


@inner(inline=False, no_nan=True)
def _best_of_four(score: Array, best: Array) -> tuple[np.float32, np.float32]:
    """Largest of each four items a quarter apart into ``best``; the extremes of those that are not hidden."""
    n = len(best)
    a, b, c, d = score[:n], score[n : 2 * n], score[2 * n : 3 * n], score[3 * n : 4 * n]
    for i in range(n):
        x = a[i] if a[i] > b[i] else b[i]
        y = c[i] if c[i] > d[i] else d[i]
        best[i] = x if x > y else y
    low, high = -HIDDEN, HIDDEN
    for i in range(n):
        value = best[i]
        high = value if value > high else high
        seen = value if value > _EDGE else -HIDDEN
        low = seen if seen < low else low
    return low, high


@inner(inline=False, no_nan=True)
def _edge(values: Array, wanted: int, surplus: int, low: np.float32, high: np.float32) -> np.float32:
    """A bound that at least ``wanted`` of the values reach, and hardly more than ``surplus`` others.

    Halves the range between ``low``, which enough of them reach, and ``high``; counting is one vectorised pass.
    """
    for _ in range(_HALVINGS):
        middle = _HALF * (low + high)
        count = np.int32(0)
        for i in range(len(values)):
            count += np.int32(1) if values[i] >= middle else np.int32(0)
        if count >= wanted:
            low = middle
            if count <= wanted + surplus:
                break
        else:
            high = middle
    return low


@inner(inline=False)
def select(score: Array, best: Array, found: Array, chosen: Array) -> None:
    """The ``len(chosen)`` best items that are not hidden, exactly; ties at the edge go to the lower number.

    At least as many items as columns reach a bound on the largest of each column of four. So a bound that enough
    columns reach is found first, on a quarter of the numbers, and only the items of those columns are looked at.

    Args:
        score: of all items, and :data:`HIDDEN` for those that must not be taken and behind the last [a multiple of 4].
        best: overwritten [2, as score].
        found: overwritten [2, one more than score].
        chosen: written, in no particular order.
    """
    wanted, quarter = len(chosen), len(score) // _FOUR
    tops, values, columns, items = best[0, :quarter], best[1], found[0], found[1]
    low, high = _best_of_four(score, tops)
    seen = 0
    for column in range(quarter):
        seen += 1 if tops[column] > _EDGE else 0
    bound = _EDGE
    if seen >= wanted:
        bound = _edge(tops, wanted, 0, low, high)
    # The place behind the last one is written and overwritten until something belongs there; no branch to mispredict.
    taken = 0
    for column in range(quarter):
        columns[taken] = column
        taken += 1 if tops[column] >= bound else 0
    n = 0
    for place in range(taken):
        column = columns[place]
        for row in range(_FOUR):
            item = row * quarter + column
            items[n] = item
            n += 1 if score[item] >= bound else 0
    for place in range(n):
        values[place] = score[items[place]]
    if bound <= _EDGE:
        bound = low
        for place in range(n):
            bound = min(bound, values[place])
    bound = _edge(values[:n], wanted, 0, bound, high)
    taken = 0
    for place in range(n):
        columns[taken] = items[place]
        taken += 1 if values[place] >= bound else 0
    while taken > wanted:
        last = 0
        for place in range(1, taken):
            one, other = columns[place], columns[last]
            if score[one] < score[other] or (score[one] == score[other] and one > other):
                last = place
        taken -= 1
        columns[last] = columns[taken]
    for place in range(wanted):
        chosen[place] = columns[place]


@inner(inline=False)
def spread_of(
    spread: Array,
    scratch: Array,
    vectors_ki: Array,
    mean: Array,
    user_scale: np.float32,
    item_scale: np.float32,
    prior: Array,
    precision: Array,
) -> None:
    """Posterior standard deviation of every item's utility: ``sqrt(x' A^-1 x)`` of LinUCB plus the item's own part.

    ``A^-1`` is the covariance of the Dirichlet posterior of the user's taste, ``(diag m - m m') / (a0 + 1)``, so that
    the quadratic form is ``sum_k m_k x_k^2 - (m.x)^2``. Li et al. 2010 (arXiv 1003.0146) have a ridge regression's.

    Args:
        spread: written [items].
        scratch: overwritten [2, items].
        vectors_ki: item vectors [topics, items].
        mean: m, posterior mean of the topic shares [topics].
        user_scale: squared weight of the match over ``(a0 + 1) |m|^2``.
        item_scale: squared weight of the quality.
        prior: prior variance of the quality [items].
        precision: what feedback adds [items].
    """
    items = vectors_ki.shape[1]
    for i in range(items):
        spread[i] = item_scale * prior[i] / (_ONE + prior[i] * precision[i])
    if user_scale > _ZERO:
        moments(scratch[0], scratch[1], mean, vectors_ki)
        for i in range(items):
            spread[i] += user_scale * max(scratch[1, i] - scratch[0, i] * scratch[0, i], _ZERO)
    for i in range(items):
        spread[i] = np.float32(math.sqrt(spread[i]))


@inner
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


@inner(inline=False)
def collaborate(
    score: Array,
    weight: np.float32,
    factors: Array,
    gram: Array,
    confidence: np.float32,
    known: Array,
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

    Args:
        score: added to [items or more].
        weight: of the scores.
        factors: own and content factors [2, factors, items].
        gram: ``Y'Y + r I`` [factors, factors].
        confidence: c.
        known: how much of an item is known [items].
        recent, recent_count: the user's clicks, a ring.
        matrix, rest, scratch: overwritten [factors, factors], [2, factors], [2, items or more].
    """
    clicks = min(recent_count, len(recent))
    if clicks == 0:
        return
    n, items = len(gram), len(known)
    right, answer, own, content = rest[0], rest[1], scratch[0], scratch[1]
    for i in range(n):
        right[i] = _ZERO
        for j in range(n):
            matrix[i, j] = gram[i, j]
    for c in range(clicks):
        item = recent[c]
        share = known[item]
        # The answer's place holds the item's factor until there is an answer.
        for i in range(n):
            answer[i] = share * factors[0, i, item] + (_ONE - share) * factors[1, i, item]
        for i in range(n):
            right[i] += (_ONE + confidence) * answer[i]
            for j in range(i + 1):
                matrix[i, j] += confidence * answer[i] * answer[j]
    solve(matrix, right, answer)
    for i in range(items):
        own[i] = _ZERO
        content[i] = _ZERO
    add_linear(own, answer, factors[0])
    add_linear(content, answer, factors[1])
    for i in range(items):
        score[i] += weight * (known[i] * own[i] + (_ONE - known[i]) * content[i])


@inner(inline=False)
def neighbours(
    score: Array, weight: np.float32, similarity_ii: Array, known: Array, recent: Array, recent_count: int
) -> None:
    """Add item-to-item scores: the mean similarity with the last clicks, as far as an item is known."""
    clicks = min(recent_count, len(recent))
    if clicks == 0:
        return
    share = weight / np.float32(clicks)
    for c in range(clicks):
        row = similarity_ii[recent[c]]
        for i in range(len(known)):
            score[i] += share * known[i] * row[i]
