"""The train stage: one policy by the training configuration, from nothing or from the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.champion import champion_of, described
from rlaas.pipeline.continuous.fingerprints import Room, libraries, room_of
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Progress, Stage
from rlaas.registry import git_commit
from rlaas.training import TrainingConfig, train

__all__ = ["TRAINING_LIBRARIES", "TrainStage", "train_into", "trained_bundle", "training_rooms"]

DOCUMENT = "training.json"
TRAINING_LIBRARIES = ("gymnasium", "numpy", "ray", "torch")


class TrainStage(Stage):
    """Trains the candidate."""

    name = "train"
    keeps_work = True

    def inputs(self, context: Context) -> dict[str, Any]:
        """The training configuration, and the champion where it is the start."""
        inputs: dict[str, Any] = {
            "config": {"training": context.config.training.model_dump(mode="json")},
            "libraries": libraries(*TRAINING_LIBRARIES),
        }
        if context.config.warm_start == "champion":
            inputs["champion"] = described(champion_of(context))
        return inputs

    def rooms(self, context: Context) -> Iterable[Room]:
        """Training's, and the scenario's."""
        return (*training_rooms(context), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``bundle/``, ``checkpoint/`` and ``training.json``: configuration, figures and learning curve."""
        champion = champion_of(context) if context.config.warm_start == "champion" else None
        initial = None if champion is None else context.registry.path(champion.name, champion.version)
        return train_into(
            context,
            context.config.training,
            folder,
            parent=None if champion is None else champion.version,
            initial=initial,
            progress=context.progress,
        )

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """The commit, and the champion that it started from."""
        parent = None if artefact is None else artefact.read(DOCUMENT)["parent"]
        return {
            "git_commit": git_commit(Path(__file__).parent),
            "parent_policy": None if parent is None else f"{context.scenario.name}/{parent}",
        }


def training_rooms(context: Context) -> tuple[Room, ...]:
    """The code that a training run depends on."""
    return (*PROBLEM_ROOMS, room_of(context.scenario), Room("rlaas.training"), Room("rlaas.bundles"))


def train_into(
    context: Context,
    config: TrainingConfig,
    folder: Path,
    *,
    parent: int | None = None,
    initial: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train, and write down beside the bundle what was trained and how it went.

    The folder is the same whenever the same inputs are trained, and keeps what a killed run has left in it: this is
    where a checkpoint is found.
    """
    context.ensure_ray()
    run = train(config, output=folder, progress=progress, initial=initial)
    document = {
        "config": config.model_dump(mode="json"),
        "parent": parent,
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
