"""The tune stage: a search for a better training configuration, a policy trained by the best one, and the trials'."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, RequestError
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.config import PipelineConfig
from rlaas.pipeline.continuous.fingerprints import Room, libraries
from rlaas.pipeline.continuous.stage import Context, Stage
from rlaas.pipeline.continuous.training import TRAINING_LIBRARIES, train_into, training_rooms
from rlaas.training import TrainingConfig
from rlaas.tuning import TrialPolicy

__all__ = ["TuneStage", "load_tuner", "trial_policies", "tuning_config"]

ROOM = "rlaas.tuning"
SEARCH = "search"
POLICY = "policy"
"""Folder of the second candidate in the result; not there where the search kept the configuration."""
TRIALS = "trial-policies.json"
"""The policies that trials ended with, best first: candidates of the front."""


def load_tuner() -> Any:
    """The room ``rlaas.tuning``: ``TuningConfig``, and ``tune(config, *, output, resume)``.

    What it returns has ``best``, a training configuration, and ``policies()``, those of its trials.

    Loaded here and not before: a pipeline without ``tune`` needs neither Ray Tune nor a search library.

    Raises:
        ConfigurationError: this installation has no such room.
    """
    try:
        return importlib.import_module(ROOM)
    except ModuleNotFoundError as problem:
        raise ConfigurationError(f"tune needs {problem.name}, which is not installed", field="tune") from problem


def tuning_config(config: PipelineConfig, tuner: Any) -> Any:
    """The tuning configuration of a pipeline; its ``training`` is the pipeline's unless it has its own.

    Raises:
        ConfigurationError: it is not one that the tuner takes.
    """
    document = {"training": config.training.model_dump(mode="json", exclude_unset=True), **(config.tune or {})}
    try:
        return tuner.TuningConfig(**document)
    except (ValueError, TypeError) as problem:
        raise ConfigurationError(f"tune: {' '.join(str(problem).split())[:300]}", field="tune") from problem


class TuneStage(Stage):
    """Searches, then trains what the search found best.

    Args:
        tuner: the room ``rlaas.tuning``, or what stands in for it; loaded at the first need by default.
    """

    name = "tune"
    keeps_work = True

    def __init__(self, tuner: Any = None) -> None:
        self._tuner = tuner

    @property
    def tuner(self) -> Any:
        """The tuner, loaded."""
        if self._tuner is None:
            self._tuner = load_tuner()
        return self._tuner

    def skip(self, context: Context) -> str | None:
        """Without a tuning configuration there is nothing to search."""
        return "the configuration has no tune" if context.config.tune is None else None

    def inputs(self, context: Context) -> dict[str, Any]:
        """The tuning configuration, checked."""
        found = tuning_config(context.config, self.tuner)
        return {
            "config": {"tune": found.model_dump(mode="json")},
            "libraries": libraries(*TRAINING_LIBRARIES),
        }

    def rooms(self, context: Context) -> Iterable[Room]:
        """The tuner's and training's."""
        return (*training_rooms(context), Room(self.tuner.__name__), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write what the tuner leaves in ``search/``, which policies its trials ended with, and ``policy/``.

        The latter is trained by the best configuration, unless that is the pipeline's own.
        """
        context.ensure_ray()
        result = self._search(context, folder / SEARCH)
        policies = [policy.to_dict(folder.absolute()) for policy in result.policies()]
        write_json(folder / TRIALS, policies)
        best = TrainingConfig(**result.best.model_dump(exclude_unset=True))
        if best == context.config.training:
            return {"kept_configuration": 1.0, "trial_policies": float(len(policies))}
        target = folder / POLICY
        target.mkdir(exist_ok=True)
        metrics = train_into(context, best, target, progress=context.progress)
        return {"kept_configuration": 0.0, "trial_policies": float(len(policies)), **metrics}

    def _search(self, context: Context, folder: Path) -> Any:
        """What the tuner returns; a search that was killed is gone on with."""
        config = tuning_config(context.config, self.tuner)
        if folder.exists():
            try:
                return self.tuner.tune(config, output=folder, resume=True)
            except RequestError:
                # Killed before it had written down what it searches: there is nothing to go on with.
                shutil.rmtree(folder)
        return self.tuner.tune(config, output=folder, resume=False)


def trial_policies(artefact: Artefact) -> list[TrialPolicy]:
    """The policies that trials of the search ended with, those of the best trials first."""
    return [TrialPolicy.from_dict(document, artefact.folder) for document in artefact.read(TRIALS)]
