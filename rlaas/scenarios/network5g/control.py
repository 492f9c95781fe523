"""What a cell may be told: the components of an action, their physical bounds, and their check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g.reference import Energy, Reference

__all__ = ["ACTION_NAMES", "HIGH", "LOW", "Settings", "action_space", "check_actions", "default_action"]

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
TOLERANCE = 1e-6 * (HIGH - LOW)


def action_space() -> spaces.Box:
    """The action of one cell: a float64 box in physical units, components in the order of ``ACTION_NAMES``."""
    return spaces.Box(LOW, HIGH, dtype=np.float64)


def default_action(ref: Reference) -> Float64Array:
    """The settings of the frozen default [n_components]."""
    return np.array([ref.default[name] for name in ACTION_NAMES])


def check_actions(actions: NDArray[Any], rows: int, cells: int) -> Float64Array:
    """Actions [rows, n_components] as float64 within the bounds, as a copy.

    Raises:
        InvalidInputError: a wrong shape or type, or a value that is not finite or out of bounds; names environment,
            cell, component and bounds.
    """
    try:
        values = np.array(actions, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise InvalidInputError(f"action is not an array of numbers: {problem}", field="action") from problem
    if values.shape != (rows, len(ACTION_NAMES)):
        raise InvalidInputError(
            f"action has shape {values.shape}; expected ({rows}, {len(ACTION_NAMES)})", field="action"
        )
    inside = (values >= LOW - TOLERANCE) & (values <= HIGH + TOLERANCE)
    if not inside.all():
        row, column = (int(i) for i in np.argwhere(~inside)[0])
        name = ACTION_NAMES[column]
        raise InvalidInputError(
            f"action {name} of environment {row // cells}, cell {row % cells} is {values[row, column]:g}; "
            f"allowed: [{LOW[column]:g}, {HIGH[column]:g}]",
            field=f"action.{name}",
        )
    return np.clip(values, LOW, HIGH)


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked actions in the form the physics uses; arrays [envs, cells] unless said otherwise.

    Attributes:
        power_db, tilt_deg, cell_offset_db, handover_offset_db: float32.
        shares: slice shares that sum to 1 [envs, cells, 3].
        alpha: fairness.
        sleep: share of each idle cycle slept, 0 for a cell that is off.
        off: cells that sleep for the whole interval.
    """

    power_db: NDArray[np.float32]
    tilt_deg: NDArray[np.float32]
    cell_offset_db: NDArray[np.float32]
    handover_offset_db: NDArray[np.float32]
    shares: Float64Array
    alpha: Float64Array
    sleep: Float64Array
    off: NDArray[np.bool_]

    @classmethod
    def of(cls, actions: Float64Array, energy: Energy) -> Settings:
        """The settings behind actions [envs, cells, n_components]."""
        radio = actions[..., :4].astype(np.float32)
        shares = actions[..., 4:7]
        off = actions[..., 8] >= energy.off_from
        return cls(
            power_db=np.ascontiguousarray(radio[..., 0]),
            tilt_deg=np.ascontiguousarray(radio[..., 1]),
            cell_offset_db=np.ascontiguousarray(radio[..., 2]),
            handover_offset_db=np.ascontiguousarray(radio[..., 3]),
            shares=shares / shares.sum(axis=-1, keepdims=True),
            alpha=np.ascontiguousarray(actions[..., 7]),
            sleep=np.where(off, 0.0, actions[..., 8]),
            off=off,
        )
