"""The weights that agree with what a person has said: a polytope within the simplex."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import null_space
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection

__all__ = ["WeightRegion"]

FloatArray = NDArray[np.float64]

EXACT_OBJECTIVES = 5
"""Up to here vertices are enumerated; their number grows too fast above."""

THINNEST = 1e-6
"""Radius of the largest ball below which a region counts as empty: linear programs keep constraints to 1e-7."""

_ROUNDS, _STEPS = 3, 8


class WeightRegion:
    """Weights w >= 0 with sum 1 that keep ``normals @ w >= bounds``.

    Immutable. Distances are Euclidean within the plane of the simplex.

    Args:
        objectives: number of weights, m.
        normals: of the half-spaces [k, m].
        bounds: of the half-spaces [k].
    """

    def __init__(self, objectives: int, normals: ArrayLike = (), bounds: ArrayLike = ()) -> None:
        self.objectives = objectives
        self.normals: FloatArray = np.asarray(normals, dtype=np.float64).reshape(-1, objectives)
        self.bounds: FloatArray = np.asarray(bounds, dtype=np.float64).reshape(-1)
        self._middle = np.full(objectives, 1.0 / objectives)
        # An orthonormal basis of the plane, so that lengths and volumes are those on the simplex.
        self._basis: FloatArray = np.asarray(null_space(np.ones((1, objectives))))
        sides = -np.vstack([np.eye(objectives), self.normals])
        limits = -np.concatenate([np.zeros(objectives), self.bounds])
        rows, limits = sides @ self._basis, limits - sides @ self._middle
        length = np.linalg.norm(rows, axis=1)
        flat = length <= 1e-12  # the same for all weights: kept by all, or by none
        self._unkeepable = bool((limits[flat] < -1e-12).any())
        self._rows: FloatArray = rows[~flat] / length[~flat, None]
        self._limits: FloatArray = limits[~flat] / length[~flat]

    def cut(self, normals: ArrayLike, bounds: ArrayLike) -> WeightRegion:
        """The part of the region where ``normals @ w >= bounds`` too ([k, m] and [k])."""
        more = np.asarray(normals, dtype=np.float64).reshape(-1, self.objectives)
        return WeightRegion(
            self.objectives,
            np.vstack([self.normals, more]),
            np.concatenate([self.bounds, np.asarray(bounds, dtype=np.float64).reshape(-1)]),
        )

    @cached_property
    def _ball(self) -> tuple[FloatArray, float]:
        """Centre in the plane [m - 1] and radius of the largest ball inside; a negative radius where there is none."""
        size = self.objectives - 1
        if self._unkeepable:
            return np.zeros(size), -1.0
        if not size:
            return np.zeros(0), 0.0
        found = linprog(
            np.append(np.zeros(size), -1.0),
            A_ub=np.column_stack([self._rows, np.ones(len(self._rows))]),
            b_ub=self._limits,
            bounds=[(None, None)] * size + [(-1.0, None)],
        )
        if found.status != 0:  # even a ball of radius -1 does not fit
            return np.zeros(size), -1.0
        return np.asarray(found.x[:-1]), float(found.x[-1])

    @property
    def empty(self) -> bool:
        """Whether no weights, or next to none, are left. Of one objective there is one weight vector, which stays."""
        return self._unkeepable or (self.objectives > 1 and self._ball[1] < THINNEST)

    @property
    def centre(self) -> FloatArray:
        """Chebyshev centre [m]: the weights farthest from every border."""
        return self._weights(self._ball[0])

    def contains(self, weights: ArrayLike, slack: float = 1e-9) -> bool:
        """Whether weights [m] of sum 1 lie inside, or at most ``slack`` beyond a border."""
        point = (np.asarray(weights, dtype=np.float64) - self._middle) @ self._basis
        return not self._unkeepable and bool((self._rows @ point <= self._limits + slack).all())

    @cached_property
    def vertices(self) -> FloatArray | None:
        """Corners [v, m], or None with more than :data:`EXACT_OBJECTIVES` objectives. The region must not be empty."""
        scaled = self._scaled_vertices
        if scaled is None:
            return None
        centre, radius = self._ball
        return self._weights(centre + radius * scaled)

    @cached_property
    def _scaled_vertices(self) -> FloatArray | None:
        """Corners [v, m - 1] in the plane, seen from the centre in units of the radius."""
        size = self.objectives - 1
        if self.objectives > EXACT_OBJECTIVES:
            return None
        if not size:
            return np.zeros((1, 0))
        centre, radius = self._ball
        # Scaled, because the precision of Qhull is absolute and regions become small.
        room = (self._limits - self._rows @ centre) / radius
        if size == 1:
            ends = room / self._rows[:, 0]
            up = self._rows[:, 0] > 0
            return np.array([[ends[~up].max()], [ends[up].min()]])
        halves = np.column_stack([self._rows, -room])
        return np.asarray(HalfspaceIntersection(halves, np.zeros(size)).intersections)

    @cached_property
    def exact_share(self) -> float | None:
        """Share of the simplex's volume, or None where vertices are not enumerated. The region must not be empty."""
        scaled, size = self._scaled_vertices, self.objectives - 1
        if scaled is None:
            return None
        if not size:
            return 1.0
        volume = float(np.ptp(scaled)) if size == 1 else float(ConvexHull(scaled).volume)
        whole = math.sqrt(self.objectives) / math.factorial(size)
        return min(1.0, volume * self._ball[1] ** size / whole)

    def highest(self, directions: FloatArray) -> FloatArray:
        """Largest value [k] of each of ``directions`` [k, m] over the region, by its vertices or a linear program."""
        if self.vertices is not None:
            return np.asarray((directions @ self.vertices.T).max(axis=1))
        return np.array([self._highest(direction) for direction in directions])

    def _highest(self, direction: FloatArray) -> float:
        found = linprog(
            -direction,
            A_ub=-self.normals if len(self.normals) else None,
            b_ub=-self.bounds if len(self.bounds) else None,
            A_eq=np.ones((1, self.objectives)),
            b_eq=[1.0],
            bounds=(0.0, 1.0),
        )
        return -float(found.fun)

    def lead(self, rows: FloatArray) -> float:
        """The largest t for which ``rows @ w >= t`` for all rows [k, m] somewhere in the region: a linear program."""
        found = linprog(
            np.append(np.zeros(self.objectives), -1.0),
            A_ub=np.column_stack(
                [-np.vstack([rows, self.normals]), np.append(np.ones(len(rows)), np.zeros(len(self.normals)))]
            ),
            b_ub=np.append(np.zeros(len(rows)), -self.bounds),
            A_eq=np.append(np.ones(self.objectives), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0.0, 1.0)] * self.objectives + [(None, None)],
        )
        return -float(found.fun)

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Weights [count, m], about uniform: hit and run (Smith 1984) from the centre, one chain for each.

        Directions follow the covariance of the chains so far, without which a long thin region is crossed slowly.
        """
        size = self.objectives - 1
        centre, _ = self._ball
        points = np.tile(centre, (count, 1))
        if not size:
            return self._weights(points)
        shape = np.eye(size)
        for round_ in range(_ROUNDS):
            for _ in range(_STEPS * size):
                direction = rng.standard_normal((count, size)) @ shape.T
                speed = direction @ self._rows.T
                room = np.maximum(self._limits - points @ self._rows.T, 0.0)
                with np.errstate(divide="ignore", invalid="ignore"):
                    reach = room / speed
                forth = np.where(speed > 0, reach, np.inf).min(axis=1)
                back = np.where(speed < 0, reach, -np.inf).max(axis=1)
                points += (back + rng.random(count) * (forth - back))[:, None] * direction
            if round_ < _ROUNDS - 1 and count > size:
                spread = np.cov(points, rowvar=False).reshape(size, size)
                values, vectors = np.linalg.eigh(spread)
                shape = vectors * np.sqrt(np.maximum(values, 1e-9 * values.max()))
        return self._weights(points)

    def _weights(self, points: FloatArray) -> FloatArray:
        """Weights [..., m] of points in the plane [..., m - 1]."""
        weights = np.maximum(self._middle + points @ self._basis.T, 0.0)
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
