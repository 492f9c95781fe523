"""Sections of the calibration report about base stations: energy by unit type, and hourly demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlaas.scenarios.network5g.measured.base_stations import HOURLY_DEMAND, read_base_stations
from rlaas.scenarios.network5g.power.fitting import fit_power_models, part_of
from rlaas.scenarios.reports import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["demand_section", "energy_section"]


def energy_section(data_dir: str | Path | None) -> tuple[Section, str]:
    """Errors of the fitted power models on base stations that they have not seen, and the section in one sentence.

    Args:
        data_dir: folder that holds ``base_station_energy``; default: ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: the data is not there.
    """
    report = fit_power_models(data_dir)
    rows = [
        (
            fit.ru_type,
            fit.stations,
            fit.hours,
            fit.held_out.mae,
            100 * fit.held_out.mape,
            fit.held_out.r2,
            fit.mean_rival.r2,
            100 * fit.earth_rival.mape,
            "yes" if fit.usable else "no",
        )
        for fit in report.rows
    ]
    used = [fit for fit in report.rows if fit.usable]
    stations = np.array([fit.stations for fit in used])
    error = float(np.average([100 * fit.held_out.mape for fit in used], weights=stations))
    worst = max(used, key=lambda fit: fit.held_out.mape)
    section = Section(
        title="Energy by unit type, on held-out base stations",
        text=(
            (
                "Each base station's hourly energy is predicted by a fit to the other four fifths of the stations of "
                "its type (load, antennas, saving modes). Errors are in the publisher's units; the rivals are the "
                "type's mean and the EARTH macro cell times one fitted factor. Types of fewer than 20 do not ship."
            ),
        ),
        header=("unit", "stations", "hours", "MAE", "error %", "R^2", "R^2 of mean", "EARTH error %", "ships"),
        rows=rows,
        figures={"energy": _energy_figure(rows)},
        notes=(
            (
                "The source scales energy by an undisclosed unit; in W the fits are anchored at EARTH's full macro "
                "cell, so relative errors mean something and watts are EARTH's. Weather and other equipment "
                "at the site are not in the data: they are part of the error."
            ),
        ),
    )
    return section, (
        f"Energy of unseen base stations is met within {error:.1f} % on average over the types that ship "
        f"(worst: {worst.ru_type}, {100 * worst.held_out.mape:.1f} %)."
    )


def _energy_figure(rows: Sequence[tuple[str | float, ...]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(rows))
    axes.bar(at - 0.2, [float(row[4]) for row in rows], 0.4, label="fit")
    axes.bar(at + 0.2, [float(row[7]) for row in rows], 0.4, label="EARTH, scaled")
    axes.set_xticks(at, [str(row[0]) for row in rows])
    axes.set_ylabel("mean error on unseen stations [%]")
    axes.legend()
    return figure


def demand_section(data_dir: str | Path | None) -> tuple[Section, str]:
    """The simulator's demand by hour beside that of two groups of stations, and the section in one sentence.

    Args:
        data_dir: folder that holds ``base_station_energy``; default: ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: the data is not there.
    """
    from matplotlib.figure import Figure

    loads = read_base_stations(data_dir).loads
    hour = loads.time.astype("datetime64[h]").astype(np.int64) % 24
    names, index = np.unique(loads.station, return_inverse=True)
    part = np.array([part_of(str(name)) for name in names])[index]
    curves = []
    for chosen in (part < 3, part >= 3):
        mean = np.bincount(hour[chosen], loads.load[chosen], 24) / np.bincount(hour[chosen], minlength=24)
        curves.append(mean / mean.mean())
    ours = np.array(HOURLY_DEMAND)
    gap = float(np.abs(curves[0] - curves[1]).max())
    figure = Figure(figsize=(6.5, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(ours, label="simulator", lw=2)
    for curve, label in zip(curves, ("3/5 of the stations", "the other 2/5"), strict=True):
        axes.plot(curve, label=label, ls="--")
    axes.set_xlabel("hour of the day")
    axes.set_ylabel("load over the day's mean")
    axes.legend()
    section = Section(
        title="Hourly demand",
        text=(
            (
                "The simulator's arrivals follow the mean load of all measured cells by hour. How far such a curve "
                "carries to stations it was not made from shows when it is made from three fifths of the stations and "
                "compared with the rest."
            ),
        ),
        header=("hour", "simulator", "3/5 of the stations", "the other 2/5"),
        rows=[(h, float(ours[h]), float(curves[0][h]), float(curves[1][h])) for h in range(0, 24, 3)],
        figures={"demand": figure},
        notes=(
            (
                "Load is what was served, not what was asked for: where cells were full, demand was higher. One curve "
                "stands for all cells; offices and homes peak at different hours."
            ),
        ),
    )
    return section, f"Hourly demand of two groups of stations differs by at most {gap:.2f} of the daily mean."
