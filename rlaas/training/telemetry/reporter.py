"""What a training tells about itself, and whom: the interface of everything that listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig

__all__ = ["Reporter", "TelemetryReport"]


@runtime_checkable
class Reporter(Protocol):
    """Listens to one training.

    The calls come from the training's own thread, in this order: ``started``, ``iteration`` any number of times, then
    ``finished`` or ``failed`` (``failed`` may follow ``finished``, where something goes wrong after the training), and
    at last ``close``, which may also come alone.
    """

    name: str

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Before anything is built.

        Raises:
            ConfigurationError: it cannot report at all; names the field.
        """

    def iteration(self, row: Mapping[str, float]) -> None:
        """After each iteration.

        Args:
            row: the learning curve's row (``step``, ``reward``, ``return``, ``reward_<objective>``, losses) with
                ``seconds`` since the start, ``steps_per_second`` of this iteration, ``seconds_<phase>`` since the
                start, and the GPUs' ``gpu<index>_utilization`` (0 to 1), ``gpu<index>_memory_used_bytes`` and
                ``gpu<index>_memory_total_bytes`` where there are some.
        """

    def finished(self, metrics: Mapping[str, float]) -> None:
        """The training is done; ``metrics`` are its final figures."""

    def failed(self, problem: BaseException) -> None:
        """The training, or what was to follow it, ended with ``problem``; an interrupt is one as well."""

    def close(self) -> None:
        """Give everything back. Nothing is called afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryReport:
    """Where the traces of a training are.

    Attributes:
        mlflow_run_id: the MLflow run, or None.
        tensorboard: folder of the event file, or None.
        progress_log: JSON lines, one per iteration, or None.
        metrics_url: where Prometheus could scrape during the training, or None.
        problems: what went wrong on the way, by the reporter's name; the training went on without it.
    """

    mlflow_run_id: str | None = None
    tensorboard: Path | None = None
    progress_log: Path | None = None
    metrics_url: str | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
