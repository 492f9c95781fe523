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
from rlaas.optimization import ActorPool, SearchResult, front_hypervolume, minimize
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


def build_problem(
    name: str, options: Mapping[str, Any], tunable: str, seeds: tuple[int, ...], steps: int, warmup: int, replicas: int
) -> ConfigurationProblem:
    """The configuration problem of a scenario by name: runs inside the actor, so nothing heavy is shipped."""
    return ConfigurationProblem(
        load(name, **options), tunable, seeds=seeds, steps=steps, warmup=warmup, replicas=replicas
    )


def search_configurations(
    name: str,
    options: Mapping[str, Any],
    tunable: str,
    *,
    generations: int,
    seeds: Sequence[int],
    steps: int,
    warmup: int,
    replicas: int = 1,
    population: int | None = None,
    workers: int = 2,
    cpus_per_worker: float = 0.5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """Search one family of static controllers with NSGA-III, evaluated on a pool of Ray actors.

    Args:
        name, options: the scenario.
        tunable: which family of controllers.
        generations, population, seed: of the search.
        seeds, steps, warmup, replicas: how a configuration is evaluated; the seeds are never used again later.
        workers: actors; 0 evaluates in this process.
        cpus_per_worker: processors that Ray sets aside for each.
        progress: called with (generation, generations).

    Raises:
        ConfigurationError: unknown scenario or tunable.
    """
    factory = functools.partial(build_problem, name, dict(options), tunable, tuple(seeds), steps, warmup, replicas)
    problem = factory()
    search = functools.partial(
        minimize,
        problem,
        algorithm="nsga3",
        generations=generations,
        population=population,
        seed=seed,
        progress=progress,
    )
    if workers == 0:
        return search()
    with ActorPool(factory, workers=workers, cpus_per_worker=cpus_per_worker) as pool:
        return search(evaluator=pool.evaluate)


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
