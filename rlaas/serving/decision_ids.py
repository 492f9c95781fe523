"""Decision ids that nobody can make up: UUIDv7, producer, policy tag and an HMAC over all of them.

An id reads ``<32 hex>-<producer>-<8 hex>v<version>-<32 hex mac>``. The tag between producer and mac names the policy (a
hash of its name) and, in hexadecimal, the version that decided: any replica can check the fields of an outcome, and
credit the version with it, without having seen the decision. The tenant is signed but not shown.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rlaas.errors import ConfigurationError, ForgedDecisionError

__all__ = ["DecisionIds", "VerifiedId", "policy_tag", "uuid7_hex", "uuids_hex"]

_SHAPE = re.compile(r"([0-9a-f]{32})-([0-9a-z]{1,32})-([0-9a-f]{8})(?:v([0-9a-f]{1,13}))?-([0-9a-f]{32})", re.ASCII)
_MIN_SECRET_BYTES = 16
_BLOCK = hashlib.sha256().block_size
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit that carries the variant 0b10 and two random bits."""


@dataclass(frozen=True, slots=True)
class VerifiedId:
    """The parts of a decision id that this installation issued.

    Attributes:
        uuid: UUIDv7, 32 hex digits.
        producer: process that minted it.
        tag: tag of the policy.
        version: that decided; None in ids from before they said so.
    """

    uuid: str
    producer: str
    tag: str
    version: int | None = None


def uuid7_hex(time_ms: int | None = None) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) as 32 hex digits; ids of later milliseconds sort later.

    Args:
        time_ms: UTC milliseconds since the epoch; default now.
    """
    return uuids_hex(1, time.time_ns() // 1_000_000 if time_ms is None else time_ms)[0]


def uuids_hex(count: int, time_ms: int) -> list[str]:
    """Several of :func:`uuid7_hex` of one millisecond, for one question to the operating system."""
    stamp = f"{time_ms & (2**48 - 1):012x}7"
    random = os.urandom(10 * count).hex()
    return [
        f"{stamp}{random[i : i + 3]}{_VARIANTS[random[i + 3]]}{random[i + 4 : i + 19]}"
        for i in range(0, 20 * count, 20)
    ]


def policy_tag(policy: str, version: int | None = None) -> str:
    """Eight hex digits that stand for a policy's name in a decision id, and the version behind a ``v``."""
    tag = hashlib.blake2b(policy.encode(), digest_size=4).hexdigest()
    return tag if version is None else f"{tag}v{version:x}"


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
        # The two halves of HMAC (RFC 2104) are begun once, with the key and the tenant, and copied for every id: the
        # objects of :mod:`hmac` do the same behind three more calls, which at this rate are half of the time.
        block = (secret if len(secret) <= _BLOCK else hashlib.sha256(secret).digest()).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER) + tenant.encode() + b"\0")
        self._outer = hashlib.sha256(block.translate(_OUTER))
        self._producer = producer

    def mint(self, tag: str, *, time_ms: int | None = None) -> str:
        """A fresh id for a decision of the policy (and version) with this tag (see :func:`policy_tag`)."""
        return self.sign(uuid7_hex(time_ms), tag)

    def sign(self, uuid: str, tag: str) -> str:
        """The id for a decision under a UUID of :func:`uuid7_hex`."""
        return self.sign_all([uuid], tag)[0]

    def sign_all(self, uuids: Sequence[str], tag: str) -> list[str]:
        """Several of :meth:`sign`."""
        mac, rest = self._mac, f"-{self._producer}-{tag}"
        return [f"{uuid}{rest}-{mac(uuid + rest)}" for uuid in uuids]

    def verify(self, decision_id: str, *, field: str = "decision_id") -> VerifiedId:
        """The parts of an id that this installation issued.

        Raises:
            ForgedDecisionError: anything else.
        """
        match = _SHAPE.fullmatch(decision_id)
        # Compared even when the shape is wrong, so that the time taken tells nothing about how far a guess got.
        expected = self._mac(decision_id.rpartition("-")[0])
        given = match.group(5) if match else "0" * 32
        if not hmac.compare_digest(expected.encode(), given.encode()) or match is None:
            raise ForgedDecisionError(
                f"{field} {decision_id[:80]!r} was not issued here; send the decision_id of a decide answer unchanged",
                field=field,
            )
        version = match.group(4)
        return VerifiedId(match.group(1), match.group(2), match.group(3), int(version, 16) if version else None)

    def _mac(self, body: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.hexdigest()[:32]
