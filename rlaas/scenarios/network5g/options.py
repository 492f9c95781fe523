"""From the options a user writes to the parts of a network, each checked by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.scenarios.checks import is_number, is_whole, numbers
from rlaas.scenarios.network5g.engine import MODULATIONS
from rlaas.scenarios.network5g.geography import USERS, Layout, hexagonal, layout_of_size, read_sites
from rlaas.scenarios.network5g.measured import trace_positions
from rlaas.scenarios.network5g.power import POWER_MODELS
from rlaas.scenarios.network5g.propagation.links import RESOURCE_BLOCKS
from rlaas.scenarios.network5g.reference import STEP_S, Radio, Reference, Regime, Traffic

__all__ = [
    "changed_radio",
    "check_carrier",
    "check_flag",
    "check_number",
    "check_whole",
    "choose_events",
    "choose_layout",
    "choose_power_models",
    "choose_traces",
    "choose_users",
    "regime_for",
    "tiled",
]

CELLS = {"small": 3, "medium": 7, "large": 21}
MOST_USERS = 1_000_000
FARTHEST_M = 1e6
"""From the origin to a position of a trace: single precision keeps decimetres up to there."""

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


def check_number(name: str, value: Any, low: float, high: float, *, open_end: bool = False) -> None:
    """Refuse what is not a finite number in [low, high], or in [low, high) with an open end.

    Raises:
        ConfigurationError: names the option.
    """
    if not is_number(value) or not low <= value <= high or (open_end and value == high):
        end = ")" if open_end else "]"
        raise ConfigurationError(f"{name} must be a number in [{low:g}, {high:g}{end}, got {shown(value)}", field=name)


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is not a whole number from ``least`` to ``most``.

    Raises:
        ConfigurationError: names the option.
    """
    if not is_whole(value) or not least <= value <= most:
        raise ConfigurationError(
            f"{name} must be a whole number from {least} to {most}, got {shown(value)}", field=name
        )


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ConfigurationError: names the option.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigurationError(f"{name} must be True or False, got {shown(value)}", field=name)


def check_carrier(radio: Radio, urllc_subcarrier_khz: int | None) -> None:
    """Refuse a bandwidth and subcarrier spacings for which TS 38.101-1 has no number of resource blocks.

    Raises:
        ConfigurationError: names the option and what the table has beside the other.
    """
    width = radio.bandwidth_mhz
    spacings = [khz for khz, row in RESOURCE_BLOCKS.items() if is_number(width) and width in row]
    if not spacings:
        listed = ", ".join(str(mhz) for mhz in sorted({mhz for row in RESOURCE_BLOCKS.values() for mhz in row}))
        raise ConfigurationError(f"bandwidth_mhz must be one of {listed}; got {shown(width)}", field="bandwidth_mhz")
    for name, khz in (("subcarrier_khz", radio.subcarrier_khz), ("urllc_subcarrier_khz", urllc_subcarrier_khz)):
        if khz is None or (is_whole(khz) and khz in spacings):
            continue
        raise ConfigurationError(
            f"{name} must be one of {tuple(spacings)} with a bandwidth of {width:g} MHz, got {shown(khz)}", field=name
        )


def choose_users(users: int | None, usual: int, traffic: Traffic) -> tuple[int, int, int]:
    """How many eMBB, URLLC and mMTC users there are.

    Raises:
        ConfigurationError: too few for every slice to have one: objectives of a slice without users are undefined.
    """
    if users is None:
        return traffic.users(usual)
    check_whole("users", users, 3, MOST_USERS)
    slices = traffic.users(int(users))
    if min(slices) < 1:
        raise ConfigurationError(f"users must leave one for each of the three slices, got {users}", field="users")
    return slices


def choose_events(events: Any) -> tuple[Any, ...]:
    """The schedule; what its events say is checked where they are compiled.

    Raises:
        ConfigurationError: not a list.
    """
    if isinstance(events, str | bytes) or not isinstance(events, Sequence):
        raise ConfigurationError(f"events must be a list of mappings, got {shown(events)}", field="events")
    return tuple(events)


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
        elif name in _CHOICES and not ((isinstance(value, str) or is_whole(value)) and value in _CHOICES[name]):
            raise ConfigurationError(f"{option} must be one of {_CHOICES[name]}, got {shown(value)}", field=option)
    if given.get("propagation") == "umi":
        # TR 38.901 table 7.2-1: street canyon, antennas below the roofs; shadowing changes within metres.
        given.update(site_height_m=10.0, map_spacing_m=5.0)
    return replace(radio, **given)


def choose_layout(
    size: str,
    *,
    cells: int | None,
    sectors: int | None,
    sites: str | Path | None,
    inter_site_m: float | None,
    usual_inter_site_m: float,
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
        if inter_site_m is not None:
            raise ConfigurationError(
                "sites already says where the sites stand; leave inter_site_m out", field="inter_site_m"
            )
        if not isinstance(sites, str | os.PathLike) or "\0" in str(sites):
            raise ConfigurationError(f"sites must be the path of a CSV file, got {shown(sites)}", field="sites")
        return read_sites(sites)
    spacing = usual_inter_site_m if inter_site_m is None else inter_site_m
    if cells is not None and not is_whole(cells):
        raise ConfigurationError(f"cells must be a whole number, got {shown(cells)}", field="cells")
    if sectors is not None and not (is_whole(sectors) and sectors in (1, 3)):
        raise ConfigurationError(f"unknown sectors {shown(sectors)}; allowed: 1, 3", field="sectors")
    if cells is None:
        if sectors is not None:
            raise ConfigurationError("sectors needs cells, the number of cells", field="sectors")
        return layout_of_size(size, spacing)
    return hexagonal(int(cells), sectors=1 if sectors is None else int(sectors), inter_site_m=spacing)


def regime_for(ref: Reference, size: str, load: str, users_per_cell: float) -> Regime:
    """The frozen regime of a size; with another number of users per cell, at the same arrivals per cell."""
    regime = ref.regimes[size][load]
    return replace(regime, scale=regime.scale * (USERS[size] / CELLS[size]) / users_per_cell)


def choose_power_models(chosen: str | Sequence[str] | None, default: str, cells: int) -> tuple[str, ...]:
    """The name of each cell's power model.

    Raises:
        ConfigurationError: an unknown name, or a list of another length.
    """
    if chosen is not None and not isinstance(chosen, str | Sequence):
        raise ConfigurationError(
            f"power_model must be the name of a power model or a list of one per cell, got {shown(chosen)}",
            field="power_model",
        )
    names = [default] * cells if chosen is None else [chosen] * cells if isinstance(chosen, str) else list(chosen)
    if len(names) != cells:
        raise ConfigurationError(f"power_model has {len(names)} entries; expected one or {cells}", field="power_model")
    for name in names:
        check_choice(name, POWER_MODELS, field="power_model")
    return tuple(names)


def choose_traces(traces: str | Path | Sequence[Any] | None, mobility: str) -> tuple[NDArray[np.float32], ...]:
    """Positions [n, 2] every 100 ms, from a file or as given.

    Raises:
        ConfigurationError: traces without ``mobility="trace"``, a file that cannot be read as such, or anything but
            finite positions within 1,000 km of the origin.
    """
    if traces is None:
        return ()
    if mobility != "trace":
        raise ConfigurationError(f"traces need mobility 'trace', got mobility {mobility!r}", field="traces")
    if isinstance(traces, str | os.PathLike):
        return tuple(_positions(i, trace) for i, trace in enumerate(_read_positions(traces)))
    listed = isinstance(traces, Sequence) or (isinstance(traces, np.ndarray) and traces.ndim > 0)
    if not listed or isinstance(traces, bytes):
        raise ConfigurationError(
            f"traces must be a file or a list of positions [n, 2] in m, got {shown(traces)}", field="traces"
        )
    return tuple(_positions(i, trace) for i, trace in enumerate(traces))


def _read_positions(path: str | os.PathLike[str]) -> list[NDArray[np.float32]]:
    try:
        # Two positions at least: a trace that is a single point has no way.
        return trace_positions(Path(path), step_s=STEP_S, minimum_duration_s=STEP_S, kind="all")
    except ConfigurationError as problem:
        raise ConfigurationError(f"traces: {problem.message}", field="traces") from problem
    except OSError as problem:
        raise ConfigurationError(
            f"traces: {path} cannot be read: {problem.strerror or problem}", field="traces"
        ) from problem


def _positions(i: int, trace: Any) -> NDArray[np.float32]:
    where = f"traces[{i}]"
    try:
        place = numbers(trace, where)
    except InvalidInputError as problem:
        raise ConfigurationError(problem.message, field=where) from problem
    if place.ndim != 2 or place.shape[1] != 2 or len(place) < 2:
        raise ConfigurationError(
            f"{where} must be finite positions [n, 2] with n >= 2, got shape {place.shape}", field=where
        )
    # Written so that NaN fails too.
    bad = np.argwhere(~(np.abs(place) <= FARTHEST_M))
    if len(bad):
        row, axis = bad[0]
        raise ConfigurationError(
            f"{where} must be finite positions within {FARTHEST_M:g} m of the origin, got {'xy'[axis]} = "
            f"{place[row, axis]:g} in row {row}",
            field=where,
        )
    return place.astype(np.float32)


def tiled(space: spaces.Box, times: int) -> spaces.Box:
    """The box repeated ``times`` over."""
    low, high = np.tile(space.low, times), np.tile(space.high, times)
    return spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[union-attr, arg-type]
