"""Gates as plain Python: declared, removed, and asked before a version goes live."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.experiments.store import ExperimentStore
from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.evidence import judge_version, without_evidence
from rlaas.control.gating.judgements import Judged, Judgements, UnjudgedError, Wanted
from rlaas.control.gating.logged import LoggedRows, read_logged
from rlaas.control.gating.logged_sessions import LoggedSessions, read_sessions
from rlaas.control.gating.override import Override, check_actor
from rlaas.control.gating.store import EventKind, GateEvent, GateStore, StoredGate
from rlaas.control.rollouts.service import RolloutService
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.experiments.gate import GateRecord, Verdict, passes_gate
from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.serving.live import DeploymentRecord, Variant

__all__ = ["GateService", "refusal_of"]

Changed = TypeVar("Changed")

_TRIES = 5


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
        found = self.judged(policy, self._gate(policy), variant)
        return _report(GateRecord(verdict=found.verdict), found)

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
        judged = self.judged(policy, gate, variant)
        found = GateRecord(verdict=judged.verdict).overridden(
            reason=override.reason, by=override.actor, time_us=self._clock()
        )
        return self._keep(policy, "promised", variant, found, judged, override)

    def note_served(self, record: DeploymentRecord | None) -> None:
        """Remember who serves: whoever has may come back without being asked. Who is in an experiment has not yet."""
        if record is not None and record.experiment is None:
            self.store.note_served(record.policy, (v.version for v in record.variants if v.weight > 0))

    def judged_first(self, change: Callable[[Judgements], Changed]) -> Changed:
        """Make a change of what is live, with every version judged that has to be.

        Reading the log and estimating takes seconds. So the change says first what it lacks (:class:`UnjudgedError`,
        before it has changed anything), that is judged while nobody holds a lock, and the change is made again. It
        looks up what was judged by version, by how it would serve and by the declaration: whatever has become another
        meanwhile is judged again.

        Args:
            change: takes its locks itself, and hands the judgements to :meth:`ask`.

        Raises:
            ConflictError: the declaration became another one again and again.
            LakeError: the lake cannot be read.
        """
        judged: Judgements = {}
        for _ in range(_TRIES):
            try:
                return change(judged)
            except UnjudgedError as lacking:
                judged.update({one: found for one in lacking.wanted if (found := self._judgement(one)) is not None})
        raise ConflictError("the gate was declared anew again and again meanwhile; try again", field="gate")

    def ask(
        self,
        before: DeploymentRecord | None,
        record: DeploymentRecord,
        override: Override,
        judged: Judgements,
        *,
        warm: bool = False,
    ) -> None:
        """Let a deployment go live, or refuse it: every version that is new to live traffic has to pass.

        What was judged is kept before anything goes live, so that no version is live of which nothing is known. An
        operator's word holds for a version however it is served; where any version is refused, no word is used up.

        Args:
            before: what is live.
            record: what shall be.
            override: lets through what does not pass.
            judged: what was judged for this change, see :meth:`judged_first`.
            warm: variants of weight 0 count, as they are about to get a share; shadows never do.

        Raises:
            UnjudgedError: something is not among ``judged``.
            ConflictError: a version does not pass and there is no override; names the estimator, its interval, the
                effective sample size, what is asked for, and the way out.
        """
        self.note_served(before)
        gate = self.store.gate(record.policy)
        if gate is None:
            return
        known = self.store.served(record.policy)
        if before is not None:
            known |= {variant.version for variant in before.variants if variant.weight > 0}
        asked = [v for v in record.variants if (v.weight > 0 or (warm and not v.shadow)) and v.version not in known]
        wanted = {_wanted(record.policy, gate, variant): variant for variant in asked}
        lacking = [one for one in wanted if one not in judged]
        if lacking:
            raise UnjudgedError(lacking)
        # Looked up before anything is written: the first variant's event would use the word up for the second.
        failing = [one for one in wanted if judged[one].verdict.outcome != "passed"]
        words = {one.version: self.word(record.policy, gate, one.version, override) for one in failing}
        refused = [one for one in failing if words[one.version].reason is None]
        for one in refused or wanted:
            self.settle(record.policy, wanted[one], judged[one], words.get(one.version, override))
        if refused:
            raise ConflictError(refusal_of(judged[refused[0]].verdict), field="override")

    def _judgement(self, wanted: Wanted) -> Judged | None:
        """What was wanted, if the declaration still holds."""
        gate = self.store.gate(wanted.policy)
        if gate is None or gate.declared_us != wanted.declared_us:
            return None
        variant = Variant(
            name="judged", version=wanted.version, weight=1.0, explore=wanted.explore, epsilon=wanted.epsilon
        )
        return self.judged(wanted.policy, gate, variant)

    def on_their_own(self, policy: str) -> set[int]:
        """Versions that have served by themselves, those of now included; not those of a rollout or an experiment."""
        stored = self._database.of_policy(self._tenant, policy)
        if stored is not None and not self._rollouts.store.running(policy):
            self.note_served(stored.record)
        return self.store.served(policy)

    def _gate(self, policy: str) -> StoredGate:
        found = self.store.gate(policy)
        if found is None:
            raise _none(policy)
        return found

    def word(self, policy: str, gate: StoredGate, version: int, override: Override) -> Override:
        """What is said for a version: an override, or what was promised beforehand if nothing has come of it yet."""
        if override.reason is not None:
            return override
        events = (event for _, event in self.store.events(policy) if event.version == version)
        last = next(events, None)
        if last is None or last.kind != "promised" or last.time_us < gate.declared_us:
            return override
        return Override(last.reason, last.actor)

    def _bundle(self, policy: str, version: int) -> BundlePolicy:
        return load_bundle(self._registry.path(policy, self._registry.get(policy, version).version))

    def judged(self, policy: str, gate: StoredGate, variant: Variant) -> Judged:
        """What a gate says of a version as it would be served; nothing is kept.

        A version of another kind than was declared for has no verdict, which an operator may override.

        Raises:
            NotFoundError, InvalidInputError, LakeError: as of :meth:`judge`.
        """
        bundle, now_us = self._bundle(policy, variant.version), self._clock()
        epsilon = bundle.check_epsilon(variant.epsilon)
        declared, subject = gate.declaration.policy(gate.declared_us), f"{policy}:{variant.version}"
        rows: LoggedRows | LoggedSessions
        try:
            gate.declaration.check(bundle)
            if gate.declaration.of_sessions:
                rows = read_sessions(self._lake, policy, gate.declaration, bundle, now_us=now_us)
            else:
                rows = read_logged(self._lake, policy, gate.declaration, bundle, now_us=now_us)
        except InvalidInputError as problem:
            return Judged(without_evidence(declared, problem.message, subject=subject, now_us=now_us), None)
        verdict = judge_version(
            declared, bundle, rows, subject=subject, explore=variant.explore, epsilon=epsilon, now_us=now_us
        )
        return Judged(verdict, rows)

    def settle(
        self,
        policy: str,
        variant: Variant,
        judged: Judged,
        word: Override,
        *,
        edge: bool = False,
    ) -> Verdict | None:
        """Keep what becomes of a judgement, given the :meth:`word` for it; the verdict where the version is refused."""
        found = GateRecord(verdict=judged.verdict)
        kind: EventKind = "passed"
        if not passes_gate(found):
            kind = "refused"
            if word.reason is not None:
                kind = "overridden"
                found = found.overridden(reason=word.reason, by=word.actor, time_us=self._clock())
        self._keep(policy, kind, variant, found, judged, word, edge=edge)
        return judged.verdict if kind == "refused" else None

    def _keep(
        self,
        policy: str,
        kind: EventKind,
        variant: Variant,
        found: GateRecord,
        judged: Judged,
        override: Override,
        *,
        edge: bool = False,
    ) -> dict[str, Any]:
        reason = found.override.reason if found.override else found.verdict.reason
        report = _report(found, judged)
        event = GateEvent(self._clock(), kind, override.actor, reason, variant.version, report, edge)
        number = self.store.record(policy, event)
        self._events.info(
            f"gate_{kind}", policy=policy, version=variant.version, actor=override.actor, reason=reason, edge=edge
        )
        return {"number": number, **event.to_dict()}


def _wanted(policy: str, gate: StoredGate, variant: Variant) -> Wanted:
    return Wanted(policy, gate.declared_us, variant.version, variant.explore, variant.epsilon)


def _report(found: GateRecord, judged: Judged) -> dict[str, Any]:
    rows = judged.rows.rows if isinstance(judged.rows, LoggedSessions) else judged.rows
    if rows is None:
        counts: dict[str, Any] = {"read": 0, "counted": 0, "left_out": {}}
    else:
        counts = {"read": rows.read, "counted": len(rows.reward), "left_out": dict(rows.left_out)}
    return {**found.to_dict(), "rows": counts}


def refusal_of(verdict: Verdict) -> str:
    """Why a version is not let through, what would have done, and the way out, in one line."""
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
        'override: "reason" where the request takes one, or beforehand with rlaas policies gate override'
    )


def _none(policy: str) -> NotFoundError:
    return NotFoundError(f"no gate is declared for {policy!r}; declare one with PUT", field="gate")
