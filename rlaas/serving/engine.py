"""The decision engine: what a Gateway does with a request once the transport has been peeled off.

Bytes in, bytes out, errors of :mod:`rlaas.errors` in between: no web framework, no event loop. Every lane that takes
requests calls the same three methods. What is live is one reference that :meth:`DecisionEngine.switch` replaces, so a
request sees one generation from beginning to end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from rlaas.bundles import Float32
from rlaas.errors import InvalidInputError, LakeError, NotFoundError, RetryableError
from rlaas.experiments.assignment import assign_switchback, assign_unit
from rlaas.lake.records import DecisionRecord, encode
from rlaas.names import check_name
from rlaas.serving.decision_ids import DecisionIds
from rlaas.serving.inference import infer
from rlaas.serving.loading import LivePolicy, LiveState, LoadedVariant
from rlaas.serving.outcomes import OutcomeIntake
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest, decode_decide, decode_infer, decode_outcomes

__all__ = ["Decision", "DecisionEngine", "Log", "live_policy"]

_MAX_NESTING = 32


class Log(Protocol):
    """Where records go before they are acknowledged: :class:`rlaas.lake.wal.WriteAheadLog`."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Make ``payloads`` durable, all or none."""


class Decision(msgspec.Struct, frozen=True):
    """The answer for one observation."""

    decision_id: str
    action: int | list[float]
    policy: str
    version: int
    variant: str
    experiment: str | None
    variant_propensity: float
    action_propensity: float | None


class _Decisions(msgspec.Struct, frozen=True):
    decisions: list[Decision]
    policy: str


class _Allocation(msgspec.Struct, frozen=True):
    """The rows of a request that go to one variant."""

    rows: list[int]
    propensity: list[float]


def live_policy(state: LiveState, name: str, *, field: str = "policy") -> LivePolicy:
    """The live policy of that name.

    Raises:
        InvalidInputError: not a plain name.
        NotFoundError: nothing of that name is live; says what is.
    """
    live = state.policies.get(name)
    if live is None:
        check_name(name, field=field)
        allowed = ", ".join(sorted(state.policies)) or "(none)"
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
        rng: source of exploration; default a fresh one from the operating system's entropy.
    """

    def __init__(
        self,
        *,
        ids: DecisionIds,
        producer: str,
        decisions: Log,
        outcomes: Log,
        max_rows: int = 10_000,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._ids = ids
        self._producer = producer
        self._decisions = decisions
        self._intake = OutcomeIntake(ids, producer, outcomes)
        self._max_rows = max_rows
        self._rng = rng if rng is not None else np.random.default_rng()
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
        rows, single = _rows(request, live.primary, self._max_rows)
        decisions = self._decide(principal, live, request, rows)
        return msgspec.json.encode(decisions[0] if single else _Decisions(decisions, policy))

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

    def infer(self, principal: Principal, model: str, version: str | None, body: bytes) -> bytes:
        """Answer V2 ``infer``: nothing is logged, so nothing can be learnt from it.

        Raises:
            MalformedBodyError: not JSON.
            InvalidInputError: a tensor of the wrong name, shape, datatype or value.
            NotFoundError: no such model or version is live.
        """
        del principal  # every tenant of the installation may run what is live
        live = live_policy(self._state, model, field="model")
        return msgspec.json.encode(infer(live, version, decode_infer(body), self._max_rows))

    def _decide(self, principal: Principal, live: LivePolicy, request: DecideRequest, rows: Float32) -> list[Decision]:
        count = len(rows)
        time_us = time.time_ns() // 1000
        ids = [self._ids.mint(live.tag, time_ms=time_us // 1000) for _ in range(count)]
        units = _one_each(request.unit, count, "unit")
        sessions = _one_each(request.session, count, "session")
        context = _storable(request.context)
        experiment = live.record.experiment.name if live.record.experiment else None
        answers: list[Decision | None] = [None] * count
        payloads: list[bytes] = [b""] * count
        for name, allocation in self._allocate(live, request.step, units, ids).items():
            variant = live.variants[name]
            weights, preference = variant.preference(request.mode, request.preference)
            chosen = rows if len(allocation.rows) == count else rows[allocation.rows]
            actions, propensities = variant.policy.act(chosen, weights, rng=self._rng if variant.explore else None)
            for index, row in enumerate(allocation.rows):
                action = actions[index].tolist()
                propensity = None if propensities is None else float(propensities[index])
                answers[row] = Decision(
                    decision_id=ids[row],
                    action=action,
                    policy=live.record.policy,
                    version=variant.version,
                    variant=name,
                    experiment=experiment,
                    variant_propensity=allocation.propensity[index],
                    action_propensity=propensity,
                )
                payloads[row] = encode(
                    DecisionRecord(
                        receipt_id=ids[row],
                        decision_id=ids[row],
                        tenant=principal.tenant,
                        time_us=time_us,
                        scenario=variant.policy.manifest.scenario,
                        policy=live.record.policy,
                        version=variant.version,
                        variant=name,
                        experiment=experiment,
                        variant_propensity=allocation.propensity[index],
                        action_propensity=propensity,
                        session=sessions[row],
                        step=request.step,
                        unit=units[row],
                        mode=request.mode,
                        preference=preference,
                        observation=rows[row].tolist(),
                        action=action if isinstance(action, list) else [float(action)],
                        context=context,
                        generation=live.record.generation,
                        producer=self._producer,
                    )
                )
        try:
            self._decisions.append(payloads)
        except LakeError as problem:
            raise RetryableError("the decision cannot be logged now, so it was not taken; try again later") from problem
        return [answer for answer in answers if answer is not None]

    @staticmethod
    def _allocate(
        live: LivePolicy, step: int | None, units: Sequence[str | None], ids: Sequence[str]
    ) -> Mapping[str, _Allocation]:
        """Which rows go to which variant, and with what probability."""
        if len(live.variants) == 1:
            return {live.primary.name: _Allocation(list(range(len(ids))), [1.0] * len(ids))}
        experiment = live.record.experiment
        if experiment is not None and experiment.design == "switchback" and experiment.block_steps is not None:
            if step is None:
                raise InvalidInputError(
                    f"step is needed: experiment {experiment.name!r} alternates between its variants by step",
                    field="step",
                )
            block = assign_switchback(step, experiment.block_steps, experiment.salt, live.weights)
            return {block.variant: _Allocation(list(range(len(ids))), [block.propensity] * len(ids))}
        salt = experiment.salt if experiment is not None else live.record.id
        allocations: dict[str, _Allocation] = {}
        for row, (unit, decision_id) in enumerate(zip(units, ids, strict=True)):
            # Without a sticky key each decision is a unit of its own.
            drawn = assign_unit(unit if unit is not None else decision_id, salt, live.weights)
            allocation = allocations.setdefault(drawn.variant, _Allocation([], []))
            allocation.rows.append(row)
            allocation.propensity.append(drawn.propensity)
        return allocations


def _rows(request: DecideRequest, variant: LoadedVariant, max_rows: int) -> tuple[Float32, bool]:
    """Checked observations [n, n_features], and whether one was asked for."""
    for field in ("constraints", "entities"):
        if getattr(request, field) is not None:
            raise InvalidInputError(f"{field} is not supported by this installation; leave it out", field=field)
    if (request.observation is None) == (request.observations is None):
        raise InvalidInputError("send exactly one of observation and observations", field="observation")
    policy = variant.policy
    if request.observation is not None:
        if len(request.observation) != policy.n_features:
            raise InvalidInputError(
                f"observation has {len(request.observation)} numbers; expected {policy.n_features}",
                field="observation",
            )
        return policy.check_observations(np.array([request.observation]), field="observation"), True
    rows = request.observations or []
    if len(rows) > max_rows:
        raise InvalidInputError(
            f"observations has {len(rows)} rows; at most {max_rows} are allowed", field="observations"
        )
    for index, row in enumerate(rows):
        if len(row) != policy.n_features:
            raise InvalidInputError(
                f"observations[{index}] has {len(row)} numbers; expected {policy.n_features}",
                field=f"observations[{index}]",
            )
    return policy.check_observations(np.array(rows, dtype=np.float64), field="observations"), False


def _one_each(value: str | Sequence[str] | None, count: int, field: str) -> Sequence[str | None]:
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise InvalidInputError(
            f"{field} has {len(value)} entries; expected one, or one per row ({count})", field=field
        )
    return value


def _storable(context: dict[str, Any] | None) -> dict[str, Any] | None:
    """The context, if it is nested moderately: what is accepted here has to be readable wherever the lake is read."""
    level: list[Any] = [context]
    for _ in range(_MAX_NESTING):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return context
    raise InvalidInputError(f"context is nested deeper than {_MAX_NESTING} levels", field="context")
