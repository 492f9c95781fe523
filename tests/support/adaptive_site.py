"""A Control, a Gateway and a lake under one clock: each batch of an experiment is served and reported in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from support.experiment_kit import SECOND, START_US, reported
from support.serving_kit import Bench, make_bench

from rlaas.control.experiments import Analyst, ExperimentService, ExperimentStore
from rlaas.control.service import ControlService
from rlaas.lake import Lake
from rlaas.lake.records import DecisionRecord
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.registry import Registry
from rlaas.settings import Settings

__all__ = ["BATCH_US", "Clock", "Site"]

BATCH_US = 1_000 * SECOND
_ROW = (0.1, -0.5, 2.0)


class Clock:
    """Stands still until it is moved."""

    now_us = START_US

    def __call__(self) -> int:
        return self.now_us


class Site:
    """A Control, a Gateway and a lake; each batch is served, logged and reported at its own time.

    Args:
        home: with a registry that has ``toy`` in versions 1 and 2.
        folder: for everything else.
    """

    def __init__(self, home: Settings, folder: Path) -> None:
        self.control = ControlService(home.model_copy(update={"state_url": f"sqlite:///{folder / 'state.db'}"}))
        self.control.adopt_champions()
        self.lake, self.clock = Lake(folder / "lake"), Clock()
        self.service = self.restarted()
        registry = Registry(home)
        self.paths = {("toy", v): registry.path("toy", v) for v in (1, 2)}
        self.bench: Bench | None = None
        self.folder, self.commits, self.taken = folder, 0, 0

    def restarted(self) -> ExperimentService:
        """Another service on the same state."""
        store = ExperimentStore(self.control.database, "default")
        analyst = Analyst(store, self.lake, settle_s=30.0, clock=self.clock)
        return ExperimentService(self.control, "default", self.lake, analyst=analyst, clock=self.clock)

    @property
    def live(self) -> Any:
        """The deployment as it is."""
        return self.control.status("toy")[0]

    @property
    def shares(self) -> dict[str, float]:
        """Weight by variant."""
        return {one.name: one.weight for one in self.live.variants}

    def serve(
        self,
        units: Sequence[str],
        value: Callable[[DecisionRecord], dict[str, float]],
        *,
        rows: Sequence[Sequence[float]] | None = None,
        **body: Any,
    ) -> list[DecisionRecord]:
        """One decision for each unit a second, from the deployment as it is, and what it led to.

        Args:
            units: sticky keys.
            value: outcome of a decision.
            rows: observation of each unit.
            body: what else all requests say.
        """
        if self.bench is None:
            self.bench = make_bench(self.folder, self.paths, self.live)
        self.bench.switch(self.live)
        asked: list[str] = []
        for first in range(0, len(units), 100):
            part = list(units[first : first + 100])
            seen = [list(_ROW)] * len(part) if rows is None else [list(row) for row in rows[first : first + 100]]
            answer = self.bench.decide("toy", observations=seen, unit=part, **body)
            asked += [decision["decision_id"] for decision in answer["decisions"]]
        # The log keeps those of one variant together; they are as old as they were asked.
        found = {one.decision_id: one for one in self.bench.logged_decisions()[self.taken :]}
        logged = [found[decision_id] for decision_id in asked]
        self.taken += len(logged)
        decisions = [replace(one, time_us=self.clock.now_us + i * SECOND) for i, one in enumerate(logged)]
        outcomes = [reported(one.decision_id, one.time_us, one.time_us + SECOND, value(one)) for one in decisions]
        self.commits += 1
        self.lake.append_once("bronze.decisions", {"kit": [(self.commits, lambda: decision_rows(decisions))]})
        self.lake.append_once("bronze.outcomes", {"kit": [(self.commits, lambda: outcome_rows(outcomes))]})
        self.clock.now_us += BATCH_US
        return decisions
