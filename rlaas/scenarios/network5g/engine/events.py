"""Scheduled changes of the world: outages, new hardware, crowds, growing demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown
from rlaas.scenarios.checks import is_number, is_whole
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["COLUMNS", "EVENTS", "compile_events"]

EVENTS = ("outage", "hardware", "stadium", "demand")
COLUMNS = ("kind", "start", "end", "repeat", "unit", "x", "y", "radius", "value")
KIND, START, END, REPEAT, UNIT, X, Y, RADIUS, VALUE = range(len(COLUMNS))
OUTAGE, HARDWARE, SURGE = 0, 1, 2
"""Numbers of the kinds; from ``SURGE`` on they change demand, below they change a cell."""

_KEYS: Mapping[str, tuple[str, ...]] = {
    "outage": ("cell",),
    "hardware": ("cell", "power_db", "unit"),
    "stadium": ("cell", "x_m", "y_m", "radius_m", "factor"),
    "demand": ("factor",),
}
LARGEST_FACTOR = 20.0
"""On demand: far beyond it the counts of a step leave what the generator of Poisson numbers can do."""
LARGEST_POWER_DB = 20.0
"""Of new hardware, up or down: from a macro cell to a small one and back."""
LATEST_S = 1e9
"""Of times: thirty years, which whole steps count exactly."""
FARTHEST_M = 1e7
_TIMES = ("at_s", "for_s", "every_s")


def compile_events(
    events: Sequence[Mapping[str, Any]],
    *,
    centres: NDArray[np.float64],
    power_models: Sequence[str],
    power_model: NDArray[np.int32],
) -> NDArray[np.float64]:
    """The schedule as rows [n, columns] for the kernels.

    Each event is a mapping with ``kind``, ``at_s`` (seconds since the stream of the environment began, resets
    included), ``for_s`` (default: for ever) and ``every_s`` (period, default: once), and

    * ``outage``: ``cell`` is out of order: it transmits nothing and draws no power.
    * ``hardware``: ``cell`` transmits ``power_db`` more (or less, up to 20 dB) and draws power by the model ``unit``.
    * ``stadium``: users within ``radius_m`` of ``x_m``, ``y_m`` (or of the centre of ``cell``) ask for ``factor`` times
      as much.
    * ``demand``: everybody asks for ``factor`` times as much.

    Factors of events that overlap multiply, up to 20 together.

    Args:
        events: the schedule.
        centres: centre of each cell [cells, 2] in m.
        power_models: names of the power models in the order of their rows.
        power_model: row of each cell [cells].

    Raises:
        ConfigurationError: an unknown kind or key, a missing one, or a value out of range; names event and key.
    """
    rows = np.zeros((len(events), len(COLUMNS)))
    for i, event in enumerate(events):
        where = f"events[{i}]"
        if not isinstance(event, Mapping) or "kind" not in event:
            raise ConfigurationError(f"{where} must be a mapping with the key kind, one of {EVENTS}", field=where)
        kind = check_choice(event["kind"], EVENTS, field=f"{where}.kind")
        allowed = ("kind", *_TIMES, *_KEYS[kind])
        for key in event:
            check_choice(key, allowed, field=f"{where}.{key}")
        rows[i] = _row(where, kind, event, centres, power_models, power_model)
    return rows


def _row(
    where: str,
    kind: str,
    event: Mapping[str, Any],
    centres: NDArray[np.float64],
    power_models: Sequence[str],
    power_model: NDArray[np.int32],
) -> NDArray[np.float64]:
    row = np.zeros(len(COLUMNS))
    start = _number(where, event, "at_s", 0.0, 0.0, most=LATEST_S)
    lasts = _number(where, event, "for_s", np.inf, STEP_S, most=LATEST_S, endless=True)
    every = _number(where, event, "every_s", 0.0, 0.0, most=LATEST_S)
    if every and start + lasts > every:
        raise ConfigurationError(f"{where}: at_s + for_s must not exceed every_s ({every:g})", field=f"{where}.every_s")
    row[KIND] = EVENTS.index(kind)
    row[START], row[END], row[REPEAT] = round(start / STEP_S), np.rint((start + lasts) / STEP_S), round(every / STEP_S)
    cells = len(centres)
    if "cell" in event or kind in ("outage", "hardware"):
        cell: Any = event.get("cell")
        if not is_whole(cell) or not 0 <= cell < cells:
            raise ConfigurationError(
                f"{where}.cell must be a whole number from 0 to {cells - 1}, got {shown(cell)}", field=f"{where}.cell"
            )
        row[UNIT] = cell
    if kind == "hardware":
        usual = power_models[power_model[int(row[UNIT])]]
        unit = check_choice(event.get("unit", usual), power_models, field=f"{where}.unit")
        row[X] = list(power_models).index(unit)
        row[VALUE] = _number(where, event, "power_db", 0.0, -LARGEST_POWER_DB, most=LARGEST_POWER_DB)
    elif kind != "outage":
        row[VALUE] = _number(where, event, "factor", None, 0.0, most=LARGEST_FACTOR)
    if kind == "stadium":
        row[RADIUS] = _number(where, event, "radius_m", None, 1.0, most=FARTHEST_M)
        at = centres[int(row[UNIT])] if "cell" in event else (None, None)
        row[X] = _number(where, event, "x_m", at[0], -FARTHEST_M, most=FARTHEST_M)
        row[Y] = _number(where, event, "y_m", at[1], -FARTHEST_M, most=FARTHEST_M)
    return row


def _number(
    where: str,
    event: Mapping[str, Any],
    key: str,
    default: float | None,
    least: float,
    *,
    most: float,
    endless: bool = False,
) -> float:
    value = event.get(key, default)
    if value is None:
        raise ConfigurationError(f"{where}.{key} is missing: a number is needed", field=f"{where}.{key}")
    if not is_number(value) or not (least <= value <= most or (endless and value == np.inf)):
        raise ConfigurationError(
            f"{where}.{key} must be a number in [{least:g}, {most:g}], got {shown(value)}", field=f"{where}.{key}"
        )
    return float(value)
