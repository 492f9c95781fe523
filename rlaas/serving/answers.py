"""A decision as the caller gets it, and as the lake keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import msgspec

from rlaas.lake.records import DecisionCommon, DecisionOwn, encode_decision
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest
from rlaas.serving.written import Written

__all__ = ["Decision", "common_of", "encode_many", "encode_one", "records_of"]


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer for one observation.

    Attributes:
        candidate: of the version's front, that the constraints led to; only where there were some.
        shielded: the policy chose something else; only where it did.
    """

    decision_id: str
    action: int | list[float]
    policy: str
    version: int
    variant: str
    experiment: str | None
    variant_propensity: float
    action_propensity: float | None
    candidate: str | None = None
    shielded: bool = False


class _Decisions(msgspec.Struct, frozen=True):
    decisions: Sequence[Decision]
    policy: str


_encoder = msgspec.json.Encoder()


def encode_one(decision: Decision) -> bytes:
    """The body of the answer to one observation."""
    return _encoder.encode(decision)


def encode_many(policy: str, decisions: Sequence[Decision]) -> bytes:
    """The body of the answer to several."""
    return _encoder.encode(_Decisions(decisions, policy))


def common_of(
    decision: Decision,
    live: LivePolicy,
    variant: LoadedVariant,
    request: DecideRequest,
    *,
    principal: Principal,
    producer: str,
    time_us: int,
    preference: dict[str, float] | None,
) -> bytes:
    """What the log keeps of every decision of one variant under one preference.

    Args:
        decision: one of them, as answered.
        live, variant: who decided.
        request: what was asked.
        principal: by whom.
        producer: process that decided.
        time_us: when, UTC microseconds.
        preference: weights that the policy was given.
    """
    return DecisionCommon(
        tenant=principal.tenant,
        time_us=time_us,
        scenario=variant.policy.manifest.scenario,
        policy=decision.policy,
        version=decision.version,
        variant=decision.variant,
        experiment=decision.experiment,
        mode=request.mode,
        preference=preference,
        generation=live.record.generation,
        producer=producer,
    ).encoded()


def records_of(
    decisions: Sequence[Decision],
    common: bytes,
    requests: Iterable[DecideRequest],
    observations: Sequence[Written],
    units: Sequence[str | None],
    sessions: Sequence[str | None],
    proposals: Sequence[list[float] | None] | None = None,
) -> list[bytes]:
    """What the log keeps of decisions.

    Args:
        decisions: as answered [n].
        common: of :func:`common_of`.
        requests: what was asked, for each.
        observations: as they were sent [n, n_features]; the network sees their float32.
        units, sessions: of each.
        proposals: what the policy chose, where the shield changed it; default nowhere.

    Raises:
        InvalidInputError: the context holds what the lake cannot.
    """
    return [
        encode_decision(
            DecisionOwn(
                decision.decision_id,
                decision.decision_id,
                decision.variant_propensity,
                observation,
                decision.action if isinstance(decision.action, list) else [float(decision.action)],
                decision.action_propensity,
                session,
                request.step,
                unit,
                request.context,
                proposed,
                decision.candidate,
            ),
            common,
        )
        for decision, request, observation, unit, session, proposed in zip(
            decisions,
            requests,
            observations,
            units,
            sessions,
            repeat(None, len(decisions)) if proposals is None else proposals,
            strict=True,
        )
    ]
