"""Islands: sub-populations that evolve in the workers' processes and meet every few generations.

A call carries a whole epoch of an island, so its overhead is paid once in tens of generations. Each island keeps its
share of the reference directions, and with them its part of the front. Between epochs members migrate along a ring
(Cantú-Paz 1998, "A survey of parallel genetic algorithms") and all islands widen their normalisation by what the
others know of ideal and extreme points, so that a direction means the same on each.

Between epochs an island's state lies with the driver. Any worker can run any island, an island whose worker died goes
on from its last epoch, and the result depends on the seed alone, not on who finishes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import OperatorError
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem, check_values
from rlaas.optimization.spread.recipe import Recipe
from rlaas.optimization.spread.workers import Answer, Workers

__all__ = ["Archipelago", "Epoch", "Island", "island_count", "run_epoch"]

FloatArray = NDArray[np.float64]

EPOCH_GENERATIONS = 25
"""Generations between two meetings."""

MIN_ISLAND_SIZE = 20
"""Members below which an island is too small to hold a diversity of its own."""

MIGRANTS = 0.1
"""Share of an island's members that leave for the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What an island takes along into an epoch.

    Attributes:
        recipe: of its engine.
        state: of its engine; None at the beginning.
        arrivals: members that came from another island.
        shared: what the other islands normalise with.
        generations: of this epoch.
    """

    recipe: Recipe
    state: dict[str, Any] | None
    arrivals: Population | None
    shared: tuple[dict[str, FloatArray], ...]
    generations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """An island between two epochs.

    Attributes:
        state: of its engine.
        population: its members.
        shared: what it normalises with.
        evaluations: candidates of the epoch, the unknown ones included.
        unknown: candidates without a value.
    """

    state: dict[str, Any]
    population: Population
    shared: dict[str, FloatArray]
    evaluations: int
    unknown: int


def run_epoch(problem: Problem, epoch: Epoch) -> Island:
    """The task of an island: some generations, in the worker's process.

    Raises:
        InvalidInputError: an evaluation of the wrong shape.
    """
    engine = epoch.recipe.build(problem)
    if epoch.state is not None:
        engine.restore(epoch.state)
    for shared in epoch.shared:
        engine.adopt(shared)
    if epoch.arrivals is not None and len(epoch.arrivals):
        engine.tell(epoch.arrivals.X, epoch.arrivals.values())
    evaluations = unknown = 0
    for _ in range(epoch.generations):
        X = engine.ask()
        if not len(X):  # a finite space holds no candidate that was not tried
            break
        values = check_values(problem, X, problem.evaluate(X))
        engine.tell(X, values)
        evaluations += len(X)
        unknown += int((~np.isfinite(values).all(axis=1)).sum())
    return Island(
        state=engine.state(),
        population=engine.population,
        shared=engine.share(),
        evaluations=evaluations,
        unknown=unknown,
    )


def island_count(size: int, workers: int) -> int:
    """Islands for ``size`` members: one for each worker, as long as each keeps 20 members."""
    return max(1, min(workers, size // MIN_ISLAND_SIZE))


class Archipelago:
    """A search on islands, epoch by epoch.

    Args:
        problem: what is searched.
        recipe: of the engine that the islands share out.
        size: members of all islands together.
        count: islands.
        ledger: the run's account.
        deadline_seconds: longest that one generation of an island may take.
        epoch_generations: generations between two meetings.

    Attributes:
        generations: done so far.
        lost_epochs: epochs of an island that two workers failed to finish; the island went on from the one before.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        size: int,
        count: int,
        ledger: Ledger,
        *,
        deadline_seconds: float,
        epoch_generations: int = EPOCH_GENERATIONS,
    ) -> None:
        self.generations = 0
        self.lost_epochs = 0
        self._problem = problem
        self._seed = recipe.seed
        self._recipes = recipe.divided(problem, size, count)
        self._size = size
        self._islands: list[Island | None] = [None] * count
        self._ledger = ledger
        self._deadline = deadline_seconds
        self._epoch_generations = epoch_generations

    @property
    def population(self) -> Population:
        """The members of all islands [<= size]."""
        joined = Population.empty(self._problem.n_var, self._problem.n_obj, self._problem.n_constraints)
        for island in self._islands:
            joined = joined if island is None else joined.joined(island.population)
        return joined

    def run(self, workers: Workers, after_epoch: Callable[[], None]) -> str:
        """Search until a stop holds, and say which; stops are looked at after each epoch.

        Args:
            workers: who runs the islands.
            after_epoch: called after each, with the islands as they are to be kept.

        Raises:
            OperatorError: no island came back from an epoch, or the whole first generation is unknown.
            Exception: the problem's own; the islands are as after the last epoch.
        """
        while (reason := self._ledger.stopped_by()) is None:
            if not self._advance(workers):
                return "every candidate of the finite space was tried"
            after_epoch()
        return reason

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on."""
        return {
            "generations": self.generations,
            "lost_epochs": self.lost_epochs,
            "islands": [
                None if island is None else {"engine": island.state, "shared": island.shared}
                for island in self._islands
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``."""
        self.generations, self.lost_epochs = state["generations"], state["lost_epochs"]
        for i, stored in enumerate(state["islands"]):
            if stored is None:
                self._islands[i] = None
                continue
            engine = self._recipes[i].build(self._problem)
            engine.restore(stored["engine"])
            self._islands[i] = Island(
                state=stored["engine"],
                population=engine.population,
                shared=stored["shared"],
                evaluations=0,
                unknown=0,
            )

    def _advance(self, workers: Workers) -> bool:
        """One epoch of every island; whether there was anything left to try."""
        generations = self._epoch_generations
        left = self._ledger.limit / self._size - self.generations
        if left < generations:
            generations = int(left)
        workers.drop()
        islands = {
            workers.submit(run_epoch, epoch, deadline_seconds=self._deadline * generations): i
            for i, epoch in enumerate(self._epochs(generations))
        }
        back: dict[int, Island] = {}
        lost = 0
        while len(back) + lost < len(self._islands):
            for answer in workers.completed():
                island = _island(answer)
                if island is None:
                    lost += 1
                else:
                    back[islands[answer.ticket]] = island
        if not back:
            raise OperatorError(f"none of the {lost} islands came back from an epoch of {generations} generations")
        evaluations = sum(island.evaluations for island in back.values())
        unknown = sum(island.unknown for island in back.values())
        if not evaluations and not lost:
            return False
        if not self.generations and evaluations and unknown == evaluations:
            raise OperatorError(f"none of the {evaluations} candidates of the first epoch could be evaluated")
        for i, island in back.items():
            self._islands[i] = island
        self.lost_epochs += lost
        self.generations += generations
        self._ledger.add(evaluations, unknown)
        self._ledger.enter(self.population, self.generations)
        return True

    def _epochs(self, generations: int) -> list[Epoch]:
        return [
            Epoch(
                recipe=recipe,
                state=None if island is None else island.state,
                arrivals=self._leaving(i - 1),
                shared=tuple(other.shared for j, other in enumerate(self._islands) if other is not None and j != i),
                generations=generations,
            )
            for i, (recipe, island) in enumerate(zip(self._recipes, self._islands, strict=True))
        ]

    def _leaving(self, i: int) -> Population | None:
        """Members of island ``i`` that the next one on the ring gets: some of its front, drawn from the seed."""
        island = self._islands[i]
        if island is None or len(self._islands) == 1:
            return None
        front = island.population.front()
        rng = np.random.default_rng([self._seed, self.generations, i % len(self._islands)])
        count = min(len(front), max(1, round(MIGRANTS * len(island.population))))
        return front.take(np.sort(rng.permutation(len(front))[:count]))


def _island(answer: Answer) -> Island | None:
    """The island that came back, or None where its epoch was lost.

    Raises:
        Exception: the problem's own.
    """
    if answer.error is not None:
        raise answer.error
    island: Island | None = answer.value
    return island
