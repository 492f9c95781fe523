"""Off-policy evaluation: errors on real logs beside published ones, and how often intervals hold known values.

    python -m benchmarks.off_policy [--quick] [--json] [--runs 30] [--logs 400]

Real logs: the small sample of the Open Bandit Dataset (Saito, Aihara, Matsutani & Narita 2021), where two policies ran
side by side. Each one's click rate is estimated from the other's log on bootstrap samples; the mean relative error is
shown with its 95 % interval over the samples. The authors publish figures for one of the four questions on the small
sample as they shipped it then, bts from random / all (20 bootstrap runs, logistic regression): the README of
examples/obd in st-tech/zr-obp at commit 60b5337, means and standard deviations dm 0.180 (0.115), ipw 0.333 (0.350), dr
0.304 (0.348). They simulate the distribution of bts from its priors, ours is how often it showed each item.

Known values: random tasks of three states solved by dynamic programming, and a bandit over a continuous action solved
by quadrature. Many logs are drawn of each, and the share of 95 % intervals that hold the value is shown with its exact
binomial interval.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats
from support.solved_tasks import SolvedTask

from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.continuous import CONTINUOUS_ESTIMATORS, cross_fitted_values, estimate_continuous
from rlaas.experiments.off_policy import Estimate
from rlaas.experiments.sequential_off_policy import (
    SESSION_ESTIMATORS,
    SessionEstimate,
    SessionLog,
    cross_fitted_action_values,
    estimate_sessions,
    fitted_q_evaluation,
)
from rlaas.exploration import BoxHead
from rlaas.pipeline import compare_estimators
from rlaas.scenarios import load

FloatArray = NDArray[np.float64]

PUBLISHED = {"dm": (0.180288, 0.114694), "ipw": (0.333113, 0.350425), "dr": (0.304401, 0.347842)}
"""Mean and standard deviation over 20 runs, bts from random / all."""

PUBLISHED_RUNS = 20
DISCOUNT = 0.95
EPSILON = 0.2


def on_real_logs(folder: Path, runs: int) -> list[Row]:
    """A row per question and estimator."""
    rows = []
    for pair in load("recsys").logs(folder):
        found = compare_estimators(pair.behaviour, pair.evaluation, pair.distribution, runs=runs)
        question = f"{found.evaluation} from {found.behaviour} / {found.campaign}"
        for row in found.errors:
            what = f"{question}, {row.estimator}, {runs} bootstraps [{row.low:.3f}, {row.high:.3f}]"
            what += f"; noise of the truth {found.noise:.3f}"
            rival, theirs = None, None
            if (found.behaviour, found.campaign) == ("random", "all") and row.estimator in PUBLISHED:
                theirs, deviation = PUBLISHED[row.estimator]
                half = float(stats.t.ppf(0.975, PUBLISHED_RUNS - 1)) * deviation / math.sqrt(PUBLISHED_RUNS)
                rival = f"published, small sample [{theirs - half:.3f}, {theirs + half:.3f}]"
            rows.append(Row(what, "relative error", row.error, rival=rival, rival_value=theirs, better="lower"))
    return rows


class Coverage:
    """Intervals by estimator, and whether they held the value."""

    def __init__(self, estimators: Sequence[str]) -> None:
        self._hits: dict[str, list[bool]] = {name: [] for name in estimators}
        self._widths: dict[str, list[float]] = {name: [] for name in estimators}
        self._sizes: dict[str, list[float]] = {name: [] for name in estimators}

    def add(self, one: SessionEstimate | Estimate, value: float) -> None:
        """One interval for a known value."""
        self._hits[one.estimator].append(one.low <= value <= one.high)
        self._widths[one.estimator].append(one.high - one.low)
        self._sizes[one.estimator].append(one.effective_sample_size)

    def rows(self, where: str) -> list[Row]:
        """Share of the intervals that held the value, a row per estimator."""
        rows = []
        for name, hits in self._hits.items():
            runs, width = len(hits), float(np.mean(self._widths[name]))
            low, high = stats.binomtest(sum(hits), runs).proportion_ci()
            what = f"{where}, {name} ({np.mean(self._sizes[name]):.0f} effective): 95 % intervals that hold the value, "
            what += f"{runs} logs [{low:.3f}, {high:.3f}], mean width {width:.3f}"
            rows.append(Row(what, "share", sum(hits) / runs, rival="nominal", rival_value=0.95))
        return rows


def estimates(log: SessionLog, horizon: int, seed: int) -> list[SessionEstimate]:
    """Every estimator of whole sessions."""
    model = cross_fitted_action_values(log, horizon=horizon, discount=DISCOUNT, seed=seed)
    found = []
    for name in SESSION_ESTIMATORS:
        if name == "fqe":
            found.append(fitted_q_evaluation(log, horizon=horizon, discount=DISCOUNT))
            continue
        prediction = model if name == "pddr" else None
        found.append(estimate_sessions(log, estimator=name, prediction=prediction, horizon=horizon, discount=DISCOUNT))
    return found


def on_tasks(tasks: int, logs: int, horizon: int, sessions: int) -> list[Row]:
    """Coverage of each estimator over all tasks."""
    coverage = Coverage(SESSION_ESTIMATORS)
    for seed in range(tasks):
        task = SolvedTask.draw(seed, most_ends=0.2)
        value = task.value(horizon, DISCOUNT)
        for run in range(logs):
            for one in estimates(task.log(sessions, horizon, 100_000 * (seed + 1) + run), horizon, run):
                coverage.add(one, value)
    return coverage.rows(f"{tasks} tasks, {sessions} sessions of {horizon} steps")


def on_actions(tasks: int, logs: int, n: int) -> list[Row]:
    """Coverage over bandits with one continuous action, logged as (1 - epsilon) squashed Gaussian + epsilon uniform."""
    head = BoxHead([-1.0], [1.0], deterministic=False)
    coverage = Coverage(CONTINUOUS_ESTIMATORS)
    for seed in range(tasks):
        shift, log_std = np.random.default_rng([seed, 7]).uniform((-0.8, -1.2), (0.8, -0.4))
        logging = {"mean": np.full((n, 1), -0.2, np.float32), "log_std": np.full((n, 1), -0.9, np.float32)}
        asked = {"mean": np.full((n, 1), shift, np.float32), "log_std": np.full((n, 1), log_std, np.float32)}
        normal = stats.norm(float(np.float32(shift)), math.exp(float(np.float32(log_std))))
        value = integrate.quad(lambda u, d=normal: mean_reward(np.tanh(u)) * d.pdf(u), -9, 9)[0]
        for run in range(logs):
            rng = np.random.default_rng([seed, run])
            action, logged = head.act(logging, rng, EPSILON)
            assert logged is not None
            reward = mean_reward(action[:, 0]) + rng.normal(0, 0.3, n)
            drawn = np.stack([head.act(asked, rng, 0.0)[0] for _ in range(8)], axis=1)
            predicted, direct = cross_fitted_values(None, action, reward, drawn, seed=run)
            density = head.propensities(asked, action, 0.0, greedy=False)
            for name in CONTINUOUS_ESTIMATORS:
                with_model = name in ("dr", "sndr")
                one = estimate_continuous(
                    reward,
                    logged,
                    density,
                    estimator=name,
                    predicted=predicted if with_model else None,
                    direct=direct if with_model else None,
                )
                coverage.add(one, value)
    return coverage.rows(f"{tasks} bandits of a continuous action, {n} rows")


def mean_reward(action: FloatArray) -> FloatArray:
    """Of an action in [-1, 1]; no quadratic."""
    return np.asarray(1.5 + action - action**2 + 0.3 * np.sin(4 * action))


def main() -> None:
    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--runs", type=int, default=30, help="bootstrap runs on the real logs")
        parser.add_argument("--logs", type=int, default=400, help="logs per task of known value")
        parser.add_argument("--tasks", type=int, default=6)

    arguments = parse_arguments("off_policy", extend)
    runs, logs, tasks = (3, 10, 2) if arguments.quick else (arguments.runs, arguments.logs, arguments.tasks)
    rows = [*on_tasks(tasks, logs, 4, 300), *on_tasks(tasks, logs, 10, 1_000), *on_actions(tasks, logs, 500)]
    notes = ["Published: examples/obd/README.md of st-tech/zr-obp at 60b5337, 20 runs, mean +- Student's interval."]
    folder = Path(os.environ.get("RLAAS_DATA_DIR", "../shared/data"))
    if (folder / "open_bandit").is_dir():
        rows = [*on_real_logs(folder, runs), *rows]
    else:
        notes.append("open_bandit is not in RLAAS_DATA_DIR: no errors on real logs.")
    report("off_policy", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
