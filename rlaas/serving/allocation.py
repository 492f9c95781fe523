"""Which rows of a request go to which variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rlaas.errors import InvalidInputError
from rlaas.experiments.assignment import assign_switchback
from rlaas.serving.loaded import LivePolicy, LoadedVariant

__all__ = ["Allocation", "allocate", "allocate_one"]

_NOTHING: Mapping[str, Any] = {}


class Allocation(msgspec.Struct, frozen=True):
    """The rows of a request that go to one variant.

    Attributes:
        variant: which; none of the deployment's own for units outside of its experiment.
        rows: their numbers.
        propensity: probability with which each came here.
    """

    variant: LoadedVariant
    rows: list[int]
    propensity: list[float]


def allocate(
    live: LivePolicy,
    step: int | None,
    units: Sequence[str | None],
    uuids: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
) -> Sequence[Allocation]:
    """Which rows go to which variant, and with what probability.

    Args:
        live: the deployment.
        step: of the session, which a switchback goes by.
        units: sticky keys; a row without one is a unit of its own.
        uuids: of the rows.
        attributes: of all the units, which targeting goes by.

    Raises:
        InvalidInputError: a switchback without a step.
    """
    if live.alone:
        return [Allocation(live.primary, list(range(len(uuids))), [1.0] * len(uuids))]
    block = _block(live, step)
    if block is not None:
        return [Allocation(block[0], list(range(len(uuids))), [block[1]] * len(uuids))]
    allocations: dict[int, Allocation] = {}
    for row, (unit, uuid) in enumerate(zip(units, uuids, strict=True)):
        # Without a sticky key each decision is a unit of its own.
        variant, propensity = _assigned(live, unit if unit is not None else uuid, attributes or _NOTHING)
        allocation = allocations.get(id(variant))
        if allocation is None:
            allocation = allocations[id(variant)] = Allocation(variant, [], [])
        allocation.rows.append(row)
        allocation.propensity.append(propensity)
    return list(allocations.values())


def allocate_one(
    live: LivePolicy, step: int | None, unit: str, attributes: Mapping[str, Any] | None
) -> tuple[LoadedVariant, float]:
    """The variant of one row and the probability of it; see :func:`allocate`."""
    return _block(live, step) or _assigned(live, unit, attributes or _NOTHING)


def _assigned(live: LivePolicy, unit: str, attributes: Mapping[str, Any]) -> tuple[LoadedVariant, float]:
    audience = live.audience
    if audience is not None:
        diverted, matches = audience.diverted, audience.matches
        if (diverted is not None and not diverted(unit)) or (matches is not None and not matches(attributes)):
            return audience.outside, 1.0
    drawn = live.assign(unit)
    return live.variants[drawn.variant], drawn.propensity


def _block(live: LivePolicy, step: int | None) -> tuple[LoadedVariant, float] | None:
    """Of a switchback, whose units all get the same."""
    experiment = live.record.experiment
    if experiment is None or experiment.design != "switchback" or experiment.block_steps is None:
        return None
    if step is None:
        raise InvalidInputError(
            f"step is needed: experiment {experiment.name!r} alternates between its variants by step", field="step"
        )
    block = assign_switchback(step, experiment.block_steps, experiment.salt, live.weights)
    return live.variants[block.variant], block.propensity
