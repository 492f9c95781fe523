"""Decisions that were made together, as one record of the log: what they share once, their numbers as arrays.

A record of its own for each decision costs the committer more to read than all the rest of its work, and the Gateway
more to write than the network takes. Layout: a mark that no JSON begins with, the length of the head (unsigned 32 bits,
little-endian), the head as JSON, the observations [n, n_features] and the actions [n, n_actions] as little-endian
doubles, an end of line.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import repeat
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.lake.records import Count, DecisionCommon, DecisionRecord, Name, Propensity, decode_decision

__all__ = [
    "DecisionBatch",
    "DecisionColumns",
    "decisions_in",
    "decode_batch",
    "encode_batch",
    "is_batch",
    "rows_at_once",
]

FloatArray = NDArray[np.float64]

_MARK, _END = b"\x02", b"\n"
_LENGTH = 4
_START = len(_MARK) + _LENGTH
_LARGEST = 4 * 2**20
_ROW_BYTES = 1_024
"""Of a row in the head, at most but for names at their longest."""


class DecisionColumns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The fields of decisions that are each one's own, as columns of equal length n; None where all are null.

    The observation and the action travel beside it, as arrays.

    Attributes:
        decision_ids: which are the receipts too.
        variant_propensities, action_propensities, sessions, steps, units, contexts, proposed_actions, candidates: see
            :class:`~rlaas.lake.records.DecisionRecord`.
        n_features, n_actions: numbers of an observation and of an action.
    """

    decision_ids: list[Name]
    variant_propensities: list[Propensity]
    n_features: Count
    n_actions: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    action_propensities: list[float | None] | None = None
    sessions: list[Name | None] | None = None
    steps: list[Count | None] | None = None
    units: list[Name | None] | None = None
    contexts: list[dict[str, Any] | None] | None = None
    proposed_actions: list[list[float] | None] | None = None
    candidates: list[Name | None] | None = None


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: DecisionColumns
    common: DecisionCommon


@dataclass(frozen=True, slots=True)
class DecisionBatch:
    """Decisions made together.

    Attributes:
        common: what they share.
        columns: what each has of its own.
        observations: [n, n_features].
        actions: [n, n_actions].
    """

    common: DecisionCommon
    columns: DecisionColumns
    observations: FloatArray
    actions: FloatArray

    def __len__(self) -> int:
        return len(self.columns.decision_ids)

    def records(self) -> list[DecisionRecord]:
        """The same one by one."""
        columns = self.columns
        shared = {name: getattr(self.common, name) for name in DecisionCommon.__struct_fields__}

        def each(values: list[Any] | None) -> Any:
            return repeat(None, len(self)) if values is None else values

        return [
            DecisionRecord(
                receipt_id=decision_id,
                decision_id=decision_id,
                variant_propensity=variant_propensity,
                observation=observation,
                action=action,
                action_propensity=action_propensity,
                session=session,
                step=step,
                unit=unit,
                context=context,
                proposed_action=proposed,
                candidate=candidate,
                **shared,
            )
            for (
                decision_id,
                variant_propensity,
                observation,
                action,
                action_propensity,
                session,
                step,
                unit,
                context,
                proposed,
                candidate,
            ) in zip(
                columns.decision_ids,
                columns.variant_propensities,
                self.observations.tolist(),
                self.actions.tolist(),
                each(columns.action_propensities),
                each(columns.sessions),
                each(columns.steps),
                each(columns.units),
                each(columns.contexts),
                each(columns.proposed_actions),
                each(columns.candidates),
                strict=True,
            )
        ]


_LISTS = tuple(name for name in DecisionColumns.__struct_fields__ if not name.startswith("n_"))
_lists_of = operator.attrgetter(*_LISTS)
_encoder = msgspec.json.Encoder()
_heads = msgspec.json.Decoder(_Head)


def rows_at_once(n_features: int, n_actions: int) -> int:
    """How many decisions of such sizes go into one record; one that is too large for any is refused by the log."""
    return max(1, _LARGEST // (8 * (n_features + n_actions) + _ROW_BYTES))


def encode_batch(columns: DecisionColumns, common: bytes, observations: FloatArray, actions: FloatArray) -> bytes:
    """Decisions, whose values were checked already, as one record.

    Args:
        columns: what each has of its own.
        common: what they share, of :meth:`~rlaas.lake.records.DecisionCommon.encoded`.
        observations: [n, n_features].
        actions: [n, n_actions].
    """
    head = b"".join((b'{"columns":', _encoder.encode(columns), b',"common":{', common[1:], b"}"))
    return b"".join(
        (
            _MARK,
            len(head).to_bytes(_LENGTH, "little"),
            head,
            np.ascontiguousarray(observations, dtype="<f8").data,
            np.ascontiguousarray(actions, dtype="<f8").data,
            _END,
        )
    )


def is_batch(payload: bytes) -> bool:
    """Whether a record of the log holds decisions made together."""
    return payload.startswith(_MARK)


def decisions_in(payload: bytes) -> list[DecisionRecord]:
    """The decisions of a record of the log, whichever kind it is.

    Raises:
        InvalidInputError: neither a decision nor a batch of them.
    """
    return decode_batch(payload).records() if is_batch(payload) else [decode_decision(payload)]


def decode_batch(payload: bytes) -> DecisionBatch:
    """Read decisions made together back; the arrays share the payload's memory.

    Raises:
        InvalidInputError: not such a record, or one whose parts do not fit together; names the field.
    """
    end = _START + int.from_bytes(payload[len(_MARK) : _START], "little")
    if not is_batch(payload) or not payload.endswith(_END) or end > len(payload):
        raise InvalidInputError("not a batch of decisions: cut off, or without its mark", field="decisions")
    try:
        head = _heads.decode(payload[_START:end])
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidInputError(f"not a batch of decisions: {problem}", field="decisions") from problem
    columns = head.columns
    n = len(columns.decision_ids)
    for name, column in zip(_LISTS, _lists_of(columns), strict=True):
        if column is not None and len(column) != n:
            raise InvalidInputError(
                f"batch of decisions: {name} has {len(column)} entries for {n} decisions", field=name
            )
    numbers = n * (columns.n_features + columns.n_actions)
    if len(payload) != end + 8 * numbers + len(_END):
        raise InvalidInputError(
            f"batch of decisions: {len(payload) - end - len(_END)} bytes of numbers; expected {8 * numbers}",
            field="observation",
        )
    values = np.frombuffer(payload, dtype="<f8", count=numbers, offset=end)
    if not np.isfinite(values).all():
        raise InvalidInputError("batch of decisions: a number is NaN or infinite", field="observation")
    split = n * columns.n_features
    return DecisionBatch(
        head.common,
        columns,
        values[:split].reshape(n, columns.n_features),
        values[split:].reshape(n, columns.n_actions),
    )
