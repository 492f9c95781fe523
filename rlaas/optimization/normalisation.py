"""The box that a search normalises objectives with: ideal point, extreme points and the hyperplane through them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["nadir_point", "renew_box", "renew_extremes"]

_OTHER_AXIS = 1e6
"""Weight of the other objectives where the extreme point along one is looked for (Deb & Jain 2014, eq. 4)."""

_LEAST_SHARE = 1e-6
"""Least extent of the box along an objective, as a share of that objective's spread in the population."""


@njit(cache=True, nogil=True, error_model="numpy")
def renew_extremes(extremes: Any, F: Any, ideal: Any, scale: Any, tolerance: float) -> None:
    """Replace each extreme point [n_obj, n_obj] by the point of F [n, n_obj] that is more extreme, in place.

    The extreme point along an axis has the least achievement scalarising value along it. Infinite rows of ``extremes``
    are not set yet.

    Args:
        extremes: one point per axis.
        F: non-dominated objectives.
        ideal: least value per objective [n_obj].
        scale: extent of the front per objective [n_obj], > 0.
        tolerance: distances to the ideal below this share of the scale count as none. Without it a point with a
            hair's breadth less in one objective, times a million, would beat any other.
    """
    n_obj = F.shape[1]
    best = np.empty(n_obj)
    chosen = np.full(n_obj, -1)
    distance = np.empty(n_obj)
    hardest = np.inf
    for i in range(-n_obj, len(F)):
        point = F[i] if i >= 0 else extremes[i + n_obj]
        far = 0
        off_axes_loses = i >= 0 and _OTHER_AXIS * tolerance >= hardest
        for j in range(n_obj):
            distance[j] = (point[j] - ideal[j]) / scale[j]
            distance[j] = 0.0 if distance[j] < tolerance else distance[j]
            far += distance[j] >= tolerance
            if far > 1 and off_axes_loses:
                break
        if far > 1 and off_axes_loses:  # most points
            continue
        # The largest distance to the ideal, and the largest along any other axis than that one.
        first, second, at = -1.0, -1.0, -1
        for j in range(n_obj):
            if distance[j] > first:
                first, second, at = distance[j], first, j
            elif distance[j] > second:
                second = distance[j]
        if i < 0:
            axis = i + n_obj
            best[axis] = max(distance[axis], _OTHER_AXIS * (second if at == axis else first))
            if i == -1:
                hardest = best.max()
            continue
        for axis in range(n_obj):
            value = max(distance[axis], _OTHER_AXIS * (second if at == axis else first))
            if value < best[axis]:
                best[axis], chosen[axis] = value, i
        hardest = best.max()
    for axis in range(n_obj):
        if chosen[axis] >= 0:
            extremes[axis] = F[chosen[axis]]


@njit(cache=True, nogil=True, error_model="numpy")
def nadir_point(extremes: Any, ideal: Any, worst: Any, worst_of_front: Any, worst_of_population: Any) -> Any:
    """Where the hyperplane through the extreme points meets the axes [n_obj] (Deb & Jain 2014, section IV-C).

    Where there is no such plane, or it lies behind the ideal point, the worst of the non-dominated front serves; an
    objective in which that has no extent takes the worst of the population. Never beyond ``worst``.

    Args:
        extremes: one point per axis [n_obj, n_obj].
        ideal: least value per objective ever [n_obj].
        worst: largest value per objective ever [n_obj].
        worst_of_front, worst_of_population: largest value per objective now [n_obj].
    """
    n_obj = len(ideal)
    scale = worst - ideal
    for j in range(n_obj):
        if not scale[j] > 0:
            scale[j] = 1.0
    # Gaussian elimination with partial pivoting, on rows relative to the scale: scaling objectives changes nothing.
    table = np.ones((n_obj, n_obj + 1))
    for i in range(n_obj):
        for j in range(n_obj):
            table[i, j] = (extremes[i, j] - ideal[j]) / scale[j]
    solved = True
    for column in range(n_obj):
        pivot = column
        for i in range(column + 1, n_obj):
            if abs(table[i, column]) > abs(table[pivot, column]):
                pivot = i
        if not abs(table[pivot, column]) > 1e-12:
            solved = False
            break
        for j in range(n_obj + 1):
            table[column, j], table[pivot, j] = table[pivot, j], table[column, j]
        for i in range(n_obj):
            if i != column:
                factor = table[i, column] / table[column, column]
                for j in range(column, n_obj + 1):
                    table[i, j] -= factor * table[column, j]
    nadir = np.empty(n_obj)
    for i in range(n_obj):  # nearly dependent points give a plane that does not go through them
        if solved:
            total = 0.0
            for j in range(n_obj):
                total += (extremes[i, j] - ideal[j]) / scale[j] * (table[j, n_obj] / table[j, j])
            solved = abs(total - 1.0) <= 1e-5
    if solved:
        for j in range(n_obj):
            reach = table[j, j] / table[j, n_obj]  # 1 / plane coefficient
            if not reach > _LEAST_SHARE:
                solved = False
                break
            nadir[j] = min(ideal[j] + reach * scale[j], worst[j])
    if not solved:
        nadir[:] = worst_of_front
    for j in range(n_obj):
        if not nadir[j] - ideal[j] > _LEAST_SHARE * scale[j]:
            nadir[j] = worst_of_population[j]
        if not nadir[j] > ideal[j]:
            nadir[j] = ideal[j] + 1.0
    return nadir


@njit(cache=True, nogil=True)
def renew_box(F: Any, rank: Any, ideal: Any, worst: Any, extremes: Any, nadir: Any, tolerance: float) -> None:
    """Bring ideal, worst, extreme and nadir points up to a generation, in place.

    Args:
        F: feasible objectives [n, n_obj].
        rank: 0 for the non-dominated [n].
        ideal, worst: least and largest value per objective ever [n_obj].
        extremes: one point per axis [n_obj, n_obj].
        nadir: of the box [n_obj]; infinite before the first.
        tolerance: see :func:`renew_extremes`. Its scale is the last box: far-out members that nothing dominates yet
            stretch the front's own extent a thousandfold on DTLZ1 and 3, and would hide the extreme points behind it.
    """
    n, n_obj = F.shape
    front = np.empty((n, n_obj))
    size = 0
    worst_of_front, worst_of_population = np.full(n_obj, -np.inf), np.full(n_obj, -np.inf)
    for i in range(n):
        for j in range(n_obj):
            value = F[i, j]
            ideal[j] = min(ideal[j], value)
            worst_of_population[j] = max(worst_of_population[j], value)
        if rank[i] == 0:
            for j in range(n_obj):
                front[size, j] = F[i, j]
                worst_of_front[j] = max(worst_of_front[j], F[i, j])
            size += 1
    scale = np.empty(n_obj)
    known = np.isfinite(nadir).all()
    for j in range(n_obj):
        worst[j] = max(worst[j], worst_of_population[j])
        scale[j] = (nadir[j] if known else worst_of_front[j]) - ideal[j]
        if not scale[j] > 0:
            scale[j] = 1.0
    renew_extremes(extremes, front[:size], ideal, scale, tolerance)
    nadir[:] = nadir_point(extremes, ideal, worst, worst_of_front, worst_of_population)
