"""The Gateway: the Serve ingress that answers ``decide``, ``outcomes`` and V2 ``infer``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.applications import Starlette

from rlaas.errors import NotReadyError, OperatorError, RetryableError
from rlaas.lake import Lake
from rlaas.lake.wal import WriteAheadLog
from rlaas.serving.backlog import BacklogWatch
from rlaas.serving.config import ServingConfig
from rlaas.serving.decision_ids import DecisionIds
from rlaas.serving.edge import EdgeSync, Receipts
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.entities import FeatureCatalogue
from rlaas.serving.events import configure_events
from rlaas.serving.exposition import RayExporter
from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.live import LiveAnswer
from rlaas.serving.load import LoadMeter
from rlaas.serving.loaded import LiveState
from rlaas.serving.pressure import Pressure
from rlaas.serving.residents import Residents
from rlaas.serving.transport import Limits
from rlaas.serving.web import ControlReply, ControlRequest, create_app
from rlaas.settings import Settings

__all__ = ["GATEWAY", "Gateway"]

GATEWAY = "Gateway"
_SHADOW_PAUSE_S = 0.05
_THAW_EACH = 64
"""Switches between two at which what older states left behind is looked for: that takes a tenth of a second."""
_FIRST_PATIENCE_S = 20.0
"""How long a new replica may wait for Control before it is sent requests all the same, and answers 503."""
_GATE_PATIENCE_S = 25.0  # a device waits for 30
_BOUNDS_PATIENCE_S = 2.0


@serve.deployment(name=GATEWAY)
@serve.ingress()
class Gateway:
    """One replica of the ingress.

    It asks Control what is live every ``control.poll_s``, and at once when Control says that something changed. New
    bundles are loaded off the event loop and switched to in one step. While Control is away it serves on with what it
    has.

    Args:
        control: handle of the Control deployment.
        config: configuration of the platform.
        settings: where the write-ahead log lies.
    """

    def __init__(self, control: Any, config: ServingConfig, settings: Settings) -> None:
        configure_events()
        self.tenant = settings.tenant
        self.limits = Limits(config.gateway.max_body_bytes, config.gateway.body_timeout_s)
        self._pressure = Pressure(config.gateway.pressed_ms / 1000, config.gateway.overloaded_ms / 1000)
        self._load = LoadMeter(self._pressure)
        self._hot = HotPath(self.tenant, self.limits, config.gateway.max_open_requests, self._pressure)
        self._control = control
        self._config = config
        self._replica = serve.get_replica_context().replica_tag
        self._producer = uuid.uuid4().hex[:16]
        self._decisions = WriteAheadLog(settings.wal_root, "decisions", self._producer, tenant=self.tenant)
        self._outcomes = WriteAheadLog(settings.wal_root, "outcomes", self._producer, tenant=self.tenant)
        self._exporter = RayExporter()
        self._backlog = BacklogWatch(settings.wal_root, self.tenant)
        self._engine: DecisionEngine | None = None
        self._edge: EdgeSync | None = None
        self._settings = settings
        catalogue = FeatureCatalogue(settings.features_database, self.tenant, config.gateway.online_keep_s)
        self._residents = Residents(config.gateway.max_loaded_policies, catalogue)
        self._loading = asyncio.Lock()
        self._failures: dict[str, str] = {}
        self._control_lost = ""
        self._changed = asyncio.Event()
        self._loaded = asyncio.Event()
        self._events = structlog.get_logger().bind(replica=self._replica, producer=self._producer)
        self._switches = 0
        self._tasks: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> Starlette:
        """The ASGI application; Serve calls this on the replica's own event loop, where the background work starts."""
        self._tasks = [
            asyncio.get_running_loop().create_task(self._follow_control(), name="follow-control"),
            asyncio.get_running_loop().create_task(self._hand_over(), name="hand-over"),
            asyncio.get_running_loop().create_task(self._work_shadows(), name="work-shadows"),
            asyncio.get_running_loop().create_task(self._pressure.watch(), name="watch-pressure"),
            asyncio.get_running_loop().create_task(self._backlog.run(), name="watch-backlog"),
        ]
        FastLane.gateway = self._hot
        BacklogWatch.current = self._backlog
        self._events.info("gateway_started", tenant=self.tenant)
        return create_app(self)

    def engine(self) -> DecisionEngine:
        """The engine.

        Raises:
            NotReadyError: Control has not answered yet.
        """
        if self._engine is None:
            raise NotReadyError("the Gateway is waiting for Control to say what is live; try again")
        return self._engine

    def edge(self) -> EdgeSync:
        """Who takes the batches of devices.

        Raises:
            NotReadyError: Control has not answered yet.
        """
        if self._edge is None:
            raise NotReadyError("the Gateway is waiting for Control to say what is live; try again")
        return self._edge

    async def warm(self, policy: str) -> None:
        """Have a live policy in memory."""
        engine = self.engine()
        async with self._loading:
            self._switch(engine, await asyncio.to_thread(self._residents.admit, policy, dict(engine.used)))

    async def forward(self, request: ControlRequest) -> ControlReply:
        """Pass a control-plane request on.

        Raises:
            RetryableError: Control does not answer.
        """
        try:
            reply: ControlReply = await self._control.answer.remote(request)
        except (RayError, RayServeException, BackPressureError) as problem:
            self._events.warning("control_unreachable", error=str(problem).splitlines()[0])
            raise RetryableError("the control plane does not answer; try again later") from problem
        return reply

    async def wake(self) -> None:
        """Ask Control now instead of at the next turn: something is live that was not."""
        self._changed.set()

    async def seal(self) -> None:
        """Hand everything that was acknowledged so far to the committer."""
        await asyncio.to_thread(self._seal)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the pool's policy: how busy this replica is, and the bounds that Control gives.

        Control being away costs the bounds, and the policy goes on with those it knows.
        """
        tallies = self._engine.tally.snapshot() if self._engine else []
        figures = self._load.read(sum(tally.decisions for tally in tallies))
        try:
            least, most = await asyncio.wait_for(self._control.pool.remote(), _BOUNDS_PATIENCE_S)
        except (RayError, RayServeException, BackPressureError, TimeoutError):  # follow-control says so in the log
            return figures
        return {**figures, "min_replicas": least, "max_replicas": most}

    async def check_health(self) -> None:
        """Called by Serve, which sends no request before the first call has come back: it waits for the policies.

        Raises:
            OperatorError: the background work has ended, so the replica would grow stale: replace it.
        """
        for task in self._tasks:
            if task.done():
                raise OperatorError(f"background task {task.get_name()} has ended")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._loaded.wait(), _FIRST_PATIENCE_S)

    def __del__(self) -> None:
        if FastLane.gateway is self._hot:
            FastLane.gateway = None
        if BacklogWatch.current is self._backlog:
            BacklogWatch.current = None
        for task in self._tasks:
            task.cancel()
        self._decisions.close()
        self._outcomes.close()

    def _switch(self, engine: DecisionEngine, state: LiveState) -> None:
        before = engine.state
        if state.serves_as(before):
            return  # asked again because something cannot be loaded, and it still cannot
        engine.switch(state)
        self._hot.refresh(engine)
        # What was loaded stays: the collector would otherwise walk over all of it again and again, for tens of
        # milliseconds during which nobody is answered. Thawed now and then, so that what older states held can go.
        self._switches += 1
        if self._switches % _THAW_EACH == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _refusal_for_devices(self, policy: str, version: int) -> str | None:
        """Why Control keeps a version from devices, None if it does not; blocks, as Control may have to judge first."""
        try:
            found: str | None = self._control.refusal_for_devices.remote(policy, version).result(
                timeout_s=_GATE_PATIENCE_S
            )
        except (RayError, RayServeException, BackPressureError, TimeoutError) as problem:
            raise RetryableError("the control plane does not say whether the version may go to devices") from problem
        return found

    def _seal(self) -> None:
        self._decisions.seal()
        self._outcomes.seal()

    async def _hand_over(self) -> None:
        while True:
            await asyncio.sleep(self._config.gateway.seal_s)
            if self._engine is not None:
                self._exporter.export(self._engine.tally.snapshot())
            try:
                await self.seal()
            except Exception as problem:  # a full disk now may have room later, and the records are safe where they are
                self._events.error("seal_failed", error=str(problem))

    async def _work_shadows(self) -> None:
        while True:
            await asyncio.sleep(_SHADOW_PAUSE_S)
            if self._engine is not None:
                await asyncio.to_thread(self._engine.shadows.work)

    async def _follow_control(self) -> None:
        while True:
            try:
                await self._follow_once()
                self._loaded.set()
                self._control_lost = ""
            except Exception as problem:  # whatever ails Control, this replica serves on with what it has
                reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
                if reason != self._control_lost:
                    self._events.error("control_lost", error=reason)
                self._control_lost = reason
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._config.control.poll_s)
            self._changed.clear()

    async def _follow_once(self) -> None:
        """Ask what is live; load it and switch if it differs from what is served."""
        generations = self._engine.state.generations() if self._engine else {}
        answer = await self._report(generations)
        if self._engine is None:
            self._engine = DecisionEngine(
                ids=DecisionIds(answer.secret, self._producer, tenant=self.tenant),
                producer=self._producer,
                decisions=self._decisions,
                outcomes=self._outcomes,
                max_rows=self._config.gateway.max_rows,
                pressure=self._pressure,
            )
            self._edge = EdgeSync(
                secret=answer.secret,
                decisions=self._decisions,
                outcomes=self._outcomes,
                receipts=Receipts(
                    self._settings.wal_root, lambda: Lake(self._settings.lake_root, self.tenant), self.tenant
                ),
                locks=self._settings.wal_root / self.tenant / "edge",
                bundle=self._residents.path,
                refusal=self._refusal_for_devices,
            )
            self._hot.refresh(self._engine)
        if self._residents.is_current(answer.records):
            return
        engine = self._engine
        paths = {key: Path(path) for key, path in answer.paths.items()}
        before = engine.state.generations()
        async with self._loading:
            state = await asyncio.to_thread(self._residents.follow, answer.records, paths, dict(engine.used))
            self._switch(engine, state)
        failures = self._residents.failures
        if failures != self._failures:
            for deployment, reason in failures.items():
                self._events.error("deployment_not_loaded", deployment=deployment, error=reason)
        self._failures = failures
        if state.generations() != before:
            self._events.info("live_switched", generations=state.generations())
            # Said at once rather than with the next poll: whoever promoted is waiting for it.
            await self._report(state.generations())

    async def _report(self, generations: Mapping[str, int]) -> LiveAnswer:
        """Tell Control what is loaded and what was counted, and hear what is live."""
        tallies = tuple(self._engine.tally.snapshot()) if self._engine else ()
        answer: LiveAnswer = await self._control.live.remote(
            self._replica, dict(generations), dict(self._failures), tallies, self._producer
        )
        return answer
