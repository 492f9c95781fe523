"""Rules to compare with, and the two families that a search may tune."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.base import Baseline, ConstantController, Controller, Tunable
from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW, default_action
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES
from rlaas.scenarios.network5g.reference import Reference

__all__ = ["DEFAULT", "LoadSleep", "Reactive", "make_baselines", "make_tunables"]

Float64Array = NDArray[np.float64]

DEFAULT = "default"
REACTIVE = {
    "embb_share": (0.0625, 1.0),
    "urllc_share": (0.0625, 1.0),
    "mmtc_share": (0.0625, 1.0),
    "power_db": (-10.0, 0.0),
    "tilt_deg": (0.0, 16.0),
    "alpha": (0.5, 2.5),
    "sleep_idle": (0.0, 0.875),  # sleep of a cell without load
    "sleep_slope": (0.0, 4.0),  # less sleep per unit of resource-block use
    "sleep_urllc": (0.0, 1.0),  # factor on the sleep while URLLC users are served
    "offset_slope": (0.0, 12.0),  # dB of cell offset per unit of load that the neighbours have more
    "off_below": (0.0, 0.5),  # one cell in three is off while it and its neighbours are used less than this
}


class LoadSleep(Controller):
    """The default, but one cell of three sleeps wholly while it and its neighbours have little load.

    Args:
        action: settings otherwise [n_components].
        colour: class of each cell [n_cells]; class 0 may sleep, the others keep the coverage.
        sleep_below: own resource-block use below which a cell goes to sleep, its neighbours at most twice that.
        wake_above: mean use of the neighbours above which it wakes.
        smoothing: weight of the newest use in the moving averages that the thresholds look at.
    """

    def __init__(
        self,
        action: Float64Array,
        colour: NDArray[np.int64],
        *,
        sleep_below: float = 0.15,
        wake_above: float = 0.4,
        smoothing: float = 0.05,
    ) -> None:
        self._action, self._colour = action, colour
        self._sleep_below, self._wake_above = sleep_below, wake_above
        self._smoothing = smoothing
        self._asleep = np.zeros(0, dtype=bool)
        self._use = np.zeros((2, 0))

    def reset(self, num_rows: int, seed: int) -> None:
        """Wake every cell; the averages start half full, so that nobody sleeps before they have settled."""
        self._asleep = np.zeros(num_rows, dtype=bool)
        self._use = np.full((2, num_rows), 0.5)

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        seen = np.stack([_column(observation, "use_total"), _column(observation, "neighbours_use")])
        if self._use.shape != seen.shape:
            self.reset(len(observation), 0)
        self._use += self._smoothing * (seen - self._use)
        own, around = self._use
        may = np.tile(self._colour == 0, len(own) // len(self._colour))
        falls = may & (own < self._sleep_below) & (around < 2 * self._sleep_below)
        self._asleep = np.where(self._asleep, around <= self._wake_above, falls)
        actions = np.repeat(self._action[None], len(own), axis=0)
        actions[self._asleep, ACTION_NAMES.index("sleep")] = 1.0
        return actions


class Reactive(Controller):
    """Load balancing by cell offset, and sleep by load, on what each cell sees.

    Args:
        values: parameters in the order of the ``reactive`` tunable.
        colour: class of each cell [n_cells]; only class 0 may sleep wholly.
        base: settings that the rule leaves alone [n_components].
    """

    def __init__(self, values: Float64Array, colour: NDArray[np.int64], base: Float64Array) -> None:
        self._p = dict(zip(REACTIVE, (float(v) for v in values), strict=True))
        self._colour = colour
        self._base = base.copy()
        for name in ("embb_share", "urllc_share", "mmtc_share", "power_db", "tilt_deg", "alpha"):
            self._base[ACTION_NAMES.index(name)] = self._p[name]

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        p = self._p
        own, around = _column(observation, "use_total"), _column(observation, "neighbours_use")
        actions = np.repeat(self._base[None], len(own), axis=0)
        sleep = np.clip(p["sleep_idle"] - p["sleep_slope"] * own, 0.0, 0.875)
        sleep = np.where(_column(observation, "users_urllc") > 0, p["sleep_urllc"] * sleep, sleep)
        may = np.tile(self._colour == 0, len(own) // len(self._colour))
        sleep = np.where(may & (own < p["off_below"]) & (around < p["off_below"]), 1.0, sleep)
        actions[:, ACTION_NAMES.index("sleep")] = sleep
        offset = ACTION_NAMES.index("cell_offset_db")
        actions[:, offset] = np.clip(p["offset_slope"] * (around - own), LOW[offset], HIGH[offset])
        return actions


def _column(observation: NDArray[Any], name: str) -> Float64Array:
    return np.asarray(observation[:, OBSERVATION_NAMES.index(name)], dtype=np.float64)


def _max_rsrp_action(ref: Reference) -> Float64Array:
    action = default_action(ref)
    action[ACTION_NAMES.index("handover_offset_db")] = 0.0
    for name in ("embb_share", "urllc_share", "mmtc_share"):
        action[ACTION_NAMES.index(name)] = 1.0
    return action


def make_baselines(ref: Reference, colour: NDArray[np.int64]) -> dict[str, Baseline]:
    """The baselines, weakest first."""
    default = default_action(ref)
    rules = (
        Baseline(
            name="max_rsrp",
            description="Strongest cell without handover offset, equal slices, round robin, full power",
            make=partial(ConstantController, _max_rsrp_action(ref)),
        ),
        Baseline(
            name=DEFAULT,
            description="A3 at 3 dB and 256 ms, proportional fair, full power, static slices",
            make=partial(ConstantController, default),
        ),
        Baseline(
            name="load_sleep",
            description="The default with one cell of three asleep while load is low",
            make=partial(LoadSleep, default, colour),
        ),
    )
    return {rule.name: rule for rule in rules}


def make_tunables(ref: Reference, colour: NDArray[np.int64]) -> dict[str, Tunable]:
    """``static``: one setting for every cell and time. ``reactive``: load balancing and sleep by thresholds."""
    families = (
        Tunable(
            name="static",
            parameters=ACTION_NAMES,
            low=tuple(LOW.tolist()),
            high=tuple(HIGH.tolist()),
            integer=(False,) * len(ACTION_NAMES),
            make=ConstantController,
        ),
        Tunable(
            name="reactive",
            parameters=tuple(REACTIVE),
            low=tuple(low for low, _ in REACTIVE.values()),
            high=tuple(high for _, high in REACTIVE.values()),
            integer=(False,) * len(REACTIVE),
            make=partial(Reactive, colour=colour, base=default_action(ref)),
        ),
    )
    return {family.name: family for family in families}
