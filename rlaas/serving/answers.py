"""A decision as the caller gets it, and as the lake keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rlaas.lake.records import DecisionCommon, DecisionOwn, encode_decision
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest

__all__ = ["Decision", "common_of", "encode_many", "encode_one", "record_of"]


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


def record_of(
    decision: Decision,
    common: bytes,
    request: DecideRequest,
    observation: list[float],
    unit: str | None,
    session: str | None,
    proposed: list[float] | None = None,
) -> bytes:
    """What the log keeps of a decision.

    Args:
        decision: as answered.
        common: of :func:`common_of`.
        request: what was asked.
        observation: as it was sent [n_features]; the network sees its float32.
        unit, session: of this row.
        proposed: what the policy chose, where the shield changed it.

    Raises:
        InvalidInputError: the context holds what the lake cannot.
    """
    action = decision.action
    return encode_decision(
        DecisionOwn(
            decision.decision_id,
            decision.decision_id,
            decision.variant_propensity,
            observation,
            action if isinstance(action, list) else [float(action)],
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
