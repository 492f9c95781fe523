"""The train stage: one policy by the training configuration, from nothing or from the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlaas.errors import InvalidInputError
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.champion import champion_of, described
from rlaas.pipeline.continuous.config import TRANSITIONS, PipelineConfig
from rlaas.pipeline.continuous.data import pinned_rows, pinned_versions
from rlaas.pipeline.continuous.fingerprints import Room, libraries, room_of
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Progress, Stage
from rlaas.pipeline.continuous.validation import contract_of
from rlaas.pipeline.jobs import config_parameters
from rlaas.registry import git_commit
from rlaas.training import TrainingConfig, fit_offline, train
from rlaas.training.offline import FitSettings
from rlaas.training.problems import algorithm_of
from rlaas.training.telemetry import RunTelemetry, TelemetryConfig

__all__ = ["TRAINING_LIBRARIES", "TrainStage", "train_into", "trained_bundle", "training_rooms"]

DOCUMENT = "training.json"
TRAINING_LIBRARIES = ("gymnasium", "numpy", "ray", "torch")


class TrainStage(Stage):
    """Trains the candidate.

    Args:
        config: of the pipeline: training that starts from logs depends on the data.
    """

    name = "train"
    keeps_work = True

    def __init__(self, config: PipelineConfig) -> None:
        if config.warm_start == "logs":
            self.needs = ("data", "validate")  # type: ignore[misc]  # of this pipeline

    def inputs(self, context: Context) -> dict[str, Any]:
        """The training configuration, and where it starts."""
        config = context.config
        inputs: dict[str, Any] = {
            "config": {"training": config.training.model_dump(mode="json")},
            "libraries": libraries(*TRAINING_LIBRARIES),
        }
        if config.warm_start == "champion":
            inputs["champion"] = described(champion_of(context))
        if config.warm_start == "logs":
            inputs["config"]["fit"] = _fit_settings(context).model_dump(mode="json")
        return inputs

    def rooms(self, context: Context) -> Iterable[Room]:
        """Training's, and the scenario's."""
        return (*training_rooms(context), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``bundle/``, ``checkpoints/`` and ``training.json``: configuration, figures and learning curve."""
        config, parent, start = context.config.training, None, None
        if context.config.warm_start == "champion":
            champion = champion_of(context)
            if champion is not None:
                parent, start = champion.version, context.registry.path(champion.name, champion.version)
        elif context.config.warm_start == "logs":
            start = _fit(context, folder / "fit")
        if start is not None:
            config = config.model_copy(update={"warm_start": str(start)})
        return train_into(context, config, folder, parent=parent, progress=context.progress)

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """The commit, the champion that it started from, and the tables it was fitted to."""
        parent = None if artefact is None else artefact.read(DOCUMENT)["parent"]
        logs = context.config.warm_start == "logs" and "data" in context.artefacts
        return {
            "git_commit": git_commit(Path(__file__).parent),
            "parent_policy": None if parent is None else f"{context.scenario.name}/{parent}",
            "lake_versions": pinned_versions(context.artefacts["data"]) if logs else None,
        }


def _fit_settings(context: Context) -> FitSettings:
    """How the start is fitted: networks and discount as the training will have them, so that critics go on too."""
    training = context.config.training
    algorithm = algorithm_of(training, context.scenario)
    same = {"hidden": training.hidden, "algorithm": algorithm, "gamma": training.resolved_gamma(algorithm)}
    return context.config.fit.model_copy(update=same)


def _fit(context: Context, folder: Path) -> Path:
    """Networks for every preference, fitted to the pinned transitions; returns the folder that training starts from.

    Raises:
        InvalidInputError: the transitions break the contract.
    """
    passed, broken = contract_of(context.artefacts["validate"])
    if not passed:
        raise InvalidInputError(
            f"training would start from transitions that break the contract: {'; '.join(broken)}", field="contract"
        )
    rows = pinned_rows(context.lake, context.artefacts["data"], TRANSITIONS)
    assert rows is not None, "the configuration asks for the table"
    fit_offline(
        rows,
        context.scenario,
        preference=None,
        output=folder,
        settings=_fit_settings(context),
        lineage={"lake_versions": pinned_versions(context.artefacts["data"])},
    )
    return folder


def training_rooms(context: Context) -> tuple[Room, ...]:
    """The code that a training run depends on."""
    return (*PROBLEM_ROOMS, room_of(context.scenario), Room("rlaas.training"), Room("rlaas.bundles"))


def train_into(
    context: Context,
    config: TrainingConfig,
    folder: Path,
    *,
    parent: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train, and write down beside the bundle what was trained and how it went.

    The folder is the same whenever the same inputs are trained, and keeps what a killed run has left in it: this is
    where a checkpoint is found, and which MLflow run the training goes on in. That run is nested in the stage's.
    """
    context.ensure_ray()
    parent_run = context.stage_run_id or None
    params = {"kind": "training", **config_parameters(config)}
    with RunTelemetry(TelemetryConfig(), context.settings, folder, params=params, parent=parent_run) as watch:
        run = train(config, output=folder, progress=progress, reporter=watch, resume=True)
    document = {
        "config": config.model_dump(mode="json"),
        "parent": parent,
        "mlflow_run": watch.mlflow_run_id,
        "bundle": run.bundle.relative_to(folder).as_posix(),
        "metrics": run.metrics,
        "curve": run.curve,
    }
    write_json(folder / DOCUMENT, document)
    return run.metrics


def trained_bundle(artefact: Artefact, folder: str = "") -> tuple[Path, dict[str, Any]]:
    """Folder of the bundle, and the document beside it, of a training run in a result (or in ``folder`` of it)."""
    document: dict[str, Any] = artefact.read(f"{folder}/{DOCUMENT}" if folder else DOCUMENT)
    return artefact.folder / folder / document["bundle"], document
