"""How often tests that are looked at all the time err, and what that costs in power.

    python -m benchmarks.experiments_inference [--quick] [--json]

Simulated experiments without any effect, looked at after every observation (means from 500 per arm on): the share in
which the null is ever refuted must stay below alpha + 2 standard errors. Beside it, the z test looked at as often. Then
the share of real effects found, where a test at the fixed horizon finds 80 %, and how early. Seeds are fixed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.inference import (
    BoundedDifference,
    BoundedMean,
    Moments,
    ProportionDifference,
    QuantileRatio,
    log_edges,
    power_mean,
    power_proportion,
    proportions_z_test,
    sample_size_mean,
    sample_size_proportion,
    sequential_inflation,
    welch_test,
)
from rlaas.experiments.inference.checks import Side
from rlaas.experiments.inference.mismatch import CONCENTRATIONS, split_log_e
from rlaas.experiments.inference.proportions import beta_log_e
from rlaas.experiments.inference.sequences import START, mixture_log_e, planned_ratio

FloatArray = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], FloatArray]

ALPHA = 0.05
BAR = -math.log(ALPHA)

LAWS: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "lognormal, sigma 1": lambda rng, size: rng.lognormal(size=size),
    "bernoulli .05": lambda rng, size: (rng.random(size) < 0.05).astype(np.float64),
}


def bound(runs: int, alpha: float = ALPHA) -> float:
    """Alpha + 2 standard errors of a share among so many runs."""
    return alpha + 2 * math.sqrt(alpha * (1 - alpha) / runs)


def error_row(what: str, hits: int, runs: int, alpha: float = ALPHA) -> Row:
    """Share of runs that erred, beside its bound."""
    return Row(what, "share", hits / runs, "alpha + 2 standard errors", bound(runs, alpha), better="lower")


def chunks(runs: int, each: int = 20) -> Iterator[int]:
    """Sizes that sum to ``runs``."""
    for start in range(0, runs, each):
        yield min(each, runs - start)


def running(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and sample variance [runs, looks] of the first n values, for n from START on."""
    n = np.arange(1, x.shape[1] + 1)
    mean = np.cumsum(x, axis=1) / n
    squares = np.cumsum(x * x, axis=1) - n * mean * mean
    return mean[:, START - 1 :], np.maximum(squares[:, START - 1 :], 0) / (n[START - 1 :] - 1)


def mean_paths(old: FloatArray, new: FloatArray, effect: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Statistics z of difference = effect [runs, looks] and observations per arm [looks], of arms of one size."""
    (m0, v0), (m1, v1) = running(old), running(new)
    n = np.arange(START, old.shape[1] + 1)
    error = np.sqrt((v0 + v1) / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(error > 0, (m1 - m0 - effect) / error, 0.0)
    return z, n.astype(np.float64)


def evidence(z: FloatArray, n: FloatArray, side: Side = "two-sided", planned: float = 10_000) -> FloatArray:
    """Log e-values as MeanDifference computes them for arms of one size."""
    return mixture_log_e(z, planned_ratio(ALPHA, side) / planned * n, side)


def means(runs: int, looks: int) -> list[Row]:
    rows = []
    for seed, (name, draw) in enumerate(LAWS.items()):
        rng, hits, upper, peeked = np.random.default_rng(seed), 0, 0, 0
        for count in chunks(runs):
            z, n = mean_paths(draw(rng, (count, looks)), draw(rng, (count, looks)))
            hits += int((evidence(z, n) >= BAR).any(axis=1).sum())
            upper += int((evidence(z, n, "greater") >= BAR).any(axis=1).sum())
            peeked += int((np.abs(z) > stats.norm.isf(ALPHA / 2)).any(axis=1).sum())
        rows.append(error_row(f"false alarms, difference of means, {name}", hits, runs))
        rows.append(error_row(f"false alarms, one-sided difference of means, {name}", upper, runs))
        what = f"the same beside what everybody does, {name}"
        rows.append(Row(what, "share", hits / runs, "z test looked at as often", peeked / runs, better="lower"))
    rng, hits = np.random.default_rng(9), 0
    for count in chunks(runs):
        old, new = rng.lognormal(size=(count, looks)), 2 * rng.lognormal(size=(count, looks))
        z, n = mean_paths(old, new, math.exp(0.5))
        hits += int((evidence(z, n) >= BAR).any(axis=1).sum())
    rows.append(error_row("difference ever missed, lognormal against its double", hits, runs))
    hits = 0
    for count in chunks(runs):
        mean, variance = running(rng.lognormal(size=(count, looks)))
        n = np.arange(START, looks + 1).astype(np.float64)
        hits += int((evidence((mean - math.exp(0.5)) * np.sqrt(n / variance), n) >= BAR).any(axis=1).sum())
    rows.append(error_row("mean ever missed, one lognormal", hits, runs))
    return rows


def bounded(runs: int, looks: int) -> list[Row]:
    rng = np.random.default_rng(20)
    missed, refuted, differences, bets = 0, 0, 0, 0
    for _ in range(runs):
        one = BoundedMean(null=0.2)
        found = one.update(rng.beta(0.4, 1.6, looks))
        missed += not found.low <= 0.2 <= found.high
        refuted += found.p_value <= ALPHA
        two = BoundedDifference(least_propensity=0.2)
        share = 0.5 + 0.3 * np.sin(np.arange(looks) / 500)
        found = two.update(rng.random(looks) < 0.1, rng.random(looks) < share, np.clip(share, 0.2, 0.8))
        differences += not found.low <= 0 <= found.high
        bets += found.p_value <= ALPHA
    return [
        error_row("mean ever missed, bounded values", missed, runs),
        error_row("false alarms, betting on a bounded mean", refuted, runs),
        error_row("difference ever missed, bounded values, shares .2 to .8", differences, runs),
        error_row("false alarms, betting on a bounded difference, shares .2 to .8", bets, runs),
    ]


def proportions(runs: int, looks: int) -> list[Row]:
    rng, rows = np.random.default_rng(30), []
    for p in (0.01, 0.3):
        hits = 0
        for count in chunks(runs):
            s = np.cumsum(rng.random((count, looks)) < p, axis=1)
            n = np.arange(1, looks + 1)
            hits += int((beta_log_e(s, n - s, p, (1.0, 1.0)) >= BAR).any(axis=1).sum())
        rows.append(error_row(f"proportion ever missed, {p:g}, from the first trial on", hits, runs))
    blocks = looks // 20
    for side in ("two-sided", "greater"):
        hits = 0
        for _ in range(runs):
            test = ProportionDifference(alternative=side)
            counts = rng.binomial(5, 0.05, size=(blocks, 2)).tolist()
            for old, new in counts:
                p_value = test.update((old, 5), (new, 5))
            hits += p_value <= ALPHA
        rows.append(error_row(f"false alarms, difference of proportions .05, {side}, blocks of 5 + 5", hits, runs))
    return rows


def quantiles(runs: int, looks: int) -> list[Row]:
    """At the true quantile after every observation; the ratio's own e-value is the least over all values, so lower."""
    rng, rows = np.random.default_rng(40), []
    edges = log_edges(1, 1000, 0.02)
    for q in (0.5, 0.95):
        missed, product = 0, 0
        prior = QuantileRatio(q, edges).prior
        for count in chunks(runs):
            n = np.arange(1, looks + 1)
            arms = []
            for _ in range(2):
                s = np.cumsum(rng.random((count, looks)) < q, axis=1)
                arms.append([beta_log_e(s, n - s, q, prior, side) for side in ("greater", "less")])
            missed += int((np.maximum(*arms[0]) >= BAR + math.log(2)).any(axis=1).sum())
            both = sum(np.logaddexp(*arm) - math.log(2) for arm in arms)
            product += int((np.asarray(both) >= BAR).any(axis=1).sum())
        rows.append(error_row(f"quantile {q:g} ever missed", missed, runs))
        rows.append(error_row(f"false alarms, ratio of quantiles {q:g}, at the worst value", product, runs))
    hits = 0
    for _ in range(runs):
        test = QuantileRatio(0.95, edges)
        for values in np.split(rng.lognormal(3, 0.5, size=(2, looks)), looks // 200, axis=1):
            p_value = test.update(*values)
        hits += p_value <= ALPHA
    rows.append(error_row("false alarms, ratio of quantiles .95, lognormal, looked at every 200", hits, runs))
    return rows


def split(runs: int, units: int) -> list[Row]:
    """50/50 after each of the first units and at 2,000 looks to the end; then 49.75/50.25 at the looks."""
    rng, alpha = np.random.default_rng(50), 0.01
    half = np.array([0.5, 0.5])
    first = min(20_000, units // 100)

    def log_e(a: NDArray[Any], n: NDArray[np.int64]) -> FloatArray:
        counts = np.stack([a, n - a], axis=-1)
        each = [split_log_e(counts, c * half, half) for c in CONCENTRATIONS]
        return np.asarray(special.logsumexp(each, axis=0) - math.log(len(each)))

    looks = np.unique(np.geomspace(first, units, 2_000).astype(np.int64))
    steps = np.diff(looks, prepend=first)
    hits, caught, when = 0, 0, []
    for count in chunks(runs):
        each = np.cumsum(rng.random((count, first)) < 0.5, axis=1)
        early = (log_e(each, np.arange(1, first + 1)) >= -math.log(alpha)).any(axis=1)
        later = each[:, -1:] + np.cumsum(rng.binomial(steps, 0.5, size=(count, len(steps))), axis=1)
        hits += int((early | (log_e(later, looks) >= -math.log(alpha)).any(axis=1)).sum())
        broken = np.cumsum(rng.binomial(np.diff(looks, prepend=0), 0.4975, size=(count, len(steps))), axis=1)
        out = log_e(broken, looks) >= -math.log(alpha)
        caught += int(out.any(axis=1).sum())
        when += looks[out.argmax(axis=1)[out.any(axis=1)]].tolist()
    what = f"split 49.75/50.25 caught within {units:,} units, alpha {alpha:g}"
    fixed = stats.norm.sf(stats.norm.isf(alpha / 2) - 0.005 * math.sqrt(units))
    return [
        error_row(f"false alarms, split 50/50 over {units:,} units, alpha {alpha:g}", hits, runs, alpha),
        Row(what, "share", caught / runs, "chi-square, looked at once", float(fixed)),
        Row("units until it is caught, median", "units", float(np.median(when)) if when else math.nan),
    ]


def power(runs: int, horizon: int) -> list[Row]:
    """Effects that a fixed test at the horizon finds in 80 %."""
    rng, rows = np.random.default_rng(60), []
    effect = math.sqrt(2 / horizon) * (stats.norm.isf(0.025) + stats.norm.isf(0.2))
    longer = math.ceil(horizon * sequential_inflation())
    found, found_longer, stopped = 0, 0, 0.0
    for count in chunks(runs):
        z, n = mean_paths(rng.normal(size=(count, longer)), rng.normal(effect, 1, size=(count, longer)))
        out = evidence(z, n, planned=longer) >= BAR
        found_longer += int(out.any(axis=1).sum())
        stopped += float(np.where(out.any(axis=1), n[out.argmax(axis=1)], longer).sum())
        out = evidence(z[:, : horizon - START + 1], n[: horizon - START + 1], planned=horizon) >= BAR
        found += int(out.any(axis=1).sum())
    fixed = power_mean(effect, 1, horizon)
    rows += [
        Row(
            f"effects on a mean found within {horizon:,} per arm", "share", found / runs, "Welch, looked at once", fixed
        ),
        Row("effects on a mean found within the planned size", "share", found_longer / runs, "asked for", 0.8),
        Row(
            "size at which it ends, mean, of the fixed size",
            "ratio",
            stopped / runs / horizon,
            "planned",
            longer / horizon,
            "lower",
        ),
    ]
    base, lift = 0.1, 0.1 * 0.3
    size = sample_size_proportion(base, lift)
    fixed, hits, bets = power_proportion(base, lift, size), 0, 0
    for _ in range(runs):
        test = ProportionDifference()
        pairs = np.stack([rng.binomial(5, base, size // 5), rng.binomial(5, base + lift, size // 5)], axis=1).tolist()
        for old, new in pairs:
            p_value = test.update((old, 5), (new, 5))
        hits += p_value <= ALPHA
        treated = rng.random(2 * size) < 0.5
        outcome = rng.random(2 * size) < np.where(treated, base + lift, base)
        bets += BoundedDifference().update(outcome, treated).p_value <= ALPHA
    what = f"effects .10 to .13 found within {size:,} per arm"
    rows.append(Row(f"{what}, blocks", "share", hits / runs, "z test, looked at once", fixed))
    rows.append(Row(f"{what}, betting", "share", bets / runs, "z test, looked at once", fixed))
    return rows


def coverage(runs: int) -> list[Row]:
    """Of the intervals at a fixed size; at 95 % between 1 - alpha -+ 2 standard errors."""
    rng = np.random.default_rng(70)
    n, p, q = 300, 0.05, 0.08
    inside = 0
    for x0, x1 in rng.binomial(n, (p, q), size=(runs, 2)).tolist():
        result = proportions_z_test((x0, n), (x1, n))
        inside += result.low <= q - p <= result.high
    welch = 0
    for _ in range(runs):
        result = welch_test(Moments.of(rng.normal(0, 1, 40)), Moments.of(rng.normal(1, 3, 25)))
        welch += result.low <= 1 <= result.high
    return [
        Row(
            "coverage of the fixed interval, proportions .05 and .08 of 300", "share", inside / runs, "asked for", 0.95
        ),
        Row("coverage of the fixed interval, normal means, 40 and 25", "share", welch / runs, "asked for", 0.95),
    ]


def main() -> None:
    arguments = parse_arguments("experiments_inference")
    quick = arguments.quick
    runs, looks = (100, 2_000) if quick else (2_000, 20_000)
    rows = [
        *means(runs, looks),
        *bounded(runs, looks),
        *proportions(runs, looks),
        *quantiles(runs, looks // 4),
        *split(runs, 200_000 if quick else 2_000_000),
        *power(runs, sample_size_mean(0.1 if quick else 0.04, 1)),
        *coverage(500 if quick else 10_000),
    ]
    notes = [
        f"{runs:,} simulated experiments each, {looks:,} observations per arm (quantiles: {looks // 4:,})",
        f"alpha {ALPHA:g} unless said otherwise",
        f"planning for looks at any time asks for {sequential_inflation():.2f} times the fixed size (two-sided)",
    ]
    report("experiments_inference", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
