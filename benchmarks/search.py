"""NSGA-III against pymoo's own loop (time and distance reached), and a pool of actors against one process.

    python -m benchmarks.search [--quick] [--json]

The engine behind ``rlaas.optimization.minimize`` is pymoo's for now, so the first rows measure what asking, telling and
keeping unknown candidates out costs: a ratio of 1 is expected, a ratio below it is our overhead.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

# Before numpy is loaded: several threads per process would measure how they fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
import ray
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.optimize import minimize as pymoo_minimize
from pymoo.problems import get_problem

from benchmarks.harness import Row, parse_arguments, report
from rlaas.fronts import non_dominated
from rlaas.optimization import ActorPool, FunctionProblem, igd, minimize, reference_directions

FloatArray = NDArray[np.float64]
PYMOO = f"pymoo {version('pymoo')}"


def generations_rows(generations: int, seeds: int) -> list[Row]:
    """DTLZ2 with 3 objectives, 12 variables and 91 directions, by ours and by pymoo, in turn for each seed."""
    problem = get_problem("dtlz2", n_var=12, n_obj=3)
    directions = reference_directions(3)
    true_front = problem.pareto_front(directions)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    minimize(problem, generations=2)  # loads code; pymoo's own loop runs through the same modules
    for seed in range(seeds):
        result = minimize(problem, generations=generations, seed=seed)
        ours.append((result.seconds, igd(result.F, true_front)))
        started = time.perf_counter()
        other = pymoo_minimize(problem, NSGA3(ref_dirs=directions), ("n_gen", generations), seed=seed)
        seconds = time.perf_counter() - started
        F = other.pop.get("F")
        theirs.append((seconds, igd(F[non_dominated(F)], true_front)))
    name = f"DTLZ2, 3 objectives, 91 directions, {generations} generations, median of {seeds} seeds"

    def row(column: int, what: str, unit: str, scale: float) -> Row:
        mine, his = (scale * statistics.median(run[column] for run in runs) for runs in (ours, theirs))
        return Row(f"{what}, {name}", unit, mine, PYMOO, his, better="lower")

    return [row(0, "NSGA-III time", "ms/generation", 1000 / generations), row(1, "NSGA-III IGD", "distance", 1.0)]


def slow_squares(row_seconds: float, X: FloatArray) -> FloatArray:
    """Two objectives, after keeping the processor busy for ``row_seconds`` per row."""
    until = time.process_time() + row_seconds * len(X)
    while time.process_time() < until:
        pass
    return np.stack([(X**2).sum(axis=1), ((X - 1) ** 2).sum(axis=1)], axis=1)


def slow_problem(row_seconds: float) -> FunctionProblem:
    """A problem whose evaluation takes ``row_seconds`` of processor time per candidate."""
    return FunctionProblem(functools.partial(slow_squares, row_seconds), np.zeros(4), np.ones(4), n_obj=2)


def pool_rows(workers: int, row_seconds: float, repeats: int) -> list[Row]:
    """One generation of 91 slow candidates: actors against the same process, in turn."""
    X = np.random.default_rng(0).uniform(size=(91, 4))
    problem = slow_problem(row_seconds)
    with tempfile.TemporaryDirectory(prefix="rl-bench-", dir="/tmp") as folder:
        ray.init(
            num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=folder
        )
        try:
            with ActorPool(functools.partial(slow_problem, row_seconds), workers=workers) as pool:
                pool.evaluate(X[: 2 * workers])  # warm: the first call loads code in the actors
                pooled, alone = [], []
                for _ in range(repeats):
                    pooled.append(_seconds(lambda: pool.evaluate(X)))
                    alone.append(_seconds(lambda: problem.evaluate(X)))
        finally:
            ray.shutdown()
    what = f"91 candidates of {1000 * row_seconds:g} ms each on {workers} actors, median of {repeats}"
    return [
        Row(what, "s/generation", statistics.median(pooled), "one process", statistics.median(alone), better="lower")
    ]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    arguments = parse_arguments("search")
    generations, seeds, repeats = (30, 1, 1) if arguments.quick else (250, 5, 3)
    workers = max(2, min(8, os.cpu_count() or 2))
    rows = generations_rows(generations, seeds)
    for row_seconds in (0.001, 0.01):
        rows += pool_rows(workers, row_seconds, repeats)
    report("search", rows, arguments.json)


if __name__ == "__main__":
    main()
