"""Reference-line association and niche-preserving selection, compiled: the heart of NSGA-III.

Source: Deb & Jain 2014 ("An evolutionary many-objective optimization algorithm using reference-point-based
nondominated sorting approach, part I"), algorithms 3 and 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rlaas.optimization.variation import next_random

__all__ = ["associate", "preserve_niches", "survivors"]


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"}, inline="never")
def _largest(values: Any) -> float:
    """Vectorised where NaN is ruled out; a maximum has the same bits in any order."""
    largest = values[0]
    for k in range(1, len(values)):
        largest = max(largest, values[k])
    return float(largest)


@njit(cache=True, nogil=True)
def _first_of(values: Any, value: float) -> int:
    for k in range(len(values)):
        if values[k] == value:
            return k
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def associate(F: Any, ideal: Any, nadir: Any, directions: Any) -> Any:
    """The nearest reference line [n] of each point of F [n, n_obj], and the distance [n] to it.

    Every row is computed alone and in the same order, so that its bits do not depend on the other rows.

    Args:
        F: objectives, smaller is better.
        ideal, nadir: of the box that they are normalised with [n_obj].
        directions: of the lines, of length 1, one column each [n_obj, n_lines].
    """
    n, n_obj = F.shape
    lines = directions.shape[1]
    nearest = np.empty(n, dtype=np.int64)
    distance = np.empty(n)
    along = np.empty(lines)
    point = np.empty(n_obj)
    for i in range(n):
        for m in range(n_obj):
            point[m] = (F[i, m] - ideal[m]) / (nadir[m] - ideal[m])
        along[:] = 0.0
        m = 0
        while m + 4 <= n_obj:  # four at a time load and store a sum once; the order, and so the bits, is that of one
            a, b, c, d = point[m], point[m + 1], point[m + 2], point[m + 3]
            for k in range(lines):
                total = along[k] + a * directions[m, k]
                total += b * directions[m + 1, k]
                total += c * directions[m + 2, k]
                along[k] = total + d * directions[m + 3, k]
            m += 4
        for rest in range(m, n_obj):
            for k in range(lines):
                along[k] += point[rest] * directions[rest, k]
        best = _first_of(along, _largest(along))
        squared = 0.0
        for m in range(n_obj):
            squared += (point[m] - along[best] * directions[m, best]) ** 2
        nearest[i] = best
        distance[i] = np.sqrt(squared)
    return nearest, distance


@njit(cache=True, nogil=True)
def preserve_niches(nearest: Any, distance: Any, taken: Any, wanted: int, lines: int, seed: int) -> Any:
    """Rows [wanted] of the last rank that fill the emptiest niches.

    Round by round the niches with the fewest members that still have a candidate take one each, in random order; an
    empty niche takes its nearest candidate, any other a random one.

    Args:
        nearest: line of each candidate of the last rank [n].
        distance: to it [n].
        taken: members that each line has already [n_lines]; changed in place.
        wanted: how many to choose, at most n.
        lines: reference lines.
        seed: of the draws, below :data:`rlaas.optimization.variation.SEEDS`.
    """
    stream = np.array([np.uint64(seed)])
    n = len(nearest)
    # By line, then by distance: which candidate a draw hits does not depend on the order they came in.
    order = np.argsort(distance, kind="mergesort")
    order = order[np.argsort(nearest[order], kind="mergesort")]
    start = np.zeros(lines + 1, dtype=np.int64)
    for i in range(n):
        start[nearest[i] + 1] += 1
    for k in range(lines):
        start[k + 1] += start[k]
    left = start[1:] - start[:-1]
    chosen = np.empty(wanted, dtype=np.int64)
    count = 0
    open_lines = np.empty(lines, dtype=np.int64)
    while count < wanted:
        least = -1
        for k in range(lines):
            if left[k] > 0 and (least < 0 or taken[k] < least):
                least = taken[k]
        size = 0
        for k in range(lines):
            if left[k] > 0 and taken[k] == least:
                open_lines[size] = k
                size += 1
        for position in range(min(size, wanted - count)):
            other = position + int(next_random(stream) * (size - position))
            k = open_lines[other]
            open_lines[other] = open_lines[position]
            pick = 0 if taken[k] == 0 else int(next_random(stream) * left[k])
            slot = start[k] + pick
            chosen[count] = order[slot]
            count += 1
            # Close the gap; the nearest stay in front.
            for after in range(slot, start[k] + left[k] - 1):
                order[after] = order[after + 1]
            left[k] -= 1
            taken[k] += 1
    return chosen


@njit(cache=True, nogil=True)
def survivors(F: Any, rank: Any, wanted: int, ideal: Any, nadir: Any, directions: Any, seed: int) -> Any:
    """Rows [k] of F that survive, the niche [k] and the distance [k] of each: whole ranks, then the last by niches.

    Args:
        F: objectives [n, n_obj], smaller is better.
        rank: 0 for the non-dominated, 1 for those that only these dominate, and so on [n].
        wanted: how many survive; all where there are no more.
        ideal, nadir, directions: see :func:`associate`.
        seed: see :func:`preserve_niches`.
    """
    n = len(F)
    members = np.zeros(n + 1, dtype=np.int64)
    for i in range(n):
        members[rank[i]] += 1
    last, reached = 0, members[0]
    while reached < wanted and reached < n:
        last += 1
        reached += members[last]
    lines = directions.shape[1]
    # Whole ranks in front, the last behind them, each in the order that they came in.
    rows = np.empty(reached, dtype=np.int64)
    whole, behind = 0, reached - members[last]
    for i in range(n):
        if rank[i] < last:
            rows[whole] = i
            whole += 1
        elif rank[i] == last:
            rows[behind] = i
            behind += 1
    nearest, distance = associate(F[rows], ideal, nadir, directions)
    if reached <= wanted:
        return rows, nearest, distance
    taken = np.zeros(lines, dtype=np.int64)
    for i in range(whole):
        taken[nearest[i]] += 1
    kept = np.arange(wanted)
    kept[whole:] = whole + preserve_niches(nearest[whole:], distance[whole:], taken, wanted - whole, lines, seed)
    return rows[kept], nearest[kept], distance[kept]
