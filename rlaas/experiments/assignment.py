"""Who gets which variant: sticky by unit, or the whole system in blocks of time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rlaas.errors import InvalidInputError

__all__ = ["Assignment", "assign_switchback", "assign_unit", "block_of"]

_BITS = 53
"""Bits of a hash that become a fraction: what a double holds exactly."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The variant chosen, and the probability with which it was.

    Attributes:
        variant: its name.
        propensity: probability of this variant, over the salts an experiment might have drawn.
    """

    variant: str
    propensity: float


def assign_unit(unit: str, salt: str, variants: Mapping[str, float]) -> Assignment:
    """The variant of a unit: always the same for the same unit, salt and weights.

    Each variant draws an exponential time with its weight as rate from a hash of (salt, unit, variant); the earliest
    wins (weighted rendezvous hashing). The chance of a variant is its share of the weights; it does not matter in
    which order variants are listed; and a changed weight moves only the units that it has to.

    Args:
        unit: sticky key, such as a user.
        salt: the experiment's own: different salts assign independently.
        variants: weight by name, non-negative, at least one positive.

    Raises:
        InvalidInputError: no variant, or a weight that is negative, not finite or all zero.
    """
    shares = _shares(tuple(variants.items()))
    prefix = _message(salt, unit)
    best, variant, propensity = math.inf, "", 0.0
    for name, share in shares:
        arrival = -math.log(_fraction(prefix + name.encode())) / share
        if arrival < best:
            best, variant, propensity = arrival, name, share
    return Assignment(variant, propensity)


def assign_switchback(step: int, block_steps: int, salt: str, variants: Mapping[str, float]) -> Assignment:
    """The variant that everyone gets at a step: constant within a block of ``block_steps``.

    Two variants of equal weight alternate in randomised pairs: of the blocks 2k and 2k + 1 each variant has one, in an
    order drawn from the salt, so that slow changes hit both alike. Otherwise every block is drawn on its own by the
    weights.

    Args:
        step: of the experiment, from 0.
        block_steps: steps per block.
        salt: the experiment's own.
        variants: weight by name.

    Raises:
        InvalidInputError: a negative step, an empty block, or invalid variants.
    """
    block = block_of(step, block_steps)
    shares = _shares(tuple(variants.items()))
    if len(shares) == 2 and shares[0][1] == shares[1][1]:
        flip = _fraction(_message(salt, f"pair {block // 2}")) < 0.5
        name, share = shares[(block + flip) % 2]
        return Assignment(name, share)
    return assign_unit(f"block {block}", salt, variants)


def block_of(step: int, block_steps: int) -> int:
    """Index of the block that holds a step, from 0.

    Raises:
        InvalidInputError: a negative step or an empty block.
    """
    for name, value, least in (("step", step, 0), ("block_steps", block_steps, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInputError(f"{name} must be a whole number >= {least}, got {value!r}", field=name)
    return step // block_steps


@lru_cache(maxsize=1024)
def _shares(items: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """Positive weights scaled to sum 1, sorted by name; cached, since every decision asks."""
    for name, weight in items:
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"variant names must be non-empty text, got {name!r}", field="variants")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InvalidInputError(
                f"weight of variant {name!r} must be finite and >= 0, got {weight!r}", field=f"variants.{name}"
            )
    largest = max((weight for _, weight in items), default=0.0)
    if largest <= 0:
        raise InvalidInputError("variants need at least one positive weight", field="variants")
    scaled = [(name, weight / largest) for name, weight in sorted(items) if weight > 0]
    total = math.fsum(weight for _, weight in scaled)
    return tuple((name, weight / total) for name, weight in scaled if weight / total > 0)


def _message(salt: str, unit: str) -> bytes:
    # Lengths in front: ("ab", "c") and ("a", "bc") must not meet.
    return f"{len(salt)}:{salt}{len(unit)}:{unit}".encode()


def _fraction(message: bytes) -> float:
    """A hash as a fraction in (0, 1), never an end."""
    digest = hashlib.blake2b(message, digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)
