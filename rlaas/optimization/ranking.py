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
_EVERYBODY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


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
    # A word at a time, and that of whoever is no worse in a register: sets in memory would be read back just written.
    above = np.full((words, n), _EVERYBODY)
    ties = np.zeros(n, dtype=np.int64)
    for m in range(n_obj):
        column, row = columns[m], order[m]
        distinct = True
        for t in range(1, n):
            distinct &= column[row[t]] != column[row[t - 1]]
        if not distinct:
            _count_ties(column, row, ties)
        for w in range(words):
            sets = above[w]
            no_worse = np.uint64(0)
            if distinct:
                for t in range(n):
                    i = row[t]
                    no_worse |= _bit(i) if i >> 6 == w else np.uint64(0)
                    sets[i] &= no_worse
                continue
            first = last = 0
            while first < n:
                while last < n and column[row[last]] == column[row[first]]:
                    i = row[last]
                    no_worse |= _bit(i) if i >> 6 == w else np.uint64(0)
                    last += 1
                for t in range(first, last):
                    sets[row[t]] &= no_worse
                first = last
    dominators = np.ascontiguousarray(above.T)
    # Nobody dominates itself, nor one that is equal: each is no worse than the other then.
    for i in range(n):
        _remove(dominators[i], i)
        if ties[i] < n_obj:
            continue
        for k in range(i):
            if ties[k] == n_obj and _has(dominators[i], k) and _has(dominators[k], i):
                _remove(dominators[i], k)
                _remove(dominators[k], i)
    return dominators


@njit(cache=True, nogil=True)
def _count_ties(column: Any, row: Any, ties: Any) -> None:
    """Add 1 to the ``ties`` [n] of every point that shares its value; ``row`` [n] is the order of the column [n]."""
    for t in range(len(row)):
        value = column[row[t]]
        if (t > 0 and column[row[t - 1]] == value) or (t + 1 < len(row) and column[row[t + 1]] == value):
            ties[row[t]] += 1


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
