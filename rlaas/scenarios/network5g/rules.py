"""Rules that set cells from what they see: sleep by load, load balancing, water-filling, and the reactive family.

Every rule decides for single cells, rows [networks * cells, features] as ``control="cell"`` shows them;
:class:`WholeNetwork` lets it set whole networks instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.controllers import Controller
from rlaas.scenarios.network5g.control import ACTION_NAMES, DEEPEST_ON, HIGH, LOW
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES

__all__ = ["REACTIVE", "REACTS", "LoadBalancing", "LoadSleep", "Reactive", "WaterFilling", "WholeNetwork", "water_fill"]

Float64Array = NDArray[np.float64]

REACTIVE: Mapping[str, tuple[float, float]] = {
    "embb_share": (0.0625, 1.0),
    "urllc_share": (0.0625, 1.0),
    "mmtc_share": (0.0625, 1.0),
    "power_db": (-10.0, 0.0),
    "tilt_deg": (0.0, 16.0),
    "alpha": (0.5, 2.5),
    "handover_offset_db": (0.0, 6.0),
    "sleep": (0.0, DEEPEST_ON),  # of a cell without load
    "sleep_slope": (0.0, 4.0),  # less sleep per unit of resource-block use
    "sleep_urllc_cut": (0.0, 1.0),  # share of the sleep that is given up while URLLC users are served
    "offset_slope": (0.0, 12.0),  # dB of cell offset per unit of load that the neighbours have more
    "off_below": (0.0, 0.5),  # one cell in three is off while it and its neighbours are used less than this
}
"""Parameters of :class:`Reactive` with their bounds: all that a static setting has, and what reacts to load.

A cell offset that all cells have alike changes nothing, so of the static settings only that one is not here. With the
parameters that react at 0 the rule is the static setting of the others.
"""
REACTS = ("sleep_slope", "sleep_urllc_cut", "offset_slope", "off_below")
"""Those that react to load."""

_POWER, _OFFSET, _SLEEP = (ACTION_NAMES.index(name) for name in ("power_db", "cell_offset_db", "sleep"))
_SHANNON_SHARE = 0.75
_HIGHEST_EFFICIENCY = 5.5547
"""Spectral efficiency at which the observed one is 1, with 64QAM: TS 38.214 table 5.2.2.1-2."""


def _column(observation: NDArray[Any], name: str) -> Float64Array:
    return np.asarray(observation[:, OBSERVATION_NAMES.index(name)], dtype=np.float64)


class WholeNetwork(Controller):
    """Lets a rule for single cells set whole networks, as ``control="central"`` wants it.

    Args:
        rule: decides for single cells.
        cells: of one network.
    """

    def __init__(self, rule: Controller, cells: int) -> None:
        self.rule, self._cells = rule, cells

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget the last rollout of ``num_rows`` networks."""
        self.rule.reset(num_rows * self._cells, seed)

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [networks, cells * n_components] for observations [networks, cells * n_features]."""
        rows = len(observation)
        return np.asarray(self.rule.act(observation.reshape(rows * self._cells, -1)).reshape(rows, -1))


class _Averages:
    """Moving averages of observed features by row: what a single step shows is mostly chance.

    Args:
        names: features to follow.
        weight: of the newest value.
        start: value before the first observation.
    """

    def __init__(self, names: tuple[str, ...], weight: float, start: float) -> None:
        self._names, self._weight, self._start = names, weight, start
        self._values = np.zeros((len(names), 0))

    def clear(self, rows: int) -> None:
        self._values = np.full((len(self._names), rows), self._start)

    def take(self, observation: NDArray[Any]) -> Float64Array:
        """Averages [names, rows] with this observation in them."""
        if self._values.shape[1] != len(observation):
            self.clear(len(observation))
        seen = np.stack([_column(observation, name) for name in self._names])
        self._values += self._weight * (seen - self._values)
        return self._values


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
        self._asleep = np.zeros(0, dtype=bool)
        # Half full, so that nobody sleeps before the averages have settled.
        self._use = _Averages(("use_total", "neighbours_use"), smoothing, 0.5)

    def reset(self, num_rows: int, seed: int) -> None:
        """Wake every cell and forget the load."""
        self._asleep = np.zeros(num_rows, dtype=bool)
        self._use.clear(num_rows)

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        if len(self._asleep) != len(observation):
            self.reset(len(observation), 0)
        own, around = self._use.take(observation)
        # A cell without neighbours has nobody to take its users, nor anybody whose load would wake it.
        alone = len(self._colour) == 1
        may = np.tile((self._colour == 0) & (not alone), len(own) // len(self._colour))
        falls = may & (own < self._sleep_below) & (around < 2 * self._sleep_below)
        self._asleep = np.where(self._asleep, around <= self._wake_above, falls)
        actions = np.repeat(self._action[None], len(own), axis=0)
        actions[self._asleep, _SLEEP] = 1.0
        return actions


class LoadBalancing(Controller):
    """The default, but a cell with more load than its neighbours pushes users at its edge to them, by its offset.

    Mobility load balancing of self-organising networks (TR 36.902 section 4.6): the A3 border moves in proportion to
    the difference in load.

    Args:
        action: settings otherwise [n_components].
        slope: dB of cell offset per unit of use that the neighbours have more.
        limit: largest offset in dB: beyond it users stand in a cell they hardly hear.
        smoothing: weight of the newest use in the moving averages.
    """

    def __init__(
        self, action: Float64Array, *, slope: float = 4.0, limit: float = 2.0, smoothing: float = 0.05
    ) -> None:
        self._action, self._slope, self._limit = action, slope, limit
        self._use = _Averages(("use_total", "neighbours_use"), smoothing, 0.5)

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget the load."""
        self._use.clear(num_rows)

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        own, around = self._use.take(observation)
        actions = np.repeat(self._action[None], len(own), axis=0)
        actions[:, _OFFSET] = np.clip(self._slope * (around - own), -self._limit, self._limit)
        return actions


def water_fill(gain: Float64Array, budget: float, low: float, high: float) -> Float64Array:
    """Powers [n, cells] that maximise ``sum log(1 + gain * power)``: ``power = clip(level - 1 / gain, low, high)``.

    Args:
        gain: signal over noise and interference per unit of power [n, cells], positive.
        budget: sum of the powers of a row; where bounds allow it, it is spent whole.
        low, high: bounds of each power.
    """
    inverse = 1.0 / np.maximum(gain, 1e-12)
    # At the lowest level every power is at its lower bound, at the highest at its upper one.
    below, above = low + inverse.min(axis=1), high + inverse.max(axis=1)
    for _ in range(60):
        level = 0.5 * (below + above)
        spent = np.clip(level[:, None] - inverse, low, high).sum(axis=1)
        below, above = np.where(spent < budget, level, below), np.where(spent < budget, above, level)
    return np.asarray(np.clip(below[:, None] - inverse, low, high))


class WaterFilling(Controller):
    """The default, but the cells of a network share a budget of power by water-filling over their channels.

    A cell's channel is the mean spectral efficiency of its eMBB users turned back into an SINR per unit of the power it
    sends with. As in textbooks, interference counts as noise that does not depend on the powers.

    Args:
        action: settings otherwise [n_components].
        cells: of one network.
        budget: share of the power of all cells that may be sent.
        smoothing: weight of the newest efficiency in the moving average.
    """

    def __init__(self, action: Float64Array, cells: int, *, budget: float = 0.7, smoothing: float = 0.05) -> None:
        self._action, self._cells, self._budget = action, cells, budget
        self._efficiency = _Averages(("efficiency_embb",), smoothing, 0.5)

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget the channels."""
        self._efficiency.clear(num_rows)

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        (efficiency,) = self._efficiency.take(observation)
        low, high = LOW[_POWER], HIGH[_POWER]
        sent = 10.0 ** (0.1 * (low + (high - low) * _column(observation, "own_power_db")))
        sinr = 2.0 ** (_HIGHEST_EFFICIENCY * efficiency / _SHANNON_SHARE) - 1.0
        gain = (np.maximum(sinr, 1e-3) / sent).reshape(-1, self._cells)
        power = water_fill(gain, self._budget * self._cells, 10.0 ** (0.1 * low), 10.0 ** (0.1 * high))
        actions = np.repeat(self._action[None], len(efficiency), axis=0)
        actions[:, _POWER] = np.clip(10.0 * np.log10(power.ravel()), low, high)
        return actions


class Reactive(Controller):
    """Load balancing by cell offset, and sleep by load, on what each cell sees.

    Args:
        values: parameters in the order of :data:`REACTIVE`.
        colour: class of each cell [n_cells]; only class 0 may sleep wholly.
        base: settings that the rule leaves alone [n_components].
    """

    def __init__(self, values: Float64Array, colour: NDArray[np.int64], base: Float64Array) -> None:
        self._p = dict(zip(REACTIVE, (float(v) for v in values), strict=True))
        self._colour = colour
        self._base = base.copy()
        for name in ("embb_share", "urllc_share", "mmtc_share", "power_db", "tilt_deg", "alpha", "handover_offset_db"):
            self._base[ACTION_NAMES.index(name)] = self._p[name]

    def act(self, observation: NDArray[Any]) -> Float64Array:
        """Settings [rows, n_components]."""
        p = self._p
        own, around = _column(observation, "use_total"), _column(observation, "neighbours_use")
        actions = np.repeat(self._base[None], len(own), axis=0)
        sleep = np.clip(p["sleep"] - p["sleep_slope"] * own, 0.0, DEEPEST_ON)
        sleep = np.where(_column(observation, "users_urllc") > 0, (1.0 - p["sleep_urllc_cut"]) * sleep, sleep)
        may = np.tile((self._colour == 0) & (len(self._colour) > 1), len(own) // len(self._colour))
        sleep = np.where(may & (own < p["off_below"]) & (around < p["off_below"]), 1.0, sleep)
        actions[:, _SLEEP] = sleep
        actions[:, _OFFSET] = np.clip(p["offset_slope"] * (around - own), LOW[_OFFSET], HIGH[_OFFSET])
        return actions
