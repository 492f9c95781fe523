"""Power models of a cell: published ones and ones fitted to measurements, in one form.

Every model says what a cell draws awake (linear in what it radiates), in the short sleep between transmissions, and
switched off, where it falls first into a light and then into a deep sleep. :func:`energy_j` is the readable reference;
a compiled kernel reads the same numbers from :meth:`PowerModel.as_row`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, check_choice

__all__ = ["POWER_MODELS", "ROW_COLUMNS", "PowerModel", "energy_j", "power_model", "sleep_shares", "switch_j"]

ROW_COLUMNS = (
    "idle_w",
    "full_w",
    "micro_w",
    "light_w",
    "deep_w",
    "cycle_ms",
    "ramp_ms",
    "light_switch_j",
    "deep_switch_j",
    "light_after_ms",
    "deep_after_ms",
    "slope_w",
    "ramp_share",
)
"""Columns of :meth:`PowerModel.as_row`, in order; two are made of others: ``slope_w`` is ``full_w - idle_w``,
``ramp_share`` is ``ramp_ms / cycle_ms``."""

_CYCLE_MS = 1.0
_RAMP_MS = 0.0714  # two OFDM symbols at 30 kHz: the transmitter settles before it sends
_SWITCH_MS = 50.0  # where a source names no transition, each of entering and leaving costs this long at idle power


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """What one cell draws, in W.

    Attributes:
        name: key in :data:`POWER_MODELS`.
        description: one line for people.
        source: where the numbers come from.
        idle_w: awake, nothing sent.
        full_w: all resource blocks at full power all the time.
        micro_w: asleep between transmissions.
        light_w: switched off, in light sleep.
        deep_w: switched off, in deep sleep.
        cycle_ms: length of one cycle of sleep between transmissions.
        ramp_ms: part of each cycle at idle power before the transmitter may send again.
        light_switch_j: additional energy of entering and leaving light sleep, both together, in J.
        deep_switch_j: the same for deep sleep, by way of light sleep included.
        light_after_ms: time after switching off at which light sleep begins (idle power until then).
        deep_after_ms: time after switching off at which deep sleep begins.

    Raises:
        ConfigurationError: a value is negative or not finite, a deeper sleep draws more or comes earlier, or full
            load draws less than idle.
    """

    name: str
    description: str
    source: str
    idle_w: float
    full_w: float
    micro_w: float
    light_w: float
    deep_w: float
    cycle_ms: float = _CYCLE_MS
    ramp_ms: float = _RAMP_MS
    light_switch_j: float
    deep_switch_j: float
    light_after_ms: float = 0.0
    deep_after_ms: float = 0.0

    def __post_init__(self) -> None:
        for field in ROW_COLUMNS[:-2]:
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigurationError(
                    f"{field} of power model {self.name!r} is {value}; allowed: a finite number of at least 0",
                    field=field,
                )
        powers = ("deep_w", "light_w", "micro_w", "idle_w", "full_w")
        ordered = (powers, ("light_switch_j", "deep_switch_j"), ("light_after_ms", "deep_after_ms"))
        for smaller, larger in (pair for names in ordered for pair in itertools.pairwise(names)):
            if getattr(self, smaller) > getattr(self, larger):
                raise ConfigurationError(
                    f"{smaller} of power model {self.name!r} is {getattr(self, smaller)}; "
                    f"allowed: at most {larger} ({getattr(self, larger)})",
                    field=smaller,
                )
        if not self.ramp_ms < self.cycle_ms:
            raise ConfigurationError(
                f"ramp_ms of power model {self.name!r} is {self.ramp_ms}; allowed: less than cycle_ms "
                f"({self.cycle_ms})",
                field="ramp_ms",
            )

    def as_row(self) -> NDArray[np.float64]:
        """The numbers as one row [13] for kernels; columns in :data:`ROW_COLUMNS`."""
        numbers = [getattr(self, field) for field in ROW_COLUMNS[:-2]]
        return np.array([*numbers, self.full_w - self.idle_w, self.ramp_ms / self.cycle_ms], dtype=np.float64)


def sleep_shares(
    model: PowerModel, off_ms: ArrayLike, duration_ms: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shares (still awake, light, deep) of an interval of a cell that is off, each [...]; they sum to 1.

    Args:
        model: constants.
        off_ms: how long the cell had been off at the start of the interval.
        duration_ms: length of the interval.
    """
    start = np.asarray(off_ms, dtype=np.float64)

    def share_before(threshold_ms: float) -> NDArray[np.float64]:
        return np.asarray(np.clip((threshold_ms - start) / duration_ms, 0.0, 1.0), dtype=np.float64)

    awake, not_deep = share_before(model.light_after_ms), share_before(model.deep_after_ms)
    return awake, not_deep - awake, 1.0 - not_deep


def switch_j(model: PowerModel, off_ms: ArrayLike, duration_ms: float) -> NDArray[np.float64]:
    """Transition energy in J [...] of a cell that is off during an interval.

    Entering and leaving are paid together, at the moment a depth is reached, and deep sleep pays what light sleep has
    not paid yet: an off period costs the ``switch_j`` of the deepest state it reached, however it is cut into
    intervals, and nothing is owed on waking.
    """
    start = np.asarray(off_ms, dtype=np.float64)

    def reached(threshold_ms: float) -> NDArray[np.bool_]:
        return (start <= threshold_ms) & (threshold_ms < start + duration_ms)

    deeper = model.deep_switch_j - model.light_switch_j
    energy = reached(model.light_after_ms) * model.light_switch_j + reached(model.deep_after_ms) * deeper
    return np.asarray(energy, dtype=np.float64)


def energy_j(
    model: PowerModel,
    *,
    use: ArrayLike,
    idle: ArrayLike,
    power_share: ArrayLike,
    micro_share: ArrayLike,
    off: ArrayLike,
    off_ms: ArrayLike,
    duration_s: float,
) -> NDArray[np.float64]:
    """Energy of one interval in J [...], transitions included; the arguments broadcast.

    Awake: ``P = idle_w + (full_w - idle_w) power_share use``, the linear form of EARTH (Auer et al., "How much energy
    is needed to run a wireless network?", IEEE Wireless Communications 18(5), 2011). A cell with nothing to send may
    sleep until the next point of a wake-up grid (micro-sleep or cell DTX, Frenger et al., IEEE VTC Spring 2011); each
    cycle pays a ramp at idle power, so shallow sleep saves nothing.

    Args:
        model: constants.
        use: share of the cell's resource blocks and time in use.
        idle: share of the time without any transmission, at most ``1 - use``.
        power_share: radiated power of a used block over its maximum, linear.
        micro_share: share of each idle cycle slept by a cell that is on.
        off: cells that are switched off for the whole interval.
        off_ms: how long those have been off at its start (ignored where a cell is on).
        duration_s: length of the interval in s.
    """
    slept = np.asarray(idle) * np.maximum(0.0, np.asarray(micro_share) - model.ramp_ms / model.cycle_ms)
    sending = (model.full_w - model.idle_w) * np.asarray(power_share) * np.asarray(use)
    on_w = model.idle_w + sending - (model.idle_w - model.micro_w) * slept
    awake, light, deep = sleep_shares(model, off_ms, 1e3 * duration_s)
    off_w = model.idle_w * awake + model.light_w * light + model.deep_w * deep
    switched = switch_j(model, off_ms, 1e3 * duration_s)
    return np.asarray(np.where(off, off_w * duration_s + switched, on_w * duration_s), dtype=np.float64)


def power_model(name: str) -> PowerModel:
    """The power model of that name.

    Raises:
        ConfigurationError: there is none; names those that exist.
    """
    return POWER_MODELS[check_choice(name, POWER_MODELS, field="power_model")]


_EARTH = "EARTH: Auer et al., IEEE Wireless Communications 18(5), 2011, table 2; transitions 50 ms at idle power each"


def _earth(
    name: str, what: str, *, transceivers: int, maximum_w: float, idle_w: float, slope: float, sleep_w: float
) -> PowerModel:
    """``P = N (P0 + slope P_out)`` awake, ``N P_sleep`` asleep, whatever the depth."""
    idle, asleep = transceivers * idle_w, transceivers * sleep_w
    switch = idle * 2.0 * _SWITCH_MS / 1e3
    return PowerModel(
        name=name,
        description=f"{what}, {transceivers} transceivers a cell",
        source=_EARTH,
        idle_w=idle,
        full_w=transceivers * (idle_w + slope * maximum_w),
        micro_w=asleep,
        light_w=asleep,
        deep_w=asleep,
        light_switch_j=switch,
        deep_switch_j=switch,
    )


def _tr38864(
    name: str, full_w: float, *, deep: float, light: float, micro: float, down: float, up: float
) -> PowerModel:
    """The relative powers of TR 38.864, scaled so that a fully loaded downlink draws ``full_w``.

    A cell that is awake and sends nothing still listens: the report's uplink power is taken for it.
    """
    scale = full_w / down
    return PowerModel(
        name=name,
        description=f"TR 38.864 category 1, one relative unit = {scale:.3g} W (full downlink load as earth_macro)",
        source="3GPP TR 38.864, base station power model, category 1: relative powers and transition energies",
        idle_w=scale * up,
        full_w=full_w,
        micro_w=scale * micro,
        light_w=scale * light,
        deep_w=scale * deep,
        light_switch_j=scale * 90.0 / 1e3,
        deep_switch_j=scale * 1000.0 / 1e3,
        light_after_ms=6.0,
        deep_after_ms=50.0,
    )


def _fitted(document: dict[str, Any]) -> list[PowerModel]:
    """The models of ``models.json``; kinds of unit measured at too few base stations are left out."""
    scale = document["watts_per_unit"]
    models = []
    for row in document["types"]:
        if not row["usable"]:
            continue
        idle = scale * row["idle"]
        switch = idle * 2.0 * _SWITCH_MS / 1e3
        models.append(
            PowerModel(
                name=row["name"],
                description=(
                    f"fitted to {row['stations']} base stations of {row['ru_type']} "
                    f"({row['antennas']:g} antennas, {row['maximum_w']:.0f} W); "
                    f"held-out R^2 {row['held_out']['r2']:.2f}"
                ),
                source=document["source"],
                idle_w=idle,
                full_w=scale * row["full"],
                micro_w=scale * row["micro"],
                light_w=scale * row["sleep"],
                deep_w=scale * row["sleep"],
                light_switch_j=switch,
                deep_switch_j=switch,
            )
        )
    return models


def _all_models() -> Mapping[str, PowerModel]:
    macro = _earth("earth_macro", "macro cell", transceivers=2, maximum_w=20.0, idle_w=130.0, slope=4.7, sleep_w=75.0)
    models = [
        macro,
        _earth("earth_rrh", "remote radio head", transceivers=2, maximum_w=20.0, idle_w=84.0, slope=2.8, sleep_w=56.0),
        _earth("earth_micro", "micro cell", transceivers=2, maximum_w=6.3, idle_w=56.0, slope=2.6, sleep_w=39.0),
        _earth("earth_pico", "pico cell", transceivers=2, maximum_w=0.13, idle_w=6.8, slope=4.0, sleep_w=4.3),
        _tr38864("tr38864_set1", macro.full_w, deep=1, light=25, micro=55, down=280, up=110),
        _tr38864("tr38864_set2", macro.full_w, deep=1, light=25, micro=50, down=200, up=90),
    ]
    document = json.loads(files(__package__).joinpath("models.json").read_text(encoding="utf-8"))
    return MappingProxyType({model.name: model for model in [*models, *_fitted(document)]})


POWER_MODELS: Mapping[str, PowerModel] = _all_models()
"""Every power model by name. EARTH's macro and radio head are three-sector sites of six transceivers: two a cell."""
