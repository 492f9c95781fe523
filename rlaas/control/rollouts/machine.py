"""What a rollout does next, given the evidence and the time: pure, so that every step can be replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlaas.control.rollouts.plan import BlueGreen, Canary, Strategy
from rlaas.control.rollouts.store import Event, Rollout, State
from rlaas.errors import ConflictError
from rlaas.experiments.canary import Verdict
from rlaas.serving.live import DeploymentRecord, Variant

__all__ = ["ACTIONS", "CONTROLLER", "Change", "Readiness", "act", "advance", "begin"]

CONTROLLER = "controller"
ACTIONS = ("promote", "rollback", "pause", "resume", "switch", "switch-back")
"""What an operator may ask of a rollout."""
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the Gateways say about the present generation.

    Attributes:
        ready: every Gateway has loaded it, and there is one.
        waiting: replicas that have not.
        failure: why one of them cannot, with its name; empty if none says so.
    """

    ready: bool = False
    waiting: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The successor of a rollout, what happened, and what is live from now on (None: as before)."""

    rollout: Rollout
    event: Event
    record: DeploymentRecord | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """Who does what when, on which evidence."""

    now_us: int
    actor: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def begin(
    before: DeploymentRecord, target: Variant, strategy: Strategy, *, number: int, now_us: int, actor: str, reason: str
) -> Change:
    """A new rollout.

    Args:
        before: what is served now.
        target: what shall be served; its weight is ignored.
        strategy: how to get there.
        number: of the rollout.
        now_us: UTC microseconds.
        actor, reason: who wants it and why.

    Raises:
        ConflictError: several variants share the decisions now, or this version serves already.
    """
    serving = [variant for variant in before.variants if variant.weight > 0]
    if len(serving) != 1:
        raise ConflictError(
            f"a strategy needs one variant that serves everything; {before.policy!r} has {len(serving)}: "
            "create it with one variant first",
            field="strategy",
        )
    if serving[0].version == target.version:
        raise ConflictError(f"version {target.version} of {before.policy!r} serves already", field="variants")
    rollout = Rollout(
        policy=before.policy,
        number=number,
        strategy=strategy,
        before=before,
        target=target.model_copy(update={"weight": 1.0, "shadow": False}),
        state="warming" if isinstance(strategy, BlueGreen) else "running",
        step=0,
        held=False,
        generation=before.generation,
        revision=0,
        started_us=now_us,
        step_us=now_us,
    )
    return _change(rollout, _Moment(now_us, actor), "started", reason, variants=_at_step(rollout, 0))


def advance(
    rollout: Rollout,
    *,
    now_us: int,
    verdict: Verdict = "undecided",
    evidence: Mapping[str, Any] | None = None,
    decisions: int = 0,
    readiness: Readiness | None = None,
) -> Change | None:
    """What the controller does now; None: wait.

    Args:
        rollout: where it stands.
        now_us: UTC microseconds.
        verdict, evidence: of the judge.
        decisions: of the new version at this step.
        readiness: what the Gateways have loaded.
    """
    at, readiness = _Moment(now_us, CONTROLLER, evidence or {}), readiness or Readiness()
    # Later on it is one Gateway's own trouble, as others have loaded it.
    if readiness.failure and rollout.step == 0 and rollout.state != "switched":
        return _roll_back(rollout, at, f"a Gateway cannot load it: {readiness.failure}")
    if isinstance(rollout.strategy, BlueGreen):
        return _advance_blue_green(rollout, rollout.strategy, at, readiness)
    if verdict == "harm":
        metrics = [name for name, found in at.evidence.items() if found["says"] == "harm"]
        return _roll_back(rollout, at, f"harm shown in: {', '.join(metrics)}")
    spent = (now_us - rollout.step_us) / _SECOND
    if rollout.state == "paused" or spent < rollout.strategy.step_s:
        return None
    if verdict == "no_harm" and decisions >= rollout.strategy.min_decisions:
        return _next_step(rollout, at, f"no harm beyond the margins in {decisions} decisions")
    if spent < rollout.strategy.max_step_s or rollout.held:
        return None
    reason = f"undecided after {rollout.strategy.max_step_s:g} s and {decisions} decisions"
    if rollout.strategy.on_timeout == "rollback":
        return _roll_back(rollout, at, reason)
    return _change(replace(rollout, held=True), at, "held", reason)


def act(rollout: Rollout, action: str, *, now_us: int, actor: str, reason: str, readiness: Readiness) -> Change:
    """What an operator wants.

    Raises:
        ConflictError: the rollout has ended or is not in a state for that, or a Gateway has yet to load the version.
    """
    if not rollout.running:
        raise ConflictError(
            f"rollout {rollout.number} of {rollout.policy!r} has ended: {rollout.state}", field="rollout"
        )
    at = _Moment(now_us, actor)
    if action == "promote":
        return _succeed(rollout, at, reason)
    if action == "rollback":
        return _roll_back(rollout, at, reason)
    allowed: dict[str, tuple[State, ...]] = {
        "pause": ("running",),
        "resume": ("paused",),
        "switch": ("standby", "warming"),
        "switch-back": ("switched",),
    }
    if rollout.state not in allowed[action]:
        raise ConflictError(
            f"{action} is for a rollout that is {' or '.join(allowed[action])}; this one is {rollout.state}",
            field="rollout",
        )
    if action == "switch" and not readiness.ready:
        waiting = ", ".join(readiness.waiting) or "no Gateway has reported"
        raise ConflictError(
            f"not every Gateway has loaded version {rollout.target.version}: {waiting}", field="rollout"
        )
    if action == "pause":
        return _change(replace(rollout, state="paused"), at, "paused", reason)
    if action == "resume":
        # The time at the step starts anew; evidence does not.
        return _change(replace(rollout, state="running", step_us=now_us, held=False), at, "resumed", reason)
    return _switch(rollout, at, reason) if action == "switch" else _switch_back(rollout, at, reason)


def _advance_blue_green(rollout: Rollout, strategy: BlueGreen, at: _Moment, readiness: Readiness) -> Change | None:
    spent = (at.now_us - rollout.step_us) / _SECOND
    if rollout.state == "switched":
        return _succeed(rollout, at, f"kept for {strategy.keep_s:g} s") if spent >= strategy.keep_s else None
    if rollout.state != "warming":
        return None
    if readiness.ready:
        reason = "every Gateway has loaded it"
        if strategy.auto_switch:
            return _switch(rollout, at, reason)
        return _change(replace(rollout, state="standby", step_us=at.now_us), at, "warmed", reason)
    if spent >= strategy.warm_s:
        return _roll_back(rollout, at, f"not loaded everywhere after {strategy.warm_s:g} s")
    return None


def _next_step(rollout: Rollout, at: _Moment, reason: str) -> Change:
    strategy = rollout.strategy
    if not isinstance(strategy, Canary):  # a shadow has told what it can
        ended = replace(rollout, state="succeeded", ended_us=at.now_us)
        return _change(ended, at, "succeeded", reason, record=_restored(rollout, at.now_us))
    if rollout.step + 1 == len(strategy.steps):
        return _succeed(rollout, at, reason)
    moved = replace(rollout, step=rollout.step + 1, step_us=at.now_us, held=False)
    return _change(moved, at, "advanced", reason, variants=_at_step(rollout, rollout.step + 1))


def _succeed(rollout: Rollout, at: _Moment, reason: str) -> Change:
    ended = replace(rollout, state="succeeded", ended_us=at.now_us, mirror=rollout.target.version)
    return _change(ended, at, "succeeded", reason, variants=(rollout.target,))


def _roll_back(rollout: Rollout, at: _Moment, reason: str) -> Change:
    ended = replace(rollout, state="rolled_back", ended_us=at.now_us)
    return _change(ended, at, "rolled_back", reason, record=_restored(rollout, at.now_us))


def _switch(rollout: Rollout, at: _Moment, reason: str) -> Change:
    switched = replace(rollout, state="switched", step_us=at.now_us)
    return _change(switched, at, "switched", reason, variants=_shares(rollout, 1.0))


def _switch_back(rollout: Rollout, at: _Moment, reason: str) -> Change:
    back = replace(rollout, state="standby", step_us=at.now_us)
    return _change(back, at, "switched_back", reason, variants=_shares(rollout, 0.0))


def _at_step(rollout: Rollout, step: int) -> tuple[Variant, ...]:
    strategy = rollout.strategy
    if strategy.kind == "shadow":
        stable, new = _shares(rollout, 0.0)
        return stable, new.model_copy(update={"shadow": True})
    return _shares(rollout, strategy.steps[step] if isinstance(strategy, Canary) else 0.0)


def _shares(rollout: Rollout, share: float) -> tuple[Variant, ...]:
    stable, new = rollout.stable, rollout.target
    name = new.name
    if name == stable.name:  # both are live for a while
        name = next(other for other in (rollout.strategy.kind, "new") if other != stable.name)
    return (
        stable.model_copy(update={"weight": 1.0 - share}),
        new.model_copy(update={"weight": share, "name": name}),
    )


def _restored(rollout: Rollout, now_us: int) -> DeploymentRecord:
    generation = rollout.generation + 1
    return rollout.before.model_copy(update={"generation": generation, "updated_us": now_us})


def _change(
    rollout: Rollout,
    at: _Moment,
    kind: str,
    reason: str,
    *,
    variants: Sequence[Variant] | None = None,
    record: DeploymentRecord | None = None,
) -> Change:
    if variants is not None:
        document = {
            **rollout.before.model_dump(),
            "generation": rollout.generation + 1,
            "variants": tuple(variant.model_dump() for variant in variants),
            "experiment": None,
            "fallback": rollout.stable.version,
            "updated_us": at.now_us,
        }
        record = DeploymentRecord.model_validate(document)
    after = replace(
        rollout, revision=rollout.revision + 1, generation=rollout.generation if record is None else record.generation
    )
    return Change(after, Event(at.now_us, at.actor, kind, after.step, reason, at.evidence), record)
