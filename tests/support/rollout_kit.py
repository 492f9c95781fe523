"""Rollouts on a real state database, with a clock that the test moves and Gateways that count what the test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.serving_kit import deployment

from rlaas.control.rollouts import GatewayReports, Lease, RolloutController, RolloutService
from rlaas.control.state import StateDatabase
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.tally import Tally

OLD, NEW = 1, 2
TARGET = [{"name": "champion", "version": NEW, "weight": 1}]
QUICK = {"step_s": 5, "max_step_s": 600, "min_decisions": 20, "analysis": {"metrics": ["errors"]}}


class Gateways:
    """Processes that count decisions of ``toy`` in two versions.

    Args:
        reports: where they report.
        names: of the processes.
        seed: of their traffic.
    """

    def __init__(self, reports: GatewayReports, names: Sequence[str] = ("g1", "g2"), seed: int = 1) -> None:
        self.reports, self.rng = reports, np.random.default_rng(seed)
        self.tallies = {name: Tally() for name in names}
        self.failures: dict[str, str] = {}
        self.attempts = {OLD: 0, NEW: 0}

    def serve(
        self, *, old: int = 95, new: int = 5, errors: float = 0.0, slow: bool = False, utility: float | None = None
    ) -> None:
        """A second of traffic, spread over the processes; ``errors`` and so on are of the new version."""
        names = list(self.tallies)
        for version, count in ((OLD, old), (NEW, new)):
            for index in range(count):
                tally, is_new = self.tallies[names[index % len(names)]], version == NEW
                if self.rng.random() < (errors if is_new else 0.002):
                    tally.failed("toy", version)
                else:
                    took = 200e3 * np.exp(0.5 * self.rng.standard_normal()) * (5 if is_new and slow else 1)
                    tally.decided("toy", version, 1, int(took))
                mean = 0.6 if utility is None or not is_new else utility
                tally.rewarded("toy", version, float(np.clip(self.rng.normal(mean, 0.15), 0, 1)))
            self.attempts[version] += count

    def report(self, generation: int = 0) -> None:
        """Tell Control, with the generation that they have loaded."""
        for name, tally in self.tallies.items():
            self.reports.note(name, name, {"dep-toy": generation}, self.failures, tally.snapshot())


class World:
    """A state database with ``toy`` live in version 1, a clock, and everything that works on it."""

    def __init__(self, folder: Path, *, url: str | None = None) -> None:
        self.now_us = 1_000_000_000
        self.url = url or f"sqlite:///{folder / 'state.db'}"
        self.database = StateDatabase(self.url)
        self.service = RolloutService(self.database, "default", clock=self.clock)
        self.gateways = Gateways(self.service.reports)
        self.mirrored: list[tuple[str, int]] = []
        self.controller = self.another()
        self.database.write(deployment("toy", [{"name": "champion", "version": OLD, "weight": 1}]))

    def clock(self) -> int:
        return self.now_us

    def another(self, holder: str | None = None) -> RolloutController:
        """A controller, as in another process or after a restart."""
        return RolloutController(
            self.database,
            "default",
            reports=self.service.reports,
            mirror=lambda policy, version: self.mirrored.append((policy, version)),
            lease=Lease(self.database, "rollouts/default", holder=holder, clock=self.clock),
            clock=self.clock,
        )

    @property
    def live(self) -> DeploymentRecord:
        (record,) = self.database.deployments("default")
        return record

    @property
    def shares(self) -> dict[int, float]:
        """Share by version."""
        return {variant.version: round(variant.weight, 6) for variant in self.live.variants}

    def start(self, **strategy: Any) -> None:
        document = {"kind": "canary", **strategy}
        if document["kind"] != "blue_green":
            document = {**QUICK, **document}
        self.service.start(self.live, TARGET, document, check=lambda record: None)

    def second(self, *, tick: bool = True, loaded: bool = True, **traffic: Any) -> None:
        """A second passes: traffic, reports, a look of the controller."""
        self.now_us += 1_000_000
        self.gateways.serve(**traffic)
        self.gateways.report(self.live.generation if loaded else 0)
        if tick:
            self.controller.tick()

    def rollout(self) -> dict[str, Any]:
        return self.service.history("toy")[0]

    def kinds(self) -> list[str]:
        """What has happened to the newest rollout."""
        return [event["kind"] for event in self.rollout()["events"]]
