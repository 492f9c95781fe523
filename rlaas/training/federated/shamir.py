"""Shamir's secret sharing (1979): any ``threshold`` shares give a secret of 32 bytes, fewer say nothing about it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from rlaas.errors import InvalidInputError

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "reconstruct", "split"]

PRIME = 2**521 - 1
"""A Mersenne prime above every secret: the field in which shares live."""

SECRET_BYTES = 32
SHARE_BYTES = 66


def split(secret: bytes, threshold: int, points: Iterable[int]) -> dict[int, bytes]:
    """Shares of ``secret`` by point: the values of a random polynomial of degree ``threshold - 1`` through it.

    Args:
        secret: 32 bytes.
        threshold: shares that are needed.
        points: distinct positive numbers below :data:`PRIME`, one per holder.

    Raises:
        InvalidInputError: a secret of another length, or a threshold that the points cannot reach.
    """
    wanted = list(points)
    if len(secret) != SECRET_BYTES:
        raise InvalidInputError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}", field="secret")
    if len(set(wanted)) < len(wanted) or any(not 0 < x < PRIME for x in wanted):
        raise InvalidInputError("points must be distinct and positive", field="points")
    if not 1 <= threshold <= len(wanted):
        raise InvalidInputError(f"threshold must be 1 to {len(wanted)}, not {threshold}", field="threshold")
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: _value(coefficients, x).to_bytes(SHARE_BYTES) for x in wanted}


def reconstruct(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind shares by point, which must be as many as the threshold they were made with.

    Raises:
        InvalidInputError: the shares do not belong together (a wrong one, or too few): no secret has that value.
    """
    total = 0
    values = {x: int.from_bytes(share) for x, share in shares.items()}
    for x, value in values.items():
        above = below = 1
        for other in values:
            if other != x:
                above = above * -other % PRIME
                below = below * (x - other) % PRIME
        total = (total + value * above * pow(below, -1, PRIME)) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise InvalidInputError(f"{len(values)} shares do not give a secret", field="shares")
    return total.to_bytes(SECRET_BYTES)


def _value(coefficients: list[int], x: int) -> int:
    result = 0
    for coefficient in reversed(coefficients):
        result = (result * x + coefficient) % PRIME
    return result
