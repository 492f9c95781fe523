"""What each searcher of ``rlaas tune`` finds for two or three objectives with as many trials.

    python -m benchmarks.tuning_search [--quick] [--json] [--seeds 15] [--only forest/64 ...]

The searchers are driven as Tune drives them, several trials at a time with uneven ends, but without Ray: the problems
cost microseconds to milliseconds. Three are test functions (Zitzler, Deb & Thiele 2000; Deb, Thiele, Laumanns & Zitzler
2002; Fonseca & Fleming 1995), one is made up of the kinds of parameters that a training has, one trains random forests
on the digits that come with scikit-learn. Measured is the hypervolume of the trials' front against a fixed reference
point, its mean over seeds with a 95 % Student interval; and, since the searchers share the seeds of the trials' uneven
ends only, how often ours is the larger one.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

# Before numpy is loaded: several threads per process would measure how they fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.harness import Row, parse_arguments, report
from rlaas.optimization import hypervolume
from rlaas.tuning.figures import FINISHED
from rlaas.tuning.searchers import SEARCHERS, Question
from rlaas.tuning.space import Choice, Int, LogInt, LogUniform, Uniform, values_of

FloatArray = NDArray[np.float64]

AT_A_TIME = 4
OURS = "nsga3"
RIVALS: Mapping[str, str] = {
    "tpe": f"Optuna {version('optuna')} TPE",
    "nsga2": f"Optuna {version('optuna')} NSGA-II",
    "random": "random",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to tune.

    Attributes:
        space: parameters by name.
        objectives: values by name to objectives, smaller is better.
        reference: hypervolume counts up to here [n_obj].
    """

    space: Mapping[str, Any]
    objectives: Callable[[Mapping[str, Any]], FloatArray]
    reference: tuple[float, ...]


def unit(n_var: int) -> dict[str, Any]:
    """``n_var`` numbers from 0 to 1."""
    return {f"x{i}": Uniform(kind="uniform", low=0.0, high=1.0) for i in range(n_var)}


def zdt1(values: Mapping[str, Any]) -> FloatArray:
    """Convex front, one variable along it and the others off it."""
    first, *others = values.values()
    g = 1.0 + 9.0 * float(np.mean(others))
    return np.array([first, g * (1.0 - math.sqrt(first / g))])


def dtlz2(values: Mapping[str, Any]) -> FloatArray:
    """An eighth of a sphere, three objectives."""
    a, b, *others = values.values()
    g = 1.0 + float(np.sum((np.array(others) - 0.5) ** 2))
    a, b = 0.5 * math.pi * a, 0.5 * math.pi * b
    return np.array([g * math.cos(a) * math.cos(b), g * math.cos(a) * math.sin(b), g * math.sin(a)])


def fonseca(values: Mapping[str, Any]) -> FloatArray:
    """Concave front, every variable along it."""
    x = 4.0 * (2.0 * np.array(list(values.values())) - 1.0)
    shift = 1.0 / math.sqrt(len(x))
    return np.array(
        [1.0 - math.exp(-float(((x - shift) ** 2).sum())), 1.0 - math.exp(-float(((x + shift) ** 2).sum()))]
    )


TRAINING_SPACE: Mapping[str, Any] = {
    "learning_rate": LogUniform(kind="loguniform", low=1e-5, high=1e-1),
    "gamma": Uniform(kind="uniform", low=0.8, high=0.999),
    "epochs": Int(kind="int", low=1, high=12),
    "horizon": LogInt(kind="logint", low=8, high=512),
    "minibatch": Choice(kind="choice", values=(128, 256, 512, 1024, 2048)),
    "activation": Choice(kind="choice", values=("relu", "tanh", "gelu", "silu")),
    "hidden": Choice(kind="choice", values=([32], [64], [64, 64], [128, 128], [256, 256])),
}
_ACTIVATIONS = {"relu": 0.06, "tanh": 0.0, "gelu": 0.03, "silu": 0.1}


def training(values: Mapping[str, Any]) -> FloatArray:
    """Loss and cost of a made-up training: a best learning rate that moves with the minibatch, and wider is dearer."""
    widths = values["hidden"]
    best_rate = 3e-3 * math.sqrt(values["minibatch"] / 512)
    loss = 0.1 * (math.log10(values["learning_rate"] / best_rate)) ** 2
    loss += 20.0 * (values["gamma"] - 0.96) ** 2 + 0.05 * math.log2(values["horizon"] / 64) ** 2 / 3
    loss += 0.4 / values["epochs"] + 1.5 / math.sqrt(sum(widths)) + _ACTIVATIONS[values["activation"]]
    work = (20 * widths[0] + sum(a * b for a, b in itertools.pairwise(widths)) + 4_000) / 4_000
    return np.array([loss, math.log10(values["epochs"] * work * (1.0 + 256 / values["minibatch"]))])


FOREST_SPACE: Mapping[str, Any] = {
    "n_estimators": LogInt(kind="logint", low=1, high=64),
    "max_depth": Int(kind="int", low=1, high=16),
    "min_samples_leaf": LogInt(kind="logint", low=1, high=64),
    "max_features": Uniform(kind="uniform", low=0.02, high=1.0),
    "criterion": Choice(kind="choice", values=("gini", "entropy", "log_loss")),
    "bootstrap": Choice(kind="choice", values=(True, False)),
}


def forest(values: Mapping[str, Any]) -> FloatArray:
    """Error on held-out digits, and decimal logarithm of the nodes of all trees."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    X, y = load_digits(return_X_y=True)
    model = RandomForestClassifier(**values, random_state=0).fit(X[::2], y[::2])
    error = 1.0 - model.score(X[1::2], y[1::2])
    return np.array([error, math.log10(sum(tree.tree_.node_count for tree in model.estimators_))])


PROBLEMS: Mapping[str, Problem] = {
    "zdt1": Problem(unit(6), zdt1, (1.1, 6.0)),
    "fonseca": Problem(unit(3), fonseca, (1.1, 1.1)),
    "dtlz2": Problem(unit(7), dtlz2, (2.0, 2.0, 2.0)),
    "training": Problem(TRAINING_SPACE, training, (2.5, 2.5)),
    "forest": Problem(FOREST_SPACE, forest, (0.9, 5.0)),
}


def search(name: str, problem: Problem, trials: int, seed: int) -> float:
    """Hypervolume of the front of ``trials`` trials, a few at a time, each as long as a lognormal number says."""
    metrics = tuple(f"f{i}" for i in range(len(problem.reference)))
    searcher = SEARCHERS[name].build(
        Question(space=problem.space, metrics=metrics, modes=("min",) * len(metrics), seed=seed)
    )
    lengths = np.random.default_rng([seed, 7]).lognormal(sigma=0.5, size=trials)
    running: list[tuple[float, int, FloatArray]] = []
    reached, now, begun = [], 0.0, 0
    while begun < trials or running:
        while begun < trials and len(running) < AT_A_TIME:
            values = values_of(searcher.suggest(f"t{begun}")["point"])
            heapq.heappush(running, (now + lengths[begun], begun, problem.objectives(values)))
            begun += 1
        now, number, objectives = heapq.heappop(running)
        figures = dict(zip(metrics, objectives.tolist(), strict=True))
        searcher.on_trial_complete(f"t{number}", {**figures, FINISHED: True, "training_iteration": 1})
        reached.append(objectives)
    return hypervolume(reached, problem.reference)


def mean_interval(values: FloatArray) -> tuple[float, float]:
    """Mean over seeds, and the half width of its 95 % Student interval."""
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1)) * spread


def rows_of(name: str, trials: int, seeds: int) -> list[Row]:
    """One row for each rival."""
    problem = PROBLEMS[name]
    found = {
        searcher: np.array([search(searcher, problem, trials, seed) for seed in range(seeds)])
        for searcher in (OURS, *RIVALS)
    }
    ours, half = mean_interval(found[OURS])
    rows = []
    for rival, label in RIVALS.items():
        value, width = mean_interval(found[rival])
        wins = int((found[OURS] > found[rival]).sum())
        what = (
            f"{name}, {trials} trials, {AT_A_TIME} at a time: hypervolume (± {half:.2g}, rival ± {width:.2g}; "
            f"larger for {wins} of {seeds} seeds)"
        )
        rows.append(Row(what, "volume", ours, label, value))
    return rows


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=15, help="searches of each kind, at least 5 (default 15)")
    parser.add_argument("--only", nargs="+", metavar="PROBLEM/TRIALS", help="such as forest/64; default all")


def main() -> None:
    arguments = parse_arguments("tuning_search", _extend)
    seeds = 2 if arguments.quick else max(arguments.seeds, 5)
    cases = arguments.only or [f"{name}/{trials}" for name in PROBLEMS for trials in (32, 64, 128)]
    if arguments.quick:
        cases = ["training/16"]
    rows: list[Row] = []
    for case in cases:
        name, _, trials = case.partition("/")
        if name not in PROBLEMS or not trials.isdecimal() or int(trials) < 1:
            raise SystemExit(f"--only {case}: give one of {', '.join(PROBLEMS)}, a slash and a number of trials")
        rows += rows_of(name, int(trials), seeds)
    report("tuning_search", rows, arguments.json)


if __name__ == "__main__":
    main()
