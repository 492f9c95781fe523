"""How near to the true front the engines come, beside pymoo's with equal members, generations and operators.

    python -m benchmarks.optimization_quality [--quick] [--json] [--only dtlz2-3 wfg4-3 ...] [--cache DIR] [--part 1/2]

Each case runs from several seeds: 20 for DTLZ with 3 and 5 objectives, 5 from 8 objectives on, 10 for the others.
Measured is the inverted generational distance of the last population's front to the points where the reference lines
meet the true front (Deb & Jain 2014, section V-A); a dense front would give figures that do not compare. Zitzler's
problems have no such points in pymoo: there it is its 100 points of the front. The ratio of the medians comes with a
one-sided 95 % bootstrap bound: with less than that certainty pymoo is further ahead.

The whole takes hours. With ``--cache`` each run is a file in that folder, so that it may be interrupted, and ``--part``
lets several processes share the work: start one with ``--part 1/2`` and one with ``--part 2/2``, then report both with
neither.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before numpy is loaded: several threads per process would measure how they fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.optimize import minimize as pymoo_minimize
from pymoo.problems import get_problem

import rlaas.optimization
from benchmarks.harness import Row, parse_arguments, report
from benchmarks.quality_kit import Cache
from rlaas.fronts import non_dominated
from rlaas.optimization import igd, minimize, reference_directions

FloatArray = NDArray[np.float64]
PYMOO = f"pymoo {version('pymoo')}"
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """A problem at a size.

    Attributes:
        problem: pymoo's name of it.
        n_var, n_obj: variables and objectives.
        members: population.
        generations: of every run.
        seeds: runs of each side.
        published: best, median and worst distance of NSGA-III in Deb & Jain 2014, if at hand.
    """

    problem: str
    n_var: int
    n_obj: int
    members: int
    generations: int
    seeds: int
    published: tuple[float, float, float] | None = None

    def build(self) -> Any:
        """The problem."""
        sizes = {} if self.problem.startswith("zdt") else {"n_var": self.n_var, "n_obj": self.n_obj}
        return get_problem(self.problem, **sizes)

    def directions(self) -> FloatArray:
        """The reference directions [n, n_obj]: the published ones, 100 for two objectives."""
        return reference_directions(self.n_obj, 100) if self.n_obj == 2 else reference_directions(self.n_obj)

    def target(self) -> FloatArray:
        """Points of the true front [n, n_obj]."""
        problem = self.build()
        front = problem.pareto_front() if self.n_obj == 2 else problem.pareto_front(self.directions())
        return np.asarray(front, dtype=np.float64)


# Recalled, not copied, from tables III to V of the paper: a yardstick, to be checked there before it is quoted.
_PUBLISHED: Mapping[tuple[str, int], tuple[float, float, float]] = {
    ("dtlz1", 3): (4.880e-4, 1.308e-3, 4.880e-3),
    ("dtlz1", 5): (5.116e-4, 9.799e-4, 1.979e-3),
    ("dtlz1", 8): (2.044e-3, 3.979e-3, 8.721e-3),
    ("dtlz1", 10): (2.215e-3, 3.462e-3, 6.869e-3),
    ("dtlz2", 3): (1.262e-3, 1.357e-3, 2.114e-3),
    ("dtlz2", 5): (4.254e-3, 4.982e-3, 5.862e-3),
    ("dtlz2", 8): (1.371e-2, 1.571e-2, 1.811e-2),
    ("dtlz3", 3): (9.751e-4, 4.007e-3, 6.665e-3),
    ("dtlz4", 3): (2.915e-4, 5.970e-4, 4.286e-1),
}
_MEMBERS = {3: 92, 5: 212, 8: 156, 10: 276, 15: 136}
_GENERATIONS: Mapping[str, Mapping[int, int]] = {
    "dtlz1": {3: 400, 5: 600, 8: 750, 10: 1_000, 15: 1_500},
    "dtlz2": {3: 250, 5: 350, 8: 500, 10: 750, 15: 1_000},
    "dtlz3": {3: 1_000, 5: 1_000, 8: 1_000, 10: 1_500, 15: 2_000},
    "dtlz4": {3: 600, 5: 1_000, 8: 1_250, 10: 2_000, 15: 3_000},
}
_CONSTRAINED = {"c1dtlz1": 500, "c1dtlz3": 1_000, "c2dtlz2": 250, "c3dtlz1": 750, "c3dtlz4": 750}
_ZITZLER = {"zdt1": 30, "zdt2": 30, "zdt3": 30, "zdt4": 10, "zdt6": 10}


def _distance_variables(problem: str) -> int:
    return 5 if problem.endswith("dtlz1") else 10


def _cases() -> dict[str, Case]:
    cases = []
    for problem, by_size in _GENERATIONS.items():
        for n_obj, generations in by_size.items():
            n_var = n_obj - 1 + _distance_variables(problem)
            seeds = 20 if n_obj <= 5 else 5
            published = _PUBLISHED.get((problem, n_obj))
            cases.append(Case(problem, n_var, n_obj, _MEMBERS[n_obj], generations, seeds, published))
    for problem, generations in _CONSTRAINED.items():
        cases.append(Case(problem, 2 + _distance_variables(problem), 3, 92, generations, 10))
    cases += [Case(f"wfg{number}", 24, 3, 92, 400, 10) for number in range(1, 10)]
    cases += [Case(problem, n_var, 2, 100, 300, 10) for problem, n_var in _ZITZLER.items()]
    return {f"{case.problem}-{case.n_obj}": case for case in cases}


CASES = _cases()
QUICK = Case("dtlz2", 12, 3, 92, 20, 2)


def ours(case: Case, seed: int) -> FloatArray:
    """Front of the last population [n, n_obj] by our engine."""
    return minimize(
        case.build(), population=case.members, directions=case.directions(), generations=case.generations, seed=seed
    ).F


def theirs(case: Case, seed: int) -> FloatArray:
    """The same by pymoo's, of whose members its ``opt`` would be those nearest to the directions only."""
    engine = NSGA3(
        ref_dirs=case.directions(),
        pop_size=case.members,
        crossover=SBX(prob=1.0, eta=30),
        mutation=PM(eta=20),
    )
    result = pymoo_minimize(case.build(), engine, ("n_gen", case.generations), seed=seed)
    feasible = result.pop.get("CV")[:, 0] <= 0
    F = np.asarray(result.pop.get("F"))[feasible]
    return F[non_dominated(F)] if len(F) else F


SIDES: Mapping[str, Callable[[Case, int], FloatArray]] = {"ours": ours, "pymoo": theirs}


@functools.cache
def _engine_code() -> str:
    """Digest of the engines' sources: what an earlier version reached counts no more."""
    sources = sorted(Path(str(rlaas.optimization.__file__)).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def distances(name: str, case: Case, side: str, cache: Cache, seeds: Sequence[int]) -> FloatArray:
    """Distance to the true front of each run; infinite where nothing feasible was found."""
    target = case.target()

    def run(seed: int) -> dict[str, Any]:
        F = SIDES[side](case, seed)
        return {"igd": igd(F, target) if len(F) else None}

    code = _engine_code() if side == "ours" else PYMOO
    settings = {"case": repr(case), "side": side, "code": code}
    found = []
    for seed in seeds:
        result = cache.result(f"{name}-{side}-{seed}", {**settings, "seed": seed}, lambda seed=seed: run(seed))
        found.append(np.inf if result["igd"] is None else result["igd"])
    return np.array(found)


def bounded_ratio(mine: FloatArray, other: FloatArray) -> tuple[float, float]:
    """Our median over theirs, and its one-sided 95 % percentile bound; the sides are resampled independently."""
    rng = np.random.default_rng(0)
    medians = [np.median(side[rng.integers(len(side), size=(RESAMPLES, len(side)))], axis=1) for side in (mine, other)]
    with np.errstate(invalid="ignore"):
        ratios = np.nan_to_num(medians[0] / medians[1], nan=np.inf)  # both sides found nothing: nothing is known
    return float(np.median(mine) / np.median(other)), float(np.quantile(ratios, 0.95))


def rows_of(name: str, case: Case, cache: Cache, seeds: Sequence[int]) -> list[Row]:
    """A row against pymoo, and one against the published figures where there are any."""
    found = {side: distances(name, case, side, cache, seeds) for side in SIDES}
    size = f"{case.problem.upper()}, {case.n_obj} objectives, {case.members} members, {case.generations} generations"
    mine = found["ours"]
    if not all(np.isfinite(np.median(side)) for side in found.values()):
        share = {side: float(np.isfinite(values).mean()) for side, values in found.items()}
        return [Row(f"{size}: runs that found a feasible candidate", "share", share["ours"], PYMOO, share["pymoo"])]
    ratio, bound = bounded_ratio(mine, found["pymoo"])
    what = f"{size}: median IGD of {len(seeds)} seeds, ours / pymoo's {ratio:.2f}, at most {bound:.2f} (95 %)"
    rows = [Row(what, "distance", float(np.median(mine)), PYMOO, float(np.median(found["pymoo"])), better="lower")]
    if case.published is not None:
        best, median, worst = case.published
        inside = int(((mine >= best) & (mine <= worst)).sum())
        below = int((mine < best).sum())
        what = (
            f"{size}: {inside} of {len(seeds)} runs within the published range {best:.3g} to {worst:.3g}, {below} below"
        )
        rows.append(
            Row(what, "distance", float(np.median(mine)), "median of Deb & Jain 2014, recalled", median, better="lower")
        )
    return rows


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="CASE", help=", ".join(sorted(CASES)))
    parser.add_argument("--cache", type=Path, help="folder that every run is kept in")
    parser.add_argument("--seeds", type=int, help="runs of each side, in place of the case's own number")
    parser.add_argument("--part", default="1/1", help="k/n: runs of every n-th seed from the k-th on, without a report")


def main() -> None:
    arguments = parse_arguments("optimization_quality", _extend)
    part, _, parts = arguments.part.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise SystemExit(f"--part {arguments.part}: give k/n with 1 <= k <= n, such as 1/2")
    if int(parts) > 1 and arguments.cache is None:
        raise SystemExit("--part needs --cache: the parts meet there")
    cache = Cache(arguments.cache)
    cases = {"quick": QUICK} if arguments.quick else {name: CASES[name] for name in arguments.only or CASES}
    rows: list[Row] = []
    for name, case in cases.items():
        seeds = range(arguments.seeds or case.seeds)
        if int(parts) == 1:
            rows += rows_of(name, case, cache, seeds)
            continue
        for side in SIDES:
            distances(name, case, side, cache, seeds[int(part) - 1 :: int(parts)])
    if rows:
        report("optimization_quality", rows, arguments.json)


if __name__ == "__main__":
    main()
