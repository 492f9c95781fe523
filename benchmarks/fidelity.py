"""Does the fast simulation of network5g rank policies as the slow one does?

    python -m benchmarks.fidelity [--quick] [--json] [--policies 24] [--seeds 12] [--only small/mid ...]

Policies (the baselines, settings spread over the action box, tuned-rule settings spread over theirs) run in both modes
on the same seeds: ``fidelity="fluid"``, closed form within a step, and ``fidelity="slot"``, every slot with fading,
delayed reports, HARQ and packets. A row is the rank correlation of the two columns of means, with a 95 % interval from
resampling policies and seeds; 0.9 is wanted. No package offers both modes, so the rows stand without a rival. Each
mode is normalised by its own default on these seeds, as the frozen ranges are by the fluid mode's; ``as frozen`` keeps
the fluid mode's figures for both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import qmc

from benchmarks.harness import Row, parse_arguments, report
from rlaas.objectives import normalise
from rlaas.scenarios.controllers import Controller
from rlaas.scenarios.evaluation import Evaluation, evaluate
from rlaas.scenarios.network5g import Network5G
from rlaas.scenarios.network5g.calibration import with_ranges
from rlaas.scenarios.network5g.objectives import make_objectives, objective_values
from rlaas.scenarios.network5g.reference import Regime

Floats = NDArray[np.float64]

REGIMES = (("small", "low"), ("small", "mid"), ("small", "high"), ("medium", "mid"))
NAMES = ("latency", "throughput", "energy", "satisfaction")
UTILITY = "equal-weight utility"
WANTED = 0.9
FIRST_SEED = 700_000
RESAMPLES = 500
MOST_SLEEP = 0.85
"""A network that is switched off ranks last in any mode: it would flatter the correlations."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many policies, seeds and steps."""

    policies: int
    seeds: int
    replicas: int
    warmup: int
    steps: int


def policies(scenario: Network5G, count: int) -> dict[str, Callable[[], Controller]]:
    """The baselines, and of the rest two static settings for every reactive rule: Sobol points of their boxes."""
    found: dict[str, Callable[[], Controller]] = {name: rule.make for name, rule in scenario.baselines.items()}
    rest = max(count - len(found), 0)
    for family, wanted in (("static", rest - rest // 3), ("reactive", rest // 3)):
        tunable = scenario.tunables[family]
        points = qmc.Sobol(len(tunable.parameters), seed=5).random(max(2 ** (wanted - 1).bit_length(), 1))[:wanted]
        high = [
            MOST_SLEEP if name == "sleep" else top for name, top in zip(tunable.parameters, tunable.high, strict=True)
        ]
        for n, point in enumerate(qmc.scale(points, tunable.low, high) if wanted else ()):
            found[f"{family} {n}"] = lambda make=tunable.make, values=point: make(values)  # type: ignore[misc]
    return found


def regime_of(scenario: Network5G, default: Evaluation) -> Regime:
    """The scenario's regime with what ``default`` reached instead of what is frozen."""
    up, down = default.numerators.sum(axis=0), default.denominators.sum(axis=0)
    ratio = dict(zip(scenario.part_names, up / down, strict=True))
    slices = scenario.part_names[:3]
    measured = replace(
        scenario.network.regime,
        latency_ms=tuple(float(ratio[name]) for name in slices),
        throughput=float(ratio["throughput"]),
        energy=float(ratio["energy"]),
        satisfaction=float(ratio["satisfaction"]),
    )
    return with_ranges(measured, scenario.reference)


def columns(evaluations: list[Evaluation], regime: Regime, seeds: NDArray[np.intp]) -> Floats:
    """Objectives and utility [policies, 5] on a choice of seeds, all counted so that more is better."""
    up = np.stack([one.numerators[seeds].sum(axis=0) for one in evaluations])
    down = np.stack([one.denominators[seeds].sum(axis=0) for one in evaluations])
    values = normalise(make_objectives(regime), objective_values(up, down, regime))
    return np.column_stack([values, values.mean(axis=1)])


def correlations(
    fluid: list[Evaluation], slow: list[Evaluation], regimes: tuple[Regime, Regime], seeds: int
) -> tuple[Floats, Floats, Floats]:
    """Spearman and Kendall [2, 5], and the ends of their 95 % intervals [2, 5] each."""

    def measure(chosen: NDArray[np.intp], drawn: NDArray[np.intp]) -> Floats:
        a, b = (columns(e, regime, drawn)[chosen] for e, regime in zip((fluid, slow), regimes, strict=True))
        pairs = list(zip(a.T, b.T, strict=True))
        return np.array(
            [[stats.spearmanr(x, y).statistic for x, y in pairs], [stats.kendalltau(x, y).statistic for x, y in pairs]]
        )

    rng = np.random.default_rng(0)
    everything = measure(np.arange(len(fluid)), np.arange(seeds))
    drawn = [
        measure(rng.integers(len(fluid), size=len(fluid)), rng.integers(seeds, size=seeds)) for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(np.stack(drawn), (0.025, 0.975), axis=0)
    return everything, low, high


def compare(size: str, load: str, effort: Effort, details: bool) -> list[Row]:
    """The rows of one regime."""
    seeds = range(FIRST_SEED, FIRST_SEED + effort.seeds)
    runs: dict[str, list[Evaluation]] = {}
    seconds = {}
    for fidelity in ("fluid", "slot"):
        scenario = Network5G(size=size, load=load, fidelity=fidelity)
        makers = policies(scenario, effort.policies)
        started = time.perf_counter()
        runs[fidelity] = [
            evaluate(scenario, make(), seeds, steps=effort.steps, warmup=effort.warmup, replicas=effort.replicas)
            for make in makers.values()
        ]
        seconds[fidelity] = time.perf_counter() - started
    default = list(makers).index(scenario.default_baseline)
    fluid, slow = runs["fluid"], runs["slot"]
    own = (regime_of(scenario, fluid[default]), regime_of(scenario, slow[default]))
    frozen = (scenario.network.regime, scenario.network.regime)
    if details:
        show(list(makers), scenario, fluid, slow)
    rows = []
    for label, regimes in (("", own), (", as frozen", frozen)):
        found, low, high = correlations(fluid, slow, regimes, effort.seeds)
        for a, name in enumerate((*NAMES, UTILITY)):
            if label and name not in ("latency", UTILITY):
                continue
            for b, kind in enumerate(("Spearman", "Kendall")):
                what = f"{size} {load}{label}, {name}: {kind} ({low[b, a]:.2f} to {high[b, a]:.2f})"
                rows.append(Row(what, "rank correlation", float(found[b, a])))
    slower = seconds["slot"] / seconds["fluid"]
    rows.append(Row(f"{size} {load}, time of the slow mode over the fast one's", "", slower, better="lower"))
    return rows


def show(names: list[str], scenario: Network5G, fluid: list[Evaluation], slow: list[Evaluation]) -> None:
    """Every part of every policy in both modes, to see which approximation is at fault."""
    parts = scenario.part_names[:8]
    print(" | ".join(("policy", *(f"{part} fluid, slot" for part in parts))), file=sys.stderr)
    for name, a, b in zip(names, fluid, slow, strict=True):
        pair = [e.numerators.sum(axis=0) / e.denominators.sum(axis=0) for e in (a, b)]
        cells = [f"{pair[0][p]:.4g}, {pair[1][p]:.4g}" for p in range(len(parts))]
        print(" | ".join((name, *cells)), file=sys.stderr)
    for p, part in enumerate(parts):
        a, b = ([e.numerators[:, p].sum() / e.denominators[:, p].sum() for e in run] for run in (fluid, slow))
        print(f"{part}: Spearman {stats.spearmanr(a, b).statistic:.3f}", file=sys.stderr)


def options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes beside the common options."""
    parser.add_argument("--policies", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--only", nargs="+", metavar="SIZE/LOAD", default=["/".join(regime) for regime in REGIMES])
    parser.add_argument("--details", action="store_true", help="print every part of every policy to stderr")


def main() -> None:
    arguments = parse_arguments("fidelity", options)
    full = Effort(policies=arguments.policies, seeds=arguments.seeds, replicas=2, warmup=50, steps=300)
    quick = Effort(policies=12, seeds=4, replicas=1, warmup=10, steps=30)
    chosen = [regime for regime in REGIMES if "/".join(regime) in arguments.only]
    rows = []
    for size, load in chosen[:1] if arguments.quick else chosen:
        rows += compare(size, load, quick if arguments.quick else full, arguments.details)
    short = [row.what for row in rows if "Spearman" in row.what and row.ours < WANTED]
    print("below the wanted 0.9: " + ("; ".join(short) or "none"), file=sys.stderr)
    report("fidelity", rows, arguments.json)


if __name__ == "__main__":
    main()
