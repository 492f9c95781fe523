"""Choosing from a front: switching mode by lookup against choosing anew, and against pymcdm's TOPSIS alone.

    python -m benchmarks.decisions [--quick] [--json]

200 candidates with four objectives, the modes of network5g. Our figures hand out a certificate each time; pymcdm
computes scores. Then what a full resolution costs by method.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pymcdm.methods import TOPSIS
from pymcdm.normalizations import vector_normalization

from benchmarks.harness import Row, parse_arguments, report
from rlaas.decisions import METHODS, Resolver, resolve
from rlaas.fronts import Candidate, Front
from rlaas.scenarios import load


def front_of(count: int, seed: int) -> Front:
    """A front of network5g [count, 4] on a curved surface."""
    objectives = load("network5g").objectives
    goodness = np.abs(np.random.default_rng(seed).normal(size=(count, len(objectives))))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    up = np.array([o.direction == "maximize" for o in objectives])
    low, span = np.array([o.low for o in objectives]), np.array([o.high - o.low for o in objectives])
    values = low + np.where(up, goodness, 1 - goodness) * span
    return Front.of(
        "network5g",
        objectives,
        [
            Candidate(name=f"c{i}", kind="configuration", mean=tuple(row.tolist()), half_width=(0.0,) * len(row))
            for i, row in enumerate(values)
        ],
    )


def microseconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        work()
        spent.append((time.perf_counter_ns() - started) / 1000)
    return statistics.median(spent)


def main() -> None:
    arguments = parse_arguments("decisions")
    front, modes = front_of(200, 1), load("network5g").modes
    names = list(modes)
    resolver = Resolver(front, modes)
    for name in names:
        resolver.choose(name)
    turn = 0

    def switch() -> None:
        nonlocal turn
        turn += 1
        resolver.choose(names[turn % len(names)])

    values = front.values()
    types = np.array([o.sign for o in front.objectives])
    weights = modes["emergency"].preference.array()
    rival = TOPSIS(vector_normalization)
    lookup = microseconds(switch, 2_000 if arguments.quick else 100_000)
    anew = microseconds(lambda: resolve(front, mode=modes["emergency"]), 2 if arguments.quick else 20)
    scored = microseconds(lambda: rival(values, weights, types).argmax(), 50 if arguments.quick else 2_000)
    what = "switching mode among 200 candidates, with its certificate"
    rows = [
        Row(what, "us", lookup, "pymcdm, scores of one mode", scored, better="lower"),
        Row(what, "us", lookup, "ours, resolving anew with its certificate", anew, better="lower"),
    ]
    for method in METHODS:
        spent = microseconds(
            lambda m=method: resolve(front, mode=modes["emergency"], method=m), 1 if arguments.quick else 5
        )
        rows.append(Row(f"resolving anew by {method}", "us", spent, "ours, topsis", anew, better="lower"))
    report("decisions", rows, arguments.json)


if __name__ == "__main__":
    main()
