"""The decision engine: what a Gateway does with a request once the transport has been peeled off.

Bytes in, bytes out, errors of :mod:`rlaas.errors` in between: no web framework, no event loop. Every lane that takes
requests calls the same three methods. What is live is one reference that :meth:`DecisionEngine.switch` replaces, so a
request sees one generation from beginning to end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from rlaas.bundles import Float32
from rlaas.errors import BundleError, InvalidInputError, LakeError, NotFoundError, RetryableError
from rlaas.experiments.assignment import assign_switchback
from rlaas.names import check_name
from rlaas.serving.answers import Decision, encode_many, encode_one, record_of
from rlaas.serving.circuit import Circuits
from rlaas.serving.decision_ids import DecisionIds, uuid7_hex
from rlaas.serving.inference import infer, logging_of, read_input
from rlaas.serving.loading import ColdPolicyError, LivePolicy, LiveState, LoadedVariant
from rlaas.serving.outcomes import OutcomeIntake
from rlaas.serving.pressure import Pressure
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest, decode_decide, decode_infer, decode_outcomes
from rlaas.serving.rows import check_supported, many_rows, one_each, one_row, storable
from rlaas.serving.shadows import Shadows
from rlaas.serving.tally import Tally
from rlaas.serving.tensors import Inference, encode_answer

__all__ = ["DecisionEngine", "Log", "live_policy"]


_MOST_NAMED = 50


class Log(Protocol):
    """Where records go before they are acknowledged: :class:`rlaas.lake.wal.WriteAheadLog`."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Make ``payloads`` durable, all or none."""


class _Allocation(msgspec.Struct, frozen=True):
    """The rows of a request that go to one variant."""

    rows: list[int]
    propensity: list[float]


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
        storable(request.context)
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
            return infer(live, request, given)
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
        self, principal: Principal, live: LivePolicy, request: DecideRequest, observation: Sequence[float]
    ) -> Decision:
        """The hot path: what :meth:`_decide` does, without what only several rows need."""
        started = self.used[live.record.policy] = time.perf_counter_ns()
        row = one_row(observation, live.primary.policy)
        time_ns = time.time_ns()
        uuid = uuid7_hex(time_ns // 1_000_000)
        unit = _sole(request.unit, "unit")
        variant, propensity = live.primary, 1.0
        if not live.alone:
            ((name, allocation),) = self._allocate(live, request.step, [unit], [uuid]).items()
            variant, propensity = live.variants[name], allocation.propensity[0]
        variant, preference, actions, densities = self._act(live, variant, row, request)
        density = None if densities is None else float(densities[0])
        decision = self._decision(live, variant, uuid, actions[0].tolist(), propensity, density)
        payload = record_of(
            decision,
            live,
            variant,
            request,
            principal=principal,
            producer=self._producer,
            time_us=time_ns // 1000,
            observation=row[0].tolist(),
            unit=unit,
            session=_sole(request.session, "session"),
            preference=preference,
        )
        self._append([payload])
        if live.shadows and not self._pressure.pressed:
            self.shadows.offer(live, row, request.mode, request.preference, actions)
        self.tally.decided(decision.policy, decision.version, 1, time.perf_counter_ns() - started)
        return decision

    def _decide(self, principal: Principal, live: LivePolicy, request: DecideRequest, rows: Float32) -> list[Decision]:
        started = self.used[live.record.policy] = time.perf_counter_ns()
        count = len(rows)
        time_us = time.time_ns() // 1000
        uuids = [uuid7_hex(time_us // 1000) for _ in range(count)]
        units = one_each(request.unit, count, "unit")
        sessions = one_each(request.session, count, "session")
        logged = rows.tolist()
        answers: list[Decision | None] = [None] * count
        payloads: list[bytes] = [b""] * count
        answered: list[tuple[int, int]] = []
        served: list[tuple[Float32, Any]] = []
        allocated = self._allocate(live, request.step, units, uuids)
        for name, allocation in allocated.items():
            chosen = rows if len(allocation.rows) == count else rows[allocation.rows]
            variant, preference, actions, densities = self._act(live, live.variants[name], chosen, request)
            propensities = [None] * len(chosen) if densities is None else densities.tolist()
            answered.append((variant.version, len(chosen)))
            served.append((chosen, actions))
            for row, action, propensity, density in zip(
                allocation.rows, actions.tolist(), allocation.propensity, propensities, strict=True
            ):
                decision = self._decision(live, variant, uuids[row], action, propensity, density)
                answers[row] = decision
                payloads[row] = record_of(
                    decision,
                    live,
                    variant,
                    request,
                    principal=principal,
                    producer=self._producer,
                    time_us=time_us,
                    observation=logged[row],
                    unit=units[row],
                    session=sessions[row],
                    preference=preference,
                )
        self._append(payloads)
        for chosen, actions in served if live.shadows and not self._pressure.pressed else ():
            self.shadows.offer(live, chosen, request.mode, request.preference, actions)
        taken = time.perf_counter_ns() - started
        for version, rows_of in answered:
            self.tally.decided(live.record.policy, version, rows_of, taken)
        return [answer for answer in answers if answer is not None]

    def _act(
        self, live: LivePolicy, variant: LoadedVariant, rows: Float32, request: DecideRequest
    ) -> tuple[LoadedVariant, dict[str, float] | None, Any, Any]:
        """Who answered, under which preference, with which actions [n, ...] and propensities [n].

        That is the variant, or a reserve while its circuit is open.

        Raises:
            RetryableError: nobody can answer.
        """
        failure: Exception | None = None
        for candidate in (variant, *live.reserves):
            circuit = self.circuits.of(candidate.policy_name, candidate.version)
            if not circuit.admits():
                continue
            weights, preference = candidate.preference(request.mode, request.preference)
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
                return candidate, preference, actions, densities
        raise RetryableError(
            f"no version of {live.record.policy!r} can answer now: version {variant.version} keeps failing"
        ) from failure

    def _decision(
        self,
        live: LivePolicy,
        variant: LoadedVariant,
        uuid: str,
        action: int | list[float],
        propensity: float,
        density: float | None,
    ) -> Decision:
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

    @staticmethod
    def _allocate(
        live: LivePolicy, step: int | None, units: Sequence[str | None], uuids: Sequence[str]
    ) -> Mapping[str, _Allocation]:
        """Which rows go to which variant, and with what probability."""
        if live.alone:
            return {live.primary.name: _Allocation(list(range(len(uuids))), [1.0] * len(uuids))}
        experiment = live.record.experiment
        if experiment is not None and experiment.design == "switchback" and experiment.block_steps is not None:
            if step is None:
                raise InvalidInputError(
                    f"step is needed: experiment {experiment.name!r} alternates between its variants by step",
                    field="step",
                )
            block = assign_switchback(step, experiment.block_steps, experiment.salt, live.weights)
            return {block.variant: _Allocation(list(range(len(uuids))), [block.propensity] * len(uuids))}
        allocations: dict[str, _Allocation] = {}
        for row, (unit, uuid) in enumerate(zip(units, uuids, strict=True)):
            # Without a sticky key each decision is a unit of its own.
            drawn = live.assign(unit if unit is not None else uuid)
            allocation = allocations.setdefault(drawn.variant, _Allocation([], []))
            allocation.rows.append(row)
            allocation.propensity.append(drawn.propensity)
        return allocations


def _sole(value: str | Sequence[str] | None, field: str) -> str | None:
    return value if value is None or isinstance(value, str) else one_each(value, 1, field)[0]
