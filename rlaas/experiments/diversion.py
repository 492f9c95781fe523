"""A plan compiled for the hot path: which experiments a unit is in, as which variant, and with what probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import log
from struct import Struct
from types import MappingProxyType
from typing import Any

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.layers import BUCKETS, AllocationPlan, Layer, LayeredExperiment
from rlaas.experiments.targeting import Matcher, matcher

__all__ = ["Membership", "PlanAssigner"]

_WORD = Struct(">Q56x").unpack
"""The first 64 bits of a digest: asking blake2b for a shorter one costs more than it saves."""

_TO_FRACTION = 2.0**-64
_DRAWS = 8
"""Draws of 64 bits that one digest holds."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})

Pick = Callable[[bytes], "Membership"]
Unpack = Callable[[bytes], tuple[int, ...]]
Entry = tuple[Matcher | None, Pick]
"""An experiment in the table of its layer: who is eligible, and which variant a unit gets."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A unit's place in one experiment.

    Attributes:
        layer: of the experiment.
        experiment: its name.
        variant: name of the one that the unit gets.
        propensity: probability of this variant for a unit in the experiment, over the salts that might have been drawn.
        inclusion: probability that an eligible unit is in the experiment: its buckets, and no holdout of the plan.
    """

    layer: str
    experiment: str
    variant: str
    propensity: float
    inclusion: float


class PlanAssigner:
    """Assigns units by a plan: deterministic, sticky, and the same in every process that has the plan.

    Each layer and each experiment that a unit meets costs one hash. An experiment gives every variant its own draw from
    that hash, from which the variant gets an exponential arrival time with its weight as rate; the earliest wins, as in
    :func:`~rlaas.experiments.assignment.assign_unit`, which spends one hash per variant and therefore does not mind the
    order of the variants.

    Args:
        plan: what to assign by.
    """

    def __init__(self, plan: AllocationPlan) -> None:
        self.plan = plan
        self._held = math.ceil(plan.holdout * 2**64)
        self._holdout_prefix = _prefix("holdout", plan.holdout_salt)
        self._layers = tuple((_prefix("layer", layer.salt), _table(layer, 1.0 - plan.holdout)) for layer in plan.layers)

    def assign(self, unit: str, attributes: Mapping[str, Any] = _NOTHING) -> tuple[Membership, ...]:
        """The experiments that a unit is in, at most one of each layer, in the order of the layers.

        Args:
            unit: sticky key, such as a user.
            attributes: that targeting asks for; see :mod:`~rlaas.experiments.targeting` for those that are missing.

        Raises:
            InvalidInputError: the unit is no text.
        """
        try:
            key = unit.encode()
        except (AttributeError, UnicodeEncodeError) as problem:
            raise _no_text(unit) from problem
        if self._held and _WORD(blake2b(self._holdout_prefix + key).digest())[0] < self._held:
            return ()
        found = []
        for prefix, table in self._layers:
            (draw,) = _WORD(blake2b(prefix + key).digest())
            entry = table[draw % BUCKETS]
            if entry is not None:
                matches, pick = entry
                if matches is None or matches(attributes):
                    found.append(pick(key))
        return tuple(found)

    def held_out(self, unit: str) -> bool:
        """Whether a unit belongs to the plan's holdout, which is in no experiment: compare it with everyone else."""
        try:
            key = unit.encode()
        except (AttributeError, UnicodeEncodeError) as problem:
            raise _no_text(unit) from problem
        (draw,) = _WORD(blake2b(self._holdout_prefix + key).digest())
        return bool(draw < self._held)


def _table(layer: Layer, share: float) -> list[Entry | None]:
    """Who has each bucket [BUCKETS]; ``share`` of the units reach the layer."""
    table: list[Entry | None] = [None] * BUCKETS
    for experiment in layer.experiments:
        rule = experiment.targeting
        entry = (None if rule is None else matcher(rule), _picker(layer.name, experiment, share))
        for first, end in experiment.buckets:
            table[first:end] = [entry] * (end - first)
    return table


def _picker(layer: str, experiment: LayeredExperiment, share: float) -> Pick:
    variants = experiment.variants
    largest = max(variant.weight for variant in variants)
    total = math.fsum(variant.weight / largest for variant in variants)
    inclusion = share * experiment.share
    members = [
        Membership(layer, experiment.name, variant.name, variant.weight / largest / total, inclusion)
        for variant in variants
    ]
    # A hash for every eight variants. The draw of a variant is given by its position; those of weight 0 are skipped.
    prefixes = [_prefix(f"variants{start}", experiment.salt) for start in range(0, len(variants), _DRAWS)]
    skipped = _DRAWS * (len(prefixes) * _DRAWS - len(variants))
    layout = "".join("Q" if member.propensity > 0 else "8x" for member in members)
    unpack = Struct(f">{layout}{skipped}x").unpack
    members = [member for member in members if member.propensity > 0]
    scales = [1 / member.propensity for member in members]
    first, *others = prefixes
    if not others and min(scales) == max(scales):
        return _pick_evenly(first, unpack, members)
    if not others and len(members) == 2:
        return _pick_of_two(first, unpack, scales, members)

    def pick(key: bytes) -> Membership:
        digest = blake2b(first + key).digest()
        if others:
            digest = b"".join([digest, *(blake2b(prefix + key).digest() for prefix in others)])
        # Negated arrivals: the largest is the first.
        best, chosen = -math.inf, members[0]
        for draw, scale, member in zip(unpack(digest), scales, members, strict=True):
            arrival = log((draw + 0.5) * _TO_FRACTION) * scale
            if arrival > best:
                best, chosen = arrival, member
        return chosen

    return pick


def _pick_evenly(prefix: bytes, unpack: Unpack, members: list[Membership]) -> Pick:
    """The same for equal weights: the largest draw arrives first."""

    def pick(key: bytes) -> Membership:
        draws = unpack(blake2b(prefix + key).digest())
        return members[draws.index(max(draws))]

    return pick


def _pick_of_two(prefix: bytes, unpack: Unpack, scales: list[float], members: list[Membership]) -> Pick:
    """The same for two variants, without a loop."""
    one, other = members
    scale, other_scale = scales

    def pick(key: bytes) -> Membership:
        draw, other_draw = unpack(blake2b(prefix + key).digest())
        arrival = log((draw + 0.5) * _TO_FRACTION) * scale
        return one if arrival >= log((other_draw + 0.5) * _TO_FRACTION) * other_scale else other

    return pick


def _prefix(purpose: str, salt: str) -> bytes:
    # Length in front, so that nothing of the salt reads as part of the unit.
    return f"{purpose}:{len(salt)}:{salt}".encode()


def _no_text(unit: object) -> InvalidInputError:
    return InvalidInputError(f"unit must be text, got {shown(unit)}", field="unit")
