"""Which rows of a request go to which variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from rlaas.errors import InvalidInputError
from rlaas.experiments.assignment import assign_switchback
from rlaas.serving.loaded import LivePolicy

__all__ = ["Allocation", "allocate"]


class Allocation(msgspec.Struct, frozen=True):
    """The rows of a request that go to one variant.

    Attributes:
        rows: their numbers.
        propensity: probability with which each came here.
    """

    rows: list[int]
    propensity: list[float]


def allocate(
    live: LivePolicy, step: int | None, units: Sequence[str | None], uuids: Sequence[str]
) -> Mapping[str, Allocation]:
    """Which rows go to which variant, and with what probability.

    Args:
        live: the deployment.
        step: of the session, which a switchback goes by.
        units: sticky keys; a row without one is a unit of its own.
        uuids: of the rows.

    Raises:
        InvalidInputError: a switchback without a step.
    """
    if live.alone:
        return {live.primary.name: Allocation(list(range(len(uuids))), [1.0] * len(uuids))}
    experiment = live.record.experiment
    if experiment is not None and experiment.design == "switchback" and experiment.block_steps is not None:
        if step is None:
            raise InvalidInputError(
                f"step is needed: experiment {experiment.name!r} alternates between its variants by step",
                field="step",
            )
        block = assign_switchback(step, experiment.block_steps, experiment.salt, live.weights)
        return {block.variant: Allocation(list(range(len(uuids))), [block.propensity] * len(uuids))}
    allocations: dict[str, Allocation] = {}
    for row, (unit, uuid) in enumerate(zip(units, uuids, strict=True)):
        # Without a sticky key each decision is a unit of its own.
        drawn = live.assign(unit if unit is not None else uuid)
        allocation = allocations.setdefault(drawn.variant, Allocation([], []))
        allocation.rows.append(row)
        allocation.propensity.append(drawn.propensity)
    return allocations
