"""Searches the tuned baselines of a scenario: ``python -m rlaas.pipeline.tuned network5g --option size=small ...``.

For each family of controllers the one with the largest utility at the primary mode's preference, the guards kept: by
differential evolution over common seeds, from what the file has already and, for what reacts, from the best static
one; then the best few once more on fresh seeds, so that searching on never loses anything. Run it after the reference
was calibrated anew; a test holds the hash in the file against the reference's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.pipeline.candidates import configuration_parameters, utility
from rlaas.pipeline.feasibility_search import Budget, GuardedProblem, best_controller, penalty
from rlaas.pipeline.seeds import seeds_for
from rlaas.scenarios import Scenario, load
from rlaas.scenarios.tuned import FILE

__all__ = ["tune_baselines"]

FloatArray = NDArray[np.float64]


def tune_baselines(
    scenario: Scenario,
    budget: Budget,
    *,
    restarts: int = 2,
    seed: int = 0,
    known: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """What ``tuned.json`` holds for one regime.

    Args:
        scenario: in that regime.
        budget: how much is searched and simulated.
        restarts: searches per family; the best on fresh seeds is kept.
        seed: of worlds and searches.
        known: values by name and family to start from as well, such as those found before; a family whose parameters
            have changed since is passed over.

    Returns:
        ``reference`` (hash), ``budget`` (one line), ``utility`` by family, and ``families``: values by name.
    """
    preference = scenario.modes[scenario.primary_mode].preference

    def goal(values: FloatArray) -> FloatArray:
        return utility(scenario, values, preference)

    families: dict[str, Any] = {}
    reached: dict[str, float] = {}
    for family, tunable in scenario.tunables.items():
        problem = GuardedProblem(scenario, family, seeds_for("search", seed, budget.search.seeds), budget.search)
        # What can react starts as the best that cannot, and stays among the finalists.
        start = tunable.from_static(families["static"]) if "static" in families else None
        found: list[FloatArray] = [] if start is None else [start]
        before = (known or {}).get(family, {})
        if tuple(before) == tunable.parameters:
            found.append(np.clip(np.array(list(before.values())), problem.xl, problem.xu))
        for restart in range(restarts):
            started = np.array(found).reshape(-1, problem.n_var)
            searched = best_controller(problem, goal, started, budget, seed + restart, lambda _: None)
            # As the file will have it: what is judged has to be what is shipped.
            found.append(np.clip([float(f"{value:.6g}") for value in searched], problem.xl, problem.xu))
        fresh = GuardedProblem(scenario, family, seeds_for("front", seed, budget.judge.seeds), budget.judge)
        values, missed = fresh.measured(fresh.evaluations(np.array(found)))
        scores = penalty(goal(values), missed)
        best = int(np.argmax(scores))
        families[family] = configuration_parameters(scenario, family, found[best].tolist())["values"]
        reached[family] = round(float(scores[best]), 6)
    searches = "one search" if restarts == 1 else f"{restarts} searches"
    return {
        "reference": scenario.reference_hash,
        "budget": (
            f"{searches} of {budget.generations} generations of {budget.population} controllers, each on "
            f"{budget.search.seeds} x {budget.search.replicas} worlds of {budget.search.warmup} + "
            f"{budget.search.steps} steps; the best of them by the {budget.judge.describe()}, on fresh seeds"
        ),
        "utility": reached,
        "families": families,
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None, report: Callable[[str], object] = sys.stderr.write) -> None:
    """Search the regimes asked for and write each into the scenario's file as soon as it is done."""
    parser = argparse.ArgumentParser(description="search the tuned baselines of a scenario")
    parser.add_argument("scenario", help="name of a scenario that has regimes")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the scenario")
    parser.add_argument("--generations", type=int, default=None)
    parser.add_argument("--population", type=int, default=None)
    parser.add_argument("--worlds", type=int, default=None, help="seeds of every evaluation of a search")
    parser.add_argument("--steps", type=int, default=None, help="counted steps of every evaluation of a search")
    parser.add_argument("--restarts", type=int, default=2, help="searches per family; the best on fresh seeds is kept")
    parser.add_argument("--quick", action="store_true", help="a first look")
    parser.add_argument("--output", type=Path, default=None, help="file to write; default: the shipped one")
    chosen = parser.parse_args(arguments)
    options = dict(option.split("=", 1) for option in chosen.option)
    scenario = load(chosen.scenario, **options)
    if chosen.restarts < 1:
        parser.error(f"--restarts must be at least 1, got {chosen.restarts}")
    budget = Budget.of(
        scenario,
        quick=chosen.quick,
        generations=chosen.generations,
        population=chosen.population,
        worlds=chosen.worlds,
        steps=chosen.steps,
    )
    if not scenario.regime:
        parser.error(f"{scenario.name} has no regimes to search baselines for")
    package = import_module(type(scenario).__module__).__package__ or ""
    path = chosen.output or Path(str(files(package).joinpath(FILE)))
    known = _read(path).get(scenario.regime, {}).get("families")
    made = tune_baselines(scenario, budget, restarts=chosen.restarts, known=known)
    # Read again: another regime may have been written in the meantime.
    document = _read(path) | {scenario.regime: made}
    path.write_text(json.dumps(dict(sorted(document.items())), indent=2) + "\n", encoding="utf-8")
    report(f"{chosen.scenario} {scenario.regime}: utility {made['utility']}\n")


if __name__ == "__main__":
    main()
