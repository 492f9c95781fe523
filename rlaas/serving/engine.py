"""The decision engine: what a Gateway does with a request once the transport has been peeled off.

Bytes in, bytes out, errors of :mod:`rlaas.errors` in between: no web framework, no event loop. Every lane that takes
requests calls the same three methods. What is live is one reference that :meth:`DecisionEngine.switch` replaces, so a
request sees one generation from beginning to end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import Float32
from rlaas.errors import BundleError, InvalidInputError, LakeError, NotFoundError, RetryableError
from rlaas.names import check_name
from rlaas.serving.allocation import allocate
from rlaas.serving.answers import Decision, encode_many, encode_one, record_of
from rlaas.serving.choosing import Chosen
from rlaas.serving.circuit import Circuits
from rlaas.serving.decision_ids import DecisionIds, uuid7_hex
from rlaas.serving.guard import Guard
from rlaas.serving.inference import infer, logging_of, read_input
from rlaas.serving.loading import ColdPolicyError, LivePolicy, LiveState, LoadedVariant
from rlaas.serving.outcomes import OutcomeIntake
from rlaas.serving.pressure import Pressure
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest, decode_decide, decode_infer, decode_outcomes
from rlaas.serving.rows import check_supported, many_rows, one_each, one_row, sole, storable
from rlaas.serving.shadows import Shadows
from rlaas.serving.tally import Tally
from rlaas.serving.tensors import Inference, encode_answer

__all__ = ["DecisionEngine", "Log", "live_policy"]


_MOST_NAMED = 50


class Log(Protocol):
    """Where records go before they are acknowledged: :class:`rlaas.lake.wal.WriteAheadLog`."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Make ``payloads`` durable, all or none."""


class _Acted(NamedTuple):
    """Who answered, under which preference, with which actions [n, ...] and propensities [n].

    ``candidate`` is that of the front which the constraints led to.
    """

    variant: LoadedVariant
    preference: dict[str, float] | None
    actions: NDArray[Any]
    densities: NDArray[np.float64] | None
    candidate: str | None = None


def live_policy(state: LiveState, name: str, *, field: str = "policy") -> LivePolicy:
    """The live policy of that name.

    Raises:
        InvalidInputError: not a plain name.
        ColdPolicyError: it is live, but not in memory.
        NotFoundError: nothing of that name is live; says what is.
    """
    live = state.policies.get(name)
    if live is None:
        check_name(name, field=field)
        if name in state.cold:
            raise ColdPolicyError(name)
        names = sorted({*state.policies, *state.cold})
        allowed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "") or "(none)"
        raise NotFoundError(f"no live {field} {name!r}; allowed: {allowed}", field=field)
    return live


class DecisionEngine:
    """Decides, takes outcomes and answers V2 inference.

    Thread-safe: the live state is swapped by one assignment, the logs and the intake of outcomes lock themselves.

    Args:
        ids: mints and verifies decision ids.
        producer: name of this process in the lake.
        decisions: log of decisions.
        outcomes: log of outcomes.
        max_rows: observations allowed in one request.
        pressure: of the process; what nobody waits for is given up while it is pressed.
        seed: of exploration; default the operating system's entropy.

    Attributes:
        tally: counts of every version.
        circuits: which versions keep failing.
        used: when each policy was last asked, monotonic nanoseconds.
        shadows: copies for the versions that never answer.
    """

    def __init__(
        self,
        *,
        ids: DecisionIds,
        producer: str,
        decisions: Log,
        outcomes: Log,
        max_rows: int = 10_000,
        pressure: Pressure | None = None,
        seed: int | None = None,
    ) -> None:
        self._ids = ids
        self._producer = producer
        self._decisions = decisions
        self.tally = Tally()
        self.circuits = Circuits()
        self.used: dict[str, int] = {}
        self.shadows = Shadows(self.tally)
        self._guard = Guard()
        self._intake = OutcomeIntake(ids, producer, outcomes, self.tally)
        self._max_rows = max_rows
        self._pressure = pressure or Pressure()
        self._seeds = np.random.SeedSequence(seed)
        self._local = threading.local()
        self._state = LiveState()

    @property
    def state(self) -> LiveState:
        """What is live now."""
        return self._state

    def switch(self, state: LiveState) -> None:
        """Serve ``state`` from the next request on."""
        self._state = state

    def decide(self, principal: Principal, policy: str, body: bytes) -> bytes:
        """Answer ``POST /api/v1/policies/{policy}/decide``; the decisions are logged before this returns.

        Raises:
            MalformedBodyError: not JSON.
            InvalidInputError: a field of the wrong shape, type or value.
            NotFoundError: no such policy is live.
            RetryableError: the log cannot take the decision.
        """
        live = live_policy(self._state, policy)
        request = decode_decide(body)
        check_supported(request)
        storable(request.context, len(request.observations or ()) or 1)
        if request.observation is not None:
            return encode_one(self._decide_one(principal, live, request, request.observation))
        assert request.observations is not None
        rows = many_rows(request.observations, live.primary.policy, self._max_rows)
        return encode_many(policy, self._decide(principal, live, request, rows))

    def record_outcomes(self, principal: Principal, body: bytes) -> bytes:
        """Answer ``POST /api/v1/outcomes``; all or none are logged before this returns.

        Raises:
            MalformedBodyError: not JSON.
            InvalidInputError: a field of the wrong shape, type or value, or an unknown objective.
            ForgedDecisionError: a decision id that was not issued here.
            ConflictError: another content under a known (outcome_id, revision).
            RetryableError: the log cannot take the outcomes.
        """
        return self._intake.record(principal, decode_outcomes(body), self._state)

    def infer(
        self, principal: Principal, model: str, version: str | None, body: bytes, header_length: int | None = None
    ) -> Inference:
        """Answer V2 ``infer``.

        Nothing is logged, so nothing can be learnt from it, unless ``parameters.log`` is true: then every row is a
        decision like any of :meth:`decide`, and the outputs are ``action``, ``decision_id`` and ``version``.

        Args:
            principal: who asks.
            model, version: what to run.
            body: of the request.
            header_length: of the JSON in it, where binary tensors follow.

        Raises:
            MalformedBodyError: not JSON.
            InvalidInputError: a tensor of the wrong name, shape, datatype or value.
            NotFoundError: no such model or version is live.
            RetryableError: the log cannot take the decisions.
        """
        live = live_policy(self._state, model, field="model")
        self.used[model] = time.perf_counter_ns()
        request, raw = decode_infer(body, header_length)
        given = read_input(live, version, request, raw, self._max_rows)
        to_log = logging_of(request, version)
        if to_log is None:
            return infer(live, request, given, self.tally)
        decisions = self._decide(principal, live, to_log, given.observations)
        return encode_answer(
            request,
            {"model_name": live.record.policy},
            {
                "action": np.array([decision.action for decision in decisions]),
                "decision_id": [decision.decision_id for decision in decisions],
                "version": np.array([decision.version for decision in decisions]),
            },
        )

    def _decide_one(
        self, principal: Principal, live: LivePolicy, request: DecideRequest, observation: list[float]
    ) -> Decision:
        """The hot path: what :meth:`_decide` does, without what only several rows need."""
        started = self.used[live.record.policy] = time.perf_counter_ns()
        row = one_row(observation, live.primary.policy)
        time_ns = time.time_ns()
        uuid = uuid7_hex(time_ns // 1_000_000)
        unit, session = sole(request.unit, "unit"), sole(request.session, "session")
        variant, propensity = live.primary, 1.0
        if not live.alone:
            ((name, allocation),) = allocate(live, request.step, [unit], [uuid]).items()
            variant, propensity = live.variants[name], allocation.propensity[0]
        acted = self._act(live, variant, row, request)
        action, proposed = acted.actions[0].tolist(), None
        if live.shield is not None:
            previous = self._guard.previous(live, live.shield, request, (session,))
            guarded = self._guard.apply(live.shield, request, row, acted.actions, previous)
            action, proposed = guarded.actions[0].tolist(), guarded.proposed[0]
        density = None if acted.densities is None else float(acted.densities[0])
        decision = self._decision(live, acted, uuid, action, propensity, density, proposed is not None)
        payload = record_of(
            decision,
            live,
            acted.variant,
            request,
            principal=principal,
            producer=self._producer,
            time_us=time_ns // 1000,
            observation=observation,
            unit=unit,
            session=session,
            preference=acted.preference,
            proposed=proposed,
        )
        self._append([payload])
        if live.shield is not None:
            self._guard.remember(live, live.shield, request, (session,), (action,))
        if live.shadows and not self._pressure.pressed and acted.candidate is None:
            self.shadows.offer(live, row, request.mode, request.preference, acted.actions)
        self.tally.decided(decision.policy, decision.version, 1, time.perf_counter_ns() - started)
        return decision

    def _decide(self, principal: Principal, live: LivePolicy, request: DecideRequest, rows: Float32) -> list[Decision]:
        started = self.used[live.record.policy] = time.perf_counter_ns()
        count = len(rows)
        time_us = time.time_ns() // 1000
        uuids = [uuid7_hex(time_us // 1000) for _ in range(count)]
        units = one_each(request.unit, count, "unit")
        sessions = one_each(request.session, count, "session")
        logged = request.observations or rows.tolist()
        answers: list[Decision | None] = [None] * count
        payloads: list[bytes] = [b""] * count
        answered: list[tuple[int, int]] = []
        served: list[tuple[Float32, Any]] = []
        shield = live.shield
        previous = None if shield is None else self._guard.previous(live, shield, request, sessions)
        for name, allocation in allocate(live, request.step, units, uuids).items():
            whole = len(allocation.rows) == count
            chosen = rows if whole else rows[allocation.rows]
            acted = self._act(live, live.variants[name], chosen, request)
            none = [None] * len(chosen)
            propensities = none if acted.densities is None else acted.densities.tolist()
            answered.append((acted.variant.version, len(chosen)))
            if acted.candidate is None:
                served.append((chosen, acted.actions))
            actions, proposals = acted.actions, cast(Sequence[list[float] | None], none)
            if shield is not None:
                before = previous if previous is None or whole else previous[allocation.rows]
                guarded = self._guard.apply(shield, request, chosen, actions, before)
                actions, proposals = guarded.actions, guarded.proposed
            for row, action, propensity, density, proposed in zip(
                allocation.rows, actions.tolist(), allocation.propensity, propensities, proposals, strict=True
            ):
                decision = self._decision(live, acted, uuids[row], action, propensity, density, proposed is not None)
                answers[row] = decision
                payloads[row] = record_of(
                    decision,
                    live,
                    acted.variant,
                    request,
                    principal=principal,
                    producer=self._producer,
                    time_us=time_us,
                    observation=logged[row],
                    unit=units[row],
                    session=sessions[row],
                    preference=acted.preference,
                    proposed=proposed,
                )
        self._append(payloads)
        decided = [answer for answer in answers if answer is not None]
        if shield is not None:
            self._guard.remember(live, shield, request, sessions, [decision.action for decision in decided])
        for chosen, actions in served if live.shadows and not self._pressure.pressed else ():
            self.shadows.offer(live, chosen, request.mode, request.preference, actions)
        taken = time.perf_counter_ns() - started
        for version, rows_of in answered:
            self.tally.decided(live.record.policy, version, rows_of, taken)
        return decided

    def _act(self, live: LivePolicy, variant: LoadedVariant, rows: Float32, request: DecideRequest) -> _Acted:
        """What the variant decides; or a reserve while its circuit is open, or else the safe default.

        Raises:
            InvalidInputError: a preference or a constraint that cannot be kept.
            RetryableError: nobody can answer.
        """
        failure: Exception | None = None
        for candidate in (variant, *live.reserves):
            chosen: Chosen | None = None
            if request.constraints is not None:
                try:
                    chosen = candidate.choose(request.constraints, request.mode, request.preference)
                except InvalidInputError:
                    if candidate is variant:
                        raise
                    continue  # a reserve's front is not what the caller asked for: its lack is no fault of theirs
                if chosen.action is not None:
                    return _Acted(candidate, None, chosen.action.repeat(len(rows), axis=0), None, chosen.name)
            circuit = self.circuits.of(candidate.policy_name, candidate.version)
            if not circuit.admits():
                continue
            if chosen is None:
                weights, preference = candidate.preference(request.mode, request.preference)
            else:
                weights, preference = chosen.weights, chosen.preference
            try:
                explores = candidate.explore and not self._pressure.pressed
                actions, densities = candidate.policy.act(
                    rows,
                    weights,
                    rng=self._draws() if explores else None,
                    epsilon=candidate.epsilon if explores else 0.0,
                )
                if not math.isfinite(actions.sum()):
                    raise BundleError(f"version {candidate.version} gave an action that is not finite")
            except InvalidInputError:  # the caller's fault, such as a missing preference
                raise
            except Exception as problem:  # whatever a version raises is its own fault, and has to be survived
                failure = problem
                self.tally.failed(candidate.policy_name, candidate.version)
                circuit.failed()
            else:
                circuit.succeeded()
                return _Acted(candidate, preference, actions, densities, None if chosen is None else chosen.name)
        if live.safe_default is not None:
            return _Acted(live.safe_default.variant, None, live.safe_default.action.repeat(len(rows), axis=0), None)
        raise RetryableError(
            f"no version of {live.record.policy!r} can answer now: version {variant.version} keeps failing"
        ) from failure

    def _decision(
        self,
        live: LivePolicy,
        acted: _Acted,
        uuid: str,
        action: int | list[float],
        propensity: float,
        density: float | None,
        shielded: bool,
    ) -> Decision:
        variant = acted.variant
        # What a reserve decides is no part of the experiment that drew another variant.
        drawn = live.variants.get(variant.name) is variant
        return Decision(
            self._ids.sign(uuid, variant.id_tag),
            action,
            live.record.policy,
            variant.version,
            variant.name,
            live.experiment if drawn else None,
            propensity if drawn else 1.0,
            density,
            acted.candidate,
            shielded,
        )

    def _append(self, payloads: list[bytes]) -> None:
        try:
            self._decisions.append(payloads)
        except LakeError as problem:
            raise RetryableError("the decision cannot be logged now, so it was not taken; try again later") from problem

    def _draws(self) -> np.random.Generator:
        """The source of exploration of this thread: generators are not thread-safe."""
        rng: np.random.Generator | None = getattr(self._local, "rng", None)
        if rng is None:
            rng = self._local.rng = np.random.default_rng(self._seeds.spawn(1)[0])
        return rng
