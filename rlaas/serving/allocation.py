"""Which rows of a request go to which variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rlaas.bundles import Float32
from rlaas.errors import InvalidInputError
from rlaas.experiments.assignment import Assignment, assign_switchback
from rlaas.experiments.layers import HELD, INSIDE
from rlaas.serving.loaded import Conditional, LivePolicy, LoadedVariant
from rlaas.serving.requests import DecideRequest

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
    request: DecideRequest,
    units: Sequence[str | None],
    uuids: Sequence[str],
    observations: Sequence[Sequence[float]] | Float32,
) -> Sequence[Allocation]:
    """Which rows go to which variant, and with what probability.

    Args:
        live: the deployment.
        request: what all the rows share: the step that a switchback goes by, the context that targeting goes by, and
            the preference.
        units: sticky keys; a row without one is a unit of its own.
        uuids: of the rows.
        observations: of the rows [n, n_features].

    Raises:
        InvalidInputError: a switchback without a step, or an impossible preference where shares depend on it.
    """
    if live.alone:
        return [Allocation(live.primary, list(range(len(uuids))), [1.0] * len(uuids))]
    block = _block(live, request.step)
    if block is not None:
        return [Allocation(block[0], list(range(len(uuids))), [block[1]] * len(uuids))]
    allocations: dict[int, Allocation] = {}
    for row, (unit, uuid) in enumerate(zip(units, uuids, strict=True)):
        # Without a sticky key each decision is a unit of its own.
        variant, propensity = _assigned(live, request, unit if unit is not None else uuid, observations[row])
        allocation = allocations.get(id(variant))
        if allocation is None:
            allocation = allocations[id(variant)] = Allocation(variant, [], [])
        allocation.rows.append(row)
        allocation.propensity.append(propensity)
    return list(allocations.values())


def allocate_one(
    live: LivePolicy, request: DecideRequest, unit: str, observation: Sequence[float]
) -> tuple[LoadedVariant, float]:
    """The variant of one row and the probability of it; see :func:`allocate`."""
    return _block(live, request.step) or _assigned(live, request, unit, observation)


def _assigned(
    live: LivePolicy, request: DecideRequest, unit: str, observation: Sequence[float] | Float32
) -> tuple[LoadedVariant, float]:
    audience = live.audience
    if audience is None:
        drawn = live.assign(unit)
        return live.variants[drawn.variant], drawn.propensity
    if audience.where is not None:
        where = audience.where(unit)
        if where != INSIDE:
            return (audience.held if where == HELD else audience.outside), 1.0
    if audience.matches is not None and not audience.matches(request.context or _NOTHING):
        return audience.outside, 1.0
    conditional = audience.conditional
    found = live.assign(unit) if conditional is None else _conditional(live, conditional, request, unit, observation)
    if found is None:
        return audience.outside, 1.0
    return live.variants[found.variant], found.propensity


def _conditional(
    live: LivePolicy,
    conditional: Conditional,
    request: DecideRequest,
    unit: str,
    observation: Sequence[float] | Float32,
) -> Assignment | None:
    """None where the request lacks a feature that shares depend on."""
    if conditional.features is not None:
        x = conditional.features(observation, request.context or _NOTHING)
        return None if x is None else conditional.assigner.assign(unit, x)
    if request.preference is None and request.mode in conditional.by_mode:
        x, shares = conditional.by_mode[request.mode]
        return conditional.assigner.assign(unit, x, shares)
    asked = live.primary.asked(request.mode, request.preference)
    return None if asked is None else conditional.assigner.assign(unit, asked[0])


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
