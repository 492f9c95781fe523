"""Adaptive allocation: regret against the Lai-Robbins bound, coverage after adaptive allocation, and what shares cost.

    python -m benchmarks.experiments_allocation [--quick] [--json]

Regret: Thompson sampling on the problems of Garivier & Cappe (2011), Kaufmann, Korda & Munos (2012) and Chapelle & Li
(2011), at growing horizons, in reward lost; rivals are the bound C log T and uniform allocation. The bound is of the
limit; beside its level stands the slope over the last tenfold of T, which tends to C. Then the same problem through the
allocator in growing batches, as it runs in an experiment.

Coverage: how often 95 % intervals held the truth, over simulated experiments of 5 seeds, against intervals of sample
means (Welch's for the difference) on the same logs.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.allocation import (
    BetaPrior,
    GaussianPrior,
    LinearThompson,
    Thompson,
    adaptive_estimates,
    lai_robbins,
    propensity_check,
    sequential_regret,
    simulated_regret,
)
from rlaas.experiments.allocation.regret import geometric_batches

PROBLEMS: tuple[tuple[str, tuple[float, ...], float | None], ...] = (
    ("Bernoulli .9 .8 (Garivier & Cappe 2011)", (0.9, 0.8), None),
    ("Bernoulli .2 .25 (Kaufmann et al. 2012)", (0.2, 0.25), None),
    ("Bernoulli .1 .05", (0.1, 0.05), None),
    ("10 arms, .1 to .01 (Kaufmann et al. 2012)", (0.1, *(0.05,) * 3, *(0.02,) * 3, *(0.01,) * 3), None),
    ("10 arms, .5 and nine .4 (Chapelle & Li 2011)", (0.5, *(0.4,) * 9), None),
    ("normal, 0 and -.5, sd 1", (0.0, -0.5), 1.0),
)

SEEDS = 5
LEVEL = 0.95


def regret_rows(horizon: int, runs: int) -> tuple[list[Row], list[str]]:
    """Level and slope of sequential Thompson sampling on every problem."""
    rows, notes = [], []
    marks = (horizon // 100, horizon // 10, horizon)
    for name, means, noise in PROBLEMS:
        bound = lai_robbins(means, noise=noise)
        each = runs // SEEDS
        regret = np.concatenate(
            [sequential_regret(means, horizon, each, np.random.default_rng(s), noise, marks) for s in range(SEEDS)]
        )
        found = regret.mean(axis=0)
        error = regret.std(axis=0, ddof=1) / math.sqrt(len(regret))
        uniform = horizon * (max(means) - sum(means) / len(means))
        what = f"regret, {name}, T = {horizon:,}"
        rows.append(
            Row(what, "reward", found[-1], f"Lai-Robbins bound, {bound:.3g} log T", bound * math.log(horizon), "lower")
        )
        rows.append(Row(what, "reward", found[-1], "uniform allocation", uniform, "lower"))
        slope = (found[-1] - found[-2]) / math.log(10)
        rows.append(
            Row(f"regret per log T over the last tenfold, {name}", "reward", slope, "Lai-Robbins", bound, "lower")
        )
        ratios = ", ".join(
            f"{value / (bound * math.log(mark)):.2f} at {mark:,}" for value, mark in zip(found, marks, strict=True)
        )
        notes.append(f"{name}: regret / bound {ratios}; standard error {error[-1]:.2g} reward over {len(regret)} runs")
    return rows, notes


def batched_rows(horizon: int, runs: int) -> list[Row]:
    """The allocator itself: regret in batches of a tenth of what came before, and how soon it is sure of the best."""
    rows = []
    batches = geometric_batches(horizon)
    for name, minimum in (("Thompson", 0.0), ("Thompson, minimum share 1 %", 0.01)):
        start = Thompson(arms=("a", "b"), minimum_share=minimum)
        lost = [simulated_regret(start, (0.9, 0.8), batches, np.random.default_rng(s))[-1] for s in range(runs)]
        what = f"regret, Bernoulli .9 .8, T = {horizon:,}, {len(batches)} batches, {runs} runs: {name}"
        rows.append(Row(what, "reward", statistics.fmean(lost), "uniform allocation", 0.05 * horizon, "lower"))
    means = (0.1, 0.2, 0.3, 0.4, 0.5)
    needed = {
        name: statistics.fmean(_until_sure(means, options, np.random.default_rng(s)) for s in range(runs))
        for name, options in (
            ("top-two", {"top_two": 0.5}),
            ("plain Thompson", {}),
            ("uniform allocation", {"minimum_share": 0.2}),
        )
    }
    what = f"decisions until an arm is best with probability .95, Bernoulli .1 to .5 (Russo 2020), {runs} runs: top-two"
    rivals = ("plain Thompson", "uniform allocation")
    return rows + [Row(what, "decisions", needed["top-two"], rival, needed[rival], "lower") for rival in rivals]


def _until_sure(means: tuple[float, ...], options: dict[str, float], rng: np.random.Generator) -> int:
    """Decisions, in batches of 20, until one arm is the best with probability .95."""
    allocator = Thompson(arms=tuple(f"arm {i}" for i in range(len(means))), **options)
    done = 0
    while max(allocator.probability_best().values()) < LEVEL:
        share = np.array(list(allocator.shares().values()))
        counts = rng.multinomial(20, share / share.sum())
        won = rng.binomial(counts, means)
        both = zip(allocator.arms, counts.tolist(), won.tolist(), strict=True)
        allocator = allocator.updated_by_sums({arm: (n, float(w), float(w)) for arm, n, w in both})
        done += 20
    return done


def coverage_rows(runs: int) -> tuple[list[Row], list[str]]:
    """Share of experiments whose interval held the truth, ours and that of sample means on the same logs."""
    rows, notes = [], []
    settings: tuple[tuple[str, tuple[float, ...], float | None, Sequence[int], float], ...] = (
        ("2 equal normal arms, 10 batches of 100, minimum 1 %", (0.0, 0.0), 1.0, (100,) * 10, 0.01),
        ("5 equal normal arms, batches of 20 and 10 of 100, minimum 2 %", (0.0,) * 5, 1.0, (20, *(100,) * 10), 0.02),
        ("Bernoulli .05 .06, 20 batches of 200, minimum 1 %", (0.05, 0.06), None, (200,) * 20, 0.01),
        ("normal arms 0 and .2, 25 batches of 40, minimum 5 %", (0.0, 0.2), 1.0, (40,) * 25, 0.05),
    )
    for name, means, noise, sizes, minimum in settings:
        held, bias, widths, alarms = np.zeros(4), np.zeros(2), np.zeros(2), 0
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            for _ in range(runs // SEEDS):
                one_held, one_bias, one_width, p_value = _one_experiment(means, noise, sizes, minimum, rng)
                held, bias, widths = held + one_held, bias + one_bias, widths + one_width
                alarms += p_value < 0.05
        held, bias, widths = (total / (runs // SEEDS * SEEDS) for total in (held, bias, widths))
        for what, ours, theirs, rival in (
            ("difference", held[0], held[1], "Welch on sample means"),
            ("mean of the first arm", held[2], held[3], "t interval of the sample mean"),
        ):
            rows.append(Row(f"coverage of 95 %, {what}: {name}", "share", ours, rival, theirs))
        notes.append(
            f"{name}: {runs} experiments, standard error of a coverage {math.sqrt(0.0475 / runs):.4f}; bias of the "
            f"first arm's mean {bias[0]:+.4f}, sample mean {bias[1]:+.4f}; width of the difference {widths[0]:.3f}, "
            f"Welch {widths[1]:.3f}; propensity check below .05 in {alarms / runs:.3f}"
        )
    return rows, notes


def _one_experiment(
    means: tuple[float, ...], noise: float | None, sizes: Sequence[int], minimum: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    arms = tuple(f"arm {i}" for i in range(len(means)))
    prior = BetaPrior() if noise is None else GaussianPrior(mean=0.0, count=0.01, variance=noise**2, degrees=None)
    allocator = Thompson(arms=arms, minimum_share=minimum, prior=prior, draws=1000, seed=int(rng.integers(2**31)))
    parts = []
    for size in sizes:
        share = np.array(list(allocator.shares().values()))
        arm = rng.choice(len(means), size, p=share / share.sum())
        mean = np.array(means)[arm]
        reward = (rng.random(size) < mean).astype(float) if noise is None else rng.normal(mean, noise)
        allocator = allocator.updated(np.array(arms)[arm], reward)
        parts.append((np.array(arms)[arm], reward, np.tile(share, (size, 1))))
    arm, reward, propensity = (np.concatenate(column) for column in zip(*parts, strict=True))
    result = adaptive_estimates(arms, arm, reward, propensity, control=arms[0])
    first, difference = result.arms[arms[0]], result.differences[arms[1]]
    one, two = DescrStatsW(reward[arm == arms[0]]), DescrStatsW(reward[arm == arms[1]])
    sample = one.tconfint_mean()
    welch = CompareMeans(two, one).tconfint_diff(usevar="unequal")
    gap = means[1] - means[0]
    held = [
        difference.low <= gap <= difference.high,
        welch[0] <= gap <= welch[1],
        first.low <= means[0] <= first.high,
        sample[0] <= means[0] <= sample[1],
    ]
    return (
        np.array(held, dtype=float),
        np.array([first.value - means[0], one.mean - means[0]]),
        np.array([difference.high - difference.low, welch[1] - welch[0]]),
        propensity_check(arms, arm, propensity).p_value,
    )


def cost_rows(repeats: int) -> list[Row]:
    """What one reading of the shares costs: once per batch, or per decision where they depend on the context."""
    rng = np.random.default_rng(0)
    rows = []
    for count in (2, 10, 50):
        arms = tuple(f"arm {i}" for i in range(count))
        sums = {
            arm: (500, float(n), float(n)) for arm, n in zip(arms, rng.integers(20, 80, count).tolist(), strict=True)
        }
        exact = Thompson(arms=arms).updated_by_sums(sums)
        drawn = Thompson(arms=arms, draws=100_000).updated_by_sums(sums)
        ours, theirs = (_milliseconds(allocator.shares, repeats) for allocator in (exact, drawn))
        rows.append(Row(f"shares of {count} arms, by quadrature", "ms", ours, "ours, 100,000 draws", theirs, "lower"))
    names = ("a", "b", "c")
    linear = LinearThompson(arms=names, n_features=32).updated(
        rng.choice(names, 2000), rng.normal(size=(2000, 32)), rng.normal(size=2000)
    )
    allocation, x = linear.allocation(), rng.normal(size=(1000, 32))
    rows.append(
        Row(
            "contextual shares of 1,000 decisions, 3 arms, 32 features, 1,000 draws",
            "ms",
            _milliseconds(lambda: allocation.shares(x), repeats),
        )
    )
    return rows


def _milliseconds(work: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=("regret", "batched", "coverage", "cost"), help="one part")


def main() -> None:
    arguments = parse_arguments("experiments_allocation", _options)
    quick: bool = arguments.quick
    rows: list[Row] = []
    notes: list[str] = []
    if arguments.only in (None, "regret"):
        more, said = regret_rows(2_000 if quick else 100_000, 100 if quick else 250)
        rows, notes = rows + more, notes + said
    if arguments.only in (None, "batched"):
        rows += batched_rows(2_000 if quick else 100_000, 5 if quick else 100)
    if arguments.only in (None, "coverage"):
        more, said = coverage_rows(20 if quick else 2_000)
        rows, notes = rows + more, notes + said
    if arguments.only in (None, "cost"):
        rows += cost_rows(3 if quick else 31)
    report("experiments_allocation", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
