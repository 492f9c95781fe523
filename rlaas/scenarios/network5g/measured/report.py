"""The calibration report of network5g: the simulator beside measured base stations and drive tests.

Nothing here is fitted to what it is compared with. Energy errors are of base stations the fits have not seen; the
network that the drive tests ran through is unknown, so the layout that comes nearest is chosen on one half of the
traces and compared on the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.measured.comparison import DistributionComparison, compare, plot_distributions
from rlaas.scenarios.network5g.measured.drive_tests import DriveTrace, read_drive_tests, resample
from rlaas.scenarios.network5g.measured.simulated import DriveLayout, SimulatedDrive, simulate_drive
from rlaas.scenarios.network5g.measured.spatial import SpatialStatistics, rsrp_paths, spatial_statistics, speeds_m_s
from rlaas.scenarios.network5g.measured.station_sections import demand_section, energy_section
from rlaas.scenarios.reports import Report, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Budget", "calibration_report", "cut_path", "halves", "measured_handovers"]

FloatArray = NDArray[np.float64]

CLOSE, ROUGH = 0.15, 0.35
"""Wasserstein distance over the measured interquartile range up to which a distribution counts as close, or rough."""
LAGS_M = (50.0, 100.0, 200.0, 400.0)
SPATIAL_PHONES = 200
"""Simulated phones whose ways enter the spatial statistics; their pairs of places far outnumber the measured ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is simulated: the layouts tried, and networks and seconds of a drive to choose and to compare."""

    layouts: tuple[DriveLayout, ...]
    choose: tuple[int, int]
    compare: tuple[int, int]


def _grid(uma_m: Sequence[float], umi_m: Sequence[float], loads: Sequence[str]) -> tuple[DriveLayout, ...]:
    return tuple(
        DriveLayout(propagation=propagation, inter_site_m=distance, load=load)
        for propagation, distances in (("uma", uma_m), ("umi", umi_m))
        for distance in distances
        for load in loads
    )


FULL = Budget(
    layouts=_grid((300.0, 500.0, 1000.0, 1500.0), (200.0, 400.0, 600.0), ("low", "mid", "high")),
    choose=(4, 120),
    compare=(8, 600),
)
QUICK = Budget(layouts=_grid((500.0, 1000.0), (200.0,), ("mid",)), choose=(1, 40), compare=(2, 120))


def calibration_report(data_dir: str | Path | None = None, *, quick: bool = False) -> Report:
    """Compare the simulator with the measurements.

    Args:
        data_dir: folder that holds ``base_station_energy`` and ``drive_traces``; default: ``RLAAS_DATA_DIR``.
        quick: fewer layouts and shorter drives.

    Raises:
        ConfigurationError: the data is not there, or too few traces move.
    """
    budget = QUICK if quick else FULL
    energy, energy_says = energy_section(data_dir)
    demand, demand_says = demand_section(data_dir)
    traces = [trace for trace in read_drive_tests(data_dir) if trace.moves]
    first, second = halves(traces)
    layouts, best = _choose_layout(first, budget)
    networks, seconds = budget.compare
    drive = simulate_drive(best, _positions(second), networks=networks, seconds=seconds, seed=1)
    distributions, distributions_say = _distributions(drive, second, best)
    spatial, spatial_says = _spatial(drive, second, seconds)
    says = [energy_says, demand_says, *distributions_say, *spatial_says]
    amount = "A quick look: few layouts, short drives. " if quick else ""
    return Report(
        title="network5g against measurements",
        summary=(
            (
                f"{amount}Base stations: ITU AI/ML in 5G challenge (January 2023). Drive tests: Raca et al., ACM MMSys "
                f"2020, {len(traces)} traces that move. Distances of distributions are Wasserstein's, over the "
                f"interquartile range of the measurement: up to {CLOSE} is called close, up to {ROUGH} rough, more "
                "does not fit."
            ),
            "In short: " + " ".join(says),
        ),
        sections=(energy, demand, layouts, distributions, spatial),
    )


def halves(traces: Sequence[DriveTrace]) -> tuple[list[DriveTrace], list[DriveTrace]]:
    """Deal traces into two halves by a hash of their names: pieces of one drive stay together.

    Raises:
        ConfigurationError: a half is empty.
    """
    dealt: tuple[list[DriveTrace], list[DriveTrace]] = ([], [])
    for trace in traces:
        dealt[hashlib.sha256(trace.name.encode()).digest()[0] % 2].append(trace)
    if not all(dealt):
        raise ConfigurationError(
            f"{len(traces)} moving trace(s) cannot be dealt into two halves; more are needed", field="data_dir"
        )
    return dealt


def cut_path(path: tuple[FloatArray, FloatArray], rows: int) -> list[tuple[FloatArray, FloatArray]]:
    """A way (distance in m, value) [n] in pieces of ``rows`` rows, each beginning at distance 0."""
    distance, value = path
    starts = range(0, len(distance) - 1, rows)
    return [(distance[i : i + rows] - distance[i], value[i : i + rows]) for i in starts]


def measured_handovers(traces: Sequence[DriveTrace]) -> float:
    """Changes of the serving cell per km, from second to second."""
    changes = sum(int(np.count_nonzero(np.diff(trace.cell))) for trace in traces)
    return changes / (sum(float(trace.distance_m[-1]) for trace in traces) / 1e3)


def _positions(traces: Sequence[DriveTrace]) -> list[NDArray[np.float32]]:
    return [resample(trace) for trace in traces]


def _together(traces: Sequence[DriveTrace], column: str) -> FloatArray:
    return np.concatenate([getattr(trace, column) for trace in traces])


def _verdict(distance: float | None) -> str:
    if distance is None:
        return "unknown"
    return "close" if distance <= CLOSE else "rough" if distance <= ROUGH else "does not fit"


def _choose_layout(traces: Sequence[DriveTrace], budget: Budget) -> tuple[Section, DriveLayout]:
    positions = _positions(traces)
    rsrp, snr = _together(traces, "rsrp_dbm"), _together(traces, "snr_db")
    networks, seconds = budget.choose
    found: list[tuple[float, DriveLayout, DistributionComparison, DistributionComparison]] = []
    for layout in budget.layouts:
        drive = simulate_drive(layout, positions, networks=networks, seconds=seconds, seed=0)
        power = compare(drive.rsrp_dbm, rsrp, "RSRP", "dBm")
        quality = compare(drive.sinr_db, snr, "SINR", "dB")
        found.append(((_distance(power) + _distance(quality)) / 2, layout, power, quality))
    found.sort(key=lambda row: row[0])
    best = found[0][1]
    section = Section(
        title="Which layout the drive tests resemble",
        text=(
            (
                "The network behind the drive tests is unknown: carriers, powers, sites and load are not published. So "
                "layouts of 21 three-sector cells are tried on one half of the traces, and the one with the smallest "
                f"mean distance of RSRP and SINR is taken to the other half below: {best.describe()}."
            ),
        ),
        header=("layout", "RSRP distance", "RSRP shift dB", "SINR distance", "SINR shift dB", "mean distance"),
        rows=[
            (layout.describe(), _distance(power), power.median_shift, _distance(quality), quality.median_shift, score)
            for score, layout, power, quality in found
        ],
        notes=(
            (
                "Shifts are simulated less measured medians. The carrier stays at 3.5 GHz and 46 dBm: another carrier "
                "or a car body moves the level of RSRP, so a layout that comes near in level may owe it to two errors "
                "that cancel."
            ),
        ),
    )
    return section, best


def _distance(comparison: DistributionComparison) -> float:
    return float("inf") if comparison.wasserstein_iqr is None else comparison.wasserstein_iqr


def _distributions(
    drive: SimulatedDrive, traces: Sequence[DriveTrace], layout: DriveLayout
) -> tuple[Section, tuple[str, ...]]:
    downloads = [trace for trace in traces if trace.downloads]
    pairs: list[tuple[str, str, FloatArray, FloatArray]] = [
        ("RSRP", "dBm", drive.rsrp_dbm, _together(traces, "rsrp_dbm")),
        ("SINR", "dB", drive.sinr_db, _together(traces, "snr_db")),
        ("speed", "m/s", drive.speed_m_s, speeds_m_s(traces)),
    ]
    if downloads:
        rate = _together(downloads, "downlink_mbit_s")
        pairs.insert(2, ("throughput", "Mbit/s", drive.rate_mbit_s, rate))
    comparisons = [compare(ours, real, name, unit) for name, unit, ours, real in pairs]
    section = Section(
        title="Distributions against the other half of the traces",
        text=(
            (
                f"{layout.describe()}, default settings, phones outdoors on the measured ways. RSRP is per resource "
                "element. Throughput is what a user with data to send is served in a second, against the download "
                "traces; speed only checks the replay."
            ),
            (
                "*distance* is Wasserstein's over the measured interquartile range, *shape* the same once both medians "
                "are 0, KS the largest gap of the cumulative distributions."
            ),
        ),
        header=("quantity", "unit", "distance", "shape", "shift", "KS", "5 / 50 / 95 %", "measured", "verdict"),
        rows=[
            (
                c.name,
                c.unit,
                _distance(c),
                float("inf") if c.shape_iqr is None else c.shape_iqr,
                c.median_shift,
                c.ks,
                " / ".join(f"{c.quantiles[i].simulated:.1f}" for i in (0, 3, 6)),
                " / ".join(f"{c.quantiles[i].measured:.1f}" for i in (0, 3, 6)),
                _verdict(c.wasserstein_iqr),
            )
            for c in comparisons
        ],
        figures={name.lower(): plot_distributions(ours, real, name, unit) for name, unit, ours, real in pairs},
        notes=(
            (
                "Phones reported the signal of the LTE anchor and name neither carrier nor bandwidth; their SNR is an "
                "estimate of the chip's maker. Throughput there comes over several carriers and from a server behind a "
                "network, shared with unknown others; here over one carrier of 20 MHz and one layer: the level of the "
                "one says little about the other."
            ),
        ),
    )
    says = tuple(
        f"{c.name} {'is' if verdict != 'does not fit' else ''} {verdict} (distance {_distance(c):.2f}, "
        f"shift {c.median_shift:+.1f} {c.unit}).".replace("  ", " ")
        for c in comparisons
        for verdict in (_verdict(c.wasserstein_iqr),)
    )
    return section, says


def _spatial(drive: SimulatedDrive, traces: Sequence[DriveTrace], seconds: int) -> tuple[Section, tuple[str, ...]]:
    # Deviations are from each way's mean, which takes more off a short way: both sides are cut alike.
    real = spatial_statistics([piece for path in rsrp_paths(traces) for piece in cut_path(path, seconds)])
    ours = spatial_statistics(drive.paths[:SPATIAL_PHONES])
    rows: list[tuple[str, float | str, float | str]] = [
        (f"median RSRP change over {lag:g} m [dB]", _at(ours, lag), _at(real, lag)) for lag in LAGS_M
    ]
    decorrelation = [s.decorrelation_m if s.decorrelation_m is not None else "> 500" for s in (ours, real)]
    handovers = drive.handovers / drive.way_km, measured_handovers(traces)
    rows += [
        ("decorrelation distance of RSRP [m]", decorrelation[0], decorrelation[1]),
        ("spread of RSRP along a way [dB]", ours.sigma_db, real.sigma_db),
        ("handovers per km", *handovers),
    ]
    ratio = handovers[0] / handovers[1]
    section = Section(
        title="Along the way: how RSRP changes, and handovers",
        text=(
            (
                f"RSRP of the serving cell by distance driven, from the mean of each way of {seconds} s. A measured "
                "position is renewed about every 100 m only, so what happens below that is blurred. Handovers are "
                "changes of the serving cell from second to second."
            ),
        ),
        header=("quantity", "simulated", "measured"),
        rows=rows,
        figures={"spatial": _spatial_figure(ours, real)},
        notes=(
            (
                "Handovers depend on the density of sites, which is the layout's, and on thresholds that the operator "
                "keeps to itself."
            ),
        ),
    )
    fits = "fit" if 0.75 <= ratio <= 4 / 3 else "do not fit"
    says = (
        f"Handovers {fits}: {handovers[0]:.2f} per km simulated, {handovers[1]:.2f} measured.",
        f"RSRP decorrelates over {_metres(decorrelation[0])} simulated, {_metres(decorrelation[1])} measured.",
    )
    return section, says


def _metres(value: float | str) -> str:
    return f"{value} m" if isinstance(value, str) else f"{value:.0f} m"


def _at(statistics: SpatialStatistics, lag_m: float) -> float:
    return float(np.interp(lag_m, statistics.lag_m, statistics.change_db))


def _spatial_figure(ours: SpatialStatistics, real: SpatialStatistics) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    correlation, change = figure.subplots(1, 2)
    for statistics, label in ((ours, "simulated"), (real, "measured")):
        correlation.plot(statistics.lag_m, statistics.correlation, label=label)
        change.plot(statistics.lag_m, statistics.change_db, label=label)
    correlation.axhline(1 / np.e, color="grey", lw=0.8)
    correlation.set_ylabel("correlation of RSRP")
    change.set_ylabel("median change [dB]")
    for axes in (correlation, change):
        axes.set_xlabel("distance driven [m]")
        axes.legend()
    return figure
