"""What a training run hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rlaas.fronts import Front
from rlaas.training.front_evaluation import FrontEvaluation
from rlaas.training.telemetry.reporter import TelemetryReport

__all__ = ["TrainingRun", "write_checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A finished training run.

    Attributes:
        bundle: folder of the exported bundle.
        checkpoint: folder from which training could continue. RLlib's are cloudpickle: load them only where written.
        metrics: final figures by name. ``seconds`` is the time until the last update, and the sum of its parts
            ``seconds_environment`` (stepping it), ``seconds_sample`` (the rest of sampling), ``seconds_learn``,
            ``seconds_sync`` (weights between learner and runners) and ``seconds_other``. Where a front of several
            objectives was evaluated also ``hypervolume`` (with a reference point), ``expected_utility``, ``sparsity``.
        curve: one row per iteration: ``step`` (decisions taken), ``reward`` (scalarised, mean per decision),
            ``return`` (mean of the episodes that ended), ``reward_<objective>`` (mean step reward of each), losses.
        front: the policy at several preferences on the evaluation seeds, or None if none were configured.
        mlflow_run_id: id of the MLflow run: that of the registered policy, or of a training that was logged live.
        telemetry: where its traces are, or None where nobody listened.
        evaluation: how good ``front`` is, with intervals; None without one.
    """

    bundle: Path
    checkpoint: Path
    metrics: dict[str, float]
    curve: list[dict[str, float]]
    front: Front | None
    mlflow_run_id: str | None
    telemetry: TelemetryReport | None = None
    evaluation: FrontEvaluation | None = None


def write_checkpoint(folder: Path, **networks: Mapping[str, Tensor]) -> Path:
    """Write the networks' tensors as ``<name>.safetensors`` under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in networks.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    return folder
