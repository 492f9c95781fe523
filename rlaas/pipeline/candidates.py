"""One front for everything: policies at preferences and searched configurations, on common seeds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Preference, normalise, to_minimisation
from rlaas.optimization import (
    Generation,
    OptimizationConfig,
    Population,
    SpreadResult,
    front_hypervolume,
    reference_directions,
    spread_search,
)
from rlaas.registry import read_front
from rlaas.scenarios import ConfigurationProblem, Evaluation, Scenario, load

__all__ = [
    "Hypervolumes",
    "build_front",
    "configuration_parameters",
    "hypervolumes",
    "search_configurations",
    "search_reference",
    "utility",
]

FloatArray = NDArray[np.float64]


EVALUATED = ("scenario", "options", "tunable", "seeds", "steps", "warmup", "replicas")
"""What of a search's configuration decides a candidate's value."""

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
    config: OptimizationConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Generation, Population], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> SpreadResult:
    """Search one family of controllers, in this process or on a pool of Ray actors, whichever pays.

    Args:
        config: the scenario, the family, and the budget; its seeds should never be used again later.
        progress: called with (generation, generations).
        watch: called with each generation's record and population; its hypervolume is in the objectives' units, see
            :func:`search_reference`.
        checkpoint: folder that the search is kept in.
        resume: go on with the search in it.

    Raises:
        ConfigurationError: unknown scenario or tunable, or a warm start that fits neither.
        ConflictError: the folder holds another search.
    """
    factory = functools.partial(build_problem, config)
    problem = factory()
    reference, ranges = search_reference(problem.scenario)
    return spread_search(
        factory,
        way=config.way,
        # A front made by the same file twice is the same front: only who asks for a steady flow gets one.
        ways=("serial", "batched"),
        algorithm=config.algorithm,
        generations=config.generations,
        stop=config.stop.stops(ranges),
        population=config.population,
        directions=_directions(config, problem.n_obj),
        seed=config.seed,
        initial=_warm_start(config, problem),
        reference=reference,
        workers=config.workers,
        cpus_per_worker=CPUS_PER_WORKER,
        deadline_seconds=config.deadline_seconds,
        checkpoint=checkpoint,
        resume=resume,
        identity=config.model_dump(mode="json", include=set(EVALUATED)),
        progress=progress,
        watch=watch,
    )


def search_reference(scenario: Scenario) -> tuple[FloatArray, float]:
    """The worse end of every objective, to be minimised [n_objectives], and the product of the objectives' ranges.

    A search's hypervolume against the former, divided by the latter, is that of
    :func:`~rlaas.optimization.front_hypervolume`.
    """
    worse = [o.low if o.direction == "maximize" else o.high for o in scenario.objectives]
    ranges = math.prod(o.high - o.low for o in scenario.objectives)
    return to_minimisation(scenario.objectives, worse), ranges


def _directions(config: OptimizationConfig, n_obj: int) -> FloatArray | None:
    if config.directions == "das-dennis":
        return None
    return reference_directions(n_obj, config.population, config.directions)


def _warm_start(config: OptimizationConfig, problem: ConfigurationProblem) -> FloatArray | None:
    """The configurations of this family in the front that the search begins with [n, n_var]."""
    if config.warm_start is None:
        return None
    front = read_front(config.warm_start)
    rows = [
        c.parameters["values"]
        for c in front.candidates
        if c.kind == "configuration" and c.parameters.get("tunable") == config.tunable
    ]
    if front.scenario != problem.scenario.name or not rows:
        raise ConfigurationError(
            f"warm_start {config.warm_start} is a front of {front.scenario} with {len(rows)} configurations of "
            f"{config.tunable!r}; expected one of {problem.scenario.name} with at least one",
            field="warm_start",
        )
    missing = sorted({name for row in rows for name in set(problem.names) ^ set(row)})
    if missing:
        raise ConfigurationError(
            f"warm_start {config.warm_start}: the parameters of {config.tunable!r} are {', '.join(problem.names)}; it "
            f"differs in {', '.join(missing)}",
            field="warm_start",
        )
    return np.array([[row[name] for name in problem.names] for row in rows], dtype=np.float64)


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
        union=volume([c.mean for c in candidates]),
        baselines=volume([e.mean().tolist() for e in baselines.values()]),
    )
