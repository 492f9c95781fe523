"""MOEA/D on plain arrays: one subproblem for each direction, helped by its neighbours.

Source: Zhang & Li 2007 ("MOEA/D: A multiobjective evolutionary algorithm based on decomposition"), with both of its
decompositions. A generation's children are bred together and then compete one after the other in random order, so that
an evaluation is a batch. Objectives are normalised by the population's non-dominated front (section V-F there), and a
candidate that breaks constraints by less wins (Jan & Zhang 2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import check_choice
from rlaas.optimization.evolution import Evolution, IntArray
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem
from rlaas.optimization.variation import breed, next_random, row_hashes

__all__ = ["MOEAD"]

FloatArray = NDArray[np.float64]

DECOMPOSITIONS = ("pbi", "tchebycheff")

_LEAST_WEIGHT = 1e-6
"""In place of a weight of 0, under which Tchebycheff would forget an objective."""


class MOEAD(Evolution):
    """MOEA/D with penalty-based boundary intersection or Tchebycheff decomposition.

    Args:
        problem: bounds, whole-number variables and counts.
        directions: one subproblem each [n_directions, n_obj], non-negative, none all zero.
        size: as many as directions.
        seed: of every random choice.
        initial: candidates to start with [n, n_var].
        decomposition: ``pbi`` or ``tchebycheff``.
        neighbours: subproblems that mate and compete with each other.
        neighbourhood: probability that parents come from the neighbours and not from everywhere.
        penalty: of the distance from the direction (PBI's theta).
        eta_crossover, eta_mutation: distribution indices.

    Raises:
        ConfigurationError: an unknown decomposition.
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
        decomposition: str = "pbi",
        neighbours: int = 20,
        neighbourhood: float = 0.9,
        penalty: float = 5.0,
        eta_crossover: float = 20.0,
        eta_mutation: float = 20.0,
    ) -> None:
        check_choice(decomposition, DECOMPOSITIONS, field="decomposition")
        super().__init__(problem, size, seed, initial)
        self._pbi = decomposition == "pbi"
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._weights = self._directions if self._pbi else np.maximum(directions, _LEAST_WEIGHT)
        gaps = np.linalg.norm(directions[:, None] - directions[None], axis=2)
        self._neighbours = np.argsort(gaps, axis=1, kind="stable")[:, : min(neighbours, size)]
        self._share = neighbourhood
        self._penalty = penalty
        self._etas = (eta_crossover, eta_mutation)
        self._ideal = np.full(problem.n_obj, np.inf)
        self._nadir = np.full(problem.n_obj, -np.inf)
        # Which member each subproblem has; -1 until the first generation is in.
        self._member = np.full(size, -1)
        self._expected: dict[int, int] = {}
        self._origin = np.empty(0, dtype=np.int64)
        self._next = 0

    def share(self) -> dict[str, FloatArray]:
        """Ideal and nadir points."""
        return {"ideal": self._ideal.copy(), "nadir": self._nadir.copy()}

    def adopt(self, shared: dict[str, FloatArray]) -> None:
        """Widen the ideal point by another's; the nadir follows from the population."""
        self._ideal = np.minimum(self._ideal, shared["ideal"])

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on."""
        return {
            **super().state(),
            **self.share(),
            "member": self._member,
            "expected": np.array([*self._expected.items()], dtype=np.uint64).reshape(-1, 2),
            "next": self._next,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        super().restore(state)
        self._ideal, self._nadir, self._member = (state[key].copy() for key in ("ideal", "nadir", "member"))
        self._expected = {int(key): int(value) for key, value in state["expected"]}
        self._next = int(state["next"])

    def ask(self, count: int | None = None) -> FloatArray:
        """Candidates to evaluate next; see :class:`~rlaas.optimization.population.Engine`."""
        first = bool(len(self._waiting))
        X = super().ask(count)
        if first or len(self.population) < 2:
            self._expect(X, np.arange(self._next, self._next + len(X)) % self.size)
            self._next = (self._next + len(X)) % self.size
        return X

    def tell(self, X: FloatArray, values: FloatArray) -> None:
        """Take in candidates; each competes around the subproblem it was bred for, a stranger around its nearest."""
        X = np.asarray(X, dtype=np.float64)
        keys = row_hashes(X).tolist() if X.ndim == 2 else []
        self._origin = np.array([self._expected.get(key, -1) for key in keys], dtype=np.int64)
        super().tell(X, values)
        for key in keys:
            self._expected.pop(key, None)

    def _expect(self, X: FloatArray, subproblems: IntArray) -> None:
        self._expected.update(zip(row_hashes(X).tolist(), subproblems.tolist(), strict=True))

    def _couples(self, count: int) -> tuple[IntArray, ...]:
        # In turn, and all of them in a generation: a round of attempts begins where the last one ended.
        turn = (self._next + np.arange(count)) % self.size
        mothers, fathers = _mates(self._neighbours, self._member, turn, self._share, self._seed())
        return mothers, fathers, turn

    def _children(self, couples: tuple[IntArray, ...], seed: int) -> FloatArray:
        mothers, fathers, _ = couples
        bred: FloatArray = breed(
            self.population.X, mothers, fathers, self._low, self._high, self._integer, *self._etas, seed
        )
        return bred[::2]

    def _bred(self, couples: tuple[IntArray, ...], children: FloatArray, fresh: IntArray) -> None:
        turn = couples[2]
        self._expect(children[fresh], turn[fresh])
        last = int(fresh[-1]) + 1 if len(fresh) else len(turn)
        self._next = int((turn[0] + last) % self.size)

    def _survive(self, arrived: Population, rows: IntArray) -> None:
        if not len(arrived):
            return
        everyone = self.population.joined(arrived)
        violation = everyone.violation()
        feasible = everyone.F[violation <= 0]
        if len(feasible):
            self._ideal = np.minimum(self._ideal, feasible.min(axis=0))
            self._nadir = everyone.front().F.max(axis=0)
        ideal = np.where(np.isfinite(self._ideal), self._ideal, 0.0)
        span = self._nadir - ideal
        scale = np.where(np.isfinite(span) & (span > 0), span, 1.0)
        F = (everyone.F - ideal) / scale
        before = len(self.population)
        origin = self._homes(self._origin[rows], F[before:])
        order = before + self._rng.permutation(len(arrived))
        _compete(
            F,
            violation,
            self._member,
            order,
            origin,
            before,
            self._neighbours,
            self._weights,
            self._pbi,
            self._penalty,
        )
        kept, self._member = _compact(self._member)
        self.population = everyone.take(kept)

    def _homes(self, origin: IntArray, F: FloatArray) -> IntArray:
        """Subproblem of each arrived candidate; of a stranger (-1) the one whose direction it lies nearest to."""
        strangers = origin < 0
        if strangers.any():
            along = np.maximum(F[strangers], 0.0) @ self._directions.T
            origin[strangers] = along.argmax(axis=1)
        return origin


@njit(cache=True, nogil=True)
def _mates(neighbours: Any, member: Any, turn: Any, share: float, seed: int) -> Any:
    """Two different members [n] for each subproblem in ``turn`` [n], from its neighbours with probability ``share``."""
    stream = np.array([np.uint64(seed)])
    mothers, fathers = np.empty(len(turn), dtype=np.int64), np.empty(len(turn), dtype=np.int64)
    everywhere = np.flatnonzero(member >= 0)
    for i in range(len(turn)):
        pool = everywhere
        if next_random(stream) < share:
            near = neighbours[turn[i]]
            near = near[member[near] >= 0]
            if len(near) > 1:
                pool = near
        a = int(next_random(stream) * len(pool))
        b = int(next_random(stream) * max(1, len(pool) - 1))
        if b >= a:
            b = (b + 1) % len(pool)
        mothers[i], fathers[i] = member[pool[a]], member[pool[b]]
    return mothers, fathers


@njit(cache=True, nogil=True, error_model="numpy")
def _value(point: Any, weight: Any, pbi: bool, penalty: float) -> float:
    if pbi:  # weight has length 1
        along = 0.0
        for m in range(len(point)):
            along += point[m] * weight[m]
        across = 0.0
        for m in range(len(point)):
            across += (point[m] - along * weight[m]) ** 2
        return float(along + penalty * np.sqrt(across))
    worst = 0.0
    for m in range(len(point)):
        worst = max(worst, point[m] * weight[m])
    return worst


@njit(cache=True, nogil=True)
def _compete(
    F: Any,
    violation: Any,
    member: Any,
    order: Any,
    origin: Any,
    before: int,
    neighbours: Any,
    weights: Any,
    pbi: bool,
    penalty: float,
) -> None:
    """Let the arrived candidates take the subproblems that they serve better, one after the other, in place."""
    for row in order:
        home = origin[row - before]
        for k in neighbours[home]:
            rival = member[k]
            if rival < 0:
                if k == home:
                    member[k] = row
                continue
            better = violation[row] < violation[rival]
            if violation[row] == violation[rival]:
                better = _value(F[row], weights[k], pbi, penalty) < _value(F[rival], weights[k], pbi, penalty)
            if better:
                member[k] = row


def _compact(member: IntArray) -> tuple[IntArray, IntArray]:
    """The rows that some subproblem has, each once, and each subproblem's place among them."""
    filled = member >= 0
    kept, place = np.unique(member[filled], return_inverse=True)
    compacted = np.full(len(member), -1)
    compacted[filled] = place
    return kept, compacted
