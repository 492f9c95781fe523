"""Energy of a cell: the EARTH power model with sleep between transmissions and a whole-cell sleep."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.reference import STEP_S, Energy

__all__ = ["cell_energy_j", "sleeping_share"]

FloatArray = NDArray[np.floating[Any]]


def sleeping_share(sleep: FloatArray, model: Energy) -> NDArray[np.float64]:
    """Share of the idle time spent at sleep power [...] by a cell that sleeps a share of each cycle without data.

    A cell with nothing to send may sleep until the next point of a wake-up grid (micro-sleep, Frenger et al., IEEE
    VTC Spring 2011): data that arrives meanwhile waits for the rest of the pause. Every cycle pays a ramp at idle
    power, so shallow sleep saves nothing.
    """
    return np.asarray(np.maximum(0.0, sleep - model.ramp_ms / model.cycle_ms), dtype=np.float64)


def cell_energy_j(
    use: FloatArray,
    idle: FloatArray,
    power_share: FloatArray,
    sleep: FloatArray,
    off: NDArray[np.bool_],
    switched: NDArray[np.bool_],
    model: Energy,
) -> NDArray[np.float64]:
    """Energy of one decision interval in J [...], transitions included.

    EARTH (Auer et al., IEEE Wireless Communications 18(5), 2011): ``P = N (P0 + slope P_out)`` awake and
    ``N P_sleep`` asleep. A six-transceiver macro is a three-sector site, so a cell has two.

    Args:
        use: share of the cell's resource blocks and time in use.
        idle: share of the time without any transmission.
        power_share: radiated power over its maximum, linear.
        sleep: share of each idle cycle slept (cells that are on).
        off: cells asleep for the whole interval.
        switched: cells that went to sleep or woke up at its start: ``switch_ms`` of idle power on top.
        model: constants.
    """
    asleep = np.where(off, 1.0, idle * sleeping_share(sleep, model))
    radiated = np.where(off, 0.0, model.slope * model.maximum_w * power_share * use)
    per_transceiver = model.idle_w * (1.0 - asleep) + model.sleep_w * asleep + radiated
    transition = np.where(switched, model.idle_w * model.switch_ms / 1e3, 0.0)
    return np.asarray(model.transceivers * (per_transceiver * STEP_S + transition))
