"""From the options a user writes to the parts of a network, each checked by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.scenarios.network5g.engine import MODULATIONS
from rlaas.scenarios.network5g.geography import USERS, Layout, hexagonal, layout_of_size, read_sites
from rlaas.scenarios.network5g.measured import read_traces
from rlaas.scenarios.network5g.power import POWER_MODELS
from rlaas.scenarios.network5g.reference import Radio, Reference, Regime

__all__ = [
    "changed_radio",
    "check_number",
    "choose_layout",
    "choose_power_models",
    "choose_traces",
    "regime_for",
    "tiled",
]

CELLS = {"small": 3, "medium": 7, "large": 21}

_RANGES: dict[str, tuple[float, float]] = {
    "indoor_share": (0.0, 1.0),
    "inter_site_m": (50.0, 5000.0),
    "carrier_ghz": (0.5, 30.0),
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "propagation": ("uma", "umi"),
    "modulation": tuple(MODULATIONS),
    "layers": (1, 2, 3, 4),
    "columns": (1, 2, 4, 8),
}
_OPTION_NAMES = {"indoor_share": "indoor"}


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is not a finite number in [low, high].

    Raises:
        ConfigurationError: names the option.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ConfigurationError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r}", field=name)


def changed_radio(radio: Radio, **changes: Any) -> Radio:
    """The radio with every change that is not None.

    Raises:
        ConfigurationError: a value out of range; names the option.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        option = _OPTION_NAMES.get(name, name)
        if name in _RANGES:
            check_number(option, value, *_RANGES[name])
        elif name in _CHOICES and (value not in _CHOICES[name] or isinstance(value, bool)):
            raise ConfigurationError(f"{option} must be one of {_CHOICES[name]}, got {value!r}", field=option)
    if given.get("propagation") == "umi":
        # TR 38.901 table 7.2-1: street canyon, antennas below the roofs; shadowing changes within metres.
        given.update(site_height_m=10.0, map_spacing_m=5.0)
    return replace(radio, **given)


def choose_layout(
    size: str, *, cells: int | None, sectors: int | None, sites: str | Path | None, inter_site_m: float
) -> Layout:
    """The cells: of a file, of a number, or of a size.

    Raises:
        ConfigurationError: options that exclude each other, or an impossible layout.
    """
    if sites is not None:
        if cells is not None or sectors is not None:
            raise ConfigurationError(
                "sites already says which cells there are; leave cells and sectors out", field="sites"
            )
        return read_sites(sites)
    if cells is not None and (isinstance(cells, bool) or not isinstance(cells, int | np.integer)):
        raise ConfigurationError(f"cells must be a whole number, got {cells!r}", field="cells")
    if cells is None:
        if sectors is not None:
            raise ConfigurationError("sectors needs cells, the number of cells", field="sectors")
        return layout_of_size(size, inter_site_m)
    return hexagonal(cells, sectors=1 if sectors is None else sectors, inter_site_m=inter_site_m)


def regime_for(ref: Reference, size: str, load: str, users_per_cell: float) -> Regime:
    """The frozen regime of a size; with another number of users per cell, at the same arrivals per cell."""
    regime = ref.regimes[size][load]
    return replace(regime, scale=regime.scale * (USERS[size] / CELLS[size]) / users_per_cell)


def choose_power_models(chosen: str | Sequence[str] | None, default: str, cells: int) -> tuple[str, ...]:
    """The name of each cell's power model.

    Raises:
        ConfigurationError: an unknown name, or a list of another length.
    """
    names = [default] * cells if chosen is None else [chosen] * cells if isinstance(chosen, str) else list(chosen)
    if len(names) != cells:
        raise ConfigurationError(f"power_model has {len(names)} entries; expected one or {cells}", field="power_model")
    for name in names:
        check_choice(name, POWER_MODELS, field="power_model")
    return tuple(names)


def choose_traces(traces: str | Path | Sequence[Any] | None, mobility: str) -> tuple[NDArray[np.float32], ...]:
    """Positions every 100 ms, from a file or as given.

    Raises:
        ConfigurationError: traces without ``mobility="trace"``, or a file that cannot be read as such.
    """
    if traces is None:
        return ()
    if mobility != "trace":
        raise ConfigurationError(f"traces need mobility 'trace', got mobility {mobility!r}", field="traces")
    if isinstance(traces, str | Path):
        return tuple(np.asarray(trace, dtype=np.float32) for trace in read_traces(traces))
    return tuple(np.asarray(trace, dtype=np.float32) for trace in traces)


def tiled(space: spaces.Box, times: int) -> spaces.Box:
    """The box repeated ``times`` over."""
    low, high = np.tile(space.low, times), np.tile(space.high, times)
    return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr, arg-type]
