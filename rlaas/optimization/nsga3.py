"""NSGA-III and its unified variant on plain arrays.

Sources: Deb & Jain 2014, parts I and II (constraints); Seada & Deb 2016 ("A unified evolutionary optimization procedure
for single, multiple, and many objectives") for U-NSGA-III; Yuan, Xu, Wang & Yao 2016 ("A new dominance relation-based
evolutionary algorithm for many-objective optimization") for the distance within a niche.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError
from rlaas.optimization.evolution import Evolution, IntArray
from rlaas.optimization.niching import survivors
from rlaas.optimization.normalisation import renew_box, renew_extremes
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem
from rlaas.optimization.ranking import non_domination_ranks
from rlaas.optimization.variation import breed, distinct_rows

__all__ = ["NSGA3"]

FloatArray = NDArray[np.float64]

_EXTREME_TOLERANCE = 1e-3
"""Share of an objective's spread that counts as none where extreme points are looked for."""
_AXIS_TOLERANCE = 1e-9
"""Some put a millionth in place of the zeros of an axis."""


class NSGA3(Evolution):
    """NSGA-III: non-dominated sorting, then one niche for each reference direction.

    Args:
        problem: bounds, whole-number variables and counts.
        directions: reference directions [n_directions, n_obj], non-negative, none all zero.
        size: candidates kept.
        seed: of every random choice.
        initial: candidates to start with [n, n_var].
        unified: U-NSGA-III, whose parents win tournaments of rank and distance inside a niche. It presses harder where
            a niche holds several members: with more candidates than directions, or few objectives.
        eta_crossover, eta_mutation: distribution indices; the defaults are those of the paper.
        penalty: within a niche candidates are compared by how far along their line they lie, plus this many times how
            far beside it; infinity compares by how far beside alone, as NSGA-III was published. Lines along an axis
            always do: what lies beside them would take the place of the front's extreme points.

    Raises:
        ConfigurationError: a penalty that is not above 0.
        InvalidInputError: see :class:`~rlaas.optimization.evolution.Evolution`.
    """

    def __init__(
        self,
        problem: Problem,
        directions: FloatArray,
        size: int,
        seed: int,
        initial: ArrayLike | None = None,
        *,
        unified: bool = False,
        eta_crossover: float = 30.0,
        eta_mutation: float = 20.0,
        penalty: float = 5.0,
    ) -> None:
        if not penalty > 0:
            raise ConfigurationError(
                f"penalty is {penalty}; allowed: a number above 0, or infinity for distances beside the line alone",
                field="penalty",
            )
        super().__init__(problem, size, seed, initial)
        self._unified = unified
        self._etas = (eta_crossover, eta_mutation)
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._lines = np.ascontiguousarray(unit.T)
        along_an_axis = unit.max(axis=1) > 1.0 - _AXIS_TOLERANCE
        self._inward = np.where(along_an_axis, 0.0, 1.0 / penalty)
        n_obj = problem.n_obj
        self._ideal = np.full(n_obj, np.inf)
        self._worst = np.full(n_obj, -np.inf)
        self._extremes = np.full((n_obj, n_obj), np.inf)
        self._nadir = np.full(n_obj, np.inf)
        self._rank = np.empty(0, dtype=np.int64)
        self._niche = np.empty(0, dtype=np.int64)
        self._distance = np.empty(0)

    def share(self) -> dict[str, FloatArray]:
        """Ideal, worst, extreme and nadir points."""
        points = {"ideal": self._ideal, "worst": self._worst, "extremes": self._extremes, "nadir": self._nadir}
        return {name: point.copy() for name, point in points.items()}

    def adopt(self, shared: dict[str, FloatArray]) -> None:
        """Widen the normalisation by another's ideal, worst and extreme points."""
        self._ideal = np.minimum(self._ideal, shared["ideal"])
        self._worst = np.maximum(self._worst, shared["worst"])
        points = shared["extremes"][np.isfinite(shared["extremes"]).all(axis=1)]
        if len(points):
            high = self._nadir if np.isfinite(self._nadir).all() else points.max(axis=0)
            spread = high - self._ideal
            renew_extremes(self._extremes, points, self._ideal, np.where(spread > 0, spread, 1.0), _EXTREME_TOLERANCE)

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on."""
        return {
            **super().state(),
            **self.share(),
            "rank": self._rank,
            "niche": self._niche,
            "distance": self._distance,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        super().restore(state)
        self._ideal, self._worst, self._extremes, self._nadir = (
            state[key].copy() for key in ("ideal", "worst", "extremes", "nadir")
        )
        self._rank, self._niche, self._distance = state["rank"], state["niche"], state["distance"]

    def front(self) -> Population:
        """The population's feasible non-dominated members; its ranks are known already."""
        first = distinct_rows(self.population.F, np.flatnonzero(self._rank == 0))
        return self.population if len(first) == len(self.population) else self.population.take(first)

    def _couples(self, count: int) -> tuple[IntArray, ...]:
        n = len(self.population)
        couples = (count + 1) // 2
        violation = self.population.violation()
        if not self._unified and not violation.any():
            parents = _shuffled(self._rng, n, 2 * couples)
        else:
            pairs = _shuffled(self._rng, n, 4 * couples)
            parents = _tournament(
                pairs, violation, self._rank, self._niche, self._distance, self._rng.random(2 * couples), self._unified
            )
        return parents[:couples], parents[couples:]

    def _children(self, couples: tuple[IntArray, ...], seed: int) -> FloatArray:
        mothers, fathers = couples
        children: FloatArray = breed(
            self.population.X, mothers, fathers, self._low, self._high, self._integer, *self._etas, seed
        )
        return children

    def _survive(self, arrived: Population, rows: IntArray) -> None:
        if not len(arrived):
            return
        everyone = self.population.joined(arrived) if len(self.population) else arrived
        violation = everyone.violation()
        feasible = np.flatnonzero(violation <= 0)
        if not len(feasible):
            self._keep_least_violating(everyone, violation)
            return
        F = everyone.F if len(feasible) == len(everyone) else everyone.F[feasible]
        rank = non_domination_ranks(F, self.size)
        renew_box(F, rank, self._ideal, self._worst, self._extremes, self._nadir, _EXTREME_TOLERANCE)
        seed = self._seed() if len(F) > self.size else 0
        kept, niche, distance = survivors(F, rank, self.size, self._ideal, self._nadir, self._lines, self._inward, seed)
        rows, rank = feasible[kept], rank[kept]
        extra = min(self.size - len(kept), len(everyone) - len(feasible))
        if extra:
            broken = np.flatnonzero(violation > 0)
            order = np.argsort(violation[broken], kind="stable")[:extra]
            rows = np.concatenate([rows, broken[order]])
            rank = np.concatenate([rank, np.full(extra, np.iinfo(np.int64).max)])
            niche = np.concatenate([niche, np.full(extra, -1)])
            distance = np.concatenate([distance, np.full(extra, np.inf)])
        self.population = everyone.take(rows)
        self._rank, self._niche, self._distance = rank, niche, distance

    def _keep_least_violating(self, everyone: Population, violation: FloatArray) -> None:
        rows = np.argsort(violation, kind="stable")[: self.size]
        self.population = everyone.take(rows)
        self._rank = np.full(len(rows), np.iinfo(np.int64).max)
        self._niche = np.full(len(rows), -1)
        self._distance = np.full(len(rows), np.inf)


def _shuffled(rng: np.random.Generator, n: int, count: int) -> IntArray:
    """``count`` rows below n, each as often as the others but for the remainder."""
    first = rng.permutation(n)
    if count <= n:
        return first[:count]
    rounds = -(-count // n)
    return np.concatenate([first, *(rng.permutation(n) for _ in range(rounds - 1))])[:count]


@njit(cache=True, nogil=True)
def _tournament(pairs: Any, violation: Any, rank: Any, niche: Any, distance: Any, draws: Any, unified: bool) -> Any:
    """Winners [n] of the contests between ``pairs[i]`` and ``pairs[n + i]``.

    The lesser violation wins; in the unified variant then, inside one niche, the better rank and the lesser distance;
    a draw decides the rest.
    """
    n = len(pairs) // 2
    winners = np.empty(n, dtype=np.int64)
    for i in range(n):
        a, b = pairs[i], pairs[n + i]
        score = violation[b] - violation[a]
        if score == 0.0 and unified and niche[a] == niche[b]:
            score = float(rank[b] - rank[a])
            if score == 0.0:
                score = distance[b] - distance[a]
        if score == 0.0 or np.isnan(score):
            score = draws[i] - 0.5
        winners[i] = a if score > 0.0 else b
    return winners
