"""Drift: how often it cries wolf, how soon it sees a shift, and how long a window of a million decisions takes.

    python -m benchmarks.drift [--days 300] [--streams 30] [--runs 100] [--plot docs/drift-delay.png] [--quick] [--json]

Simulated one-second means of streams with daily cycles of up to 5 sigma, autocorrelation from none to 0.5 and a traffic
that triples over the day (so that their variance changes with the hour). The watch learns two days and calibrates on
one, as it does by default. Then days on which nothing changes: false alarms at bars from 0.01 to 100 days, so that the
bound can be held against counts, not only against their absence. Then shifts of one stream, and of a quarter of them,
by 0.25 to 3 sigma of the one-second means. Beside each delay stands what no detector with this bar can beat on average,
ln(A) over the information of a second (Lorden 1971), for one stream whose shift and direction are known beforehand.
Rivals: river's ADWIN and Page-Hinkley with their defaults on the same means; SciPy's ks_2samp column by column.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from benchmarks.harness import Row, parse_arguments, report
from rlaas.monitoring import DriftConfig, Watch
from rlaas.monitoring.config import DAY_S
from rlaas.monitoring.detector import EDetector
from rlaas.monitoring.windows import ColumnReference

FloatArray = NDArray[np.float64]
START = 1_700_006_400  # midnight, UTC
SIZES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
BARS = (0.01, 0.1, 1.0, 10.0, 100.0)
LONGEST_S = 4 * 3600
LADDER_DAYS = 30
"""Days for the bars below the last, at which there is enough to count."""


class World:
    """Stationary one-second means.

    Args:
        memory: [streams] lag-one autocorrelation of each.
        rng: of everything.
    """

    def __init__(self, memory: Sequence[float], rng: np.random.Generator) -> None:
        self.memory, self.rng = np.asarray(memory), rng
        streams = len(self.memory)
        self.amplitude = rng.uniform(0, 5, (3, streams))
        self.phase = rng.uniform(0, 2 * np.pi, (3, streams))
        self.state = rng.normal(size=streams)

    def seconds(self, start: int, count: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """The next seconds: times [n], means and counts [n, streams]."""
        at = np.arange(start, start + count)
        day = 2 * np.pi * (at % DAY_S) / DAY_S
        cycle = sum(self.amplitude[h] * np.cos((h + 1) * day[:, None] + self.phase[h]) for h in range(3))
        records = 1000 * (1 + 0.5 * np.sin(day))
        noise = self.rng.normal(size=(count, len(self.memory))) * np.sqrt(1 - self.memory**2)
        for column, memory in enumerate(self.memory):
            noise[:, column], _ = lfilter([1.0], [1.0, -memory], noise[:, column], zi=[memory * self.state[column]])
        self.state = noise[-1].copy()
        width = np.sqrt(0.5 + 0.5 * 1000 / records)
        return at, cycle + noise * width[:, None], np.broadcast_to(records[:, None], noise.shape)


def learned(world: World) -> tuple[Watch, int]:
    """A watch that has learned and calibrated as it does by default, and the second after."""
    watch = Watch(DriftConfig(), [f"observation.{i}" for i in range(len(world.memory))])
    second = START
    while watch.phase != "watching":
        watch.update(*world.seconds(second, 3600))
        second += 3600
    return watch, second


@dataclass(frozen=True)
class Wolf:
    """False alarms on stationary days."""

    days: dict[float, int]
    alarms: dict[float, int]
    adwin: float
    page_hinkley: float
    ours_us: float
    river_us: float


def stationary(world: World, watch: Watch, second: int, days: int) -> Wolf:
    """Count false alarms at every bar."""
    baseline, (a, b, _), inner = watch._baseline, watch._scale, watch._detector
    assert baseline is not None
    assert inner is not None
    detectors = {bar: EDetector(inner.gain, shift=1.0, arl_s=bar * DAY_S) for bar in BARS}
    for detector in detectors.values():
        detector.psi = inner.psi
    alarms, lengths = dict.fromkeys(BARS, 0), {bar: days if bar == BARS[-1] else min(days, LADDER_DAYS) for bar in BARS}
    first: FloatArray | None = None
    spent = 0.0
    for hour in range(24 * days):
        at, means, counts = world.seconds(second, 3600)
        second += 3600
        started = time.process_time()
        scaled, width = baseline.standardise(at, means), np.sqrt(a + b / counts)
        z, slack = scaled.z / width, scaled.slack / width
        for bar, detector in detectors.items():
            if hour >= 24 * lengths[bar]:
                continue
            here = 0
            while here < len(z) and (alarm := detector.update(z[here:], slack[here:])) is not None:
                alarms[bar] += 1
                detector.restart()
                here += alarm.index + 1
        spent += time.process_time() - started
        first = means if first is None else first
    assert first is not None
    columns = first[:, :3].T.tolist()
    started = time.process_time()
    counted = [sum(_river(kind, column) for column in columns) for kind in ("ADWIN", "PageHinkley")]
    river_us = (time.process_time() - started) / (2 * 3 * 3600) * 1e6
    per_day = 24 * len(world.memory) / 3
    ours_us = spent / (sum(lengths.values()) * DAY_S * len(world.memory)) * 1e6
    return Wolf(lengths, alarms, counted[0] * per_day, counted[1] * per_day, ours_us, river_us)


def _river(kind: str, values: Sequence[float]) -> int:
    from river import drift

    detector: Any = getattr(drift, kind)()
    found = 0
    for value in values:
        detector.update(value)
        found += bool(detector.drift_detected)
    return found


def delays(world: World, state: bytes, second: int, size: float, shifted: Sequence[int], runs: int) -> FloatArray:
    """Seconds from a shift until it is seen [runs]; a false alarm before it does not occur in so short a time."""
    found = np.empty(runs)
    for run in range(runs):
        watch = Watch.load(DriftConfig(), state)
        assert watch._baseline is not None
        step = np.zeros(len(world.memory))
        moved = [(one + run) % len(world.memory) for one in shifted] if len(shifted) == 1 else shifted
        step[moved] = size * watch._baseline.sigma[moved] * (1 if run % 2 else -1)
        watch.update(*world.seconds(second, 30))
        passed, found[run] = 0, LONGEST_S
        while passed < LONGEST_S:
            part = min(120 if size >= 0.75 else 900, LONGEST_S - passed)
            at, means, counts = world.seconds(second + 30 + passed, part)
            alarms = watch.update(at, means + step, counts)
            if alarms:
                found[run] = alarms[0].second - (second + 30) + 1
                break
            passed += part
    return found


def check_speed(columns: int, rows: int, rng: np.random.Generator) -> list[Row]:
    """A window against a reference that is sorted already, beside SciPy: wall time, and time of processors."""
    before, now = rng.normal(size=(rows, columns)), rng.normal(size=(rows, columns))
    reference = ColumnReference(before)
    reference.compare(now[:1000])
    times = []
    for _ in range(5):
        started = (time.perf_counter(), time.process_time())
        found = reference.compare(now)
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    tried = min(4, columns)
    started = (time.perf_counter(), time.process_time())
    for column in range(tried):
        theirs = stats.ks_2samp(before[:, column], now[:, column], method="asymp")
        assert abs(theirs.statistic - found[column].statistic) < 1e-12
        assert abs(theirs.pvalue - found[column].p_value) < 2e-6
    rival = [
        (now - then) / tried * columns
        for now, then in zip((time.perf_counter(), time.process_time()), started, strict=True)
    ]
    what = f"KS and PSI of {columns} columns, window of {rows:,}"
    return [
        Row(what, unit, min(one[i] for one in times), "scipy.stats.ks_2samp", rival[i], better="lower")
        for i, unit in enumerate(("s", "CPU s"))
    ]


def plot(path: Path, tables: dict[str, dict[float, FloatArray]]) -> None:
    """Detection time against the size of the shift: median and 95 %."""
    from matplotlib.figure import Figure

    from rlaas.plots.style import BASELINE, PALETTE, TITLE_POINTS

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for colour, marker, (label, table) in zip(PALETTE, "osD^v*", tables.items(), strict=False):
        sizes = sorted(table)
        axes.plot(sizes, [np.median(table[s]) for s in sizes], color=colour, marker=marker, label=label)
        axes.plot(sizes, [np.quantile(table[s], 0.95) for s in sizes], color=colour, linestyle=":")
    axes.axhline(60, color=BASELINE, linewidth=1)
    axes.annotate("60 s", (SIZES[0], 62), color=BASELINE)
    axes.set(
        xscale="log", yscale="log", xlabel="shift [sigma of the one-second means]", ylabel="seconds until it is seen"
    )
    axes.set_xticks(SIZES, [f"{size:g}" for size in SIZES])
    axes.minorticks_off()
    axes.set_title("Detection time: median (line) and 95 % (dots)", fontsize=TITLE_POINTS)
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=300, help="stationary days")
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--runs", type=int, default=100, help="shifts of each size")
    parser.add_argument("--plot", type=Path, help="PNG of detection time against size")


def main() -> None:
    """Run it."""
    arguments = parse_arguments("drift", _arguments)
    days, runs = (2, 10) if arguments.quick else (arguments.days, arguments.runs)
    streams, rng = arguments.streams, np.random.default_rng(20_261_130)
    rows = check_speed(10 if arguments.quick else 100, 100_000 if arguments.quick else 1_000_000, rng)
    notes: list[str] = []

    world = World(np.linspace(0, 0.5, streams), rng)
    watch, second = learned(world)
    wolf = stationary(world, watch, second, days)
    for bar in BARS:
        # With so many alarms in so many days the mean time between them is at least this with 95 % confidence.
        length = wolf.days[bar]
        least = 2 * length / stats.chi2.ppf(0.95, 2 * (wolf.alarms[bar] + 1))
        told = length / wolf.alarms[bar] if wolf.alarms[bar] else float("inf")
        seen = "no alarm" if not wolf.alarms[bar] else f"one in {told:,.3g} days"
        what = f"false alarms, {streams} streams together, {length} days, bar {bar:g} days"
        rows.append(Row(what, "alarms", wolf.alarms[bar], "at most by the bound", length / bar, better="lower"))
        notes.append(f"bar {bar:g} days: {seen}; at least {least:,.3g} days with 95 % confidence")
    for name, per_day in (("ADWIN", wolf.adwin), ("Page-Hinkley", wolf.page_hinkley)):
        ours = wolf.alarms[100.0] / days
        rows.append(Row("false alarms a day, all streams", "alarms", ours, f"river {name}, defaults", per_day, "lower"))
    rows.append(Row("one value of one stream", "us CPU", wolf.ours_us, "river, mean of both", wolf.river_us, "lower"))

    tables: dict[str, dict[float, FloatArray]] = {}
    for memory in (0.0, 0.2, 0.4):
        still = World([memory] * streams, rng)
        trained, after = learned(still)
        state = trained.dump()
        for label, shifted in (("one stream", [0]), ("a quarter of them", list(range(0, streams, 4)))):
            if memory and label != "one stream":
                continue
            name = f"{label}, autocorrelation {memory:g}"
            tables[name] = {size: delays(still, state, after, size, shifted, runs) for size in SIZES}
            gain = np.sqrt((1 - memory) / (1 + memory))
            for size, found in tables[name].items():
                bound = np.log(100 * DAY_S) / (0.5 * (gain * size) ** 2)
                middle, most = np.median(found), np.quantile(found, 0.95)
                within = float(np.mean(found < 60))
                rows.append(
                    Row(
                        f"detection of {size:g} sigma, {name}, median",
                        "s",
                        middle,
                        "Lorden, one stream",
                        bound,
                        "lower",
                    )
                )
                notes.append(
                    f"{size:g} sigma, {name}: median {middle:.0f}, 95 % {most:.0f}, max {found.max():.0f} s; "
                    f"{100 * within:.0f} % within 60 s"
                )
    if arguments.plot is not None:
        plot(arguments.plot, tables)
    report("drift", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
