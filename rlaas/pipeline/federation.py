"""A federation as a job: rounds at the sites, then the policy in the registry, nested under one MLflow run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, ConflictError
from rlaas.pipeline.jobs import config_parameters
from rlaas.registry import Registry, Store, check_alias
from rlaas.settings import Settings
from rlaas.training.federated import FederationConfig, Tracker, federate, final_figures, load_newest

__all__ = ["federation_folder", "run_federation"]

Progress = Callable[[int, int, dict[str, float]], None]


def federation_folder(config: FederationConfig, settings: Settings) -> Path:
    """Where a federation keeps its checkpoints: a call with the same configuration goes on from them."""
    return settings.home / "federations" / config.name


def run_federation(
    config: FederationConfig, settings: Settings, *, afresh: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train at the sites and register the policy as a candidate under the scenario's name; Ray has to be running.

    A federation that was interrupted goes on after its last finished round.

    Args:
        config: the federation.
        settings: names the home and the stores.
        afresh: remove what an earlier federation of this name has left, and start at round 1.
        progress: see :func:`rlaas.training.federated.federate`.

    Returns:
        A JSON-ready report.

    Raises:
        ConfigurationError: the configuration cannot work.
        ConflictError: the home holds another federation of this name, or this one has been registered already.
        TrainingError: a round failed too often.
    """
    if config.training.scenario is None:
        raise ConfigurationError(
            "training.scenario is missing: a policy for a plain environment cannot be served",
            field="training.scenario",
        )
    check_alias(config.alias)
    folder = federation_folder(config, settings)
    if afresh:
        shutil.rmtree(folder, ignore_errors=True)
    _refuse_finished(config, folder, settings)
    run = federate(config, output=folder, settings=settings, progress=progress)
    tracker = Tracker(Store(settings), config.name, run.mlflow_run_id, {})
    try:
        last = run.rounds[-1] if run.rounds else None
        version = Registry(settings).register(
            run.scenario,
            run.bundle,
            params={"kind": "policy", **config_parameters(config.training)},
            metrics=final_figures(run, config),
            tags={
                "federation": config.name,
                "federation.sites": ", ".join(site.name for site in config.sites),
                "federation.rounds": len(run.rounds),
                **({} if last is None or last.epsilon is None else {"federation.epsilon": last.epsilon}),
            },
            documents={
                "federation.json": {"rounds": [result.to_dict() for result in run.rounds], "stopped": run.stopped},
                **({"front.json": run.front.to_dict()} if run.front else {}),
            },
            run_id=run.mlflow_run_id,
            alias=config.alias,
        )
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)
    return {
        "federation": config.name,
        "policy": {"name": version.name, "version": version.version},
        "bundle": str(run.bundle),
        "mlflow_run_id": run.mlflow_run_id,
        "stopped": run.stopped,
        "metrics": final_figures(run, config),
        "rounds": [result.to_dict() for result in run.rounds],
    }


def _refuse_finished(config: FederationConfig, folder: Path, settings: Settings) -> None:
    """A federation whose policy is registered has nothing left to do: to train on it is to start another."""
    state = load_newest(folder, config.digest())
    if state is None or state.run_id is None:
        return
    registry = Registry(settings)
    for name in registry.names():
        for version in registry.versions(name):
            if version.run_id == state.run_id:
                raise ConflictError(
                    f"federation {config.name!r} is finished: its policy is {name} version {version.version}; "
                    "start it afresh (--fresh) or under another name",
                    field="name",
                )
