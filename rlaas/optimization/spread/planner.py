"""Which way to spread a search: predicted from what its evaluations cost, and said in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown
from rlaas.optimization.spread.islands import EPOCH_GENERATIONS, island_count
from rlaas.optimization.spread.trial import EvaluationTimes
from rlaas.optimization.spread.workers import MIN_CALL_SECONDS

__all__ = ["WAYS", "Overheads", "Plan", "busy_share", "plan"]

FloatArray = NDArray[np.float64]

WAYS = ("serial", "batched", "asynchronous", "islands")
"""In this process; in generations on a pool; in a steady flow on a pool; in sub-populations on a pool."""

LEAST_GAIN = {"batched": 1.1, "asynchronous": 1.15, "islands": 1.3}
"""What a way must gain over the ones before it. Predictions are not better than the first; a steady flow gives up that
a seed repeats the result; islands change the search itself."""

NEVER_BELOW = 1e-3
"""Seconds of an evaluation below which single candidates are never sent away: a call alone costs as much."""

LARGE_POPULATION = 500
"""Members from which on islands are considered; in a small population they would be villages."""

_REPLICATES = 128
_MAX_SIMULATED_CALLS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """What calls cost; the defaults were measured on a two-core machine with Ray 2.60.

    Attributes:
        call_seconds: a call's way there and back.
        driver_seconds: of it, what keeps the driver busy, one call after the other.
        steady_seconds: breeding and selection for one candidate in a steady flow, micro-batches included.
        epoch_seconds: sending an island there and back.
    """

    call_seconds: float = 0.0015
    driver_seconds: float = 0.0005
    steady_seconds: float = 0.0004
    epoch_seconds: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a search is spread, and why.

    Attributes:
        way: one of :data:`WAYS`.
        workers: actors.
        rows_per_call: candidates sent together; None leaves it to the pool.
        islands: sub-populations, of the way ``islands``.
        speedups: predicted for each way against the serial one; empty where the caller chose the way.
        busy: predicted share of the workers' time spent evaluating, of the ways ``batched`` and ``asynchronous``.
        times: what was measured; None where the caller chose the way.
        reason: one sentence.
    """

    way: str
    workers: int
    rows_per_call: int | None = 1
    islands: int = 1
    speedups: Mapping[str, float]
    busy: Mapping[str, float]
    times: EvaluationTimes | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "way": self.way,
            "workers": self.workers,
            "rows_per_call": self.rows_per_call,
            "islands": self.islands,
            "speedups": dict(self.speedups),
            "busy": dict(self.busy),
            "times": None if self.times is None else self.times.to_dict(),
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`."""
        times = document["times"]
        return cls(**{**document, "times": None if times is None else EvaluationTimes(**times)})


def plan(
    times: EvaluationTimes,
    *,
    workers: int,
    processors: float,
    population: int,
    generations: int | None = None,
    overheads: Overheads | None = None,
    ways: Sequence[str] = WAYS,
) -> Plan:
    """Predict the speedup of each way and pick one.

    A generation of the batched way is simulated: calls with lognormal times, each given to the worker that is free
    first (list scheduling, Graham 1969). Work that computes cannot go faster than the cluster's processors allow; work
    that waits can.

    Args:
        times: of evaluations.
        workers: actors that may be used.
        processors: processors that the cluster can really compute on.
        population: candidates in a generation.
        generations: generations to come; None for many. Few do not amortise the end of a steady flow.
        overheads: of calls.
        ways: that may be picked, ``serial`` always; ``("serial", "batched")`` keeps a search repeatable by its seed.

    Raises:
        ConfigurationError: an unknown way, a size that is not a whole number >= 1, or no processor.
    """
    for name, value in {"workers": workers, "population": population, "generations": generations}.items():
        if (value is not None or name != "generations") and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ConfigurationError(f"{name} must be a whole number >= 1, got {shown(value)}", field=name)
    for way in ways:
        check_choice(way, WAYS, field="ways")
    if not (processors > 0 and math.isfinite(processors)):
        raise ConfigurationError(f"processors must be a finite number > 0, got {processors}", field="processors")
    costs = overheads or Overheads()
    serial = population * times.row_seconds + times.selection_seconds
    speedups = {"serial": 1.0}
    busy: dict[str, float] = {}
    rows = {"serial": population, "islands": population}
    rows["batched"], batched_seconds = _batched(times, workers, processors, population, costs)
    rows["asynchronous"], steady_seconds = _asynchronous(times, workers, processors, population, generations, costs)
    effective = _effective(workers, processors, times.cores)
    for name, seconds in {"batched": batched_seconds, "asynchronous": steady_seconds}.items():
        speedups[name] = serial / seconds
        busy[name] = min(1.0, population * times.row_seconds / (effective * seconds))
    islands = island_count(population, workers)
    speedups["islands"] = serial / _islands(times, islands, processors, population, costs)
    allowed = ["batched", "asynchronous"] if times.mean >= NEVER_BELOW else []
    if islands > 1 and population >= LARGE_POPULATION:
        allowed.append("islands")
    best = "serial"
    for way in (way for way in allowed if way in ways):
        if speedups[way] > speedups[best] * LEAST_GAIN[way]:
            best = way
    return Plan(
        way=best,
        workers={"serial": 1, "islands": islands}.get(best, math.ceil(effective)),
        rows_per_call=rows[best],
        islands=islands if best == "islands" else 1,
        speedups={way: round(speedups[way], 3) for way in WAYS},
        busy={way: round(share, 3) for way, share in busy.items()},
        times=times,
        reason=_reason(best, times, math.ceil(effective), processors, population, speedups, busy, islands, ways),
    )


def busy_share(cv: float, *, population: int, workers: int, rows_per_call: int = 1) -> float:
    """Mean share of the workers' time that a synchronous generation spends evaluating, overheads apart.

    Times are lognormal with mean 1 and coefficient of variation ``cv``; calls are given to the worker that is free
    first. Simulated 64 times with the same draws on every call.
    """
    return _simulated(cv, population, workers, rows_per_call, 0.0)[1]


def _makespan(cv: float, population: int, workers: int, rows_per_call: int, fixed: float) -> float:
    """Expected end of a generation, in mean times of a row; ``fixed`` of them are added to each call."""
    return _simulated(cv, population, workers, rows_per_call, fixed)[0]


@lru_cache(maxsize=256)
def _simulated(cv: float, population: int, workers: int, rows_per_call: int, fixed: float) -> tuple[float, float]:
    """Expected end of a generation, and the mean share of the workers' time in it that was spent on its calls."""
    calls = math.ceil(population / rows_per_call)
    simulated = min(calls, _MAX_SIMULATED_CALLS)
    used = min(population, simulated * rows_per_call)
    sigma = math.sqrt(math.log1p(cv**2))
    rows = np.random.default_rng(0).lognormal(-(sigma**2) / 2, sigma, size=(_REPLICATES, used))
    rows /= rows.mean()  # the mean is known: what the sample has of it would be noise
    durations = np.add.reduceat(rows, np.arange(0, used, rows_per_call), axis=1) + fixed
    free = np.zeros((_REPLICATES, workers))
    everyone = np.arange(_REPLICATES)
    for call in range(simulated):
        free[everyone, free.argmin(axis=1)] += durations[:, call]
    # Beyond what is simulated the workers are full; only the end is uneven.
    rest = (population - used) * (1 + fixed / rows_per_call) / workers
    ends = free.max(axis=1) + rest
    return float(ends.mean()), float(((free.sum(axis=1) + rest * workers) / (workers * ends)).mean())


def _effective(workers: int, processors: float, cores: float) -> float:
    """Workers that the processors have room for, at ``cores`` each."""
    return workers if workers * cores <= processors else max(1.0, processors / cores)


def _rows_choices(population: int, workers: int) -> list[int]:
    most = math.ceil(population / workers)
    return sorted({min(2**k, most) for k in range(most.bit_length() + 1)})


def _batched(
    times: EvaluationTimes, workers: int, processors: float, population: int, costs: Overheads
) -> tuple[int, float]:
    """Best rows for a call, and the seconds of a generation with it."""
    effective = _effective(workers, processors, times.cores)
    running = math.ceil(effective)
    row = max(times.row_seconds, 1e-12)
    fixed = (times.mean - times.row_seconds) / row + costs.driver_seconds / row
    best = (1, math.inf)
    for rows in _rows_choices(population, running):
        calls = math.ceil(population / rows)
        evaluating = running / effective * row * _makespan(times.cv, population, running, rows, fixed)
        seconds = max(evaluating, calls * costs.driver_seconds) + costs.call_seconds + times.selection_seconds
        if seconds < best[1]:
            best = (rows, seconds)
    return best


def _asynchronous(
    times: EvaluationTimes,
    workers: int,
    processors: float,
    population: int,
    generations: int | None,
    costs: Overheads,
) -> tuple[int, float]:
    """Rows for a call of at least 10 ms, and the seconds of as many evaluations as a generation has."""
    effective = _effective(workers, processors, times.cores)
    running = math.ceil(effective)
    first, more = times.mean, max(times.row_seconds, 1e-12)
    rows = 1 if first >= MIN_CALL_SECONDS else 1 + math.ceil((MIN_CALL_SECONDS - first) / more)
    rows = min(rows, max(1, population // (2 * running)))
    call = first + (rows - 1) * more + costs.driver_seconds
    one = max(call / (rows * effective), costs.driver_seconds / rows + costs.steady_seconds)
    # When the last candidates are out, the workers fall idle one after the other.
    end = call * (_makespan(times.cv, running, running, 1, 0.0) - 1)
    return rows, population * one + (0.0 if generations is None else end / generations)


def _islands(times: EvaluationTimes, islands: int, processors: float, population: int, costs: Overheads) -> float:
    """Seconds of a generation on all islands at once, their meetings included."""
    members = math.ceil(population / islands)
    evaluating = times.mean - times.row_seconds + members * times.row_seconds
    selecting = times.selection_seconds / islands
    cores = (evaluating * times.cores + selecting) / max(evaluating + selecting, 1e-12)
    slow = islands / _effective(islands, processors, cores)
    # A sum of many times: nearly normal, so the last of the islands is some deviations late.
    rows = members * EPOCH_GENERATIONS
    late = 1 + times.cv * math.sqrt(2 * math.log(max(islands, 1)) / rows)
    return slow * (evaluating * late + selecting) + costs.epoch_seconds / EPOCH_GENERATIONS


def _reason(
    way: str,
    times: EvaluationTimes,
    workers: int,
    processors: float,
    population: int,
    speedups: Mapping[str, float],
    busy: Mapping[str, float],
    islands: int,
    ways: Sequence[str],
) -> str:
    measured = f"an evaluation takes {_duration(times.mean)} with cv {times.cv:.2f} ({times.samples} samples)"
    computing = times.cores * (workers + 1) > processors
    limit = f"; it computes, and on {processors:g} processors no more than that many do so at once" if computing else ""
    predicted = ", ".join(f"{name} {speedups[name]:.1f}" for name in WAYS[1:])
    match way:
        case "serial" if times.mean < NEVER_BELOW:
            why = "too little to be sent away one by one, and islands pay only in large populations on idle processors"
        case "serial":
            gains = ", ".join(
                f"{LEAST_GAIN[way] - 1:.0%} by {way}" for way in WAYS if way in LEAST_GAIN and way in ways
            )
            why = f"no way of spreading it is predicted to gain enough ({gains})"
        case "batched":
            why = f"generations of {population} keep {workers} workers {busy['batched']:.0%} busy"
        case "asynchronous":
            why = (
                f"so uneven that generations of {population} would keep {workers} workers {busy['batched']:.0%} busy, "
                f"a steady flow {busy['asynchronous']:.0%}"
            )
        case _:
            why = f"too little to be sent away one by one; {islands} islands compute whole epochs each"
    return f"{way}: {measured}: {why}{limit}; predicted speedups: {predicted}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
