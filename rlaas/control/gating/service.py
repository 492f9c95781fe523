"""Gates as plain Python: declared, removed, and asked before a version goes live."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.experiments.store import ExperimentStore
from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.evidence import judge_version
from rlaas.control.gating.logged import LoggedRows, read_logged
from rlaas.control.gating.override import Override, check_actor
from rlaas.control.gating.store import EventKind, GateEvent, GateStore, StoredGate
from rlaas.control.rollouts.service import RolloutService
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.experiments.gate import GateRecord, Verdict, passes_gate
from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.serving.live import DeploymentRecord, Variant

__all__ = ["GateService"]


class GateService:
    """The gates of a tenant's policies.

    Args:
        database: the state database.
        tenant: whose policies.
        lake: where the decisions and outcomes are.
        registry: of the versions.
        rollouts: by which versions come in.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        tenant: str,
        lake: Lake,
        registry: Registry,
        rollouts: RolloutService,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.store = GateStore(database, tenant)
        self._experiments = ExperimentStore(database, tenant)
        self._database, self._tenant = database, tenant
        self._lake, self._registry, self._rollouts, self._clock = lake, registry, rollouts, clock
        self._events = structlog.get_logger("rlaas.control").bind(tenant=tenant)

    def refuse_during_experiment(self, policy: str) -> None:
        """Keep what an experiment compares from being changed under it.

        Raises:
            ConflictError: an experiment of the policy is running.
        """
        for stored in self._experiments.all():
            if stored.state == "running" and stored.document.policy == policy:
                raise ConflictError(
                    f"experiment {stored.document.id!r} of {policy!r} is running; stop it first, with the decision "
                    "to ship the variant if that is what is wanted",
                    field="policy",
                )

    def declare(self, policy: str, declaration: GateDeclaration, *, actor: str = "operator") -> dict[str, Any]:
        """Declare by what versions of a policy are judged from now on; the same declaration again changes nothing.

        Args:
            policy: whose gate.
            declaration: what is declared.
            actor: who declares it.

        Returns:
            The gate, as :meth:`describe` shows it.

        Raises:
            NotFoundError: no such policy.
            InvalidInputError: the newest version could not be judged by it.
            ConflictError: a rollout or an experiment of the policy is running: a version is on its way already.
        """
        check_actor(actor)
        declaration.check(self._bundle(policy, self._registry.versions(policy)[0].version))
        self._rollouts.refuse_while_running(policy)
        self.refuse_during_experiment(policy)
        stored = self._database.of_policy(self._tenant, policy)
        self.note_served(stored.record if stored else None)
        before = self.store.gate(policy)
        if before is None or before.declaration != declaration:
            now_us = self._clock()
            event = GateEvent(now_us, "declared", actor, "", report=declaration.model_dump(mode="json"))
            self.store.declare(policy, StoredGate(declaration, now_us, actor), event)
            self._events.info("gate_declared", policy=policy, estimator=declaration.estimator, actor=actor)
        return self.describe(policy)

    def remove(self, policy: str, *, actor: str = "operator") -> None:
        """Let every version of a policy through from now on.

        Raises:
            NotFoundError: nothing is declared.
        """
        check_actor(actor)
        if not self.store.remove(policy, GateEvent(self._clock(), "removed", actor, "")):
            raise _none(policy)
        self._events.warning("gate_removed", policy=policy, actor=actor)

    def describe(self, policy: str) -> dict[str, Any]:
        """What is declared, as JSON types; ``gate`` is null where nothing is.

        Raises:
            NotFoundError: no such policy.
        """
        self._registry.versions(policy)
        found = self.store.gate(policy)
        gate = found and {
            "declaration": found.declaration.model_dump(mode="json"),
            "metric": found.declaration.metric(),
            "declared_us": found.declared_us,
            "actor": found.actor,
        }
        return {"policy": policy, "gate": gate, "served": sorted(self.store.served(policy))}

    def history(self, policy: str) -> list[dict[str, Any]]:
        """Declarations and judgements, newest first, as JSON types.

        Raises:
            NotFoundError: no such policy.
        """
        self._registry.versions(policy)
        return [{"number": number, **event.to_dict()} for number, event in self.store.events(policy)]

    def judge(self, policy: str, version: int, *, explore: bool = False, epsilon: float = 0.0) -> dict[str, Any]:
        """What the gate would say of a version now; nothing is kept.

        Args:
            policy: whose gate.
            version: that is judged.
            explore, epsilon: how it would be served.

        Raises:
            NotFoundError: nothing is declared, or there is no such version.
            InvalidInputError: a share of exploration that the version cannot have.
            LakeError: the lake cannot be read.
        """
        variant = Variant(name="judged", version=version, weight=1.0, explore=explore, epsilon=epsilon)
        verdict, rows = self._judge(policy, self._gate(policy), variant)
        return _report(GateRecord(verdict=verdict), rows)

    def promise(self, policy: str, version: int, override: Override) -> dict[str, Any]:
        """Let a version through once, beforehand: for what takes no override of its own, such as an experiment.

        It holds for the declaration of now.

        Args:
            policy: whose gate.
            version: that may go live, as it would serve without exploring or with it.
            override: why, and who says so.

        Returns:
            The event in the history.

        Raises:
            NotFoundError: nothing is declared, or there is no such version.
            InvalidInputError: no reason.
            ConflictError: the version passes already.
        """
        if override.reason is None:
            raise InvalidInputError("reason is missing", field="reason")
        gate = self._gate(policy)
        variant = Variant(name="judged", version=version, weight=1.0)
        verdict, rows = self._judge(policy, gate, variant)
        found = GateRecord(verdict=verdict).overridden(reason=override.reason, by=override.actor, time_us=self._clock())
        return self._keep(policy, "promised", variant, found, rows, override).to_dict()

    def note_served(self, record: DeploymentRecord | None) -> None:
        """Remember who serves: whoever has may come back without being asked. Who is in an experiment has not yet."""
        if record is not None and record.experiment is None:
            self.store.note_served(record.policy, (v.version for v in record.variants if v.weight > 0))

    def ask(
        self,
        before: DeploymentRecord | None,
        record: DeploymentRecord,
        override: Override,
        *,
        warm: bool = False,
    ) -> None:
        """Let a deployment go live, or refuse it: every version that is new to live traffic has to pass.

        What was judged is kept before anything goes live, so that no version is live of which nothing is known.

        Args:
            before: what is live.
            record: what shall be.
            override: lets through what does not pass.
            warm: variants of weight 0 count, as they are about to get a share; shadows never do.

        Raises:
            ConflictError: a version does not pass and there is no override; names the estimator, its interval, the
                effective sample size, what is asked for, and the way out.
            LakeError: the lake cannot be read.
        """
        self.note_served(before)
        gate = self.store.gate(record.policy)
        if gate is None:
            return
        known = self.store.served(record.policy)
        if before is not None:
            known |= {variant.version for variant in before.variants if variant.weight > 0}
        asked = [v for v in record.variants if (v.weight > 0 or (warm and not v.shadow)) and v.version not in known]
        refused = []
        for variant in {(v.version, v.explore, v.epsilon): v for v in asked}.values():
            verdict, rows = self._judge(record.policy, gate, variant)
            found, word = GateRecord(verdict=verdict), override
            kind: EventKind = "passed"
            if not passes_gate(found):
                word = word if word.reason is not None else self._promised(record.policy, variant, gate)
                if word.reason is None:
                    kind = "refused"
                    refused.append(verdict)
                else:
                    kind = "overridden"
                    found = found.overridden(reason=word.reason, by=word.actor, time_us=self._clock())
            self._keep(record.policy, kind, variant, found, rows, word)
        if refused:
            raise ConflictError(_refusal(refused[0]), field="override")

    def _gate(self, policy: str) -> StoredGate:
        found = self.store.gate(policy)
        if found is None:
            raise _none(policy)
        return found

    def _promised(self, policy: str, variant: Variant, gate: StoredGate) -> Override:
        """What an operator has said beforehand, if nothing has come of it yet."""
        events = (event for _, event in self.store.events(policy) if event.version == variant.version)
        last = next(events, None)
        if last is None or last.kind != "promised" or last.time_us < gate.declared_us:
            return Override()
        return Override(last.reason, last.actor)

    def _bundle(self, policy: str, version: int) -> BundlePolicy:
        return load_bundle(self._registry.path(policy, self._registry.get(policy, version).version))

    def _judge(self, policy: str, gate: StoredGate, variant: Variant) -> tuple[Verdict, LoggedRows]:
        bundle, now_us = self._bundle(policy, variant.version), self._clock()
        gate.declaration.check(bundle)
        rows = read_logged(self._lake, policy, gate.declaration, bundle, now_us=now_us)
        verdict = judge_version(
            gate.declaration.policy(gate.declared_us),
            bundle,
            rows,
            subject=f"{policy}:{variant.version}",
            explore=variant.explore,
            epsilon=bundle.check_epsilon(variant.epsilon),
            now_us=now_us,
        )
        return verdict, rows

    def _keep(
        self, policy: str, kind: EventKind, variant: Variant, found: GateRecord, rows: LoggedRows, override: Override
    ) -> GateEvent:
        reason = found.override.reason if found.override else found.verdict.reason
        event = GateEvent(self._clock(), kind, override.actor, reason, variant.version, _report(found, rows))
        self.store.record(policy, event)
        self._events.info(f"gate_{kind}", policy=policy, version=variant.version, actor=override.actor, reason=reason)
        return event


def _report(found: GateRecord, rows: LoggedRows) -> dict[str, Any]:
    return {
        **found.to_dict(),
        "rows": {"read": rows.read, "counted": len(rows.reward), "left_out": dict(rows.left_out)},
    }


def _refusal(verdict: Verdict) -> str:
    line, policy = verdict.lines[0], verdict.policy
    accepted = f"{0 - policy.margin:+g} or more" if policy.better == "higher" else f"{policy.margin:+g} or less"
    found = ""
    if line.value is not None and line.low is not None and line.high is not None and line.n is not None:
        found = (
            f" ({line.estimator}: {line.value:.4g}, interval {line.low:.4g} to {line.high:.4g} at "
            f"{policy.confidence:.4g}, effective sample size {line.effective_sample_size:.0f} of {line.n}; asked for: "
            f"effective sample size {policy.least_effective(line.n):.0f}, a lift of {accepted})"
        )
    return (
        f"{verdict.subject} may not get live traffic: {verdict.reason}{found}; an operator lets it through with "
        'override: "reason"'
    )


def _none(policy: str) -> NotFoundError:
    return NotFoundError(f"no gate is declared for {policy!r}; declare one with PUT", field="gate")
