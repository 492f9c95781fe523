"""Decision ids that nobody can make up: UUIDv7, producer, policy tag and an HMAC over all of them.

An id reads ``<32 hex>-<producer>-<8 hex tag>-<32 hex mac>``. The tag names the policy (a hash of its name), so that
any replica can check the fields of an outcome without having seen the decision. The tenant is signed but not shown.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from dataclasses import dataclass

from rlaas.errors import ConfigurationError, ForgedDecisionError

__all__ = ["DecisionIds", "VerifiedId", "policy_tag", "uuid7_hex"]

_SHAPE = re.compile(r"([0-9a-f]{32})-([0-9a-z]{1,32})-([0-9a-f]{8})-([0-9a-f]{32})", re.ASCII)
_MIN_SECRET_BYTES = 16


@dataclass(frozen=True, slots=True)
class VerifiedId:
    """The parts of a decision id that this installation issued.

    Attributes:
        uuid: UUIDv7, 32 hex digits.
        producer: process that minted it.
        tag: tag of the policy.
    """

    uuid: str
    producer: str
    tag: str


def uuid7_hex(time_ms: int | None = None) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) as 32 hex digits; ids of later milliseconds sort later.

    Args:
        time_ms: UTC milliseconds since the epoch; default now.
    """
    stamp = (time.time_ns() // 1_000_000 if time_ms is None else time_ms) & (2**48 - 1)
    random = int.from_bytes(os.urandom(10), "big")
    high, low = random >> 68, random & (2**62 - 1)
    return f"{(stamp << 80) | (0x7 << 76) | ((high & 0xFFF) << 64) | (0b10 << 62) | low:032x}"


def policy_tag(policy: str) -> str:
    """Eight hex digits that stand for a policy's name in a decision id."""
    return hashlib.blake2b(policy.encode(), digest_size=4).hexdigest()


class DecisionIds:
    """Mints and verifies decision ids of one tenant.

    Args:
        secret: key shared by all replicas, at least 16 bytes.
        producer: name of this process, lower-case letters and digits.
        tenant: owner of the decisions; an id of one tenant is forged for any other.

    Raises:
        ConfigurationError: a short secret or an impossible producer.
    """

    def __init__(self, secret: bytes, producer: str, *, tenant: str) -> None:
        if len(secret) < _MIN_SECRET_BYTES:
            raise ConfigurationError(f"secret must have at least {_MIN_SECRET_BYTES} bytes", field="secret")
        if not re.fullmatch(r"[0-9a-z]{1,32}", producer, re.ASCII):
            raise ConfigurationError("producer must be 1 to 32 lower-case letters and digits", field="producer")
        self._keyed = hmac.new(secret, tenant.encode() + b"\0", hashlib.sha256)
        self._producer = producer

    def mint(self, tag: str, *, time_ms: int | None = None) -> str:
        """A fresh id for a decision of the policy with this tag (see :func:`policy_tag`)."""
        body = f"{uuid7_hex(time_ms)}-{self._producer}-{tag}"
        return f"{body}-{self._mac(body)}"

    def verify(self, decision_id: str, *, field: str = "decision_id") -> VerifiedId:
        """The parts of an id that this installation issued.

        Raises:
            ForgedDecisionError: anything else.
        """
        match = _SHAPE.fullmatch(decision_id)
        # Compared even when the shape is wrong, so that the time taken tells nothing about how far a guess got.
        expected = self._mac(decision_id.rpartition("-")[0])
        given = match.group(4) if match else "0" * 32
        if not hmac.compare_digest(expected.encode(), given.encode()) or match is None:
            raise ForgedDecisionError(
                f"{field} {decision_id[:80]!r} was not issued here; send the decision_id of a decide answer unchanged",
                field=field,
            )
        return VerifiedId(match.group(1), match.group(2), match.group(3))

    def _mac(self, body: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(body.encode("utf-8", "surrogatepass"))
        return keyed.hexdigest()[:32]
