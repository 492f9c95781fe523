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
_ONE = 1 << 32
"""A line, counted in the upper half of a number whose lower half sums which lines."""


@njit(cache=True, nogil=True)
def _along(point: Any, directions: Any, line: int) -> float:
    total = 0.0
    for m in range(len(point)):
        total += point[m] * directions[m, line]
    return total


@njit(cache=True, nogil=True)
def _nearest(point: Any, estimates: Any, bits: Any, largest: Any, directions: Any) -> int:
    """The line that a point lies farthest along, the first of equals, from estimates [n_lines] of how far.

    A matrix product sums in an order of its own, which depends on the machine and on how many rows there are. So it
    only says which lines come into question; among several, the sum in one fixed order decides.

    Args:
        point: not negative [n_obj].
        estimates: not negative [n_lines].
        bits: the same as whole numbers, whose order is that of the estimates. A compiler makes vectors of the largest
            whole number, which NaN and signed zeros forbid for real ones.
        largest: place for one number, as itself and as its bits.
        directions: of the lines [n_obj, n_lines].
    """
    squared = 0.0
    for m in range(len(point)):
        squared += point[m] * point[m]
    top = bits[0]
    for k in range(1, len(bits)):
        top = max(top, bits[k])
    largest[1][0] = top
    least = largest[0][0] - _ROUNDING * np.sqrt(squared)
    tally = 0
    for k in range(len(estimates)):  # how many, and the sum of which: no branch, again for the sake of vectors
        tally += k + _ONE if estimates[k] >= least else 0
    if tally < 2 * _ONE:
        return tally - _ONE
    best, farthest = 0, -np.inf
    for k in range(len(estimates)):
        if estimates[k] >= least:
            value = _along(point, directions, k)
            if value > farthest:
                best, farthest = k, value
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def associate(F: Any, ideal: Any, nadir: Any, directions: Any) -> Any:
    """The nearest reference line [n] of each point of F [n, n_obj], how far along [n] it and beside [n] it that lies.

    The bits of a row do not depend on the other rows.

    Args:
        F: objectives, smaller is better, none below the ideal.
        ideal, nadir: of the box that they are normalised with [n_obj].
        directions: of the lines, not negative and of length 1, one column each [n_obj, n_lines].
    """
    n, n_obj = F.shape
    nearest = np.empty(n, dtype=np.int64)
    along, beside = np.empty(n), np.empty(n)
    points = np.empty((min(n, _ROWS), n_obj))
    estimates = np.empty((min(n, _ROWS), directions.shape[1]))
    bits = estimates.view(np.int64)
    place = np.empty(1)
    largest = (place, place.view(np.int64))
    for first in range(0, n, _ROWS):
        size = min(_ROWS, n - first)
        for i in range(size):
            for m in range(n_obj):
                points[i, m] = (F[first + i, m] - ideal[m]) / (nadir[m] - ideal[m])
        np.dot(points[:size], directions, estimates[:size])
        for i in range(size):
            best = _nearest(points[i], estimates[i], bits[i], largest, directions)
            reach = _along(points[i], directions, best)
            squared = 0.0
            for m in range(n_obj):
                squared += (points[i, m] - reach * directions[m, best]) ** 2
            nearest[first + i], along[first + i], beside[first + i] = best, reach, np.sqrt(squared)
    return nearest, along, beside


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
    empty niche takes the candidate with the least distance, any other a random one.

    Args:
        nearest: line of each candidate of the last rank [n].
        distance: what a candidate is measured by within its niche, smaller is better [n].
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
def survivors(F: Any, rank: Any, wanted: int, ideal: Any, nadir: Any, directions: Any, inward: Any, seed: int) -> Any:
    """Rows [k] of F that survive, the niche [k] and the distance [k] of each: whole ranks, then the last by niches.

    A candidate's distance is how far beside its line it lies, and a share of how far along.

    Args:
        F: objectives [n, n_obj], smaller is better.
        rank: 0 for the non-dominated, 1 for those that only these dominate, and so on [n].
        wanted: how many survive; all where there are no more.
        ideal, nadir, directions: see :func:`associate`.
        inward: that share, for each line [n_lines].
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
    nearest, along, distance = associate(F[rows], ideal, nadir, directions)
    for i in range(reached):
        distance[i] += inward[nearest[i]] * along[i]
    if reached <= wanted:
        return rows, nearest, distance
    taken = np.zeros(lines, dtype=np.int64)
    for i in range(whole):
        taken[nearest[i]] += 1
    kept = np.arange(wanted)
    kept[whole:] = whole + preserve_niches(nearest[whole:], distance[whole:], taken, wanted - whole, lines, seed)
    return rows[kept], nearest[kept], distance[kept]
