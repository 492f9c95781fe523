"""Hourly load and energy of real base stations (ITU AI/ML in 5G challenge, 5G energy consumption modelling).

Three files lie under ``base_station_energy/``: ``cells.parquet`` (one row per cell: kind of radio unit, bandwidth,
antennas, transmit power), ``load.parquet`` (one row per cell and hour) and ``energy.parquet`` (one row per base station
and hour). Energy is in units of the publisher's own choosing. So are frequency and transmit power, but the latter
betrays itself: 6.69 times the figure is a whole number of dBm for nearly all cells (46 dBm for 20 MHz, 43 dBm for 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.measured.sources import data_directory, read_columns

__all__ = [
    "HOURLY_DEMAND",
    "BaseStations",
    "CellLoads",
    "Cells",
    "StationEnergy",
    "hourly_demand",
    "read_base_stations",
]

DBM_PER_POWER_UNIT = 6.69
"""Transmit power is published as dBm over this number (inferred: see the module's docstring)."""

SAVING_MODES = 6

# Mean load of all cells by hour of the day over its mean over the day; ITU challenge data, 763 base stations,
# 1 to 6 January 2023. A test computes it anew.
# fmt: off
HOURLY_DEMAND: tuple[float, ...] = (
    1.1699, 0.9160, 0.6260, 0.4391, 0.3228, 0.2737, 0.2689, 0.3952,
    0.6939, 0.9191, 0.9832, 1.0624, 1.1509, 1.2861, 1.3713, 1.2876,
    1.3193, 1.3953, 1.4080, 1.4315, 1.3371, 1.2953, 1.3191, 1.3280,
)
# fmt: on
"""Demand by hour of the day (0 to 23), relative to the mean of the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Cells of the base stations; arrays [cells]. ``maximum_w`` is the transmit power in W."""

    station: NDArray[Any]
    cell: NDArray[Any]
    unit_type: NDArray[Any]
    mode: NDArray[Any]
    frequency: NDArray[np.float64]
    bandwidth_mhz: NDArray[np.int64]
    antennas: NDArray[np.int64]
    maximum_w: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLoads:
    """Hourly rows of cells; arrays [rows], ``saving`` [rows, 6]: share of the hour in each energy-saving mode."""

    time: NDArray[np.datetime64]
    station: NDArray[Any]
    cell: NDArray[Any]
    load: NDArray[np.float64]
    saving: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StationEnergy:
    """Hourly energy of base stations; arrays [rows], in the publisher's units."""

    time: NDArray[np.datetime64]
    station: NDArray[Any]
    energy: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseStations:
    """The three tables together."""

    cells: Cells
    loads: CellLoads
    energy: StationEnergy


def read_base_stations(data_dir: str | Path | None = None) -> BaseStations:
    """Read the three tables.

    Args:
        data_dir: folder that holds ``base_station_energy``; default: ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: no folder, a file or a column of it is missing.
    """
    folder = data_directory(data_dir) / "base_station_energy"
    cells = read_columns(
        folder / "cells.parquet",
        ["bs", "cell", "ru_type", "mode", "frequency_mhz", "bandwidth_mhz", "antennas", "tx_power"],
    )
    modes = [f"ESMode{number + 1}" for number in range(SAVING_MODES)]
    loads = read_columns(folder / "load.parquet", ["time", "bs", "cell", "load", *modes])
    energy = read_columns(folder / "energy.parquet", ["time", "bs", "energy"])
    return BaseStations(
        cells=Cells(
            station=cells["bs"],
            cell=cells["cell"],
            unit_type=cells["ru_type"],
            mode=cells["mode"],
            frequency=cells["frequency_mhz"],
            bandwidth_mhz=cells["bandwidth_mhz"],
            antennas=cells["antennas"],
            maximum_w=10.0 ** (DBM_PER_POWER_UNIT * cells["tx_power"] / 10.0) / 1e3,
        ),
        loads=CellLoads(
            time=loads["time"],
            station=loads["bs"],
            cell=loads["cell"],
            load=loads["load"],
            saving=np.column_stack([loads[mode] for mode in modes]).astype(np.float64),
        ),
        energy=StationEnergy(time=energy["time"], station=energy["bs"], energy=energy["energy"]),
    )


def hourly_demand(data_dir: str | Path | None = None) -> NDArray[np.float64]:
    """Mean load of all cells by hour of the day over its mean over the day [24].

    Raises:
        ConfigurationError: as :func:`read_base_stations`.
    """
    loads = read_base_stations(data_dir).loads
    hour = (loads.time.astype("datetime64[h]").astype(np.int64)) % 24
    mean = np.bincount(hour, weights=loads.load, minlength=24) / np.bincount(hour, minlength=24)
    return np.asarray(mean / mean.mean(), dtype=np.float64)
