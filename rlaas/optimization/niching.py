"""Reference-line association and niche-preserving selection, compiled: the heart of NSGA-III.

Source: Deb & Jain 2014 ("An evolutionary many-objective optimization algorithm using reference-point-based
nondominated sorting approach, part I"), algorithms 3 and 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from rlaas.optimization.variation import next_random

__all__ = ["associate", "preserve_niches"]


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
        along[:] = 0.0
        for m in range(n_obj):
            point[m] = (F[i, m] - ideal[m]) / (nadir[m] - ideal[m])
            for k in range(lines):
                along[k] += point[m] * directions[m, k]
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
