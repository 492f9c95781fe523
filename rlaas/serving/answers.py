"""A decision as the caller gets it, and as the lake keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rlaas.lake.records import DecisionRecord, encode
from rlaas.serving.loading import LivePolicy, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest

__all__ = ["Decision", "encode_many", "encode_one", "record_of"]


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


def record_of(
    decision: Decision,
    live: LivePolicy,
    variant: LoadedVariant,
    request: DecideRequest,
    *,
    principal: Principal,
    producer: str,
    time_us: int,
    observation: list[float],
    unit: str | None,
    session: str | None,
    preference: dict[str, float] | None,
    proposed: list[float] | None = None,
) -> bytes:
    """What the log keeps of a decision.

    Args:
        decision: as answered.
        live, variant: who decided.
        request: what was asked.
        principal: by whom.
        producer: process that decided.
        time_us: when, UTC microseconds.
        observation: as it was sent [n_features]; the network sees its float32.
        unit, session: of this row.
        preference: weights that the policy was given.
        proposed: what the policy chose, where the shield changed it.

    Raises:
        InvalidInputError: the context holds what the lake cannot.
    """
    action = decision.action
    return encode(
        DecisionRecord(
            receipt_id=decision.decision_id,
            decision_id=decision.decision_id,
            tenant=principal.tenant,
            time_us=time_us,
            scenario=variant.policy.manifest.scenario,
            policy=decision.policy,
            version=decision.version,
            variant=decision.variant,
            experiment=decision.experiment,
            variant_propensity=decision.variant_propensity,
            action_propensity=decision.action_propensity,
            proposed_action=proposed,
            session=session,
            step=request.step,
            unit=unit,
            mode=request.mode,
            preference=preference,
            observation=observation,
            action=action if isinstance(action, list) else [float(action)],
            context=request.context,
            candidate=decision.candidate,
            generation=live.record.generation,
            producer=producer,
        ),
        # Without a context every value was checked or made here.
        trusted=request.context is None,
    )
