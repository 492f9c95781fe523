"""What is written down about a decision and about its outcome: one JSON document each."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

from rlaas.errors import InvalidInputError

__all__ = [
    "Count",
    "DecisionCommon",
    "DecisionRecord",
    "Name",
    "OutcomeRecord",
    "Propensity",
    "decode_decision",
    "decode_outcome",
    "encode",
]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999_999)]  # 1970 to 9999: what a date partition can say
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Propensity = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One served action, as it was decided.

    Attributes:
        receipt_id: what the caller holds as proof; equals ``decision_id``.
        decision_id: the decision's own id.
        tenant: owner.
        time_us: when it was decided, UTC microseconds.
        scenario: problem that the policy controls.
        policy: registered policy.
        version: version of the policy that answered.
        variant: arm of the experiment or rollout (``"champion"`` where there is none).
        variant_propensity: probability in (0, 1] with which this variant was chosen.
        observation: flat observation ``[n_features]``, without the preference.
        action: flat action ``[n_actions]`` as answered; one element holding the index for a discrete action.
        generation: generation of the deployment that answered.
        producer: process that wrote the record.
        experiment: experiment that chose the variant, if one did.
        action_propensity: probability (discrete) or log-density (continuous) under the policy of the action that it
            chose, before any shield; ``None`` for a deterministic policy.
        proposed_action: what the policy chose, where a shield made another ``action`` of it; otherwise ``None``.
        session: trajectory that the decision belongs to.
        step: position in the session, from 0.
        unit: sticky key of the experiment (a user, a cell).
        mode: mode the caller asked for.
        preference: weights by objective that the policy was given.
        context: what else the caller sent, as a JSON object.
        candidate: of the version's front, that the caller's constraints led to.
        schema_version: version of this document.
    """

    receipt_id: Name
    decision_id: Name
    tenant: Name
    time_us: Time
    scenario: Name
    policy: Name
    version: Count
    variant: Name
    variant_propensity: Propensity
    observation: list[float]
    action: list[float]
    generation: Count
    producer: Name
    experiment: Name | None = None
    action_propensity: float | None = None
    proposed_action: list[float] | None = None
    session: Name | None = None
    step: Count | None = None
    unit: Name | None = None
    mode: Name | None = None
    preference: dict[str, float] | None = None
    context: dict[str, Any] | None = None
    candidate: Name | None = None
    schema_version: Literal[1] = 1


class DecisionCommon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a :class:`DecisionRecord` that decisions made together share."""

    tenant: Name
    time_us: Time
    scenario: Name
    policy: Name
    version: Count
    variant: Name
    generation: Count
    producer: Name
    experiment: Name | None
    mode: Name | None
    preference: dict[str, float] | None
    schema_version: Literal[1] = 1

    def encoded(self) -> bytes:
        """For :func:`~rlaas.lake.batches.encode_batch`."""
        return b"," + _encoder.encode(self)[1:]


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was observed later for a decision; every delivery is a record of its own, repeated or not.

    Attributes:
        receipt_id: id of this delivery.
        outcome_id: the caller's id of the outcome: repeated deliveries share it.
        decision_id: decision that the outcome belongs to.
        tenant: owner.
        outcome: value by objective, in the objective's own unit.
        time_us: when it was observed, UTC microseconds, as the caller says.
        received_us: when it arrived, UTC microseconds.
        producer: process that wrote the record.
        revision: corrections count up; the highest wins.
        policy: policy that decided, where the caller says so.
        terminated: the session ended in a terminal state with this decision.
        truncated: the session was cut off after this decision.
        schema_version: version of this document.
    """

    receipt_id: Name
    outcome_id: Name
    decision_id: Name
    tenant: Name
    outcome: dict[str, float]
    time_us: Time
    received_us: Time
    producer: Name
    revision: Count = 0
    policy: Name | None = None
    terminated: bool = False
    truncated: bool = False
    schema_version: Literal[1] = 1


_encoder = msgspec.json.Encoder()
_decisions = msgspec.json.Decoder(DecisionRecord)
_outcomes = msgspec.json.Decoder(OutcomeRecord)


def encode(record: DecisionRecord | OutcomeRecord, *, trusted: bool = False) -> bytes:
    """The record as one JSON document, checked by reading it back.

    What is written may be acknowledged, and what was acknowledged must reach ``bronze``: a record that the committer
    would refuse is refused here, before anybody is told that it is safe.

    Args:
        record: what to write.
        trusted: every value was checked already, text by a decoder and numbers for being finite: do not read it back.

    Raises:
        InvalidInputError: a value of the wrong type or range, or a number that is NaN or infinite; names the field.
    """
    payload = _encoder.encode(record)
    if trusted:
        return payload
    if isinstance(record, DecisionRecord):
        decode_decision(payload)
        # The one number where the null that NaN turns into would pass for an absent value.
        if record.action_propensity is not None and not math.isfinite(record.action_propensity):
            raise InvalidInputError(
                f"action_propensity is {record.action_propensity}; allowed: a finite number or null",
                field="action_propensity",
            )
    else:
        decode_outcome(payload)
    return payload


def decode_decision(payload: bytes) -> DecisionRecord:
    """Read a decision back.

    Raises:
        InvalidInputError: not JSON, or not a decision of a known schema version; names the field.
    """
    try:
        return _decisions.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidInputError(f"not a decision record: {problem}", field="decision") from problem


def decode_outcome(payload: bytes) -> OutcomeRecord:
    """Read an outcome back.

    Raises:
        InvalidInputError: not JSON, or not an outcome of a known schema version; names the field.
    """
    try:
        return _outcomes.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidInputError(f"not an outcome record: {problem}", field="outcome") from problem
