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

_FEW = 32
"""Candidates of a line up to which they are put in order as they come."""
_ROWS = 64
"""Points associated at once: the matrix of their products with all lines stays in the second-level cache."""
_ROUNDING = 1e-12
"""Far above what the order of summing changes in a product with a direction, as a share of a point's length."""


@njit(cache=True, nogil=True)
def _largest(values: Any) -> float:
    """In eight lanes, which a compiler makes vectors of; a maximum has the same bits in any order."""
    a = b = c = d = e = f = g = h = values[0]
    k = 0
    while k + 8 <= len(values):
        a, b, c, d = max(a, values[k]), max(b, values[k + 1]), max(c, values[k + 2]), max(d, values[k + 3])
        e, f, g, h = max(e, values[k + 4]), max(f, values[k + 5]), max(g, values[k + 6]), max(h, values[k + 7])
        k += 8
    largest = max(a, b, c, d, e, f, g, h)
    for rest in range(k, len(values)):
        largest = max(largest, values[rest])
    return float(largest)


@njit(cache=True, nogil=True)
def _along(point: Any, directions: Any, line: int) -> float:
    total = 0.0
    for m in range(len(point)):
        total += point[m] * directions[m, line]
    return total


@njit(cache=True, nogil=True)
def _nearest(point: Any, estimates: Any, directions: Any) -> int:
    """The line that a point lies farthest along, the first of equals, from estimates [n_lines] of how far.

    A matrix product sums in an order of its own, which depends on the machine and on how many rows there are. So it
    only says which lines come into question; among several, the sum in one fixed order decides.
    """
    squared = 0.0
    for m in range(len(point)):
        squared += point[m] * point[m]
    least = _largest(estimates) - _ROUNDING * np.sqrt(squared)
    count, sum_of_lines = 0, 0
    for k in range(len(estimates)):  # sums instead of branches: what a compiler makes vectors of
        inside = estimates[k] >= least
        count += inside
        sum_of_lines += k * inside
    if count == 1:
        return sum_of_lines
    best, farthest = 0, -np.inf
    for k in range(len(estimates)):
        if not estimates[k] < least:
            value = _along(point, directions, k)
            if value > farthest:
                best, farthest = k, value
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def associate(F: Any, ideal: Any, nadir: Any, directions: Any) -> Any:
    """The nearest reference line [n] of each point of F [n, n_obj], and the distance [n] to it.

    The bits of a row do not depend on the other rows.

    Args:
        F: objectives, smaller is better.
        ideal, nadir: of the box that they are normalised with [n_obj].
        directions: of the lines, of length 1, one column each [n_obj, n_lines].
    """
    n, n_obj = F.shape
    nearest = np.empty(n, dtype=np.int64)
    distance = np.empty(n)
    points = np.empty((min(n, _ROWS), n_obj))
    estimates = np.empty((min(n, _ROWS), directions.shape[1]))
    for first in range(0, n, _ROWS):
        size = min(_ROWS, n - first)
        for i in range(size):
            for m in range(n_obj):
                points[i, m] = (F[first + i, m] - ideal[m]) / (nadir[m] - ideal[m])
        np.dot(points[:size], directions, estimates[:size])
        for i in range(size):
            best = _nearest(points[i], estimates[i], directions)
            along = _along(points[i], directions, best)
            squared = 0.0
            for m in range(n_obj):
                squared += (points[i, m] - along * directions[m, best]) ** 2
            nearest[first + i] = best
            distance[first + i] = np.sqrt(squared)
    return nearest, distance


@njit(cache=True, nogil=True)
def _by_line_and_distance(nearest: Any, distance: Any, start: Any) -> Any:
    """Rows [n] by line, then by distance: which one a draw hits does not depend on the order that they came in.

    Args:
        nearest, distance: see :func:`preserve_niches`.
        start: where the rows of each line begin, and behind the last one where they end [n_lines + 1].
    """
    order = np.empty(len(nearest), dtype=np.int64)
    end = start[:-1].copy()
    for i in range(len(nearest)):
        slot = end[nearest[i]]
        end[nearest[i]] += 1
        if slot - start[nearest[i]] < _FEW:
            while slot > start[nearest[i]] and distance[order[slot - 1]] > distance[i]:
                order[slot] = order[slot - 1]
                slot -= 1
        order[slot] = i
    for k in range(len(end)):
        if end[k] - start[k] > _FEW:
            rows = order[start[k] : end[k]].copy()
            order[start[k] : end[k]] = rows[np.argsort(distance[rows], kind="mergesort")]
    return order


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
    start = np.zeros(lines + 1, dtype=np.int64)
    for i in range(n):
        start[nearest[i] + 1] += 1
    for k in range(lines):
        start[k + 1] += start[k]
    order = _by_line_and_distance(nearest, distance, start)
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
