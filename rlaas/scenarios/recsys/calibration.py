"""Fits the levels of the reference before anything is trained: ``python -m rlaas.scenarios.recsys.calibration``.

Three constants are solved for: the utility of the exit at each level of clicks and the intercept of the order, so that
the popularity baseline reaches the wanted clicks per impression and orders per click; then the normalisation ranges
are measured as the span of all static configurations, and the best fixed strength of maximal marginal relevance is
looked up among them. Nothing else is fitted.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.errors import InvalidInputError
from rlaas.scenarios.configuration import ConfigurationProblem
from rlaas.scenarios.evaluation import evaluate
from rlaas.scenarios.recsys.reference import SLATE, parse_reference, reference_text
from rlaas.scenarios.recsys.scenario import Recommender

__all__ = ["calibrate", "main", "popularity_levels"]

SEEDS = tuple(range(9_000, 9_008))
"""Seeds of the calibration; no evaluation uses them."""

_BISECTIONS = 14


def _recommender(document: dict[str, Any], level: str) -> Recommender:
    return Recommender.from_reference(parse_reference(document), level=level)


def popularity_levels(
    document: dict[str, Any], level: str = "demonstration", *, steps: int, replicas: int
) -> tuple[float, float, float]:
    """Clicks per impression, orders per click and clicks per page of the default baseline, pooled over the seeds."""
    scenario = _recommender(document, level)
    controller = scenario.baselines[scenario.default_baseline].make()
    evaluation = evaluate(scenario, controller, SEEDS, steps=steps, warmup=20, replicas=replicas)
    up, down = evaluation.numerators.sum(axis=0), evaluation.denominators.sum(axis=0)
    ctr, cvr, *_ = scenario.objective_values(up, down).tolist()
    return ctr, cvr, SLATE * ctr


def _solve(function: Callable[[float], float], low: float, high: float, wanted: float) -> float:
    """The x in [low, high] where a monotone function reaches ``wanted``, rounded to 3 decimals."""
    rising = function(high) > function(low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if (function(middle) < wanted) == rising:
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 3)


def calibrate(document: dict[str, Any], *, steps: int = 200, replicas: int = 32) -> dict[str, Any]:
    """The reference with fitted levels and measured ranges.

    Args:
        document: parsed ``reference.json``; left as it is.
        steps: counted steps of each rollout.
        replicas: environments per calibration seed.

    Raises:
        InvalidInputError: so few pages that some configuration's orders per click are undefined.
    """
    fitted = copy.deepcopy(document)

    def click_rate(level: str, value: float) -> float:
        fitted["calibrated"][level]["exit_utility"] = value
        return popularity_levels(fitted, level, steps=steps, replicas=replicas)[0]

    def order_rate(value: float) -> float:
        fitted["conversion"]["intercept"] = value
        return popularity_levels(fitted, steps=steps, replicas=replicas)[1]

    for level, wanted in fitted["calibrated"].items():
        wanted["exit_utility"] = _solve(partial(click_rate, level), 0.0, 12.0, wanted["ctr_level"])
        if level == "demonstration":
            fitted["conversion"]["intercept"] = _solve(order_rate, -8.0, 2.0, fitted["conversion"]["level"])
    for level, wanted in fitted["calibrated"].items():
        _, cvr0, clicks_per_page = popularity_levels(fitted, level, steps=steps, replicas=replicas)
        wanted["cvr0"], wanted["clicks_per_page"] = float(f"{cvr0:.4g}"), float(f"{clicks_per_page:.4g}")
        _measure(fitted, level, steps=steps, replicas=2 * replicas)
    return fitted


def _measure(document: dict[str, Any], level: str, *, steps: int, replicas: int) -> None:
    """Write the ranges over all static configurations and the best level of MMR."""
    scenario, wanted = _recommender(document, level), document["calibrated"][level]
    problem = ConfigurationProblem(scenario, "static", SEEDS[:1], steps, warmup=20, replicas=replicas)
    signs = np.array([-objective.sign for objective in scenario.objectives])
    values = problem.evaluate(scenario.actions.parts.astype(np.float64)) * signs
    if not np.isfinite(values).all():
        raise InvalidInputError(
            f"{steps} steps x {replicas} replicas show no click for some configuration; raise steps", field="steps"
        )
    low, high = values.min(axis=0), values.max(axis=0)
    wanted["ranges"] = {
        objective.name: [float(f"{low[i]:.3g}"), float(f"{high[i]:.3g}")]
        for i, objective in enumerate(scenario.objectives)
    }
    names = scenario.reference.actions
    fixed = list(names.retrieval).index("content"), list(names.ranking).index("click")
    levels = [i for i, strength in enumerate(names.diversity) if strength != "dpp"]
    rows = values[[scenario.actions.index(*fixed, i, 0) for i in levels]]
    goodness = np.where(signs < 0, 1.0, -1.0) * (rows - low) / (high - low)
    wanted["best_mmr"] = levels[int(np.argmax(goodness.mean(axis=1)))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate the shipped reference and write the result."""
    parser = argparse.ArgumentParser(prog="python -m rlaas.scenarios.recsys.calibration", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=200, help="counted steps of each rollout")
    parser.add_argument("--replicas", type=int, default=32, help="environments per calibration seed")
    options = parser.parse_args(arguments)
    fitted = calibrate(json.loads(reference_text()), steps=options.steps, replicas=options.replicas)
    options.output.write_text(json.dumps(fitted, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"intercept": fitted["conversion"]["intercept"], **fitted["calibrated"]}))


if __name__ == "__main__":
    main()
