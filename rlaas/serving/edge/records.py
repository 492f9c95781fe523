"""What a device writes down, and the record of the lake that becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from rlaas.bundles import BoxAction, BundlePolicy, ChoicesAction, DiscreteAction
from rlaas.errors import InvalidInputError
from rlaas.lake.records import DecisionRecord, OutcomeRecord, encode
from rlaas.lake.segments import Stream
from rlaas.names import check_name
from rlaas.serving.decision_ids import DecisionIds, policy_tag
from rlaas.serving.loaded import LivePolicy
from rlaas.serving.requests import MAX_OUTCOME_FIELDS, Count, Key, Time

__all__ = ["Delivery", "EdgeDecision", "EdgeOutcome", "EdgeRecord", "decode_record", "deliver"]

VARIANT = "edge"
"""The arm that devices are: no experiment of the platform drew them."""

_EdgeId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}-[0-9]{1,15}$")]
_MAX_FEATURES = 65_536
_BOUND_SLACK = 1e-5  # of the range: the device works in float32


class EdgeDecision(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="decision"
):
    """One decision of a device.

    Attributes:
        id: UUIDv7 and the version that decided, with a hyphen between.
        time_us: when, UTC microseconds, by the device's clock.
        version: that decided.
        observation, action: as it saw and did.
        mode, preference: under which.
        session, step, unit: as of decide.
    """

    id: _EdgeId
    time_us: Time
    version: Annotated[int, Meta(ge=1, le=2**48)]
    observation: list[float]
    action: float | list[float]
    mode: Key | None = None
    preference: dict[str, float] | None = None
    session: Key | None = None
    step: Count | None = None
    unit: Key | None = None


class EdgeOutcome(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="outcome"
):
    """What came of a decision of a device; ``id`` names this delivery, ``decision_id`` is the device's own."""

    id: _EdgeId
    time_us: Time
    decision_id: _EdgeId
    outcome: dict[str, float]
    outcome_id: Key | None = None
    revision: Count = 0
    terminated: bool = False
    truncated: bool = False


EdgeRecord = EdgeDecision | EdgeOutcome
_RECORD: msgspec.json.Decoder[EdgeRecord] = msgspec.json.Decoder(EdgeRecord)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A record on its way into the lake.

    Attributes:
        id: of the device.
        receipt_id: of the platform; the same whenever the record is sent.
        stream: which log takes it.
        date: UTC day of the device's clock, the partition of a decision.
        payload: the encoded record.
    """

    id: str
    receipt_id: str
    stream: Stream
    date: str
    payload: bytes


def decode_record(payload: bytes) -> EdgeRecord:
    """Read a record of a device.

    Raises:
        InvalidInputError: of another shape; says which field.
    """
    try:
        return _RECORD.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidInputError(f"not a record of a device: {problem}", field="records") from problem


def deliver(
    record: EdgeRecord, live: LivePolicy, ids: DecisionIds, tenant: str, device: str, received_us: int
) -> Delivery:
    """The lake's record of what a device sent.

    Args:
        record: checked for its shape already.
        live: the policy; a version that is loaded is held to its own spaces.
        ids: signs as this device.
        tenant: owner.
        device: sender.
        received_us: when it arrived, UTC microseconds.

    Raises:
        InvalidInputError: it contradicts the version that decided.
    """
    from rlaas.lake.rows import date_of

    policy = live.record.policy
    if isinstance(record, EdgeDecision):
        uuid, _, version = record.id.partition("-")
        if int(version) != record.version:
            raise InvalidInputError(f"id {record.id} does not name version {record.version}", field="id")
        loaded = next((v.policy for v in live.variants.values() if v.version == record.version), None)
        _check_spaces(record, loaded)
        receipt = ids.sign(uuid, policy_tag(policy, record.version))
        decision = DecisionRecord(
            receipt_id=receipt,
            decision_id=receipt,
            tenant=tenant,
            time_us=record.time_us,
            scenario=live.primary.policy.manifest.scenario,
            policy=policy,
            version=record.version,
            variant=VARIANT,
            variant_propensity=1.0,
            observation=record.observation,
            action=record.action if isinstance(record.action, list) else [record.action],
            generation=0,  # no deployment record allotted it
            producer=f"edge-{device}",
            session=record.session,
            step=record.step,
            unit=record.unit,
            mode=record.mode,
            preference=record.preference,
        )
        return Delivery(record.id, receipt, "decisions", date_of(record.time_us), encode(decision))
    uuid, _, version = record.decision_id.partition("-")
    if not 0 < len(record.outcome) <= MAX_OUTCOME_FIELDS:
        raise InvalidInputError(
            f"outcome has {len(record.outcome)} entries; allowed: 1 to {MAX_OUTCOME_FIELDS}", field="outcome"
        )
    for name in record.outcome:
        check_name(name, field="outcome field")
    receipt = f"{record.id.partition('-')[0]}-edge{device}"
    outcome = OutcomeRecord(
        receipt_id=receipt,
        outcome_id=record.outcome_id or receipt,
        decision_id=ids.sign(uuid, policy_tag(policy, int(version))),
        revision=record.revision,
        tenant=tenant,
        policy=policy,
        outcome=record.outcome,
        terminated=record.terminated,
        truncated=record.truncated,
        time_us=record.time_us,
        received_us=received_us,
        producer=f"edge-{device}",
    )
    return Delivery(record.id, receipt, "outcomes", date_of(record.time_us), encode(outcome))


def _check_spaces(record: EdgeDecision, loaded: BundlePolicy | None) -> None:
    """Refuse what the version cannot have seen or done; one that is not loaded is only held to a size."""
    count = len(record.observation)
    if count > _MAX_FEATURES or (loaded is not None and count != loaded.n_features):
        expected = loaded.n_features if loaded is not None else f"at most {_MAX_FEATURES}"
        raise InvalidInputError(f"observation has {count} numbers; expected {expected}", field="observation")
    if loaded is not None and not _fits(record.action, loaded.manifest.action):
        raise InvalidInputError(f"action {record.action} is none of version {record.version}", field="action")


def _fits(action: float | list[float], spec: BoxAction | DiscreteAction | ChoicesAction) -> bool:
    if isinstance(spec, DiscreteAction):
        return not isinstance(action, list) and action in range(spec.n)
    if not isinstance(action, list):
        return False
    if isinstance(spec, ChoicesAction):
        return len(action) == len(spec.sizes) and all(
            choice in range(size) for choice, size in zip(action, spec.sizes, strict=True)
        )
    if len(action) != len(spec.low):
        return False
    low, high, values = np.array(spec.low), np.array(spec.high), np.array(action)
    slack = _BOUND_SLACK * np.maximum(high - low, np.abs(low) + np.abs(high))
    return bool(((values >= low - slack) & (values <= high + slack)).all())
