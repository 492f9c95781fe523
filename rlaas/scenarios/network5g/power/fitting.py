"""Fits power models to measured base stations: ``python -m rlaas.scenarios.network5g.power.fitting``.

By kind of radio unit, the energy of a base station in an hour is

    E = constant + antenna * antennas + slope * sum over carriers(load * transmit power in W)
        + shutdown * (share of the hour shut down) + symbol * (share of the hour in symbol shutdown)

by least squares with signs that physics demands: load and antennas never save, saving modes never cost. ``ESMode1`` and
``ESMode2`` run together in the small hours at next to no load, so only their joint effect can be told (the larger
share of the two: *shutdown*); ``ESMode6`` runs all day, the more the lower the load (*symbol* shutdown, a micro-sleep);
modes 3 to 5 never occur. Antennas count only where at least five stations differ from the usual number, a mode only
where at least five stations used it.

Errors are of base stations the fit has not seen: a hash of the station's name deals the stations into five parts, and
each part is predicted from the other four. Two rivals are measured alike: the mean of the unit type, and the EARTH
macro cell times one fitted factor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.measured.base_stations import BaseStations, read_base_stations

__all__ = ["FitErrors", "FitReport", "StationHours", "TypeFit", "fit_power_models", "station_hours", "to_document"]

FloatArray = NDArray[np.float64]

PARTS = 5
ENOUGH_TO_COUNT = 5
ENOUGH_TO_REPORT = 10
ENOUGH_TO_USE = 20
TYPICAL_TYPE = "Type4"  # most base stations of one carrier, and a 40 W unit as EARTH's macro cell
EARTH_IDLE_W, EARTH_FULL_W = 260.0, 448.0  # per cell: two transceivers of 130 W + 4.7 * 20 W
SOURCE = (
    "ITU AI/ML in 5G challenge, 5G energy consumption modelling (January 2023); energy units scaled so that a fully "
    "loaded Type4 unit draws as much as a fully loaded EARTH macro cell"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StationHours:
    """Hours of base stations in which every carrier reported its load; arrays [rows]."""

    station: NDArray[Any]
    unit_type: NDArray[Any]
    energy: FloatArray
    radiated_w: FloatArray
    maximum_w: FloatArray
    antennas: FloatArray
    shutdown: FloatArray
    symbol: FloatArray

    def of_type(self, unit_type: str) -> StationHours:
        """The rows of one kind of radio unit."""
        rows = self.unit_type == unit_type
        return StationHours(**{name: getattr(self, name)[rows] for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class FitErrors:
    """Errors on base stations that the fit has not seen: mean absolute (units), mean relative, R^2."""

    mae: float
    mape: float
    r2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeFit:
    """The fit of one kind of radio unit; energy per hour in the publisher's units.

    ``antenna``, ``shutdown`` and ``symbol`` are None where the data cannot tell. ``idle``, ``full``, ``micro`` and
    ``sleep`` are of the usual unit: the median of antennas and transmit power. ``borrowed`` names those of the last
    two that are the mean ratio to idle of other types. A type of too few stations is not ``usable``: its effects
    may add up to more than idle power, and then the powers asleep are 0.
    """

    name: str
    ru_type: str
    usable: bool
    stations: int
    hours: int
    constant: float
    antenna: float | None
    slope: float
    shutdown: float | None
    symbol: float | None
    antennas: float
    maximum_w: float
    idle: float
    full: float
    micro: float
    sleep: float
    borrowed: tuple[str, ...]
    held_out: FitErrors
    mean_rival: FitErrors
    earth_rival: FitErrors


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """Fits by kind of radio unit, and the scale that turns their units into W."""

    rows: tuple[TypeFit, ...]
    watts_per_unit: float


def station_hours(data: BaseStations) -> StationHours:
    """Join cells, loads and energy; hours in which a carrier's load is missing are left out.

    Raises:
        ConfigurationError: a row of loads or energy names a cell or base station that the table of cells lacks.
    """
    stations, of_cell = np.unique(data.cells.station, return_inverse=True)
    cell_key = _keys(of_cell, data.cells.cell)
    order = np.argsort(cell_key)
    load_station = _find(stations, data.loads.station, "bs of load.parquet")
    load_cell = _find(cell_key[order], _keys(load_station, data.loads.cell), "cell of load.parquet")
    row_cell = order[load_cell]

    hours, load_slot = np.unique(_slots(load_station, data.loads.time), return_inverse=True)

    def total(values: NDArray[Any]) -> FloatArray:
        return np.bincount(load_slot, weights=values, minlength=hours.size).astype(np.float64)

    def largest(values: NDArray[Any]) -> FloatArray:
        out = np.zeros(hours.size)
        np.maximum.at(out, load_slot, values)
        return out

    maximum_w = data.cells.maximum_w[row_cell]
    saving = data.loads.saving
    table = {
        "radiated_w": total(data.loads.load * maximum_w),
        "maximum_w": total(maximum_w),
        "antennas": largest(data.cells.antennas[row_cell].astype(np.float64)),
        "shutdown": largest(np.maximum(saving[:, 0], saving[:, 1])),
        "symbol": largest(saving[:, 5]),
    }
    carriers = np.bincount(of_cell, minlength=stations.size)
    energy_station = _find(stations, data.energy.station, "bs of energy.parquet")
    slot = _slots(energy_station, data.energy.time)
    place = np.minimum(np.searchsorted(hours, slot), hours.size - 1)
    whole = (hours[place] == slot) & (total(np.ones(load_slot.size))[place] == carriers[energy_station])
    unit_type = np.empty(stations.size, dtype=object)
    unit_type[of_cell] = data.cells.unit_type
    return StationHours(
        station=data.energy.station[whole],
        unit_type=unit_type[energy_station[whole]],
        energy=data.energy.energy[whole],
        **{name: values[place[whole]] for name, values in table.items()},
    )


def fit_power_models(data_dir: str | Path | None = None) -> FitReport:
    """Fit every kind of radio unit with at least ten measured base stations.

    Args:
        data_dir: folder that holds ``base_station_energy``; default: ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: the data is not there, a row names a cell that the table of cells lacks, or the type that
            sets the scale was measured at too few base stations.
    """
    hours = station_hours(read_base_stations(data_dir))
    fits = {}
    for unit_type in sorted(set(hours.unit_type), key=lambda name: (len(name), name)):
        rows = hours.of_type(unit_type)
        if np.unique(rows.station).size >= ENOUGH_TO_REPORT:
            fits[unit_type] = _fit(unit_type, rows)
    trusted = [fit for fit in fits.values() if fit["usable"]]
    micro_ratio = _mean_ratio(trusted, "symbol")
    sleep_ratio = _mean_ratio(trusted, "shutdown")
    complete = tuple(_with_sleep(fit, micro_ratio, sleep_ratio) for fit in fits.values())
    typical = [row.full for row in complete if row.ru_type == TYPICAL_TYPE]
    if not typical:
        raise ConfigurationError(
            f"fewer than {ENOUGH_TO_REPORT} base stations of {TYPICAL_TYPE}, which sets the scale in W",
            field="data_dir",
        )
    return FitReport(rows=complete, watts_per_unit=EARTH_FULL_W / typical[0])


def part_of(station: str) -> int:
    """The part, 0 to 4, into which a hash of its name deals a base station."""
    return int.from_bytes(hashlib.sha256(station.encode()).digest()[:8], "big") % PARTS


def _find(known: NDArray[Any], wanted: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Places of the wanted names in the known, sorted ones."""
    place = np.minimum(np.searchsorted(known, wanted), known.size - 1)
    strange = np.flatnonzero(known[place] != wanted)
    if strange.size:
        raise ConfigurationError(f"{what} holds {wanted[strange[0]]!r}, which cells.parquet lacks", field=what)
    return np.asarray(place, dtype=np.int64)


def _keys(station: NDArray[Any], cell: NDArray[Any]) -> NDArray[Any]:
    return np.char.add(station.astype(str), np.char.add("/", cell.astype(str)))


def _slots(station: NDArray[Any], time: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """One number per base station and hour."""
    return station.astype(np.int64) * 10_000_000 + time.astype("datetime64[h]").astype(np.int64)


def _features(rows: StationHours) -> dict[str, FloatArray]:
    """The columns whose effect these rows can tell."""
    columns = {"constant": np.ones(rows.energy.size), "slope": rows.radiated_w}
    stations, first = np.unique(rows.station, return_index=True)
    usual = np.median(rows.antennas[first])
    if np.count_nonzero(rows.antennas[first] != usual) >= ENOUGH_TO_COUNT:
        columns["antenna"] = rows.antennas
    for name in ("shutdown", "symbol"):
        share = getattr(rows, name)
        if np.unique(rows.station[share > 0]).size >= min(ENOUGH_TO_COUNT, stations.size):
            columns[name] = share
    return columns


def _solve(columns: dict[str, FloatArray], energy: FloatArray) -> FloatArray:
    lower = [0.0 if name in {"slope", "antenna"} else -np.inf for name in columns]
    upper = [0.0 if name in {"shutdown", "symbol"} else np.inf for name in columns]
    return np.asarray(lsq_linear(np.column_stack(list(columns.values())), energy, (lower, upper)).x, dtype=np.float64)


def _held_out(columns: dict[str, FloatArray], rows: StationHours, part: NDArray[np.int64]) -> FitErrors:
    """Errors of predicting each part from the others."""
    matrix, predicted = np.column_stack(list(columns.values())), np.zeros(rows.energy.size)
    for number in np.unique(part):
        test = part == number
        seen = {name: values[~test] for name, values in columns.items()}
        predicted[test] = matrix[test] @ _solve(seen, rows.energy[~test])
    error = predicted - rows.energy
    spread = rows.energy - rows.energy.mean()
    return FitErrors(
        mae=float(np.abs(error).mean()),
        mape=float((np.abs(error) / rows.energy).mean()),
        r2=float(1.0 - (error @ error) / (spread @ spread)),
    )


def _fit(unit_type: str, rows: StationHours) -> dict[str, Any]:
    part = np.array([part_of(station) for station in rows.station])
    columns = _features(rows)
    found = dict(zip(columns, _solve(columns, rows.energy).tolist(), strict=True))
    stations, first = np.unique(rows.station, return_index=True)
    antennas, maximum_w = float(np.median(rows.antennas[first])), float(np.median(rows.maximum_w[first]))
    idle = found["constant"] + found.get("antenna", 0.0) * antennas
    earth = EARTH_IDLE_W + (EARTH_FULL_W - EARTH_IDLE_W) * rows.radiated_w / rows.maximum_w
    return {
        "name": unit_type.lower(),
        "ru_type": unit_type,
        "usable": stations.size >= ENOUGH_TO_USE and found["slope"] > 0.0,
        "stations": int(stations.size),
        "hours": int(rows.energy.size),
        "constant": found["constant"],
        "antenna": found.get("antenna"),
        "slope": found["slope"],
        "shutdown": found.get("shutdown"),
        "symbol": found.get("symbol"),
        "antennas": antennas,
        "maximum_w": maximum_w,
        "idle": idle,
        "full": idle + found["slope"] * maximum_w,
        "held_out": _held_out(columns, rows, part),
        "mean_rival": _held_out({"constant": np.ones(rows.energy.size)}, rows, part),
        "earth_rival": _held_out({"slope": earth}, rows, part),
    }


def _mean_ratio(fits: list[dict[str, Any]], mode: str) -> float:
    """Power in a saving mode over idle power, the plain mean over the types that show it (1: none does)."""
    ratios = [1.0 + fit[mode] / fit["idle"] for fit in fits if fit[mode] is not None]
    return float(np.mean(ratios)) if ratios else 1.0


def _with_sleep(fit: dict[str, Any], micro_ratio: float, sleep_ratio: float) -> TypeFit:
    """Add the powers asleep; a deeper sleep never draws more, and what was measured wins over what is borrowed."""
    idle = fit["idle"]
    micro = idle * micro_ratio if fit["symbol"] is None else max(0.0, idle + fit["symbol"])
    sleep = idle * sleep_ratio if fit["shutdown"] is None else max(0.0, idle + fit["shutdown"])
    borrowed = tuple(name for name, mode in (("micro", "symbol"), ("sleep", "shutdown")) if fit[mode] is None)
    if sleep > micro:
        micro, sleep = (sleep, sleep) if "micro" in borrowed else (micro, micro)
    return TypeFit(**fit, micro=micro, sleep=sleep, borrowed=borrowed)


def to_document(report: FitReport) -> dict[str, Any]:
    """The report as JSON types, six significant digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner) for inner in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    rows = [plain(asdict(row)) for row in report.rows]
    return {"schema_version": 1, "source": SOURCE, "watts_per_unit": plain(report.watts_per_unit), "types": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print the errors by type and write the coefficients; returns the exit status."""
    parser = argparse.ArgumentParser(description=fit_power_models.__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data-dir", help="folder that holds base_station_energy (default: RLAAS_DATA_DIR)")
    parser.add_argument("--output", type=Path, required=True, help="models.json to write")
    options = parser.parse_args(arguments)
    report = fit_power_models(options.data_dir)
    header = "type   stations  hours   idle   full  micro  sleep | held out: MAE  MAPE  R^2 | R^2 of mean  EARTH | use"
    sys.stdout.write(header + "\n")
    for row in report.rows:
        sys.stdout.write(
            f"{row.ru_type:7}{row.stations:8}{row.hours:7}{row.idle:7.2f}{row.full:7.2f}{row.micro:7.2f}"
            f"{row.sleep:7.2f} | {row.held_out.mae:13.2f}{row.held_out.mape:6.1%}{row.held_out.r2:5.2f} | "
            f"{row.mean_rival.r2:11.2f}{row.earth_rival.r2:7.2f} | {'yes' if row.usable else 'no'}\n"
        )
    options.output.write_text(json.dumps(to_document(report), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
