"""What the Ray jobs do: train, optimise, and the pipeline from scenario to registered policy."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.errors import InvalidInputError, RlaasError
from rlaas.files import write_text
from rlaas.fronts import Front
from rlaas.lake import Lake
from rlaas.optimization import (
    Contender,
    EvidenceArchive,
    Generation,
    OptimizationConfig,
    Population,
    RaceResult,
    SpreadResult,
    complete,
    race,
)
from rlaas.pipeline.candidates import configuration_parameters, search_configurations
from rlaas.pipeline.evidence import ContenderEvaluator
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import with_default
from rlaas.registry import PolicyVersion, Registry, check_alias, git_commit
from rlaas.scenarios import Scenario, load
from rlaas.settings import Settings
from rlaas.training import Reporter, RunTelemetry, TelemetryConfig, TrainingConfig, TrainingRun, train

__all__ = ["Optimization", "config_parameters", "run_folder", "run_optimization", "run_training", "write_front"]

RACE_SEEDS = 50
"""Fresh worlds at most that found configurations are told apart on."""

Progress = Callable[[int, int, Mapping[str, float]], None]


def run_folder(settings: Settings, kind: str) -> Path:
    """A new folder of its own in the home, for a run of some kind."""
    folder = settings.home / "runs" / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}"
    folder.mkdir(parents=True)
    return folder


def _lineage(scenario: Scenario, settings: Settings, seed: int) -> dict[str, Any]:
    return {
        "git_commit": git_commit(Path(__file__).parent),
        "lake_versions": Lake(settings.lake_root, settings.tenant).versions(),
        "reference_hash": scenario.reference_hash,
        "seed": seed,
    }


def run_training(
    config: TrainingConfig,
    settings: Settings,
    *,
    alias: str = "candidate",
    progress: Progress | None = None,
    output: Path | None = None,
    telemetry: TelemetryConfig | None = None,
    reporters: Sequence[Reporter] = (),
    resume: bool = False,
) -> tuple[TrainingRun, PolicyVersion | None]:
    """Train and register under the scenario's name, in the MLflow run that has followed the training.

    A run on a plain Gymnasium environment is trained but not registered: there is no scenario to serve it for.

    Args:
        config: what to train.
        settings: where the registry is, and the home.
        alias: of the new version.
        progress: as of :func:`rlaas.training.train`.
        output: folder of the run; None for a new one in the home.
        telemetry: what follows the training; None for all that costs nothing to have.
        reporters: told as well.
        resume: go on from the last checkpoint in ``output``; the MLflow run is the one that it was begun in.

    Raises:
        ConfigurationError: a configuration that cannot work, or telemetry that cannot start; nothing was begun.
        InvalidInputError: not a usable alias; nothing was begun.
        TrainingError: training failed; nothing is registered.
        RlaasError: the registration failed; the message says where the bundle is.
    """
    check_alias(alias)
    folder = output if output is not None else run_folder(settings, "train")
    wanted = telemetry if telemetry is not None else TelemetryConfig()
    params = {"kind": "policy", **config_parameters(config)}
    with RunTelemetry(wanted, settings, folder, params=params, others=reporters) as watch:
        run = train(config, output=folder, progress=progress, reporter=watch, resume=resume)
        version = None
        if config.scenario is not None:
            scenario = load(config.scenario, **config.options)
            try:
                version = Registry(settings).register(
                    scenario.name,
                    run.bundle,
                    params=params,
                    metrics=run.metrics,
                    tags=_lineage(scenario, settings, config.seed),
                    documents={"front.json": run.front.to_dict()} if run.front else None,
                    curve=[row for row in run.curve if row["step"] > watch.logged_until],
                    run_id=watch.mlflow_run_id,
                    alias=alias,
                )
            except RlaasError as problem:
                # Hours of training must not be looked for.
                message = f"{problem.message}; the policy is trained and not registered: {run.bundle}"
                raise type(problem)(message, field=problem.field) from problem
    run_id = version.run_id if version is not None else watch.mlflow_run_id
    # After the block: closing is part of what can go wrong.
    return dataclasses.replace(run, mlflow_run_id=run_id, telemetry=watch.report()), version


def config_parameters(config: TrainingConfig) -> dict[str, Any]:
    """A training configuration as flat parameters for the registry."""
    fields = config.model_dump(mode="json", exclude_none=True)
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in fields.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """A finished search over configurations.

    Attributes:
        front: the found configurations, judged on seeds that the search never saw.
        path: the JSON file that holds it (``fronts/<scenario>-<tunable>.json``).
        search: what was found and how the search was spread.
        race: how the found ones were told apart.
    """

    front: Front
    path: Path
    search: SpreadResult
    race: RaceResult

    def to_dict(self) -> dict[str, Any]:
        """The outcome without the candidates, as plain JSON types."""
        found = self.search.found
        standings = [one.status for one in self.race.standings]
        return {
            "scenario": self.front.scenario,
            "candidates": len(self.front.candidates),
            "front": str(self.path),
            "version": self.front.version,
            "search": {
                "plan": self.search.plan.to_dict(),
                "generations": found.generations,
                "evaluations": found.evaluations,
                "unknown": found.unknown,
                "seconds": found.seconds,
                "stopped": found.stopped,
            },
            "race": {
                "evaluations": self.race.evaluations,
                "rounds": self.race.rounds,
                "seeds": len(self.race.seeds),
                "standings": {status: standings.count(status) for status in sorted(set(standings))},
            },
        }


def run_optimization(
    config: OptimizationConfig,
    settings: Settings,
    *,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Generation, Population], None] | None = None,
    racing: Callable[[int, int], None] | None = None,
    output: Path | None = None,
    resume: bool = False,
) -> Optimization:
    """Search configurations, race the found ones on fresh seeds, and write the front to the home.

    Args:
        config: what to search.
        settings: name the home.
        progress, watch: of the search, see :func:`~rlaas.pipeline.search_configurations`.
        racing: called with (evaluations spent, evaluations allowed) of the race.
        output: folder that the search is kept in; None for nowhere.
        resume: go on with the search in ``output``.

    Raises:
        ConfigurationError: what the configuration names does not exist.
        ConflictError: ``output`` holds another search.
        InvalidInputError: the search found no configuration with a value.
    """
    search = search_configurations(config, progress=progress, watch=watch, checkpoint=output, resume=resume)
    found = search.found
    if not len(found.X):
        raise InvalidInputError(
            f"none of the {found.evaluations} configurations tried has a value for every objective", field="tunable"
        )
    scenario = load(config.scenario, **config.options)
    rows = {f"{config.tunable}-{i}": x for i, x in enumerate(found.X)}
    archive = EvidenceArchive(scenario.name, scenario.objectives, reference_hash=scenario.reference_hash)
    for name, x in rows.items():
        archive.add(
            Contender(
                name=name,
                kind="configuration",
                parameters=configuration_parameters(scenario, config.tunable, x.tolist()),
            )
        )
    protocol = scenario.protocols["short"]

    evaluate = ContenderEvaluator(scenario, protocol)
    first_round = len(rows) * config.race.seeds_per_round
    result = race(
        archive,
        evaluate,
        seeds=seeds_for("front", config.seed, RACE_SEEDS),
        budget=first_round + (10 * len(rows) if config.race.budget is None else config.race.budget),
        seeds_per_round=config.race.seeds_per_round,
        confidence=config.race.confidence,
        tolerance=config.race.tolerance,
        progress=racing,
    )
    result = complete(result, evaluate)
    front = with_default(scenario, result.front(), protocol)
    return Optimization(front=front, path=write_front(front, settings, config.tunable), search=search, race=result)


def write_front(front: Front, settings: Settings, label: str) -> Path:
    """Write a front as ``fronts/<scenario>-<label>.json`` in the home, in one piece."""
    target = settings.home / "fronts" / f"{front.scenario}-{label}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps(front.to_dict(), indent=1, allow_nan=False) + "\n")
    return target
