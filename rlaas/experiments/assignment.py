"""Who gets which variant: sticky by unit, or the whole system in blocks of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import log
from struct import Struct

from rlaas.errors import InvalidInputError

__all__ = ["Assignment", "assign_switchback", "assign_unit", "block_of", "unit_assigner"]

_BITS = 53
"""Bits of a hash that become a fraction: what a double holds exactly."""

_DROPPED, _SCALE = 64 - _BITS, 2.0**-_BITS
_WORD = Struct(">Q")


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
    try:
        assigner = _assigner(salt, tuple(variants.items()))
    except TypeError:  # something that cannot be a key of the cache; the checks say what
        assigner = _assigner.__wrapped__(salt, tuple(variants.items()))
    return assigner(unit)


def unit_assigner(salt: str, variants: Mapping[str, float]) -> Callable[[str], Assignment]:
    """:func:`assign_unit` with its salt and variants fixed: checked once, for one who has many units to assign.

    Raises:
        InvalidInputError: as :func:`assign_unit`.
    """
    return _compiled(salt, _shares(tuple(variants.items())))


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
        flip = _fraction(salt, f"pair {block // 2}") < 0.5
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
def _assigner(salt: str, items: tuple[tuple[str, float], ...]) -> Callable[[str], Assignment]:
    """Cached, since every decision asks."""
    return _compiled(salt, _shares(items))


def _compiled(salt: str, shares: tuple[tuple[str, float], ...]) -> Callable[[str], Assignment]:
    # Negated, since the logarithm of a fraction is negative and arrivals are not.
    arms = [(name.encode(), -share, Assignment(name, share)) for name, share in shares]
    start = _start(salt)
    word = _WORD.unpack

    def assign(unit: str) -> Assignment:
        prefix = f"{start}{len(unit)}:{unit}".encode()
        first, chosen = math.inf, arms[0][2]
        for name, rate, assignment in arms:
            (draw,) = word(blake2b(prefix + name, digest_size=8).digest())
            arrival = log(((draw >> _DROPPED) + 0.5) * _SCALE) / rate
            if arrival < first:
                first, chosen = arrival, assignment
        return chosen

    return assign


def _shares(items: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """Positive weights scaled to sum 1, sorted by name."""
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


def _start(salt: str) -> str:
    # Lengths in front: ("ab", "c") and ("a", "bc") must not meet.
    return f"{len(salt)}:{salt}"


def _fraction(salt: str, unit: str) -> float:
    """A hash as a fraction in (0, 1), never an end."""
    (draw,) = _WORD.unpack(blake2b(f"{_start(salt)}{len(unit)}:{unit}".encode(), digest_size=8).digest())
    return float(((draw >> _DROPPED) + 0.5) * _SCALE)
