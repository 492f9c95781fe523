"""The decision engine: what a Gateway does with a request once the transport has been peeled off.

Bytes in, bytes out, errors of :mod:`rlaas.errors` in between: no web framework, no event loop. Every lane that takes
requests calls the same three methods. What is live is one reference that :meth:`DecisionEngine.switch` replaces, so a
request sees one generation from beginning to end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import Float32
from rlaas.errors import LakeError, RetryableError
from rlaas.serving.acting import Acted, Acting, SplitError
from rlaas.serving.allocation import allocate
from rlaas.serving.answers import Decision, common_of, encode_many, encode_one, records_of
from rlaas.serving.decision_ids import DecisionIds, uuids_hex
from rlaas.serving.entities import fill
from rlaas.serving.guard import Guard
from rlaas.serving.inference import infer, logging_of, read_input
from rlaas.serving.loaded import LivePolicy, LiveState
from rlaas.serving.outcomes import OutcomeIntake
from rlaas.serving.pressure import Pressure
from rlaas.serving.principal import Principal
from rlaas.serving.questions import Drawn, Question, draw
from rlaas.serving.requests import DecideRequest, decode_decide, decode_infer, decode_outcomes
from rlaas.serving.rows import check_one, check_supported, many_rows, one_each, stacked, storable
from rlaas.serving.shadows import Shadows
from rlaas.serving.tally import Tally
from rlaas.serving.tensors import Inference, encode_answer

__all__ = ["DecisionEngine", "Log"]

_UNANSWERED = RetryableError("the request was not answered; try again")


class Log(Protocol):
    """Where records go before they are acknowledged: :class:`rlaas.lake.wal.WriteAheadLog`."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Make ``payloads`` durable, all or none."""


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
        acting: runs the versions, and knows which keep failing.
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
        self.used: dict[str, int] = {}
        self.shadows = Shadows(self.tally)
        self._guard = Guard()
        self._intake = OutcomeIntake(ids, producer, outcomes, self.tally)
        self._max_rows = max_rows
        self._pressure = pressure or Pressure()
        self.acting = Acting(self.tally, self._pressure, seed)
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
        return self.answer(self.read(principal, policy, body))

    def read(self, principal: Principal, policy: str, body: bytes) -> Question:
        """The first half of :meth:`decide`: what needs no network; reads the online store where entities are named.

        Raises:
            RequestError: see :meth:`decide`.
        """
        arrived_ns = time.perf_counter_ns()
        live = self._state.policy(policy)
        request = decode_decide(body)
        if request.entities is not None:
            request = fill(live.features, request, self._max_rows)
        check_supported(request)
        if request.observation is not None:
            check_one(request.observation, live.primary.policy)
        if request.context is not None:
            storable(request.context, len(request.observations or ()) or 1)
        return Question(principal, live, request, arrived_ns)

    def answer(self, question: Question) -> bytes:
        """The second half of :meth:`decide`."""
        principal, live, request = question.principal, question.live, question.request
        if question.plain:
            (answer,) = self.answer_together([question])
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.observation is not None:
            sent = stacked([request.observation], live.primary.policy.n_features)
            rows = live.primary.policy.check_observations(sent, field="observation")
            return encode_one(self._decide(principal, live, request, rows, sent)[0])
        assert request.observations is not None
        sent = many_rows(request.observations, live.primary.policy, self._max_rows)
        rows = live.primary.policy.check_observations(sent, field="observations")
        return encode_many(live.record.policy, self._decide(principal, live, request, rows, sent))

    def answer_together(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """Answers to plain questions, each by itself: one that fails leaves the others alone.

        Those that go to one variant under one preference share a run of its network and a write to the log. Alone, a
        decision is mostly spent on fetching code and tables that the one before has thrown out of the caches; together
        they cost a fifth.
        """
        answers: list[bytes | Exception] = [_UNANSWERED] * len(questions)
        groups: dict[tuple[Any, ...], list[Drawn]] = {}
        uuids = uuids_hex(len(questions), time.time_ns() // 1_000_000)
        for place, (question, uuid) in enumerate(zip(questions, uuids, strict=True)):
            try:
                drawn = draw(place, question, uuid)
            except Exception as problem:  # also one of ours: it is this request's alone
                answers[place] = problem
            else:
                groups.setdefault(drawn.group(), []).append(drawn)
        pending = list(groups.values())
        while pending:
            members = pending.pop()
            try:
                found = self._decide_together(members)
            except SplitError:  # something is wrong with one of them: each by itself finds out with which
                pending += [[member] for member in members]
            except Exception as problem:
                for member in members:
                    answers[member.place] = problem
            else:
                for member, decision in zip(members, found, strict=True):
                    answers[member.place] = encode_one(decision)
        return answers

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
        live = self._state.policy(model, field="model")
        self.used[model] = time.perf_counter_ns()
        request, raw = decode_infer(body, header_length)
        given = read_input(live, version, request, raw, self._max_rows)
        to_log = logging_of(request, version)
        if to_log is None:
            return infer(live, request, given, self.tally)
        sent = given.observations.astype(np.float64)
        decisions = self._decide(principal, live, to_log, given.observations, sent)
        return encode_answer(
            request,
            {"model_name": live.record.policy},
            {
                "action": np.array([decision.action for decision in decisions]),
                "decision_id": [decision.decision_id for decision in decisions],
                "version": np.array([decision.version for decision in decisions]),
            },
        )

    def _decide_together(self, members: Sequence[Drawn]) -> list[Decision]:
        """Decisions of one variant under one preference, for one row of each member."""
        first = members[0].question
        live, request = first.live, first.request
        requests = [member.question.request for member in members]
        sent = stacked([asked.observation or () for asked in requests], live.primary.policy.n_features)
        with np.errstate(over="ignore"):
            rows = sent.astype(np.float32)
        if not np.isfinite(rows).all():
            if len(members) > 1:
                raise SplitError
            live.primary.policy.check_observations(sent, field="observation")  # says which feature it is
        time_us = time.time_ns() // 1000
        acted = self.acting.act(live, members[0].variant, rows, request, together=True)
        decisions = self._signed(
            live,
            acted,
            [member.uuid for member in members],
            acted.actions,
            [member.propensity for member in members],
        )
        payloads = records_of(
            decisions,
            self._common(first.principal, live, acted, request, decisions[0], time_us),
            sent,
            acted.actions,
            sessions=[member.session for member in members],
            units=[member.unit for member in members],
            steps=[asked.step for asked in requests],
            contexts=[asked.context for asked in requests],
        )
        self._append(payloads)
        if live.shadows and not self._pressure.pressed:
            self.shadows.offer(live, rows, request.mode, request.preference, acted.actions)
        now_ns = self.used[live.record.policy] = time.perf_counter_ns()
        waited = [now_ns - member.question.arrived_ns for member in members]
        self.tally.decided_each(live.record.policy, acted.variant.version, waited)
        return decisions

    def _decide(
        self,
        principal: Principal,
        live: LivePolicy,
        request: DecideRequest,
        rows: Float32,
        sent: NDArray[np.float64],
    ) -> list[Decision]:
        started = self.used[live.record.policy] = time.perf_counter_ns()
        count = len(rows)
        time_us = time.time_ns() // 1000
        uuids = uuids_hex(count, time_us // 1000)
        units = one_each(request.unit, count, "unit")
        sessions = one_each(request.session, count, "session")
        steps, contexts = [request.step] * count, [request.context] * count
        answers: list[Decision | None] = [None] * count
        payloads: list[bytes] = []
        answered: list[tuple[int, int]] = []
        served: list[tuple[Float32, Any]] = []
        shield = live.shield
        previous = None if shield is None else self._guard.previous(live, shield, request, sessions)
        for allocation in allocate(live, request, units, uuids, rows):
            whole = len(allocation.rows) == count
            chosen = rows if whole else rows[allocation.rows]
            acted = self.acting.act(live, allocation.variant, chosen, request)
            answered.append((acted.variant.version, len(chosen)))
            if acted.candidate is None:
                served.append((chosen, acted.actions))
            actions, proposals = acted.actions, None
            if shield is not None:
                before = previous if previous is None or whole else previous[allocation.rows]
                guarded = self._guard.apply(shield, request, chosen, actions, before)
                actions, proposals = guarded.actions, guarded.proposed
            made = self._signed(
                live, acted, [uuids[row] for row in allocation.rows], actions, allocation.propensity, proposals
            )
            payloads += records_of(
                made,
                self._common(principal, live, acted, request, made[0], time_us),
                sent if whole else sent[allocation.rows],
                actions,
                sessions=[sessions[row] for row in allocation.rows],
                units=[units[row] for row in allocation.rows],
                steps=steps[: len(made)],
                contexts=contexts[: len(made)],
                proposals=proposals,
            )
            for row, decision in zip(allocation.rows, made, strict=True):
                answers[row] = decision
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

    def _signed(
        self,
        live: LivePolicy,
        acted: Acted,
        uuids: Sequence[str],
        actions: NDArray[Any],
        propensities: Sequence[float],
        proposals: Sequence[list[float] | None] | None = None,
    ) -> list[Decision]:
        variant = acted.variant
        count = len(uuids)
        # What a reserve decides is no part of the experiment that drew another variant; nor are units outside of it.
        drawn = live.variants.get(variant.name) is variant
        policy, version, name, candidate = live.record.policy, variant.version, variant.name, acted.candidate
        experiment = live.experiment if drawn else None
        return [
            Decision(decision_id, action, policy, version, name, experiment, propensity, density, candidate, shielded)
            for decision_id, action, propensity, density, shielded in zip(
                self._ids.sign_all(uuids, variant.id_tag),
                actions.tolist(),
                propensities if drawn else repeat(1.0, count),
                repeat(None, count) if acted.densities is None else acted.densities.tolist(),
                repeat(False, count) if proposals is None else [proposed is not None for proposed in proposals],
                strict=True,
            )
        ]

    def _common(
        self,
        principal: Principal,
        live: LivePolicy,
        acted: Acted,
        request: DecideRequest,
        decision: Decision,
        time_us: int,
    ) -> bytes:
        return common_of(
            decision,
            live,
            acted.variant,
            request,
            principal=principal,
            producer=self._producer,
            time_us=time_us,
            preference=acted.preference,
        )

    def _append(self, payloads: list[bytes]) -> None:
        try:
            self._decisions.append(payloads)
        except LakeError as problem:
            raise RetryableError("the decision cannot be logged now, so it was not taken; try again later") from problem
