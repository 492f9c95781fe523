"""What each number of a report is called where: gauges for Prometheus, tags for TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["GAUGES", "RUN_LABELS", "Figure", "Gauge", "figure_of"]

# Of every gauge; the run is the name of its folder.
RUN_LABELS = ("scenario", "algorithm", "run", "tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A gauge for Prometheus.

    Attributes:
        name: without the prefix ``ray_`` that Ray puts before it.
        help: one line, with the unit.
        label: its own label besides :data:`RUN_LABELS`, or None.
    """

    name: str
    help: str
    label: str | None = None


def _gauges(*gauges: Gauge) -> dict[str, Gauge]:
    return {gauge.name: gauge for gauge in gauges}


GAUGES = _gauges(
    Gauge(name="rlaas_training_running", help="1 while the training runs, 0 once it has ended"),
    Gauge(name="rlaas_training_steps", help="decisions taken so far"),
    Gauge(name="rlaas_training_steps_wanted", help="decisions to take in all"),
    Gauge(name="rlaas_training_steps_per_second", help="decisions per second in the last iteration"),
    Gauge(name="rlaas_training_seconds", help="seconds since the training started"),
    Gauge(name="rlaas_training_phase_seconds", help="seconds by phase since the training started", label="phase"),
    Gauge(name="rlaas_training_reward", help="mean scalarised reward per decision in the last iteration"),
    Gauge(name="rlaas_training_return", help="mean scalarised return of the episodes that ended in the last iteration"),
    Gauge(
        name="rlaas_training_objective_reward",
        help="mean step reward of each objective in the last iteration, normalised, unweighted",
        label="objective",
    ),
    Gauge(name="rlaas_training_loss", help="losses of the last iteration", label="loss"),
    Gauge(name="rlaas_training_learner", help="what else the learner reports of the last iteration", label="figure"),
    Gauge(name="rlaas_training_gpu_utilization_ratio", help="share of time a kernel ran, 0 to 1", label="gpu"),
    Gauge(name="rlaas_training_gpu_memory_used_bytes", help="memory in use on the GPU, in bytes", label="gpu"),
    Gauge(name="rlaas_training_gpu_memory_total_bytes", help="memory of the GPU, in bytes", label="gpu"),
)

_PLAIN = {
    "step": ("rlaas_training_steps", None),  # the axis of TensorBoard's charts
    "steps_per_second": ("rlaas_training_steps_per_second", "speed/steps_per_second"),
    "seconds": ("rlaas_training_seconds", "time/total_seconds"),
    "reward": ("rlaas_training_reward", "train/reward"),
    "return": ("rlaas_training_return", "train/return"),
}
_GPU = re.compile(r"gpu(\d+)_(utilization|memory_used_bytes|memory_total_bytes)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Where a number of a row goes.

    Attributes:
        gauge: name of its gauge.
        label: value of the gauge's own label, or None.
        tag: for TensorBoard, or None for a number that is no curve.
    """

    gauge: str
    label: str | None
    tag: str | None


def figure_of(key: str, objectives: Sequence[str]) -> Figure:
    """Where the number under ``key`` of a row goes.

    Args:
        key: as :meth:`rlaas.training.telemetry.Reporter.iteration` describes it; any other is a figure of the learner.
        objectives: names of the scenario's objectives.
    """
    if key in _PLAIN:
        gauge, tag = _PLAIN[key]
        return Figure(gauge=gauge, label=None, tag=tag)
    if key.startswith("reward_") and (objective := key.removeprefix("reward_")) in objectives:
        return Figure(gauge="rlaas_training_objective_reward", label=objective, tag=f"objective/{objective}")
    if key.startswith("seconds_"):
        phase = key.removeprefix("seconds_")
        return Figure(gauge="rlaas_training_phase_seconds", label=phase, tag=f"time/{phase}_seconds")
    if found := _GPU.fullmatch(key):
        index, what = found.groups()
        name = "utilization_ratio" if what == "utilization" else what
        return Figure(gauge=f"rlaas_training_gpu_{name}", label=index, tag=f"gpu/{index}_{name}")
    if key.endswith("_loss"):
        loss = key.removesuffix("_loss")
        return Figure(gauge="rlaas_training_loss", label=loss, tag=f"loss/{loss}")
    return Figure(gauge="rlaas_training_learner", label=key, tag=f"learner/{key}")
