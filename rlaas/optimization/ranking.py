"""Non-dominated sorting with sets of bits, compiled.

Source: Burlacu 2022 ("Rank-based non-dominated sorting", arXiv 2203.13654), RankIntersect: whoever is no worse in an
objective is a prefix of its sorted order, and whoever dominates is the intersection of these prefixes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["non_domination_ranks"]

_LARGEST = 4_096
"""Points above which sets of all of them fill the caches, and moocore is as fast."""


def non_domination_ranks(F: NDArray[np.float64], wanted: int) -> NDArray[np.int64]:
    """0 for the non-dominated rows of F [n, n_obj], 1 for those that only these dominate, and so on [n].

    Ranks end with the one that completes ``wanted`` rows; rows behind it may all have rank n. Equal rows have equal
    ranks. With two objectives, and for very many points, ranks are moocore's, whose sweep is as fast there.

    Args:
        F: objectives, smaller is better, without NaN.
        wanted: how many rows need their rank.
    """
    n, n_obj = F.shape
    if n_obj < 3 or n > _LARGEST:
        import moocore

        return np.asarray(moocore.pareto_rank(F), dtype=np.int64)
    columns = np.ascontiguousarray(F.T)
    ranks: NDArray[np.int64] = _peeled(columns, np.argsort(columns, axis=1), wanted)
    return ranks


@njit(cache=True, nogil=True)
def _peeled(columns: Any, order: Any, wanted: int) -> Any:
    """Ranks [n] of points, front by front.

    Args:
        columns: objectives [n_obj, n].
        order: points by each objective, from the least value [n_obj, n].
        wanted: see :func:`non_domination_ranks`.
    """
    above = _dominators(columns, order)
    n, words = above.shape
    ranks = np.full(n, n)
    rows = np.arange(n)
    left = np.empty(words, dtype=np.uint64)
    size, front = n, 0
    while size > 0 and n - size < wanted:
        left[:] = 0
        for t in range(size):
            _add(left, rows[t])
        behind = 0
        for t in range(size):
            i = rows[t]
            beaten = False
            for w in range(words):
                if above[i, w] & left[w]:
                    beaten = True
                    break
            if beaten:
                rows[behind] = i
                behind += 1
            else:
                ranks[i] = front
        size = behind
        front += 1
    return ranks


@njit(cache=True, nogil=True)
def _dominators(columns: Any, order: Any) -> Any:
    """The set [n, words] of those that dominate each point, bit k % 64 of word k // 64 for point k."""
    n_obj, n = columns.shape
    words = (n + 63) // 64
    above = np.empty((n, words), dtype=np.uint64)
    no_worse = np.empty(words, dtype=np.uint64)
    ties = np.zeros(n, dtype=np.int64)
    for m in range(n_obj):
        no_worse[:] = 0
        first = 0
        while first < n:
            value = columns[m, order[m, first]]
            last = first
            while last < n and columns[m, order[m, last]] == value:
                _add(no_worse, order[m, last])
                last += 1
            for t in range(first, last):
                i = order[m, t]
                if last - first > 1:
                    ties[i] += 1
                for w in range(words):
                    above[i, w] = no_worse[w] if m == 0 else above[i, w] & no_worse[w]
            first = last
    # Nobody dominates itself, nor one that is equal: each is no worse than the other then.
    for i in range(n):
        _remove(above[i], i)
        if ties[i] < n_obj:
            continue
        for k in range(i):
            if ties[k] == n_obj and _has(above[i], k) and _has(above[k], i):
                _remove(above[i], k)
                _remove(above[k], i)
    return above


@njit(cache=True, nogil=True, inline="always")
def _bit(k: Any) -> Any:
    return np.uint64(1) << np.uint64(k & 63)


@njit(cache=True, nogil=True, inline="always")
def _add(members: Any, k: Any) -> None:
    members[k >> 6] |= _bit(k)


@njit(cache=True, nogil=True, inline="always")
def _remove(members: Any, k: Any) -> None:
    members[k >> 6] &= ~_bit(k)


@njit(cache=True, nogil=True, inline="always")
def _has(members: Any, k: Any) -> Any:
    return (members[k >> 6] & _bit(k)) != 0
