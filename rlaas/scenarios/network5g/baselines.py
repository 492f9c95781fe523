"""The baselines by name, weakest first, and the two families that a search may tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.controllers import Baseline, ConstantController, Controller, Tunable
from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW, default_action
from rlaas.scenarios.network5g.reference import Reference
from rlaas.scenarios.network5g.rules import (
    REACTIVE,
    REACTS,
    LoadBalancing,
    LoadSleep,
    Reactive,
    WaterFilling,
    WholeNetwork,
)

__all__ = ["DEFAULT", "LoadSleep", "Reactive", "make_baselines", "make_tunables"]

DEFAULT = "default"


def _max_rsrp_action(ref: Reference) -> NDArray[np.float64]:
    action = default_action(ref)
    action[ACTION_NAMES.index("handover_offset_db")] = 0.0
    for name in ("embb_share", "urllc_share", "mmtc_share"):
        action[ACTION_NAMES.index(name)] = 1.0
    return action


def _whole(cells: int, make: Callable[..., Controller], *values: Any) -> Controller:
    """What ``make`` builds, for whole networks."""
    rule = make(*values)
    if isinstance(rule, ConstantController):
        return ConstantController(np.tile(rule.action, cells))
    return WholeNetwork(rule, cells)


def make_baselines(ref: Reference, colour: NDArray[np.int64], *, central: bool = False) -> dict[str, Baseline]:
    """The baselines, weakest first.

    Args:
        ref: the frozen reference.
        colour: class of each cell of a network [n_cells].
        central: they are to set whole networks.
    """
    default, cells = default_action(ref), len(colour)
    rules: tuple[tuple[str, str, Callable[[], Controller]], ...] = (
        (
            "max_rsrp",
            "Strongest cell without handover offset, equal slices, round robin, full power",
            partial(ConstantController, _max_rsrp_action(ref)),
        ),
        (
            DEFAULT,
            "A3 at 3 dB and 256 ms, proportional fair, full power, static slices",
            partial(ConstantController, default),
        ),
        (
            "load_sleep",
            "The default with one cell of three asleep while load is low",
            partial(LoadSleep, default, colour),
        ),
        (
            "load_balancing",
            "The default with cell offsets that push users from loaded cells to their neighbours",
            partial(LoadBalancing, default),
        ),
        (
            "water_filling",
            "The default with seven tenths of the power, shared by water-filling over the cells' channels",
            partial(WaterFilling, default, cells),
        ),
    )
    return {
        name: Baseline(name=name, description=text, make=partial(_whole, cells, make) if central else make)
        for name, text, make in rules
    }


def make_tunables(ref: Reference, colour: NDArray[np.int64], *, central: bool = False) -> dict[str, Tunable]:
    """``static``: one setting for every cell and time. ``reactive``: load balancing and sleep by thresholds.

    Args:
        ref: the frozen reference.
        colour: class of each cell of a network [n_cells].
        central: they are to set whole networks; the parameters are the same, equal for all cells.
    """
    static = dict(zip(ACTION_NAMES, zip(LOW.tolist(), HIGH.tolist(), strict=True), strict=True))
    as_static = {parameter: 0.0 if parameter in REACTS else parameter for parameter in REACTIVE}

    def family(
        name: str,
        bounds: Mapping[str, tuple[float, float]],
        make: Callable[[NDArray[np.float64]], Controller],
        as_static: Mapping[str, str | float],
    ) -> Tunable:
        return Tunable(
            name=name,
            parameters=tuple(bounds),
            low=tuple(low for low, _ in bounds.values()),
            high=tuple(high for _, high in bounds.values()),
            integer=(False,) * len(bounds),
            make=partial(_whole, len(colour), make) if central else make,
            as_static=as_static,
        )

    return {
        "static": family("static", static, ConstantController, {}),
        "reactive": family("reactive", REACTIVE, partial(Reactive, colour=colour, base=default_action(ref)), as_static),
    }
