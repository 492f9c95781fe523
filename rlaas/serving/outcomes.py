"""Intake of outcomes: idempotent by (outcome id, revision), all or nothing per request."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from rlaas.errors import ConflictError, InvalidInputError, LakeError, RetryableError
from rlaas.lake.records import OutcomeRecord, encode
from rlaas.names import check_name
from rlaas.serving.decision_ids import DecisionIds, uuid7_hex
from rlaas.serving.loaded import LiveState, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import MAX_OUTCOME_FIELDS, OutcomeItem
from rlaas.serving.tally import Tally

if TYPE_CHECKING:
    from rlaas.serving.engine import Log

__all__ = ["Accepted", "OutcomeIntake"]

REMEMBERED = 100_000


class Accepted(msgspec.Struct, frozen=True):
    """Acknowledgement of one outcome.

    Attributes:
        outcome_id, revision: as sent.
        receipt_id: names the row in the lake.
        duplicate: the same outcome was here before; the receipt is that of the first time.
    """

    outcome_id: str
    revision: int
    receipt_id: str
    duplicate: bool


class _Accepted(msgspec.Struct, frozen=True):
    accepted: list[Accepted]


class OutcomeIntake:
    """Checks outcomes and logs them.

    It remembers the latest outcomes of this process only. A repeat that reaches another replica is logged again
    under a receipt of its own, and the join in the lake keeps one.

    Args:
        ids: verifies decision ids.
        producer: name of this process in the lake.
        log: where outcomes go before they are acknowledged.
        tally: counts what the versions earn.
        remembered: outcomes kept in memory to recognise repeats.
    """

    def __init__(
        self, ids: DecisionIds, producer: str, log: Log, tally: Tally, *, remembered: int = REMEMBERED
    ) -> None:
        self._ids = ids
        self._producer = producer
        self._log = log
        self._tally = tally
        self._remembered = remembered
        self._credited: OrderedDict[str, None] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str, int], tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, principal: Principal, items: Sequence[OutcomeItem], state: LiveState) -> bytes:
        """Log what is new and acknowledge everything.

        Raises:
            RequestError: see :meth:`rlaas.serving.engine.DecisionEngine.record_outcomes`.
            RetryableError: the log cannot take the outcomes; none was taken.
        """
        decided = self._check(items, state)
        received_us = time.time_ns() // 1000
        with self._lock:
            accepted: list[Accepted] = []
            fresh: list[tuple[tuple[str, str, int], tuple[bytes, str]]] = []
            payloads: list[bytes] = []
            earned: list[tuple[str, str, int, float]] = []
            for item, (policy, variant) in zip(items, decided, strict=True):
                key = (principal.tenant, item.outcome_id, item.revision)
                digest = _digest(item)
                known = self._seen.get(key)
                if known is not None:
                    if known[0] != digest:
                        raise ConflictError(
                            f"outcome_id {item.outcome_id!r} revision {item.revision} was received with another "
                            "content; send a correction with a higher revision",
                            field="revision",
                        )
                    accepted.append(Accepted(item.outcome_id, item.revision, known[1], True))
                    continue
                if (
                    variant is not None
                    and item.revision == 0
                    and (utility := variant.utility(item.outcome)) is not None
                ):
                    earned.append((item.decision_id, variant.policy_name, variant.version, utility))
                receipt = uuid7_hex()
                accepted.append(Accepted(item.outcome_id, item.revision, receipt, False))
                fresh.append((key, (digest, receipt)))
                payloads.append(
                    encode(
                        OutcomeRecord(
                            receipt_id=receipt,
                            outcome_id=item.outcome_id,
                            decision_id=item.decision_id,
                            revision=item.revision,
                            tenant=principal.tenant,
                            policy=policy,
                            outcome=item.outcome,
                            terminated=item.terminated,
                            truncated=item.truncated,
                            time_us=received_us if item.time is None else item.time,
                            received_us=received_us,
                            producer=self._producer,
                        )
                    )
                )
            if payloads:
                try:
                    self._log.append(payloads)
                except LakeError as problem:
                    raise RetryableError(
                        "the outcomes cannot be logged now, so none was taken; try again later"
                    ) from problem
            for decision, name, version, utility in earned:
                if decision not in self._credited:
                    self._credited[decision] = None
                    self._tally.rewarded(name, version, utility)
            while len(self._credited) > self._remembered:
                self._credited.popitem(last=False)
            self._seen.update(fresh)
            while len(self._seen) > self._remembered:
                self._seen.popitem(last=False)
        return msgspec.json.encode(_Accepted(accepted))

    def _check(self, items: Sequence[OutcomeItem], state: LiveState) -> list[tuple[str | None, LoadedVariant | None]]:
        """Check every item before anything is written; the policy and the variant of each where they are live here."""
        decided: list[tuple[str | None, LoadedVariant | None]] = []
        keys: set[tuple[str, int]] = set()
        for index, item in enumerate(items):
            prefix = f"outcomes[{index}]." if len(items) > 1 else ""
            verified = self._ids.verify(item.decision_id, field=f"{prefix}decision_id")
            live = state.by_tag.get(verified.tag)
            _check_values(item, f"{prefix}outcome", live.outcome_fields if live else None)
            key = (item.outcome_id, item.revision)
            if key in keys:
                raise InvalidInputError(
                    f"{prefix}outcome_id {item.outcome_id!r} with revision {item.revision} is repeated in this request",
                    field=f"{prefix}outcome_id",
                )
            keys.add(key)
            decided.append((live.record.policy, live.of_version(verified.version)) if live else (None, None))
        return decided


def _check_values(item: OutcomeItem, field: str, allowed: frozenset[str] | None) -> None:
    if not item.outcome or len(item.outcome) > MAX_OUTCOME_FIELDS:
        raise InvalidInputError(
            f"{field} has {len(item.outcome)} entries; allowed: 1 to {MAX_OUTCOME_FIELDS} numbers by name", field=field
        )
    for name in item.outcome:
        if allowed is not None and name not in allowed:
            raise InvalidInputError(
                f"unknown {field} field {name[:80]!r}; allowed: {', '.join(sorted(allowed)) or '(none)'}",
                field=f"{field}.{name[:80]}",
            )
        check_name(name, field=f"{field} field")


def _digest(item: OutcomeItem) -> bytes:
    content = (item.decision_id, sorted(item.outcome.items()), item.terminated, item.truncated, item.time)
    return hashlib.blake2b(msgspec.json.encode(content), digest_size=16).digest()
