"""A stand-in for the room that tunes: its search costs nothing."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, TrainingError
from rlaas.training import TrainingConfig
from rlaas.tuning import TrialPolicy

__all__ = ["tuner_of"]


def tuner_of(
    best: dict[str, Any], failures: int = 0, policies: Callable[[Path], list[TrialPolicy]] = lambda _: []
) -> Any:
    """A room with the face of ``rlaas.tuning``, whose search is over before it begins, or fails at first."""
    calls: list[bool] = []

    class TuningConfig:
        def __init__(self, training: dict[str, Any], trials: int = 1) -> None:
            if trials < 1:
                raise ConfigurationError(f"trials must be at least 1, got {trials}", field="trials")
            self.training, self.trials = TrainingConfig(**training), trials

        def model_dump(self, mode: str) -> dict[str, Any]:
            return {"training": self.training.model_dump(mode=mode), "trials": self.trials}

    def tune(config: TuningConfig, *, output: Path, resume: bool) -> Any:
        calls.append(resume)
        begun = output / "search.json"
        if resume and not begun.exists():
            raise ConfigurationError("there is no search to resume", field="resume")
        output.mkdir(parents=True, exist_ok=True)
        begun.write_text(f"{config.trials}")
        if len(calls) <= failures:
            raise TrainingError("every trial has failed")
        chosen = TrainingConfig(**{**config.training.model_dump(exclude_unset=True), **best})
        return types.SimpleNamespace(best=chosen, policies=lambda: tuple(policies(output)))

    return types.SimpleNamespace(__name__="pipeline_toys", TuningConfig=TuningConfig, tune=tune, calls=calls)
