"""What a search leaves behind: one record for each generation, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.optimization.population import Population

__all__ = ["Generation", "SearchResult", "summarise"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What one generation left behind. Also answers to the names that pymoo's history entries have.

    Attributes:
        number: from 1.
        evaluations: candidates evaluated so far.
        unknown: of these, how many came back without a value.
        front_size: feasible non-dominated members of the population.
        ideal: least value reached per objective [n_obj] among them; NaN while there is none.
        hypervolume: of them, against the caller's reference; None without one.
        moved: mean distance of them from the front before, in shares of their extent; NaN where one is empty or
            nobody asked.
        seconds: wall time so far.
        pop, opt: population and front, where the caller keeps them (``keep_populations``), None otherwise.
    """

    number: int
    evaluations: int
    unknown: int
    front_size: int
    ideal: tuple[float, ...]
    hypervolume: float | None
    moved: float = field(default=float("nan"), compare=False)
    seconds: float = field(default=0.0, compare=False)
    pop: Population | None = field(default=None, compare=False, repr=False)
    opt: Population | None = field(default=None, compare=False, repr=False)

    @property
    def n_gen(self) -> int:
        """Pymoo's name of ``number``."""
        return self.number

    @property
    def evaluator(self) -> _Counted:
        """Pymoo's way to the evaluations: ``entry.evaluator.n_eval``."""
        return _Counted(self.evaluations)

    def to_dict(self) -> dict[str, Any]:
        """The record without populations, as plain JSON types but for NaN."""
        names = ("number", "evaluations", "unknown", "front_size", "ideal", "hypervolume", "moved", "seconds")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Generation:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**document, "ideal": tuple(document["ideal"])})


@dataclass(frozen=True, slots=True)
class _Counted:
    n_eval: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The feasible non-dominated members of the last population; empty where nothing was feasible.

    Attributes:
        X: variables [n, n_var].
        F: objectives [n, n_obj], smaller is better.
        G: constraints [n, n_constraints], kept where ``<= 0``.
        generations: generations run; fewer than asked where a finite space was exhausted.
        evaluations: candidates evaluated, the unknown ones included.
        unknown: candidates without a value (NaN); they took no part in the search.
        seconds: wall time.
        history: one entry per generation.
        pop: the whole last population.
        stopped: why the search ended.
    """

    X: FloatArray
    F: FloatArray
    G: FloatArray
    generations: int
    evaluations: int
    unknown: int
    seconds: float = field(compare=False)
    history: tuple[Generation, ...]
    pop: Population = field(compare=False, repr=False)
    stopped: str

    @property
    def opt(self) -> Population:
        """Pymoo's name of the front."""
        return Population(X=self.X, F=self.F, G=self.G)

    @property
    def CV(self) -> FloatArray:  # noqa: N802 - pymoo's name
        """Violation [n, 1] of the front: all 0."""
        found: FloatArray = self.opt.get("CV")
        return found

    @property
    def exec_time(self) -> float:
        """Pymoo's name of ``seconds``."""
        return self.seconds


def summarise(
    front: Population,
    before: Population | None,
    *,
    number: int,
    evaluations: int,
    unknown: int,
    hypervolume: float | None,
    seconds: float,
    pop: Population | None,
) -> Generation:
    """The record of a generation.

    Args:
        front: of its population.
        before: front of the generation before; None where it does not matter how far the front moved.
        number, evaluations, unknown, hypervolume, seconds: see :class:`Generation`.
        pop: the population, where it is to be kept.
    """
    ideal = front.F.min(axis=0) if len(front) else np.full(front.F.shape[1], np.nan)
    return Generation(
        number=number,
        evaluations=evaluations,
        unknown=unknown,
        front_size=len(front),
        ideal=tuple(ideal.tolist()),
        hypervolume=hypervolume,
        moved=float("nan") if before is None else _moved(front.F, before.F),
        seconds=seconds,
        pop=pop,
        opt=front if pop is not None else None,
    )


def _moved(now: FloatArray, before: FloatArray) -> float:
    if not len(now) or not len(before):
        return float("nan")
    low, high = now.min(axis=0), now.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    from scipy.spatial import cKDTree

    distances, _ = cKDTree((before - low) / span).query((now - low) / span)
    return float(np.mean(distances))
