"""Which experiments may meet in one unit: layers of buckets, and who is kept out of all of them.

The experiments of a layer share its buckets and never overlap; a unit has one bucket in each layer, drawn by the salt
of the layer, so that layers are independent of one another (Tang, Agarwal, O'Brien & Meyer 2010, "Overlapping
experiment infrastructure"). A unit is diverted first and checked against the targeting after, so that the probability
of an eligible unit to be in an experiment is its share of the buckets, whoever else is targeted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from struct import Struct
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.errors import InvalidInputError
from rlaas.experiments.targeting import TargetingRule
from rlaas.names import check_name

__all__ = [
    "BUCKETS",
    "HELD",
    "INSIDE",
    "OUTSIDE",
    "AllocationPlan",
    "Buckets",
    "Layer",
    "LayeredExperiment",
    "WeightedVariant",
    "diverter",
    "place",
    "placer",
]

BUCKETS = 10_000
"""Buckets of a layer: the smallest share that can be had is one in so many."""

OUTSIDE, INSIDE, HELD = range(3)
"""Where a unit is, seen from an experiment: in another part of the layer, in the experiment, in the layer's holdout."""

Span = tuple[int, int]
"""Buckets from the first number up to, without, the second."""

_WORD = Struct(">Q56x").unpack
"""The first 64 bits of a digest: asking blake2b for a shorter one costs more than it saves."""


def _spans(value: tuple[Span, ...]) -> tuple[Span, ...]:
    for first, end in value:
        if not 0 <= first < end <= BUCKETS:
            raise ValueError(f"span ({first}, {end}) must keep 0 <= first < end <= {BUCKETS}")
    if len(set(_members(value))) != sum(end - first for first, end in value):
        raise ValueError("the spans of an experiment overlap")
    return value


Buckets = Annotated[tuple[Span, ...], AfterValidator(_spans)]
"""Spans of a layer that do not overlap."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightedVariant(_Document):
    """A variant and its share of the experiment's units."""

    name: str
    weight: float = Field(ge=0, allow_inf_nan=False, description="scaled to sum 1; 0 keeps the place of a stopped one")

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")


class LayeredExperiment(_Document):
    """An experiment with its place in a layer.

    Units keep their variant for as long as the experiment keeps its salt and each variant its position in the list:
    append a new variant, and stop one by weight 0. A changed weight then moves only the units that it has to.
    """

    name: str
    salt: str = Field(min_length=1, max_length=128, description="another one reshuffles the variants")
    variants: tuple[WeightedVariant, ...] = Field(min_length=1, max_length=32)
    buckets: Buckets = Field(default=(), description="spans of the layer, first to last without last")
    targeting: TargetingRule | None = Field(default=None, description="who is eligible; default: everyone")

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")

    @field_validator("variants")
    @classmethod
    def _weights(cls, value: tuple[WeightedVariant, ...]) -> tuple[WeightedVariant, ...]:
        _no_repeats("variants", "name", (variant.name for variant in value))
        if not any(variant.weight > 0 for variant in value):
            raise ValueError("variants need at least one positive weight")
        return value

    @property
    def share(self) -> float:
        """Share of the layer's buckets."""
        return sum(end - first for first, end in self.buckets) / BUCKETS


class Layer(_Document):
    """Experiments that exclude one another."""

    name: str
    salt: str = Field(min_length=1, max_length=128)
    holdout: float = Field(default=0.0, ge=0, lt=1, description="share of units that no experiment here touches")
    experiments: tuple[LayeredExperiment, ...] = Field(default=(), max_length=1_000)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")

    @model_validator(mode="after")
    def _apart(self) -> Layer:
        owner: dict[int, str] = dict.fromkeys(range(self.usable, BUCKETS), "the holdout")
        for experiment in self.experiments:
            for bucket in _members(experiment.buckets):
                if bucket in owner:
                    raise ValueError(f"bucket {bucket} belongs to {experiment.name} and to {owner[bucket]}")
                owner[bucket] = experiment.name
        return self

    @property
    def usable(self) -> int:
        """Buckets that experiments may have, from 0; the holdout has the rest."""
        return BUCKETS - math.ceil(self.holdout * BUCKETS - 1e-9)

    def free(self, without: str = "") -> tuple[int, ...]:
        """Buckets, ascending, that neither the holdout nor an experiment (but ``without``) has."""
        taken = {b for e in self.experiments if e.name != without for b in _members(e.buckets)}
        return tuple(bucket for bucket in range(self.usable) if bucket not in taken)


class AllocationPlan(_Document):
    """Every layer of an installation, and the share of units that no experiment of any layer touches."""

    layers: tuple[Layer, ...] = Field(default=(), max_length=100)
    holdout: float = Field(default=0.0, ge=0, lt=1, description="share of units in no experiment at all")
    holdout_salt: str = Field(default="holdout", min_length=1, max_length=128)

    @model_validator(mode="after")
    def _distinct(self) -> AllocationPlan:
        experiments = [experiment for layer in self.layers for experiment in layer.experiments]
        _no_repeats("layers", "name", (layer.name for layer in self.layers))
        _no_repeats("experiments", "name", (experiment.name for experiment in experiments))
        # One salt twice would give two layers, or two experiments, the same draw for every unit.
        _no_repeats("layers", "salt", (layer.salt for layer in self.layers))
        _no_repeats("experiments", "salt", (experiment.salt for experiment in experiments))
        return self


def place(layer: Layer, experiment: LayeredExperiment, share: float) -> Layer:
    """The layer with the experiment at a share of its buckets: added, grown or shrunk.

    An experiment that is there already keeps the buckets that it has, and so its units: growing adds the first free
    ones, shrinking gives up the last. Others are not touched.

    Args:
        layer: where.
        experiment: replaces the one of the same name; its own ``buckets`` count only where the layer has none of it.
        share: of the layer, rounded to whole buckets, at least one.

    Raises:
        InvalidInputError: a share outside (0, 1], or more than is free.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InvalidInputError(f"share must be in (0, 1], got {share!r}", field="share")
    count = max(round(share * BUCKETS), 1)
    free = layer.free(without=experiment.name)
    if count > len(free):
        raise InvalidInputError(
            f"share {share:g} of layer {layer.name} needs {count} buckets, {len(free)} are free; at most "
            f"{len(free) / BUCKETS:g} can be had",
            field="share",
        )
    present = [one for one in layer.experiments if one.name == experiment.name] or [experiment]
    open_to_it = set(free)
    kept = [bucket for bucket in _members(present[0].buckets) if bucket in open_to_it][:count]
    held = set(kept)
    added = [bucket for bucket in free if bucket not in held][: count - len(kept)]
    placed = experiment.model_copy(update={"buckets": _joined(kept + added)})
    others = tuple(placed if one.name == placed.name else one for one in layer.experiments)
    return layer.model_copy(update={"experiments": others if placed in others else (*others, placed)})


def diverter(salt: str, buckets: Iterable[Span]) -> Callable[[str], bool]:
    """Whether a unit's bucket, in the layer of that salt, is one of these; built once, called for every unit.

    The buckets are those of :class:`~rlaas.experiments.diversion.PlanAssigner`: who asks about one experiment only
    needs no plan.
    """
    where = placer(salt, buckets)
    return lambda unit: where(unit) == INSIDE


def placer(salt: str, buckets: Iterable[Span], held: Iterable[Span] = ()) -> Callable[[str], int]:
    """The same where a layer has a holdout, in the buckets ``held``: ``OUTSIDE``, ``INSIDE`` or ``HELD`` of a unit."""
    table = bytearray(BUCKETS)
    for spans, mark in ((buckets, INSIDE), (held, HELD)):
        for bucket in _members(spans):
            table[bucket] = mark
    prefix = f"layer:{len(salt)}:{salt}".encode()

    def where(unit: str) -> int:
        draw: int = _WORD(blake2b(prefix + unit.encode()).digest())[0]
        return table[draw % BUCKETS]

    return where


def _members(spans: Iterable[Span]) -> Iterable[int]:
    return (bucket for first, end in spans for bucket in range(first, end))


def _joined(buckets: Iterable[int]) -> tuple[Span, ...]:
    """Numbers as ascending spans."""
    spans: list[Span] = []
    for bucket in sorted(buckets):
        if spans and spans[-1][1] == bucket:
            spans[-1] = (spans[-1][0], bucket + 1)
        else:
            spans.append((bucket, bucket + 1))
    return tuple(spans)


def _no_repeats(what: str, key: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{what} repeat a {key}: {', '.join(twice)}")
