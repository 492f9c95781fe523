"""The whole HTTP interface in one process: the Gateway's routes behind the fast lane, the real Control, no Ray."""

from __future__ import annotations

import asyncio
import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from support.bundles import policy_bundle
from support.feature_kit import definition
from support.front_kit import write_front_file
from support.front_routes_kit import scenario_front
from support.serving_kit import SECRET

from rlaas.control.experiments.service import ExperimentService
from rlaas.control.fronts import FrontService
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.lake import Lake
from rlaas.lake.wal import WriteAheadLog
from rlaas.registry.fronts import FrontStore
from rlaas.serving.decision_ids import DecisionIds
from rlaas.serving.edge import EdgeSync
from rlaas.serving.edge.receipts import Receipts
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.entities import FeatureCatalogue
from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.live import LiveAnswer
from rlaas.serving.pressure import Pressure
from rlaas.serving.residents import Residents
from rlaas.serving.transport import Limits
from rlaas.serving.web import ControlReply, ControlRequest, create_app
from rlaas.settings import load_settings

__all__ = ["HttpPlatform", "shared_platform"]

_CHAMPION = [{"name": "champion", "version": 1, "weight": 1}]


class _Operations:
    """The processes around Control."""

    def __init__(self) -> None:
        self.replicas = 1

    def scale(self, replicas: int) -> None:
        self.replicas = replicas

    def lake_status(self) -> dict[str, Any]:
        return {"committed": 0}

    def flush_lake(self) -> dict[str, Any]:
        return {"committed": 0}


class HttpPlatform:
    """Serves ``toy`` (discrete, versions 1 and 2, preference-conditioned) and ``box`` (two continuous actions).

    A front of ``network5g`` lies in its home, and a bundle at ``bundles/toy``; a feature ``cell_load`` is registered.

    Args:
        root: folder for everything.
        limits: of a request.
    """

    tenant = "default"

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(1 << 20, 5.0)
        settings = load_settings(home=root / "home")
        self.operations = _Operations()
        self.control = ControlService(settings)
        home = settings.home
        for name, seed, kind in (("toy", 1, "discrete"), ("toy", 2, "discrete"), ("box", 3, "box")):
            actions = 2 if kind == "box" else 4
            folder = policy_bundle(home / "bundles" / f"{name}-{seed}", seed=seed, kind=kind, actions=actions)  # type: ignore[arg-type]
            self.control.register(name, str(folder.relative_to(home)))
        policy_bundle(home / "bundles" / "toy", seed=4)
        write_front_file(home, scenario_front(20), "static")
        store = FrontStore(self.control.registry)
        self._fronts = FrontService(store, home)
        experiments = ExperimentService(self.control, self.tenant, Lake(root / "lake"))
        self.routes = ControlRoutes(self.control, self.operations, self._fronts, experiments)
        self.control.features.store.apply([definition("cell_load")])
        self._residents = Residents(256, FeatureCatalogue(settings.features_database, self.tenant, 0.0))
        self._logs = [WriteAheadLog(root / "wal", kind, "test") for kind in ("decisions", "outcomes")]
        self._engine = DecisionEngine(
            ids=DecisionIds(SECRET, "test", tenant=self.tenant),
            producer="test",
            decisions=self._logs[0],
            outcomes=self._logs[1],
            max_rows=1000,
            seed=0,
        )
        self._hot = HotPath(self.tenant, self.limits, 64, Pressure())
        self._edge = EdgeSync(
            secret=SECRET,
            decisions=self._logs[0],
            outcomes=self._logs[1],
            receipts=Receipts(root / "wal", lambda: Lake(root / "lake"), self.tenant),
            locks=root / "edge-locks",
            bundle=self._residents.path,
        )
        self.experiments = experiments
        self.app = FastLane(create_app(self))
        self.restore()

    def engine(self) -> DecisionEngine:
        return self._engine

    def edge(self) -> EdgeSync:
        return self._edge

    async def warm(self, policy: str) -> None:
        raise AssertionError(f"{policy} is not cold")

    async def forward(self, request: ControlRequest) -> ControlReply:
        reply = await asyncio.to_thread(self.routes.dispatch, request)
        if request.method != "GET":
            await asyncio.to_thread(self.follow)
        return reply

    def follow(self) -> None:
        """Serve what is live, as a Gateway does after its poll."""
        answer = self._report()
        if self._residents.is_current(answer.records):
            return
        paths = {key: Path(path) for key, path in answer.paths.items()}
        self._engine.switch(self._residents.follow(answer.records, paths, dict(self._engine.used)))
        self._hot.refresh(self._engine)
        self._report()

    def _report(self) -> LiveAnswer:
        tallies = tuple(self._engine.tally.snapshot())
        return self.control.live("replica", self._engine.state.generations(), {}, tallies, "test")

    def restore(self) -> None:
        """End experiments, rollouts and gates, and have version 1 of both policies live alone."""
        for stored in self.experiments.all():
            if stored["stopped_us"] is None:
                self.experiments.stop(stored["id"], "none", variant=None, reason="restored", actor="test")
        for policy in ("toy", "box"):
            if self.control.gates.describe(policy)["gate"] is not None:
                self.control.gates.remove(policy)
            for running in self.control.rollouts.store.running(policy):
                self.control.rollouts.act(policy, running.number, "rollback", actor="test", reason="restored")
            live = [(v.version, v.shadow) for r in self.control.deployments() if r.policy == policy for v in r.variants]
            if live != [(1, False)]:  # making one loads bundles
                self.control.create_deployment(policy, _CHAMPION)
        with self.control.database.engine.begin() as connection:  # a version that has served needs no gate again
            connection.execute(sa.text("DELETE FROM policy_served_versions"))
        self.follow()

    @contextmanager
    def fast_lane(self) -> Iterator[None]:
        """Answer the hot routes in the fast lane for the length of the block."""
        FastLane.gateway = self._hot
        try:
            yield
        finally:
            FastLane.gateway = None

    def close(self) -> None:
        """End threads and logs."""
        self._fronts.close()
        for log in self._logs:
            log.close()


@cache
def shared_platform() -> HttpPlatform:
    """One for the whole process, as a registry takes long to make; ask for :meth:`HttpPlatform.restore` first."""
    folder = tempfile.TemporaryDirectory(prefix="rp", ignore_cleanup_errors=True)
    platform = HttpPlatform(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(platform.close)
    return platform
