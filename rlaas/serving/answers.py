"""A decision as the caller gets it, and as the lake keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rlaas.lake.batches import DecisionColumns, decode_batch, encode_batch, rows_at_once
from rlaas.lake.records import DecisionCommon
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest

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
    observations: NDArray[np.float64],
    actions: NDArray[Any],
    *,
    sessions: Sequence[str | None],
    units: Sequence[str | None],
    steps: Sequence[int | None],
    contexts: Sequence[dict[str, Any] | None],
    proposals: Sequence[list[float] | None] | None = None,
) -> list[bytes]:
    """What the log keeps of decisions of one variant under one preference: one record, or several where that is long.

    Args:
        decisions: as answered [n].
        common: of :func:`common_of`.
        observations: as they were sent [n, n_features]; the network sees their float32.
        actions: as answered [n] or [n, n_actions].
        sessions, units, steps, contexts: of each.
        proposals: what the policy chose, where the shield changed it; default nowhere.

    Raises:
        InvalidInputError: a context holds what the lake cannot.
    """
    flat = actions.reshape(len(decisions), -1)
    at_once = rows_at_once(observations.shape[1], flat.shape[1])
    records = []
    for first in range(0, len(decisions), at_once):
        part = slice(first, first + at_once)
        some = decisions[part]
        columns = DecisionColumns(
            decision_ids=[decision.decision_id for decision in some],
            variant_propensities=[decision.variant_propensity for decision in some],
            n_features=observations.shape[1],
            n_actions=flat.shape[1],
            action_propensities=_or_none([decision.action_propensity for decision in some]),
            sessions=_or_none(sessions[part]),
            steps=_or_none(steps[part]),
            units=_or_none(units[part]),
            contexts=_or_none(contexts[part]),
            proposed_actions=None if proposals is None else _or_none(proposals[part]),
            candidates=_or_none([decision.candidate for decision in some]),
        )
        record = encode_batch(columns, common, observations[part], flat[part])
        if columns.contexts is not None:  # the caller's own, and acknowledged only if it can be read back
            decode_batch(record)
        records.append(record)
    return records


def _or_none(values: Sequence[Any]) -> list[Any] | None:
    """The column, or None where all of it is null."""
    return None if values.count(None) == len(values) else list(values)
