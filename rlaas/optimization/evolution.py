"""What the engines have in common: the first generation, offspring that were not tried before, and the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem, check_values, known_rows
from rlaas.optimization.variation import SEEDS, row_hashes, unseen

__all__ = ["Evolution"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ROUNDS = 100
"""Attempts to breed as many new candidates as were asked for, before a search counts as exhausted."""

_COUNTED_SPACE = 2**20
"""Configurations up to which a space of whole numbers is remembered, so that none is evaluated twice."""


class Evolution(ABC):
    """Asking and telling; an engine adds who mates and who survives.

    Args:
        problem: bounds, whole-number variables and counts; never evaluated here.
        size: candidates kept.
        seed: of every random choice.
        initial: candidates to start with [n, n_var]; the rest of the first generation is sampled.

    Raises:
        InvalidInputError: initial candidates of another shape, out of bounds or not whole where they have to be; an
            integer variable without a whole number between its bounds.
    """

    def __init__(self, problem: Problem, size: int, seed: int, initial: ArrayLike | None = None) -> None:
        self.size = size
        self._problem = problem
        self._integer = np.asarray(problem.integer, dtype=bool)
        self._low = np.where(self._integer, np.ceil(problem.xl), problem.xl)
        self._high = np.where(self._integer, np.floor(problem.xu), problem.xu)
        if (self._low > self._high).any():
            raise InvalidInputError("an integer variable has no whole number between its bounds", field="integer")
        self._rng = np.random.default_rng(seed)
        self.population = Population.empty(problem.n_var, problem.n_obj, problem.n_constraints)
        whole = bool(self._integer.all())
        counts = (self._high - self._low + 1).tolist() if whole else []
        self._tried: NDArray[np.uint64] | None = (
            np.empty(0, dtype=np.uint64) if whole and prod(counts) <= _COUNTED_SPACE else None
        )
        given = self._checked(initial)
        missing = max(0, size - len(given))
        self._waiting = np.concatenate([given, self._sample(missing)])
        if self._tried is not None:
            hashes = row_hashes(self._waiting)
            self._waiting = self._waiting[unseen(hashes, self._tried)]
            self._tried = np.unique(hashes)

    def ask(self, count: int | None = None) -> FloatArray:
        """Candidates to evaluate next [count, n_var]; see :class:`~rlaas.optimization.population.Engine`."""
        if len(self._waiting):
            wanted = len(self._waiting) if count is None else count
            first, self._waiting = self._waiting[:wanted], self._waiting[wanted:]
            return first
        return self._offspring(self.size if count is None else count)

    def tell(self, X: FloatArray, values: FloatArray) -> None:
        """Take in candidates X [n, n_var] with their columns; see :class:`~rlaas.optimization.population.Engine`.

        Raises:
            InvalidInputError: columns of another shape; nothing was taken in.
        """
        X = np.asarray(X, dtype=np.float64)
        values = check_values(self._problem, X, values)
        known = np.flatnonzero(known_rows(values))
        if len(known) < len(X):
            X, values = X[known], values[known]
        self._survive(Population.of(X, values, self._problem.n_obj), known)

    @abstractmethod
    def _couples(self, count: int) -> tuple[IntArray, ...]:
        """Rows of the population that mate, for at least ``count`` children; further arrays are the engine's own."""

    @abstractmethod
    def _children(self, couples: tuple[IntArray, ...], seed: int) -> FloatArray:
        """Children [n, n_var] of the couples."""

    @abstractmethod
    def _survive(self, arrived: Population, rows: IntArray) -> None:
        """Keep the best ``size`` of the population and the arrived ones, which were ``rows`` of what was told."""

    def front(self) -> Population:
        """Feasible members of the population that no other feasible one dominates; of equal ones the first."""
        return self.population.front()

    def share(self) -> dict[str, FloatArray]:
        """What objectives are normalised with; none by default."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on."""
        return {
            "rng": self._rng.bit_generator.state,
            "X": self.population.X,
            "values": self.population.values(),
            "waiting": self._waiting,
            "tried": self._tried,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        self._rng.bit_generator.state = state["rng"]
        self.population = Population.of(state["X"], state["values"], self._problem.n_obj)
        self._waiting = state["waiting"]
        self._tried = state["tried"]

    def _seed(self) -> int:
        return int(self._rng.integers(SEEDS))

    def _offspring(self, count: int) -> FloatArray:
        """``count`` children that are neither in the population, nor twice in the batch, nor tried in a small space."""
        if len(self.population) < 2:  # nothing came back yet: go on sampling
            return self._new(self._sample(count), count)
        bred: list[FloatArray] = []
        found = 0
        known = row_hashes(self.population.X) if self._tried is None else self._tried
        for _ in range(_ROUNDS):
            couples = self._couples(count - found)
            children = self._children(couples, self._seed())
            hashes = row_hashes(children)
            fresh = np.flatnonzero(unseen(hashes, known))[: count - found]
            self._bred(couples, children, fresh)
            bred.append(children if len(fresh) == len(children) else children[fresh])
            found += len(fresh)
            if self._tried is not None or found < count:
                known = np.concatenate([known, hashes[fresh]])
            if found == count:
                break
        if self._tried is not None:
            self._tried = known
        return bred[0] if len(bred) == 1 else np.concatenate(bred)

    def _bred(self, couples: tuple[IntArray, ...], children: FloatArray, fresh: IntArray) -> None:
        """Told which children are given out; for engines that remember where a child belongs."""

    def _new(self, X: FloatArray, count: int) -> FloatArray:
        """The first ``count`` rows that a small space has not given out before."""
        if self._tried is None:
            return X[:count]
        hashes = row_hashes(X)
        fresh = np.flatnonzero(unseen(hashes, self._tried))[:count]
        self._tried = np.concatenate([self._tried, hashes[fresh]])
        return X[fresh]

    def _sample(self, count: int) -> FloatArray:
        """Uniform candidates [count, n_var]; each whole number is as likely as the others."""
        unit = self._rng.random((count, len(self._low)))
        real = self._low + unit * (self._high - self._low)
        whole = np.minimum(np.floor(self._low + unit * (self._high - self._low + 1)), self._high)
        return np.asarray(np.where(self._integer, whole, real))

    def _checked(self, initial: ArrayLike | None) -> FloatArray:
        problem = self._problem
        given = np.empty((0, problem.n_var)) if initial is None else np.asarray(initial, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != problem.n_var:
            raise InvalidInputError(
                f"initial candidates have shape {given.shape}; expected [n, {problem.n_var}]", field="initial"
            )
        if not ((given >= problem.xl) & (given <= problem.xu)).all():
            raise InvalidInputError("an initial candidate lies outside the bounds xl..xu (or is NaN)", field="initial")
        return np.clip(np.where(self._integer, np.round(given), given), self._low, self._high)
