"""The compiled inner loop of the archive: one pass over the members for each point that is offered."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["insert_rows"]

FloatArray = NDArray[np.float64]

BLOCK = 256
"""Members compared at once: two flags for each stay in the first-level cache, and a dominated point stops early."""


@njit(cache=True, nogil=True)
def insert_rows(
    points: FloatArray,
    keys: FloatArray,
    payloads: NDArray[np.int64],
    size: int,
    new_points: FloatArray,
    new_keys: FloatArray,
    new_payloads: NDArray[np.int64],
    box: FloatArray,
    entered: NDArray[np.bool_],
) -> int:
    """Offer points one after the other to the first ``size`` columns of a non-dominated store, in place.

    Dominance is judged by keys. A point whose key a member's key weakly dominates stays out. Only where the two keys
    are equal may it take that member's place: if it dominates the member, or if neither dominates and it is nearer to
    the lower corner of their box. Members whose key the point's dominates are thrown out; the last one fills the gap.

    Args:
        points: members' objectives [m, capacity], smaller is better; ``capacity >= size + n``.
        keys: members' keys [m, capacity]; may be ``points`` itself.
        payloads: members' payloads [capacity].
        size: members now.
        new_points: offered [n, m].
        new_keys: their keys [n, m]: ``new_points`` itself, or the numbers of the boxes they lie in.
        new_payloads: their payloads [n].
        box: size of a box in each objective [m]; read only where keys are numbers of boxes.
        entered: set to whether each entered [n].

    Returns:
        Members afterwards.
    """
    m = points.shape[0]
    no_worse = np.empty(BLOCK, np.uint8)
    no_better = np.empty(BLOCK, np.uint8)
    beaten = np.empty(points.shape[1], np.int64)
    for k in range(new_points.shape[0]):
        key = new_keys[k]
        blocker = -1
        n_beaten = 0
        for start in range(0, size, BLOCK):
            width = min(BLOCK, size - start)
            no_worse[:] = 1
            no_better[:] = 1
            for j in range(m):
                column = keys[j, start : start + width]
                value = key[j]
                # Flags instead of branches: what a compiler turns into vector instructions.
                for i in range(width):
                    no_worse[i] &= column[i] <= value
                    no_better[i] &= column[i] >= value
            some_no_worse = np.uint8(0)
            some_no_better = np.uint8(0)
            for i in range(width):
                some_no_worse |= no_worse[i]
                some_no_better |= no_better[i]
            if some_no_worse:
                # Members do not dominate each other, so a point that one of them blocks can have beaten none.
                i = 0
                while not no_worse[i]:
                    i += 1
                blocker = start + i
                break
            if some_no_better:
                for i in range(width):
                    if no_better[i]:
                        beaten[n_beaten] = start + i
                        n_beaten += 1
        if blocker >= 0:
            entered[k] = _replaces(points[:, blocker], keys[:, blocker], new_points[k], key, box)
            if entered[k]:
                points[:, blocker] = new_points[k]
                payloads[blocker] = new_payloads[k]
            continue
        # From the last one down, so that what fills a gap is never itself beaten.
        for b in range(n_beaten - 1, -1, -1):
            size -= 1
            hole = beaten[b]
            points[:, hole] = points[:, size]
            keys[:, hole] = keys[:, size]
            payloads[hole] = payloads[size]
        points[:, size] = new_points[k]
        keys[:, size] = key
        payloads[size] = new_payloads[k]
        size += 1
        entered[k] = True
    return size


@njit(cache=True, nogil=True)
def _replaces(member: FloatArray, member_key: FloatArray, point: FloatArray, key: FloatArray, box: FloatArray) -> bool:
    """Whether ``point`` takes the place of the member that blocks it."""
    to_member = 0.0
    to_point = 0.0
    member_no_worse = True
    point_no_worse = True
    for j in range(len(key)):
        if member_key[j] != key[j]:
            return False
        member_no_worse &= member[j] <= point[j]
        point_no_worse &= point[j] <= member[j]
        to_member += (member[j] / box[j] - key[j]) ** 2
        to_point += (point[j] / box[j] - key[j]) ** 2
    if member_no_worse:
        return False
    return point_no_worse or to_point < to_member
