"""What the jobs of one step do: train a policy and register it, or search configurations and write their front."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlaas.fronts import Front
from rlaas.lake import Lake
from rlaas.optimization import OptimizationConfig
from rlaas.pipeline.candidates import build_front, configuration_parameters, search_configurations
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import evaluate_controller
from rlaas.registry import PolicyVersion, Registry, git_commit
from rlaas.scenarios import Scenario, load
from rlaas.settings import Settings
from rlaas.training import TrainingConfig, TrainingRun, train

__all__ = ["config_parameters", "run_optimization", "run_training", "write_front"]

Progress = Callable[[int, int, Mapping[str, float]], None]


def _workdir(settings: Settings, kind: str) -> Path:
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
    config: TrainingConfig, settings: Settings, *, alias: str = "candidate", progress: Progress | None = None
) -> tuple[TrainingRun, PolicyVersion | None]:
    """Train and register under the scenario's name.

    A run on a plain Gymnasium environment is trained but not registered: there is no scenario to serve it for.

    Raises:
        ConfigurationError: a configuration that cannot work.
        TrainingError: training failed; nothing is registered.
    """
    run = train(config, output=_workdir(settings, "train"), progress=progress)
    if config.scenario is None:
        return run, None
    scenario = load(config.scenario, **config.options)
    version = Registry(settings).register(
        scenario.name,
        run.bundle,
        params={"kind": "policy", **config_parameters(config)},
        metrics=run.metrics,
        tags=_lineage(scenario, settings, config.seed),
        documents={"front.json": run.front.to_dict()} if run.front else None,
        curve=run.curve,
        alias=alias,
    )
    return dataclasses.replace(run, mlflow_run_id=version.run_id), version


def config_parameters(config: TrainingConfig) -> dict[str, Any]:
    """A training configuration as flat parameters for the registry."""
    fields = config.model_dump(mode="json", exclude_none=True)
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in fields.items()}


def run_optimization(
    config: OptimizationConfig, settings: Settings, *, progress: Callable[[int, int], None] | None = None
) -> tuple[Front, Path]:
    """Search configurations, evaluate the found ones on fresh seeds, and write the front to the home.

    Returns:
        The front and the JSON file that holds it (``fronts/<scenario>-<tunable>.json``).
    """
    scenario = load(config.scenario, **config.options)
    result = search_configurations(config, progress=progress)
    protocol = scenario.protocols["short"]
    seeds = seeds_for("front", config.seed, protocol.seeds)
    family = scenario.tunables[config.tunable]
    candidates = [
        evaluate_controller(scenario, family.controller(x), seeds, protocol).candidate(
            f"{config.tunable}-{i}", "configuration", configuration_parameters(scenario, config.tunable, x)
        )
        for i, x in enumerate(result.X)
    ]
    front = build_front(scenario, candidates)
    return front, write_front(front, settings, config.tunable)


def write_front(front: Front, settings: Settings, label: str) -> Path:
    """Write a front as ``fronts/<scenario>-<label>.json`` in the home, in one piece."""
    target = settings.home / "fronts" / f"{front.scenario}-{label}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(front.to_dict(), indent=1, allow_nan=False) + "\n")
    partial.replace(target)
    return target
