"""What a cell may be told: the components of an action, their physical bounds, and their check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.checks import numbers
from rlaas.scenarios.network5g.reference import Reference

__all__ = ["ACTION_NAMES", "DEEPEST_ON", "HIGH", "LOW", "action_space", "check_actions", "default_action"]

Float64Array = NDArray[np.float64]

# Bounds are exact in float32 too, so that a policy that saturates stays inside.
_COMPONENTS: dict[str, tuple[float, float]] = {
    "power_db": (-10.0, 0.0),  # transmit power relative to the maximum of 46 dBm
    "tilt_deg": (0.0, 16.0),  # electrical tilt below the horizon
    "cell_offset_db": (-6.0, 6.0),  # individual offset O of this cell in the A3 event
    "handover_offset_db": (0.0, 6.0),  # A3 offset for the users that this cell serves
    "embb_share": (0.0625, 1.0),  # slice shares of the resource blocks, scaled to sum 1
    "urllc_share": (0.0625, 1.0),
    "mmtc_share": (0.0625, 1.0),
    "alpha": (0.5, 2.5),  # fairness of the eMBB scheduler: share ~ rate^((1 - alpha) / alpha)
    "sleep": (0.0, 1.0),  # share of each idle cycle slept; from 0.9 on the cell is off
}
ACTION_NAMES = tuple(_COMPONENTS)
LOW = np.array([low for low, _ in _COMPONENTS.values()])
HIGH = np.array([high for _, high in _COMPONENTS.values()])
DEEPEST_ON = 0.875
"""``sleep`` of a cell that the interlock keeps on, and the most of any rule short of off."""


def action_space() -> spaces.Box:
    """The action of one cell: a float64 box in physical units, components in the order of ``ACTION_NAMES``."""
    return spaces.Box(LOW, HIGH, dtype=np.float64)


def default_action(ref: Reference) -> Float64Array:
    """The settings of the frozen default [n_components]."""
    return np.array([ref.default[name] for name in ACTION_NAMES])


def check_actions(
    actions: Any, into: Float64Array, rows: int, cells: int, first_bad: Callable[[Float64Array], int]
) -> None:
    """Take over actions [rows, ...] as float64 into ``into`` [networks * cells, n_components], if all are in bounds.

    Args:
        actions: one row per cell, or per network with its cells behind one another.
        into: overwritten, whether the check passes or not.
        rows: expected rows.
        cells: of one network.
        first_bad: finds the flat index of the first component out of bounds, or -1.

    Raises:
        InvalidInputError: a wrong shape or type, or a value that is not finite or out of bounds; names environment,
            cell, component and bounds.
    """
    width = into.size // rows
    given = numbers(actions, "action")
    if given.shape != (rows, width):
        raise InvalidInputError(f"action has shape {given.shape}; expected ({rows}, {width})", field="action")
    np.copyto(into.reshape(rows, width), given, casting="unsafe")
    bad = first_bad(into)
    if bad >= 0:
        row, column = divmod(bad, len(ACTION_NAMES))
        name = ACTION_NAMES[column]
        raise InvalidInputError(
            f"action {name} of environment {row // cells}, cell {row % cells} is {into[row, column]:g}; "
            f"allowed: [{LOW[column]:g}, {HIGH[column]:g}]",
            field=f"action.{name}",
        )
