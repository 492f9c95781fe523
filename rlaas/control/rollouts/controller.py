"""Brings rollouts forward: takes evidence in, judges, and writes what follows from it, all in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from rlaas.control.rollouts.evidence import GatewayReport, GatewayReports, increments
from rlaas.control.rollouts.lease import Lease
from rlaas.control.rollouts.machine import CONTROLLER, Readiness, advance
from rlaas.control.rollouts.plan import BlueGreen
from rlaas.control.rollouts.store import Event, Rollout, RolloutStore
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, RlaasError
from rlaas.experiments.canary import CanaryJudge

__all__ = ["RolloutController", "readiness_of"]

_IN_FLIGHT_US = 3_000_000


class RolloutController:
    """Reconciles the rollouts of a tenant while it holds the lease; a second one waits for the lease.

    It may be killed at any point: evidence, judgement and what is live change together or not at all.

    Args:
        database: the state database.
        tenant: whose rollouts.
        reports: what the Gateways of this process say.
        mirror: makes the registry's alias follow (policy, version) once a rollout has succeeded.
        lease: default one that lasts 5 s.
        stale_s: a Gateway that has been silent for so long counts as gone.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        tenant: str,
        *,
        reports: GatewayReports,
        mirror: Callable[[str, int], None] | None = None,
        lease: Lease | None = None,
        stale_s: float = 15.0,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._database, self._tenant = database, tenant
        self._store = RolloutStore(database, tenant)
        self._reports, self._mirror = reports, mirror
        self._lease = lease or Lease(database, f"rollouts/{tenant}", clock=clock)
        self._stale_us, self._clock = int(stale_s * 1e6), clock
        self._events = structlog.get_logger("rlaas.control").bind(tenant=tenant)

    def tick(self) -> None:
        """Look at every rollout once."""
        running, unmirrored = self._store.running(), self._store.unmirrored()
        if not running and not unmirrored:
            return
        if running:
            self._reports.flush()  # whoever holds the lease reads them
        if not self._lease.hold():
            return
        reports = self._reports.all() if running else []
        for rollout in running:
            try:
                self._reconcile(rollout, reports)
            except ConflictError as problem:
                # Overtaken: by an operator, or by whoever has the lease now. The next tick starts from what they wrote.
                self._events.warning("rollout_overtaken", policy=rollout.policy, error=problem.message)
        for rollout in unmirrored:
            self._follow(rollout)

    def release(self) -> None:
        """Let another process go on at once."""
        self._lease.release()

    def _reconcile(self, rollout: Rollout, reports: Sequence[GatewayReport]) -> None:
        stored = self._database.of_policy(self._tenant, rollout.policy)
        if stored is None or stored.record is None or stored.generation != rollout.generation:
            self._abort(rollout)
            return
        now_us = self._clock()
        fresh = [report for report in reports if now_us - report.seen_us <= self._stale_us]
        readiness = readiness_of(fresh, rollout)
        if isinstance(rollout.strategy, BlueGreen):
            change = advance(rollout, now_us=now_us, readiness=readiness)
            if change is not None:
                self._store.commit(change.rollout, event=change.event, record=change.record, lease=self._lease)
                self._log(change.rollout, change.event)
            return
        versions = (rollout.stable.version, rollout.target.version)
        grown, counters = increments(reports, self._store.counters(rollout), rollout.policy, versions)
        judge = CanaryJudge(rollout.strategy.analysis.bounds(), rollout.judge)
        judge.update(grown[versions[0]], grown[versions[1]])
        change = advance(
            rollout,
            now_us=now_us,
            verdict=judge.verdict(),
            evidence=judge.evidence(),
            decisions=judge.decisions,
            readiness=readiness,
        )
        if change is None:
            if counters:
                after = replace(rollout, judge=judge.state(), revision=rollout.revision + 1)
                self._store.commit(after, counters=counters, lease=self._lease)
            return
        if change.event.kind == "advanced":
            judge.next_step()
        after = replace(change.rollout, judge=judge.state())
        self._store.commit(after, event=change.event, record=change.record, counters=counters, lease=self._lease)
        self._log(after, change.event)

    def _abort(self, rollout: Rollout) -> None:
        """What is live was changed past the rollout: leave it alone."""
        now_us = self._clock()
        after = replace(rollout, state="aborted", ended_us=now_us, revision=rollout.revision + 1)
        event = Event(now_us, CONTROLLER, "aborted", rollout.step, "the deployment was changed or deleted meanwhile")
        self._store.commit(after, event=event, lease=self._lease)
        self._log(after, event)

    def _follow(self, rollout: Rollout) -> None:
        version = rollout.mirror
        stored = self._database.of_policy(self._tenant, rollout.policy)
        record = stored.record if stored else None
        live = record is not None and any(v.version == version and v.weight > 0 for v in record.variants)
        if version is not None and live and self._mirror is not None:
            try:
                self._mirror(rollout.policy, version)
            except RlaasError as problem:
                self._events.error("alias_not_mirrored", policy=rollout.policy, error=problem.message)
                return
        self._store.mirrored(rollout)

    def _log(self, rollout: Rollout, event: Event) -> None:
        self._events.info(
            f"rollout_{event.kind}", policy=rollout.policy, number=rollout.number, step=event.step, reason=event.reason
        )


def readiness_of(reports: Sequence[GatewayReport], rollout: Rollout) -> Readiness:
    """Who has loaded the rollout's present generation, by the reports of the Gateways that are alive."""
    deployment = rollout.before.id
    # A process that was replaced in its place counts no longer.
    latest = {report.replica: report for report in sorted(reports, key=lambda report: report.seen_us)}
    # A report on its way when the generation was written speaks of the one before.
    failures = {
        name: report.failures[deployment]
        for name, report in latest.items()
        if deployment in report.failures and report.seen_us > rollout.step_us + _IN_FLIGHT_US
    }
    waiting = tuple(
        sorted(name for name, report in latest.items() if report.generations.get(deployment, 0) < rollout.generation)
    )
    failure = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
    return Readiness(bool(latest) and not waiting and not failures, waiting, failure[:300])
