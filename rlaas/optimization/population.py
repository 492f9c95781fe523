"""Candidates of a search as plain arrays, and what every engine that breeds them can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, check_choice

__all__ = ["Engine", "Population"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Candidates side by side; row i of each array belongs to candidate i.

    Attributes:
        X: variables [n, n_var].
        F: objectives [n, n_obj], smaller is better.
        G: constraints [n, n_constraints], kept where ``<= 0``.
    """

    X: FloatArray
    F: FloatArray
    G: FloatArray

    @classmethod
    def empty(cls, n_var: int, n_obj: int, n_constraints: int) -> Population:
        """No candidate."""
        return cls(X=np.empty((0, n_var)), F=np.empty((0, n_obj)), G=np.empty((0, n_constraints)))

    @classmethod
    def of(cls, X: FloatArray, values: FloatArray, n_obj: int) -> Population:
        """From variables [n, n_var] and evaluated columns [n, n_obj + n_constraints]."""
        return cls(X=X, F=np.ascontiguousarray(values[:, :n_obj]), G=np.ascontiguousarray(values[:, n_obj:]))

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: Any) -> Population:
        """The candidates at ``rows`` (indices or a mask), in that order."""
        return Population(X=self.X[rows], F=self.F[rows], G=self.G[rows])

    def joined(self, other: Population) -> Population:
        """These candidates, then the other's."""
        return Population(
            X=np.concatenate([self.X, other.X]),
            F=np.concatenate([self.F, other.F]),
            G=np.concatenate([self.G, other.G]),
        )

    def values(self) -> FloatArray:
        """Objectives, then constraints [n, n_obj + n_constraints], as ``Problem.evaluate`` gives them."""
        return np.concatenate([self.F, self.G], axis=1) if self.G.shape[1] else self.F

    def get(self, *names: str) -> Any:
        """Arrays by pymoo's names: ``X``, ``F``, ``G``, ``CV`` (violation [n, 1]), ``feas`` [n]; a list of several.

        Raises:
            InvalidInputError: another name.
        """
        found = [self._array(name) for name in names]
        return found[0] if len(names) == 1 else found

    def _array(self, name: str) -> NDArray[Any]:
        check_choice(name, ("CV", "F", "G", "X", "feas"), field="array", error=InvalidInputError)
        if name == "CV":
            return self.violation()[:, None]
        if name == "feas":
            return np.asarray(self.violation() <= 0)
        array: FloatArray = getattr(self, name)
        return array

    def violation(self) -> FloatArray:
        """Sum of how far each candidate breaks its constraints [n]; 0 is feasible."""
        if not self.G.shape[1]:
            return np.zeros(len(self.X))
        return np.asarray(np.maximum(self.G, 0.0).sum(axis=1))

    def front(self) -> Population:
        """Feasible candidates that no other feasible one dominates; of equal objective vectors the first."""
        import moocore

        feasible = self.take(np.flatnonzero(self.violation() <= 0))
        if not len(feasible):
            return feasible
        return feasible.take(np.asarray(moocore.is_nondominated(feasible.F, keep_weakly=False)))


class Engine(Protocol):
    """A search taken apart: ask for candidates, evaluate them anywhere, tell what came of them.

    Attributes:
        size: candidates kept.
        population: those kept now; empty before the first ``tell``.
    """

    size: int
    population: Population

    def ask(self, count: int | None = None) -> FloatArray:
        """Candidates to evaluate next [count, n_var].

        While the first generation is not given out whole, its rest (at most ``count``); then ``count`` offspring of
        the population, by default one generation. Fewer, or none, where a finite space holds no candidate that was not
        asked for.
        """
        ...

    def tell(self, X: FloatArray, values: FloatArray) -> None:
        """Take in candidates X [n, n_var] with their columns [n, n_obj + n_constraints], and keep the best ``size``.

        Any candidates may be told, asked for or not (migrants), in any number and order. A row with a value that is
        not finite is unknown and takes no part.
        """
        ...

    def front(self) -> Population:
        """Feasible members of the population that no other feasible one dominates; of equal ones the first."""
        ...

    def share(self) -> dict[str, FloatArray]:
        """What the engine normalises objectives with, for other islands."""
        ...

    def adopt(self, shared: dict[str, FloatArray]) -> None:
        """Widen the normalisation by what another island shares."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on, as arrays and plain JSON types."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state`` of an engine that was built alike, bit for bit."""
        ...
