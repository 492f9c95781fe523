"""Searches on a pool of Ray actors whose evaluations wait, as for a simulator elsewhere.

Rows of ``python -m benchmarks.optimization --only spread``. Evaluations sleep, so that sixteen actors fit on any
machine and what is measured is how the ways keep them busy, not how many processors there are.

* uneven (lognormal, coefficient of variation 1, mean 20 ms): share of the workers' time spent evaluating, and time
  until the hypervolume that the slower way ends with is reached, asynchronous against batched synchronous.
* even (20 ms each): candidates per second of the batched way, as the planner cuts it, against one process, per worker.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Actors that only sleep have to wake on time beside the driver; Ray would let them wait behind it.
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
import ray
from numpy.typing import NDArray

from benchmarks.harness import Row
from rlaas.optimization import FunctionProblem, Generation, Population, SpreadResult, spread_search

FloatArray = NDArray[np.float64]

MEAN_S = 0.020
N_VAR = 8
MEMBERS = 92
REFERENCE = [1.1, 1.1]


def zdt1_asleep(cv: float, X: FloatArray) -> FloatArray:
    """ZDT1 (Zitzler, Deb & Thiele 2000), each candidate after a sleep whose length its variables decide."""
    spread = np.sqrt(np.log1p(cv**2))
    values = np.empty((len(X), 2))
    for i, x in enumerate(X):
        draw = np.random.default_rng(np.frombuffer(x.tobytes(), dtype=np.uint32)).normal()
        time.sleep(MEAN_S * np.exp(spread * draw - spread**2 / 2))
        g = 1 + 9 * x[1:].mean()
        values[i] = x[0], g * (1 - np.sqrt(x[0] / g))
    return values


def sleepy_problem(cv: float) -> FunctionProblem:
    """ZDT1 whose evaluations take 20 ms on average."""
    return FunctionProblem(functools.partial(zdt1_asleep, cv), np.zeros(N_VAR), np.ones(N_VAR), n_obj=2)


class Curve:
    """Hypervolume over wall time."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.points: list[tuple[float, float]] = []

    def __call__(self, entry: Generation, _: Population) -> None:
        """Note a generation."""
        self.points.append((time.perf_counter() - self.started, entry.hypervolume or 0.0))

    def seconds_to(self, volume: float) -> float:
        """Wall time at which ``volume`` was reached."""
        return next(at for at, reached in self.points if reached >= volume)


def searched(
    way: str, cv: float, workers: int, generations: int, seed: int, members: int = MEMBERS
) -> tuple[SpreadResult, Curve]:
    """One search, and its curve from when its workers were up; ``auto`` is batched as the planner cuts it."""
    curve = Curve()
    done = spread_search(
        functools.partial(sleepy_problem, cv),
        way=way,
        ways=("batched",),
        workers=workers,
        generations=generations,
        population=members,
        seed=seed,
        reference=REFERENCE,
        rows_per_call=None if way == "auto" else 1,
        cpus_per_worker=0.5,
        watch=curve,
    )
    # The pool's start is part of neither way.
    late = curve.points[-1][0] - wall_seconds(done, workers)
    curve.points = [(at - late, volume) for at, volume in curve.points]
    return done, curve


def wall_seconds(done: SpreadResult, workers: int) -> float:
    """Wall time of a search from when its workers were up."""
    return done.usage.busy_seconds / (done.busy_share * workers)


def spread_rows(workers: int, generations: int, seeds: Sequence[int]) -> list[Row]:
    """Asynchronous against batched with uneven evaluations, batched against one process with even ones."""
    with tempfile.TemporaryDirectory(prefix="rlaas-bench-", dir="/tmp") as folder:
        ray.init(
            num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=folder
        )
        try:
            return _uneven_rows(workers, generations, seeds) + _even_rows(workers, generations, seeds)
        finally:
            ray.shutdown()


def _uneven_rows(workers: int, generations: int, seeds: Sequence[int]) -> list[Row]:
    busy: dict[str, list[float]] = {"asynchronous": [], "batched": []}
    times: dict[str, list[float]] = {"asynchronous": [], "batched": []}
    for seed in seeds:
        curves = {}
        for way, shares in busy.items():
            done, curves[way] = searched(way, 1.0, workers, generations, seed)
            shares.append(done.busy_share)
        volume = min(curve.points[-1][1] for curve in curves.values())
        for way, curve in curves.items():
            times[way].append(curve.seconds_to(volume))
    what = f"{workers} actors, lognormal evaluations of 20 ms, cv 1, {len(seeds)} seeds"
    return [
        Row(
            f"{what}: share of the workers' time spent evaluating, asynchronous",
            "share",
            statistics.median(busy["asynchronous"]),
            "ours, batched",
            statistics.median(busy["batched"]),
        ),
        Row(
            f"{what}: time to equal hypervolume after {generations} generations, asynchronous",
            "s",
            statistics.median(times["asynchronous"]),
            "ours, batched",
            statistics.median(times["batched"]),
            better="lower",
        ),
    ]


def _even_rows(workers: int, generations: int, seeds: Sequence[int]) -> list[Row]:
    X = np.random.default_rng(0).random((50, N_VAR))
    started = time.perf_counter()
    sleepy_problem(0.0).evaluate(X)
    alone = len(X) / (time.perf_counter() - started)
    rows = []
    # 92 fill six rounds of sixteen but for four places; 208 are thirteen whole rounds.
    for members in (MEMBERS, 13 * workers):
        rates = []
        for seed in seeds:
            done, _ = searched("auto", 0.0, workers, generations, seed, members)
            rates.append(done.found.evaluations / wall_seconds(done, workers))
        what = f"{workers} actors, even evaluations of 20 ms, {members} a generation, batched: candidates/s of each"
        rows.append(Row(what, "1/s", statistics.median(rates) / workers, "ours, one process", alone))
    return rows
