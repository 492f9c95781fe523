"""Carries a plan out: resumes, runs, and keeps what was reached, whatever ends the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from rlaas.errors import ConfigurationError
from rlaas.optimization.generational import run_generations
from rlaas.optimization.history import SearchResult
from rlaas.optimization.ledger import Ledger, Watch
from rlaas.optimization.population import Engine, Population
from rlaas.optimization.problems import Problem
from rlaas.optimization.spread.events import EventLog
from rlaas.optimization.spread.folder import RunFolder
from rlaas.optimization.spread.islands import Archipelago
from rlaas.optimization.spread.planner import Plan
from rlaas.optimization.spread.recipe import Recipe
from rlaas.optimization.spread.steady import SteadySearch
from rlaas.optimization.spread.workers import Workers

__all__ = ["Conductor"]

SAVE_SECONDS = 10.0
"""Time between two checkpoints of generations; islands are kept after each epoch, a steady flow at each event."""


class Conductor:
    """One run of one plan.

    Args:
        problem: what is searched.
        recipe: of the engine.
        engine: built from it, fresh.
        plan: how the search is spread.
        ledger: the run's account.
        folder: where the run is kept; None for nowhere.
        deadline_seconds: longest that a call, of islands a generation, may take.

    Attributes:
        lost_epochs: epochs of islands that were lost twice.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        engine: Engine,
        plan: Plan,
        ledger: Ledger,
        folder: RunFolder | None,
        deadline_seconds: float,
    ) -> None:
        self.lost_epochs = 0
        self._problem = problem
        self._recipe = recipe
        self._engine = engine
        self._plan = plan
        self._ledger = ledger
        self._folder = folder
        self._deadline = deadline_seconds

    def run(self, workers: Workers | None, watch: Watch | None = None) -> SearchResult:
        """Begin or go on with the run, to its end.

        Args:
            workers: who evaluates; None for this process, of the way ``serial``.
            watch: called with each new entry of the history and the population it describes.

        Raises:
            ConfigurationError: the plan needs workers.
            Exception: what ended the run; its ``partial`` is the :class:`SearchResult` so far, where there is one.
        """
        if self._plan.way != "serial" and workers is None:
            raise ConfigurationError(f"the way {self._plan.way} needs workers", field="workers")
        if self._folder is not None:
            self._folder.begin(self._plan)
        self._ledger.set_clock(0.0)
        if self._plan.way == "islands":
            return self._islands(workers, watch)
        if self._plan.way == "asynchronous":
            return self._steady(workers, watch)
        return self._generations(workers, watch)

    def _generations(self, workers: Any, watch: Watch | None) -> SearchResult:
        rows = self._plan.rows_per_call
        evaluate = self._problem.evaluate if workers is None else lambda X: workers.evaluate(X, rows_per_call=rows)
        self._load(self._engine, lambda: self._engine.population)
        self._ledger.watch = watch
        saved = -math.inf  # the first generation is kept: whoever is killed from then on can go on

        def save() -> None:
            self._save(self._engine)

        def save_now_and_then() -> None:
            nonlocal saved
            if time.monotonic() - saved >= SAVE_SECONDS:
                save()
                saved = time.monotonic()

        return self._kept(
            lambda: run_generations(self._problem, self._engine, self._ledger, evaluate, save_now_and_then),
            lambda: self._engine.population,
            save,
        )

    def _islands(self, workers: Any, watch: Watch | None) -> SearchResult:
        archipelago = Archipelago(
            self._problem,
            self._recipe,
            self._engine.size,
            self._plan.islands,
            self._ledger,
            deadline_seconds=self._deadline,
        )
        self._load(archipelago, lambda: archipelago.population)
        self._ledger.watch = watch

        def save() -> None:
            self.lost_epochs = archipelago.lost_epochs
            self._save(archipelago)

        return self._kept(lambda: archipelago.run(workers, save), lambda: archipelago.population, save)

    def _steady(self, workers: Any, watch: Watch | None) -> SearchResult:
        folder = self._folder
        with nullcontext() if folder is None else EventLog(folder.events, folder.identity, resume=True) as log:
            search = SteadySearch(self._problem, self._engine, self._ledger, log)
            if log is not None and log.before is not None:
                search.walk(log.before)
            self._ledger.watch = watch
            rows = self._plan.rows_per_call or 1
            return self._kept(
                lambda: search.run(workers, rows_per_call=rows), lambda: self._engine.population, None, log
            )

    def _kept(
        self,
        go: Callable[[], str],
        population: Callable[[], Population],
        save: Callable[[], None] | None,
        log: EventLog | None = None,
    ) -> SearchResult:
        """Run to the end; however it comes, keep what there is."""
        try:
            reason = go()
        except Exception as failure:
            if self._ledger.history:
                failure.partial = self._ledger.result(  # type: ignore[attr-defined]
                    population(), f"failed: {failure}"
                )
            if save is not None and self._ledger.history:
                save()
            raise
        if save is not None:
            save()
        if log is not None:
            log.ended(reason)
        return self._ledger.result(population(), reason)

    def _load(self, search: Engine | Archipelago, population: Callable[[], Population]) -> None:
        state = None if self._folder is None else self._folder.load()
        if state is not None:
            search.restore(state["search"])
            self._ledger.restore(state["ledger"], population())

    def _save(self, search: Engine | Archipelago) -> None:
        if self._folder is not None:
            self._folder.save({"search": search.state(), "ledger": self._ledger.state()})
