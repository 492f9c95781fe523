"""What operators ask of rollouts: begin one, steer it, look at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from pydantic import ValidationError

from rlaas.control.rollouts.controller import readiness_of
from rlaas.control.rollouts.evidence import GatewayReports
from rlaas.control.rollouts.machine import Change, act, begin
from rlaas.control.rollouts.plan import BlueGreen, ReplicaBounds, parse_strategy
from rlaas.control.rollouts.store import Event, OvertakenError, Rollout, RolloutStore
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.experiments.canary import CanaryJudge
from rlaas.serving.live import DeploymentRecord, Variant, validation_error

__all__ = ["Admit", "RolloutService"]

Admit = Callable[[DeploymentRecord, DeploymentRecord, str], None]
"""Raises unless what shall be live (second) may follow what was (first), as an operator (third) wants it."""

_TRIES = 5


class RolloutService:
    """Rollouts of a tenant as plain Python; thread-safe, and safe beside other Controls.

    Args:
        database: the state database.
        tenant: whose rollouts.
        admit: asked, while no lock is held, before a version gets live traffic that was started without being asked
            about; default: nobody is.
        stale_s: a Gateway that has been silent for so long counts as gone.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        tenant: str,
        *,
        admit: Admit | None = None,
        stale_s: float = 15.0,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.store = RolloutStore(database, tenant)
        self.reports = GatewayReports(database, tenant, clock=clock)
        self._admit, self._stale_us, self._clock = admit, int(stale_s * 1e6), clock
        self._events = structlog.get_logger("rlaas.control").bind(tenant=tenant)

    def refuse_while_running(self, policy: str) -> None:
        """Keep what a rollout steers from being changed past it.

        Raises:
            ConflictError: a rollout of the policy is running.
        """
        running = self.store.running(policy)
        if running:
            raise ConflictError(
                f"rollout {running[0].number} of {policy!r} ({running[0].strategy.kind}, to version "
                f"{running[0].target.version}) is {running[0].state}; promote it or roll it back first",
                field="policy",
            )

    def start(
        self,
        before: DeploymentRecord | None,
        variants: Sequence[Any],
        strategy: Any,
        *,
        check: Callable[[DeploymentRecord], None],
        actor: str = "operator",
        reason: str = "created",
    ) -> DeploymentRecord:
        """Begin a rollout.

        Args:
            before: what is live.
            variants: document of the one variant that shall serve.
            strategy: document of a strategy.
            check: raises if a record cannot be served.
            actor, reason: who wants it and why.

        Returns:
            What is live from now on.

        Raises:
            InvalidInputError: an impossible strategy or variant.
            ConflictError: nothing to compare with is live, or it was changed meanwhile.
        """
        plan = parse_strategy(strategy)
        if len(variants) != 1:
            raise InvalidInputError(
                f"variants must hold the one new variant with a strategy, got {len(variants)}", field="variants"
            )
        if before is None:
            raise ConflictError(
                "nothing is live that the new version could be compared with; create the deployment without a strategy",
                field="strategy",
            )
        try:
            target = Variant.model_validate(variants[0])
        except ValidationError as problem:
            found = validation_error(problem)
            raise InvalidInputError(f"variants.0: {found.message}", field=f"variants.0.{found.field}") from problem
        number = self.store.next_number(before.policy)
        change = begin(before, target, plan, number=number, now_us=self._clock(), actor=actor, reason=reason)
        if change.record is None:
            raise AssertionError("a rollout begins with a record")
        check(change.record)
        self.store.start(change.rollout, change.record, change.event)
        self._events.info("rollout_started", policy=before.policy, number=number, kind=plan.kind)
        return change.record

    def act(self, policy: str, number: int, action: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Steer a rollout: ``promote``, ``rollback``, ``pause``, ``resume``, ``switch``, ``switch-back``.

        Returns:
            The rollout, as JSON types.

        Raises:
            NotFoundError: no such rollout.
            ConflictError: not possible where it stands, or it was changed meanwhile; or a shadow is promoted that may
                not get live traffic.
        """
        self.reports.flush()
        admitted = False
        for attempt in range(_TRIES):
            try:
                change = self._act(policy, number, action, actor=actor, reason=reason)
                if action == "promote" and change.rollout.strategy.kind == "shadow" and not admitted:
                    # Once, and not for every attempt: a word that was given beforehand is used up by it.
                    self._ask(change, actor)
                    admitted = True
                self.store.commit(change.rollout, event=change.event, record=change.record)
                break
            except OvertakenError:  # by the controller, which takes evidence in every second
                if attempt == _TRIES - 1:
                    raise
        self._events.info(f"rollout_{change.event.kind}", policy=policy, number=number, actor=actor, reason=reason)
        return _document(change.rollout, [change.event])

    def _ask(self, change: Change, actor: str) -> None:
        if self._admit is not None and change.record is not None:
            self._admit(change.rollout.before, change.record, actor)

    def _act(self, policy: str, number: int, action: str, *, actor: str, reason: str) -> Change:
        found = next((one for one, _ in self.store.history(policy) if one.number == number), None)
        if found is None:
            raise NotFoundError(f"no rollout {number} of {policy!r}", field="rollout")
        if not isinstance(found.strategy, BlueGreen) and action in ("switch", "switch-back"):
            raise ConflictError(f"{action} is for blue_green; this rollout is {found.strategy.kind}", field="rollout")
        now_us = self._clock()
        fresh = [report for report in self.reports.all() if now_us - report.seen_us <= self._stale_us]
        return act(found, action, now_us=now_us, actor=actor, reason=reason, readiness=readiness_of(fresh, found))

    def running_number(self, policy: str) -> int:
        """Number of the rollout that is running.

        Raises:
            NotFoundError: none is.
        """
        running = self.store.running(policy)
        if not running:
            raise NotFoundError(f"no rollout of {policy!r} is running", field="rollout")
        return running[0].number

    def history(self, policy: str) -> list[dict[str, Any]]:
        """Every rollout of a policy with its events, newest first, as JSON types."""
        return [_document(rollout, events) for rollout, events in self.store.history(policy)]

    def status(self, policy: str) -> dict[str, Any]:
        """For the status of a deployment: the running rollout, if there is one, and the bounds of the pool."""
        running = self.store.running(policy)
        bounds = self.store.scaling()
        return {
            "rollout": _document(running[0], None) if running else None,
            "autoscaling": None if bounds is None else bounds.model_dump(),
        }

    def set_scaling(self, policy: str, bounds: ReplicaBounds) -> None:
        """Keep the bounds of the pool. It is one for all deployments: the last word counts.

        Args:
            policy: whose deployment brought them; empty: none.
            bounds: of the pool.
        """
        self.store.set_scaling(bounds)
        self._events.info("pool_bounds_set", policy=policy, **bounds.model_dump())


def _document(rollout: Rollout, events: Sequence[Event] | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": rollout.number,
        "policy": rollout.policy,
        "deployment": rollout.before.id,
        "kind": rollout.strategy.kind,
        "state": rollout.state,
        "step": rollout.step,
        "held": rollout.held,
        "from_version": rollout.stable.version,
        "to_version": rollout.target.version,
        "started_us": rollout.started_us,
        "step_us": rollout.step_us,
        "ended_us": rollout.ended_us,
        "strategy": rollout.strategy.model_dump(mode="json"),
    }
    if rollout.judge is not None and not isinstance(rollout.strategy, BlueGreen):
        judge = CanaryJudge(rollout.strategy.analysis.bounds(), rollout.judge)
        document |= {"decisions": judge.decisions, "verdict": judge.verdict(), "evidence": judge.evidence()}
    if events is not None:
        document["events"] = [{name: getattr(event, name) for name in Event.__dataclass_fields__} for event in events]
    return document
