"""One front for everything: policies at preferences and searched configurations, on common seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import check_choice
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Preference, normalise
from rlaas.optimization import ActorPool, OptimizationConfig, SearchResult, front_hypervolume, minimize
from rlaas.scenarios import ConfigurationProblem, Evaluation, Scenario, load

__all__ = [
    "Hypervolumes",
    "build_front",
    "configuration_parameters",
    "hypervolumes",
    "search_configurations",
    "utility",
]

FloatArray = NDArray[np.float64]


CPUS_PER_WORKER = 0.5
"""Set aside for each evaluating actor: a search runs beside Serve's replicas on machines with two cores."""


def build_problem(config: OptimizationConfig) -> ConfigurationProblem:
    """The problem that a configuration describes: built inside the actor, so nothing heavy is shipped."""
    return ConfigurationProblem(
        load(config.scenario, **config.options),
        config.tunable,
        seeds=config.seeds,
        steps=config.steps,
        warmup=config.warmup,
        replicas=config.replicas,
    )


def search_configurations(
    config: OptimizationConfig, *, progress: Callable[[int, int], None] | None = None
) -> SearchResult:
    """Search one family of controllers, evaluated on a pool of Ray actors.

    Args:
        config: the scenario, the family, and the budget; its seeds should never be used again later.
        progress: called with (generation, generations).

    Raises:
        ConfigurationError: unknown scenario or tunable.
    """
    factory = functools.partial(build_problem, config)
    problem = factory()
    with ActorPool(factory, workers=config.workers, cpus_per_worker=CPUS_PER_WORKER) as pool:
        return minimize(
            problem,
            generations=config.generations,
            population=config.population,
            seed=config.seed,
            evaluator=pool.evaluate,
            progress=progress,
        )


def configuration_parameters(scenario: Scenario, tunable: str, x: Sequence[float]) -> dict[str, Any]:
    """What reproduces a configuration: the tunable's name and its parameter values by name."""
    check_choice(tunable, scenario.tunables, field="tunable")
    family = scenario.tunables[tunable]
    values = np.where(family.integer, np.round(x), x)
    return {
        "tunable": tunable,
        "values": {name: float(value) for name, value in zip(family.parameters, values, strict=True)},
    }


def utility(scenario: Scenario, values: FloatArray, preference: Preference) -> FloatArray:
    """Weighted sum [...] of the normalised objectives [..., n_objectives]."""
    return np.asarray(normalise(scenario.objectives, values) @ preference.array())


def build_front(scenario: Scenario, candidates: Iterable[Candidate]) -> Front:
    """The front of all candidates of a scenario, with the hash of its frozen reference."""
    return Front.of(scenario.name, scenario.objectives, candidates, reference_hash=scenario.reference_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervolumes:
    """Hypervolume of each group against one frozen reference: the worse end of every objective's range.

    In normalised units: a candidate at the better end of every range alone would have 1.
    """

    policies: float
    configurations: float
    union: float
    baselines: float


def hypervolumes(
    scenario: Scenario, candidates: Sequence[Candidate], baselines: Mapping[str, Evaluation]
) -> Hypervolumes:
    """Hypervolume of the policies alone, of the configurations alone, of both, and of the baselines."""

    def volume(rows: list[Sequence[float]]) -> float:
        return front_hypervolume(rows, scenario.objectives)

    policies: list[Sequence[float]] = [c.mean for c in candidates if c.kind == "policy"]
    configurations: list[Sequence[float]] = [c.mean for c in candidates if c.kind == "configuration"]
    return Hypervolumes(
        policies=volume(policies),
        configurations=volume(configurations),
        union=volume(policies + configurations),
        baselines=volume([e.mean().tolist() for e in baselines.values()]),
    )
