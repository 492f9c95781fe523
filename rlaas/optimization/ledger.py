"""The account of a run: its history, its end, its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError
from rlaas.optimization.history import Generation, SearchResult, summarise
from rlaas.optimization.indicators import hypervolume
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem
from rlaas.optimization.termination import DistanceStall, Generations, Stop

__all__ = ["Ledger", "Watch"]

FloatArray = NDArray[np.float64]
Watch = Callable[[Generation, Population], None]
"""Called with each entry of the history and the population it describes."""


class Ledger:
    """Writes one entry of history for each ``size`` candidates evaluated.

    Args:
        problem: what is searched.
        size: candidates that count as a generation.
        stops: reasons to end.
        reference: point [n_obj] that hypervolumes are measured against.
        watch: called after each entry.
        keep_populations: keep population and front in each entry.

    Raises:
        InvalidInputError: a reference of another length than the objectives.

    Attributes:
        history: the entries.
        watch: called after each entry.
        front: of the population that the last entry describes.
        evaluations: candidates evaluated, the unknown ones included.
        unknown: candidates without a value.
        limit: candidates after which a ``Generations`` stop holds; infinite without one.
    """

    def __init__(
        self,
        problem: Problem,
        size: int,
        stops: Sequence[Stop],
        reference: ArrayLike | None = None,
        watch: Watch | None = None,
        keep_populations: bool = False,
    ) -> None:
        self._reference = None if reference is None else np.asarray(reference, dtype=np.float64)
        if self._reference is not None:
            hypervolume(np.empty((0, problem.n_obj)), self._reference)  # refuses what does not fit, before any work
            if self._reference.shape != (problem.n_obj,):
                raise InvalidInputError(
                    f"reference has shape {self._reference.shape}; expected ({problem.n_obj},)", field="reference"
                )
        self._size = size
        self._stops = stops
        self._measure_moves = any(isinstance(stop, DistanceStall) for stop in stops)
        self.watch = watch
        self._keep = keep_populations
        self.front = Population.empty(problem.n_var, problem.n_obj, problem.n_constraints)
        self._started = time.perf_counter()
        self.history: list[Generation] = []
        self.evaluations = 0
        self.unknown = 0
        self.limit = min((stop.count * size for stop in stops if isinstance(stop, Generations)), default=float("inf"))

    def add(self, evaluations: int, unknown: int) -> None:
        """Count candidates that came back."""
        self.evaluations += evaluations
        self.unknown += unknown

    @property
    def seconds(self) -> float:
        """Wall time of the run so far."""
        return time.perf_counter() - self._started

    def set_clock(self, seconds: float) -> None:
        """Let the run have lasted ``seconds`` by now."""
        self._started = time.perf_counter() - seconds

    @property
    def missing(self) -> int:
        """Candidates until the generation under way is complete."""
        return self._size - self.evaluations % self._size

    def close_generation(self, population: Population) -> None:
        """Write the entry that is due, if one is."""
        number = self.evaluations // self._size
        if number > (self.history[-1].number if self.history else 0):
            self.enter(population, number)

    def enter(self, population: Population, number: int, front: Population | None = None) -> None:
        """Write an entry; ``front`` is that of the population, where it is known already."""
        before = self.front if self._measure_moves else None
        self.front = population.front() if front is None else front
        entry = summarise(
            self.front,
            before,
            number=number,
            evaluations=self.evaluations,
            unknown=self.unknown,
            hypervolume=None if self._reference is None else hypervolume(self.front.F, self._reference),
            seconds=self.seconds,
            pop=population if self._keep else None,
        )
        self.history.append(entry)
        if self.watch is not None:
            self.watch(entry, population)

    def stopped_by(self) -> str | None:
        """Why the run ends now, or None."""
        if not self.history:
            return None
        return next((why for stop in self._stops if (why := stop.reason(self.history)) is not None), None)

    def result(self, population: Population, stopped: str) -> SearchResult:
        """What was found so far."""
        front = population.front()
        return SearchResult(
            X=front.X,
            F=front.F,
            G=front.G,
            generations=self.history[-1].number if self.history else 0,
            evaluations=self.evaluations,
            unknown=self.unknown,
            seconds=self.seconds,
            history=tuple(self.history),
            pop=population,
            stopped=stopped,
        )

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run goes on from."""
        return {
            "evaluations": self.evaluations,
            "unknown": self.unknown,
            "seconds": self.seconds,
            "history": [entry.to_dict() for entry in self.history],
        }

    def restore(self, state: dict[str, Any], population: Population) -> None:
        """Go on from a ``state`` that ended with ``population``."""
        self.evaluations, self.unknown = state["evaluations"], state["unknown"]
        self.set_clock(state["seconds"])
        self.history = [Generation.from_dict(entry) for entry in state["history"]]
        self.front = population.front()
