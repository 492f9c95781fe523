"""``rlaas train`` and ``rlaas optimize``: the long work, from a config file or from options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, print_json
from rlaas.errors import ConfigurationError

__all__ = ["optimize", "train"]


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/training/.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Scenario, instead of a config file.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps (decisions); overrides the file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; overrides the file.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="Folder to start from: of a fit or a run, a checkpoint, a bundle.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a preference-conditioned policy and register it as a candidate."""
    from rlaas.pipeline import local_ray, run_training
    from rlaas.scenarios import load
    from rlaas.settings import load_settings
    from rlaas.training import TrainingConfig, load_config

    given = {"steps": steps, "seed": seed, "warm_start": warm_start}
    overrides = {key: value for key, value in given.items() if value is not None}
    if (config is None) == (scenario is None):
        raise ConfigurationError("give exactly one of --config and --scenario", field="config")
    if config is not None:
        loaded = load_config(config)
        chosen = TrainingConfig(**{**loaded.model_dump(exclude_unset=True), **overrides})
    else:
        defaults: dict[str, Any] = dict(load(str(scenario)).training_defaults)
        chosen = TrainingConfig(**{**defaults, "scenario": scenario, **overrides})
    with local_ray(), bar("train") as advance:
        run, version = run_training(chosen, load_settings(), progress=advance)
    document = {
        "bundle": str(run.bundle),
        "metrics": run.metrics,
        "policy": {"name": version.name, "version": version.version} if version else None,
    }
    if as_json:
        print_json(document)
        return
    registered = f", registered as {version.name} version {version.version} (candidate)" if version else ""
    typer.echo(f"trained{registered}; bundle in {run.bundle}")


def optimize(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/optimization/.")],
    as_json: JsonOption = False,
) -> None:
    """Search configurations with NSGA-III on a pool of Ray actors and write their front."""
    from rlaas.optimization import load_optimization_config
    from rlaas.pipeline import local_ray, run_optimization
    from rlaas.settings import load_settings

    loaded = load_optimization_config(config)
    with local_ray(), bar("optimize") as advance:
        front, path = run_optimization(loaded, load_settings(), progress=advance)
    if as_json:
        print_json({"scenario": front.scenario, "candidates": len(front.candidates), "front": str(path)})
        return
    typer.echo(f"{len(front.candidates)} non-dominated configurations of {front.scenario} in {path}")
