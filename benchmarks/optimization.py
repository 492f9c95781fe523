"""Speed of the search engines on one core, against pymoo's and against our own without batches; and spread over Ray.

    python -m benchmarks.optimization [--quick] [--json] [--only generations memory ...] [--objectives 15 ...]

* ``generations``: NSGA-III on DTLZ1 to 4 at the sizes of Deb & Jain 2014 (92, 212, 156, 276 and 136 members for 3, 5,
  8, 10 and 15 objectives), and with 1,036 members for 3 objectives. Three rivals in the same run: pymoo as it evaluates
  a problem that is written for one candidate, pymoo with its own vectorised problem, and our engine calling the problem
  for one candidate after the other, which is what a search over several cores has to be compared with. A fourth row
  takes off both sides what pymoo's DTLZ costs them: at 15 objectives that is half of our generation.
* ``decomposition``: MOEA/D with the same neighbourhoods and decomposition as pymoo's.
* ``distance``: seconds until the population is as near to the true front as pymoo's is at the end.
* ``memory``: what a long search adds to the memory that Python and NumPy hold.
* ``archive``: insertions into an archive of mutually non-dominated points.
* ``spread``: ways of using sixteen Ray actors, see :mod:`benchmarks.optimization_spread`.
* ``compile``: what the first search on a machine waits for, once; not with ``--quick``.

Everything is compiled before it is timed, ours and rivals take turns, and figures are medians of the repeats.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

# Before numpy is loaded: several threads per process would measure how they fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.moead import MOEAD
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.callback import Callback
from pymoo.core.problem import ElementwiseProblem
from pymoo.functions import is_compiled
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.optimize import minimize as pymoo_minimize
from pymoo.problems import get_problem

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.optimization_spread import spread_rows
from rlaas.fronts import non_dominated
from rlaas.optimization import Archive, as_problem, igd, make_engine, minimize, reference_directions

FloatArray = NDArray[np.float64]
PYMOO = f"pymoo {version('pymoo')}"
SECTIONS = ("generations", "decomposition", "distance", "memory", "archive", "spread", "compile")

MEMBERS: Mapping[int, int] = {3: 92, 5: 212, 8: 156, 10: 276, 15: 136}
"""Population by number of objectives (Deb & Jain 2014, table I)."""
DISTANCES: Mapping[str, int] = {"dtlz1": 5, "dtlz2": 10, "dtlz3": 10, "dtlz4": 10}
"""Variables that move a candidate away from the front."""


def dtlz(name: str, n_obj: int) -> Any:
    """The problem with the number of variables that its authors recommend."""
    return get_problem(name, n_var=n_obj - 1 + DISTANCES[name], n_obj=n_obj)


class OneByOne(ElementwiseProblem):
    """A vectorised problem as if it were written for one candidate."""

    def __init__(self, problem: Any) -> None:
        super().__init__(n_var=problem.n_var, n_obj=problem.n_obj, xl=problem.xl, xu=problem.xu)
        self.inner = problem

    def _evaluate(self, x: FloatArray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        found: dict[str, Any] = {}
        self.inner._evaluate(x[np.newaxis], found)
        out["F"] = found["F"][0]


def row_by_row(problem: Any) -> Callable[[FloatArray], FloatArray]:
    """The same for our engine."""
    batched = as_problem(problem)
    return lambda X: np.vstack([batched.evaluate(x[np.newaxis]) for x in X])


def in_turns(works: Sequence[Callable[[int], object]], repeats: int) -> list[float]:
    """Median seconds of each work, called with the number of the repeat, all of them in turn in each repeat."""
    found: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats):
        for seconds, work in zip(found, works, strict=True):
            started = time.perf_counter()
            work(repeat)
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in found]


def generations_rows(name: str, n_obj: int, members: int, generations: int, repeats: int) -> list[Row]:
    """Milliseconds of a generation of NSGA-III by ours and by three rivals."""
    problem = dtlz(name, n_obj)
    alone = OneByOne(problem)
    published = members == MEMBERS.get(n_obj)
    directions = reference_directions(n_obj) if published else reference_directions(n_obj, members)
    common = {"population": members, "directions": directions, "generations": generations}
    minimize(problem, **{**common, "generations": 3})  # compiles

    def theirs(what: Any, seed: int) -> object:
        return pymoo_minimize(
            what,
            NSGA3(ref_dirs=directions, pop_size=members, crossover=SBX(prob=1.0, eta=30), mutation=PM(eta=20)),
            ("n_gen", generations),
            seed=seed,
        )

    batch = np.random.default_rng(0).uniform(problem.xl, problem.xu, (members, problem.n_var))
    ours, one_by_one, batched, serial, evaluation = in_turns(
        [
            lambda seed: minimize(problem, seed=seed, **common),
            lambda seed: theirs(alone, seed),
            lambda seed: theirs(problem, seed),
            lambda seed: minimize(problem, seed=seed, evaluator=row_by_row(problem), **common),
            lambda _: [problem._evaluate(batch, {}) for _ in range(generations)],
        ],
        repeats,
    )
    what = f"NSGA-III, {name.upper()}, {n_obj} objectives, {members} members"
    scale = 1_000 / generations
    return [
        Row(what, "ms/generation", scale * ours, f"{PYMOO}, {rival}", scale * value, better="lower")
        for rival, value in (("one candidate a call", one_by_one), ("batches", batched))
    ] + [
        Row(what, "ms/generation", scale * ours, "ours, one candidate a call", scale * serial, better="lower"),
        Row(
            f"{what}, without the evaluation",
            "ms/generation",
            scale * (ours - evaluation),
            f"{PYMOO}, batches",
            scale * (batched - evaluation),
            better="lower",
        ),
    ]


def decomposition_rows(name: str, n_obj: int, generations: int, repeats: int) -> list[Row]:
    """Milliseconds of a generation of MOEA/D with PBI, 20 neighbours and a tenth of the couples from everywhere."""
    problem = dtlz(name, n_obj)
    directions = reference_directions(n_obj)
    options = {"algorithm": "moead-pbi", "directions": directions, "neighbours": 20, "neighbourhood": 0.9}
    minimize(problem, generations=3, **options)

    def theirs(seed: int) -> object:
        engine = MOEAD(ref_dirs=directions, n_neighbors=20, prob_neighbor_mating=0.9)
        return pymoo_minimize(problem, engine, ("n_gen", generations), seed=seed)

    ours, rival = in_turns(
        [lambda seed: minimize(problem, seed=seed, generations=generations, **options), theirs], repeats
    )
    what = f"MOEA/D, {name.upper()}, {n_obj} objectives, {len(directions)} directions"
    scale = 1_000 / generations
    return [Row(what, "ms/generation", scale * ours, PYMOO, scale * rival, better="lower")]


class _Watch(Callback):
    """Distance to the true front and seconds of searching, generation by generation; measuring is not counted."""

    def __init__(self, true_front: FloatArray) -> None:
        super().__init__()
        self.true_front = true_front
        self.entries: list[tuple[float, float]] = []
        self._measured = 0.0
        self._started = time.perf_counter()

    def __call__(self, search: Any) -> None:
        now = time.perf_counter()
        F = np.asarray(search.pop.get("F") if hasattr(search.pop, "get") else search.pop.F)
        distance = igd(F[non_dominated(F)], self.true_front)
        self.entries.append((now - self._started - self._measured, distance))
        self._measured += time.perf_counter() - now

    def until(self, distance: float) -> float | None:
        """Seconds to the first generation that is as near as that, None if there is none."""
        return next((seconds for seconds, reached in self.entries if reached <= distance), None)


def distance_rows(name: str, generations: int, seeds: int) -> list[Row]:
    """Seconds until the distance is reached that pymoo has in the median at its end; 3 objectives."""
    problem, directions = dtlz(name, 3), reference_directions(3)
    true_front = problem.pareto_front(directions)
    minimize(problem, generations=3, population=92, directions=directions)
    mine, his = [], []
    for seed in range(seeds):
        own = _Watch(true_front)
        minimize(problem, generations=generations, population=92, directions=directions, seed=seed, callback=own)
        other = _Watch(true_front)
        pymoo_minimize(
            problem, NSGA3(ref_dirs=directions, pop_size=92), ("n_gen", generations), seed=seed, callback=other
        )
        mine.append(own)
        his.append(other)
    target = statistics.median(watch.entries[-1][1] for watch in his)
    ours, theirs = ([s for w in watches if (s := w.until(target)) is not None] for watches in (mine, his))
    what = (
        f"NSGA-III, {name.upper()}, 3 objectives, 92 members: until IGD {target:.2g} "
        f"(reached by {len(ours)} of ours and {len(theirs)} of pymoo's {seeds} within {generations} generations)"
    )
    # Who never arrives has no time; a median of half of the runs needs half of them to arrive.
    if 2 * len(ours) < seeds or not theirs:
        return [Row(what + ", no median", "runs", float(len(ours)), PYMOO, float(len(theirs)))]
    return [Row(what, "s", statistics.median(ours), PYMOO, statistics.median(theirs), better="lower")]


def memory_rows(warm: int, generations: int) -> list[Row]:
    """What Python and NumPy hold more after many generations of DTLZ2 with 3 objectives."""
    problem = as_problem(dtlz("dtlz2", 3))
    engine = make_engine(problem, population=92, directions=reference_directions(3))

    def run(count: int) -> None:
        for _ in range(count):
            X = engine.ask()
            engine.tell(X, problem.evaluate(X))

    tracemalloc.start()
    try:
        run(warm)
        before = tracemalloc.get_traced_memory()[0]
        run(generations)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    held = 92 * (problem.n_var + problem.n_obj) * 8
    return [
        Row(
            f"memory added by {generations:,} generations after {warm:,}, DTLZ2, 92 members",
            "bytes",
            float(grown),
            "the members' own arrays",
            float(held),
            better="lower",
        )
    ]


def sphere(count: int, n_obj: int, seed: int) -> FloatArray:
    """Mutually non-dominated points [count, n_obj]: all of them stay."""
    points = np.abs(np.random.default_rng(seed).normal(size=(count, n_obj)))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def scanned(points: FloatArray) -> FloatArray:
    """The usual archive in plain NumPy: each point is compared with all members at once."""
    members = np.empty_like(points)
    count = 0
    for point in points:
        kept = members[:count]
        if (kept <= point).all(axis=1).any():
            continue
        stay = kept[~(kept >= point).all(axis=1)]
        count = len(stay) + 1
        members[: count - 1], members[count - 1] = stay, point
    return members[:count]


def archive_rows(count: int, n_obj: int, repeats: int) -> list[Row]:
    """Insertions a second while an archive grows to ``count`` members: one at a time, and in batches of 100."""
    points = sphere(count, n_obj, seed=n_obj)
    Archive(n_obj).insert_many(points[:10])  # compiles

    def one_by_one(_: int) -> None:
        archive = Archive(n_obj)
        for point in points:
            archive.insert(point)

    def in_batches(_: int) -> None:
        archive = Archive(n_obj)
        for first in range(0, count, 100):
            archive.insert_many(points[first : first + 100])

    single, batched, plain = in_turns([one_by_one, in_batches, lambda _: scanned(points)], repeats)
    return [
        Row(
            f"archive of {count:,} non-dominated points, {n_obj} objectives, {how}",
            "insertions/s",
            count / seconds,
            "NumPy scan",
            count / plain,
        )
        for how, seconds in (("one at a time", single), ("100 at a time", batched))
    ]


_FIRST_SEARCH = """
import time
from pymoo.problems import get_problem
problem = get_problem("dtlz2", n_var=12, n_obj=3)
from rlaas.optimization import minimize
started = time.perf_counter()
for algorithm in ("nsga3", "moead-pbi"):
    minimize(problem, algorithm=algorithm, generations=2)
print(time.perf_counter() - started)
"""


def compile_rows() -> list[Row]:
    """Seconds of the first two generations of both engines in a new process, without and with compiled code on disk."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        first, later = (
            float(
                subprocess.run(
                    [sys.executable, "-c", _FIRST_SEARCH], env=environment, check=True, capture_output=True, text=True
                ).stdout
            )
            for _ in range(2)
        )
    return [Row("first search of a process, compiled code on disk", "s", later, "nothing compiled yet", first, "lower")]


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="parts to run")
    parser.add_argument(
        "--objectives", nargs="+", type=int, choices=list(MEMBERS), help="sizes of the generations, in place of all"
    )


def _generations(quick: bool, sizes: Sequence[int] | None) -> list[Row]:
    if quick:
        return generations_rows("dtlz2", 3, 92, 10, 1)
    rows = []
    for n_obj in sizes or MEMBERS:
        for name in DISTANCES:
            rows += generations_rows(name, n_obj, MEMBERS[n_obj], 100 if n_obj == 3 else 50, 5)
    return rows if sizes else rows + generations_rows("dtlz2", 3, 1_036, 30, 3)


def _decomposition(quick: bool) -> list[Row]:
    cases = [("dtlz2", 3)] if quick else [(name, n_obj) for n_obj in (3, 5) for name in ("dtlz1", "dtlz2")]
    return [
        row for name, n_obj in cases for row in decomposition_rows(name, n_obj, 5 if quick else 50, 1 if quick else 3)
    ]


def _distance(quick: bool) -> list[Row]:
    if quick:
        return distance_rows("dtlz2", 20, 1)
    published = {"dtlz1": 400, "dtlz2": 250, "dtlz3": 1_000, "dtlz4": 600}
    return [row for name, generations in published.items() for row in distance_rows(name, generations, 5)]


def _archive(quick: bool) -> list[Row]:
    if quick:
        return archive_rows(1_000, 3, 1)
    return [row for n_obj in (2, 3, 5) for row in archive_rows(20_000, n_obj, 3)]


def main() -> None:
    arguments = parse_arguments("optimization", _extend)
    quick = arguments.quick
    sections: Mapping[str, Callable[[], list[Row]]] = {
        "generations": lambda: _generations(quick, arguments.objectives),
        "decomposition": lambda: _decomposition(quick),
        "distance": lambda: _distance(quick),
        "memory": lambda: memory_rows(50, 100) if quick else memory_rows(500, 2_000),
        "archive": lambda: _archive(quick),
        "spread": lambda: spread_rows(4, 5, [0]) if quick else spread_rows(16, 60, range(5)),
        "compile": lambda: [] if quick else compile_rows(),
    }
    rows = [row for name in SECTIONS if name in arguments.only for row in sections[name]()]
    notes = [f"pymoo's compiled functions: {'yes' if is_compiled() else 'no'}"]
    report("optimization", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
