"""The Committer: the one process that moves the write-ahead logs into the lake."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from ray import serve
from ray.util.metrics import Gauge

from rlaas.control.lineage.joins import TellingJoinLoop
from rlaas.control.lineage.openlineage import Emitter
from rlaas.control.looping import Loop
from rlaas.errors import OperatorError
from rlaas.lake import Committer, CommitterLoop, keep_up, load_lake_plan
from rlaas.lake.privacy import protected_lake
from rlaas.serving.config import ServingConfig
from rlaas.serving.events import configure_events
from rlaas.serving.gateway import GATEWAY
from rlaas.serving.priority import give_way
from rlaas.settings import Settings

__all__ = ["COMMITTER", "CommitterDeployment"]

COMMITTER = "Committer"


@serve.deployment(name=COMMITTER)
class CommitterDeployment:
    """Commits and joins, each on a timer and on demand, and looks after the tables' files on a timer.

    Args:
        config: configuration of the platform.
        settings: names the lake and the write-ahead log.
    """

    def __init__(self, config: ServingConfig, settings: Settings) -> None:
        configure_events()
        give_way()
        self._lake = protected_lake(settings)
        committer = Committer(self._lake, settings.wal_root, tenant=settings.tenant)
        self._loop = CommitterLoop(committer, interval_s=config.committer.interval_s)
        self._loop.start()
        self._joins = TellingJoinLoop(self._lake, Emitter(settings), interval_s=config.committer.join_s)
        self._joins.start()
        plan = load_lake_plan(settings.lake_plan)
        self._upkeep = Loop(
            lambda: keep_up(self._lake, plan), name="rlaas-upkeep", interval_s=config.committer.upkeep_s
        )
        self._upkeep.start()
        self._failing = Gauge("rlaas_committer_failing", "1 while the latest run of the Committer ended with an error")
        self._since = Gauge(
            "rlaas_committer_success_age_seconds", "since the latest run of the Committer that went well"
        )
        self._joining = asyncio.Lock()

    async def status(self) -> dict[str, Any]:
        """What has been committed by this process, the versions of the tables, and the last error."""
        return await asyncio.to_thread(self._status)

    async def flush(self) -> dict[str, Any]:
        """Commit everything that was acknowledged before the call, and bring ``silver.transitions`` up to date."""
        application = serve.get_replica_context().app_name
        gateways: Any = serve.get_deployment_handle(GATEWAY, application)
        await gateways.broadcast("seal").results_async()
        async with self._joining:
            return await asyncio.to_thread(self._flush)

    def check_health(self) -> None:
        """Called by Serve, every ten seconds; tells Ray's exporter how the runs go.

        Raises:
            OperatorError: a thread has ended: replace the process.
        """
        self._failing.set(float(self._loop.last_error is not None))
        self._since.set(self._loop.since_success_s)
        if not self._loop.running:
            raise OperatorError("the committer's thread has ended")
        if not self._upkeep.running:
            raise OperatorError("the thread of the tables' upkeep has ended")
        if not self._joins.running:
            raise OperatorError("the join's thread has ended")

    def __del__(self) -> None:
        try:
            self._upkeep.stop()
            self._joins.halt()
            self._loop.stop()
        except Exception as problem:  # what could not be committed now is adopted by the next committer
            structlog.get_logger().error("final_commit_failed", error=str(problem))

    def _flush(self) -> dict[str, Any]:
        self._loop.flush()
        transitions = self._joins.flush()
        return {**self._status(), "transitions": transitions}

    def _status(self) -> dict[str, Any]:
        total, error = self._loop.total, self._loop.last_error or self._joins.last_error
        return {
            "committed": {
                "decisions": total.decisions,
                "outcomes": total.outcomes,
                "segments": total.segments,
                "adopted": total.adopted,
            },
            "tables": self._lake.versions(),
            "running": self._loop.running,
            "last_error": None if error is None else str(error),
            "since_success_s": round(self._loop.since_success_s, 3),
            "joined_age_s": round(self._joins.since_success_s, 3),
        }
