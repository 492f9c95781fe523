"""Control as a Serve deployment: one replica, reached through the Gateway."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.common import DeploymentID
from ray.serve._private.exceptions import ExternalScalerDisabledError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from rlaas.control.drift.gauges import DriftGauges
from rlaas.control.drift.jobs import JobTrigger
from rlaas.control.drift.loop import DriftLoop
from rlaas.control.drift.reconciler import DriftReconciler
from rlaas.control.effect_gauges import EffectGauges
from rlaas.control.experiments.loop import AnalysisLoop
from rlaas.control.experiments.service import ExperimentService
from rlaas.control.experiments.store import ExperimentStore
from rlaas.control.fronts import FrontService, timed_fronts
from rlaas.control.gating.override import Override
from rlaas.control.looping import Loop
from rlaas.control.resolution_gauges import ResolutionGauges
from rlaas.control.resolution_recorder import ResolutionRecorder
from rlaas.control.resolutions import ResolutionStore
from rlaas.control.rollouts.controller import RolloutController
from rlaas.control.rollouts.loop import RolloutLoop
from rlaas.control.rollouts.plan import ReplicaBounds
from rlaas.control.rollouts.service import RolloutService
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError, OperatorError, RlaasError
from rlaas.lake import Lake
from rlaas.registry import FrontStore
from rlaas.serving.config import ServingConfig
from rlaas.serving.events import configure_events
from rlaas.serving.gateway import GATEWAY
from rlaas.serving.live import LiveAnswer
from rlaas.serving.priority import give_way
from rlaas.serving.tally import VersionTally
from rlaas.serving.web import ControlReply, ControlRequest
from rlaas.settings import Settings

__all__ = ["CONTROL", "Control"]

CONTROL = "Control"
_PATIENCE_S = 120.0
_WAKE_PATIENCE_S = 5.0
_FOLLOWED_PATIENCE_S = 15.0


@serve.deployment(name=CONTROL)
class Control:
    """Answers the Gateways' question what is live, and the control-plane routes.

    Args:
        committer: handle of the Committer deployment.
        config: configuration of the platform.
        settings: names the state database and the registry.
    """

    def __init__(self, committer: Any, config: ServingConfig, settings: Settings) -> None:
        configure_events()
        give_way()
        stale_s = max(10.0, 5 * config.control.poll_s)
        self._service = ControlService(settings, stale_s=stale_s)
        started = time.monotonic()
        # Opens the registry too: the first choice would otherwise wait for that, and fall back.
        adopted = self._service.adopt_champions()
        store = FrontStore(self._service.registry)
        resolutions = ResolutionStore(self._service.database, settings.tenant)
        gauges = ResolutionGauges(resolutions, settings.tenant)
        self._recorder = ResolutionRecorder(resolutions, gauges, lambda: timed_fronts(store))
        self._fronts = FrontService(store, settings.home, observe=self._recorder.observe, tenant=settings.tenant)
        self._loop = Loop(self._recorder.tick, name="resolution-recorder", interval_s=config.control.resolutions_s)
        self._loop.start()
        self._rollouts = RolloutLoop(
            RolloutController(
                self._service.database,
                settings.tenant,
                reports=self._service.rollouts.reports,
                mirror=self._service.mirror_champion,
                stale_s=stale_s,
            )
        )
        self._rollouts.start()
        self._operations = _ServeOperations(committer, self._service.rollouts)
        lake = Lake(settings.lake_root, settings.tenant)
        experiments = ExperimentService(self._service, settings.tenant, lake)
        experiments.recover()
        self._analyses = AnalysisLoop(experiments, interval_s=config.control.experiments_s)
        self._analyses.start()
        self._drift = DriftLoop(
            DriftReconciler(self._service.database, settings.tenant, lake, trigger=JobTrigger(settings)),
            interval_s=config.control.drift_s,
            publish=(
                DriftGauges(self._service.drift.store, settings.tenant).publish,
                EffectGauges(ExperimentStore(self._service.database, settings.tenant), settings.tenant).publish,
            ),
        )
        self._drift.start()
        self._routes = ControlRoutes(self._service, self._operations, self._fronts, experiments)
        structlog.get_logger().info(
            "control_started",
            tenant=settings.tenant,
            adopted=[record.policy for record in adopted],
            seconds=round(time.monotonic() - started, 3),
        )

    async def live(
        self,
        replica: str,
        generations: Mapping[str, int],
        failures: Mapping[str, str],
        tallies: Sequence[VersionTally] = (),
        producer: str = "",
    ) -> LiveAnswer:
        """What a Gateway should serve; see :meth:`ControlService.live`."""
        return await asyncio.to_thread(self._service.live, replica, generations, failures, tallies, producer)

    async def pool(self) -> tuple[int, int]:
        """Least and largest number of Gateways, as said through the API; zeros: nobody has."""
        self._operations.followed.set()
        bounds = await asyncio.to_thread(self._service.rollouts.store.scaling)
        return (0, 0) if bounds is None else (bounds.min_replicas, bounds.max_replicas)

    async def refusal_for_devices(self, policy: str, version: int) -> str | None:
        """Why a version may not go to devices; None if it may. Judges at most once what nobody has judged yet."""

        def ask() -> str | None:
            try:
                self._service.devices.ask(policy, version, Override(actor="edge-sync"), again=False)
            except RlaasError as problem:
                return problem.message
            return None

        return await asyncio.to_thread(ask)

    async def answer(self, request: ControlRequest) -> ControlReply:
        """Answer a control-plane request."""  # not "dispatch": a Serve handle has a method of that name
        reply = await asyncio.to_thread(self._routes.dispatch, request)
        if request.method != "GET" and reply.status < 400:
            self._waking = asyncio.get_running_loop().create_task(asyncio.to_thread(_wake_gateways))
        return reply

    def check_health(self) -> None:
        """Called by Serve.

        Raises:
            OperatorError: a thread (of resolutions, rollouts, experiments or drift) has ended: replace the process.
        """
        if not self._rollouts.running:
            raise OperatorError("the thread of the rollouts has ended")
        if not self._loop.running:
            raise OperatorError("the recorder's thread has ended")
        if not self._analyses.running:
            raise OperatorError("the thread of the experiments has ended")
        if not self._drift.running:
            raise OperatorError("the thread of the drift watch has ended")

    def __del__(self) -> None:
        if hasattr(self, "_routes"):  # otherwise it never came up
            self._rollouts.stop()
            self._analyses.stop()
            self._drift.stop()
            self._loop.stop()
            self._fronts.close()
            self._recorder.close()


def _wake_gateways() -> None:
    """Let every Gateway ask now what is live; one that misses it asks at its next turn anyway."""
    application = serve.get_replica_context().app_name
    try:
        serve.get_deployment_handle(GATEWAY, application).broadcast("wake").results(timeout_s=_WAKE_PATIENCE_S)
    except (RayError, RayServeException, TimeoutError) as problem:
        structlog.get_logger().warning("gateways_not_woken", error=str(problem).splitlines()[0])


class _ServeOperations:
    """The processes around Control, by way of Serve. Runs in worker threads, where waiting is allowed."""

    def __init__(self, committer: Any, rollouts: RolloutService) -> None:
        self._committer, self._rollouts = committer, rollouts
        self.followed = threading.Event()
        """Set once a Gateway has asked for the bounds of the pool: the pool's policy follows them."""

    def scale(self, replicas: int) -> None:
        """Set the number of Gateway replicas; Serve adds and drains them in its own time."""
        application = serve.get_replica_context().app_name
        controller = _get_global_client()._controller
        try:
            ray.get(controller.update_deployment_replicas.remote(DeploymentID(GATEWAY, application), replicas))
        except ExternalScalerDisabledError as problem:
            if not self.followed.wait(_FOLLOWED_PATIENCE_S):
                raise ConflictError(
                    "the number of Gateways is fixed here; start the platform with 'rlaas serve', give its "
                    "configuration a scaling section, or set external_scaler_enabled: true for the application in the "
                    "Serve configuration",
                    field="replicas",
                ) from problem
            self._rollouts.set_scaling("", ReplicaBounds(min_replicas=replicas, max_replicas=replicas))

    def lake_status(self) -> dict[str, Any]:
        """State of the committer."""
        status: dict[str, Any] = self._committer.status.remote().result(timeout_s=_PATIENCE_S)
        return status

    def flush_lake(self) -> dict[str, Any]:
        """Commit and join."""
        status: dict[str, Any] = self._committer.flush.remote().result(timeout_s=_PATIENCE_S)
        return status
