"""Which reporters a training gets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaas.errors import ConfigurationError
from rlaas.settings import Settings
from rlaas.training.telemetry.gpus import Gpus, find_nvml
from rlaas.training.telemetry.hub import Telemetry
from rlaas.training.telemetry.jsonl import ProgressLog
from rlaas.training.telemetry.mlflow import MlflowRun, check_mlflow
from rlaas.training.telemetry.prometheus import Board, HttpBoard, Prometheus, RayBoard
from rlaas.training.telemetry.reporter import Reporter, TelemetryReport
from rlaas.training.telemetry.tensorboard import TensorBoard
from rlaas.training.telemetry.throttle import Throttle

__all__ = ["RunTelemetry", "TelemetryConfig", "check_telemetry"]

# Shares of a training's time that its reports may take; with the progress log, some 20 us an iteration, below 1 %.
_MLFLOW_SHARE = 0.004
_TENSORBOARD_SHARE = 0.002
_PROMETHEUS_SHARE = 0.001
_GPU_SHARE = 0.001


class TelemetryConfig(BaseModel):
    """How a training is watched; nothing in here changes what is learned.

    Attributes:
        mlflow: log to an MLflow run that exists from the start.
        tensorboard: write an event file into the run's folder.
        progress_log: write ``progress.jsonl`` into the run's folder.
        ray_metrics: set gauges that Ray exports.
        metrics_port: serve the gauges on this port of the process as well.
        metrics_host: address of that port.
        interval_s: seconds between two rows in TensorBoard, and between two updates of the gauges, at least.
        mlflow_interval_s: seconds between two batches for MLflow, at least; no row is left out.

    Raises:
        ConfigurationError: an unknown key, or a value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mlflow: bool = True
    tensorboard: bool = True
    progress_log: bool = True
    ray_metrics: bool = True
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    interval_s: float = Field(default=1.0, ge=0)
    mlflow_interval_s: float = Field(default=5.0, ge=0)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as problem:
            first = problem.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                allowed = ", ".join(sorted(type(self).model_fields))
                raise ConfigurationError(f"unknown key {field!r}; allowed: {allowed}", field=field) from problem
            raise ConfigurationError(f"{field}: {first['msg']} (got {first['input']!r})", field=field) from problem


def check_telemetry(config: TelemetryConfig, settings: Settings) -> None:
    """Refuse at once what would be refused when the training starts: for those who start a Ray before it.

    Raises:
        ConfigurationError: the port is taken, or no MLflow server answers; names the field.
    """
    if config.metrics_port is not None:
        board = HttpBoard(config.metrics_host, config.metrics_port)
        board.open()
        board.close()
    if config.mlflow:
        check_mlflow(settings)


class RunTelemetry(Telemetry):
    """The reporters of one run.

    Args:
        config: which.
        settings: MLflow's store, and the tenant.
        folder: of the run; its name is the run's.
        params: for MLflow.
        parent: the MLflow run that the training's is nested in, if there is one.
        others: told as well, for example what draws a progress bar.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        settings: Settings,
        folder: Path,
        *,
        params: Mapping[str, object] | None = None,
        parent: str | None = None,
        others: Sequence[Reporter] = (),
    ) -> None:
        self._log = ProgressLog(folder / "progress.jsonl") if config.progress_log else None
        board = Throttle(config.interval_s, _TENSORBOARD_SHARE)
        self._board = TensorBoard(folder / "tensorboard", board) if config.tensorboard else None
        self._http = HttpBoard(config.metrics_host, config.metrics_port) if config.metrics_port is not None else None
        boards: list[Board] = [RayBoard()] if config.ray_metrics else []
        boards += [self._http] if self._http is not None else []
        gauges = Throttle(config.interval_s, _PROMETHEUS_SHARE)
        prometheus = Prometheus(boards, run=folder.name, tenant=settings.tenant, throttle=gauges) if boards else None
        batches = Throttle(config.mlflow_interval_s, _MLFLOW_SHARE, cost=time.thread_time)
        self._mlflow = (
            MlflowRun(
                settings,
                run=folder.name,
                params=params or {},
                throttle=batches,
                memory=folder / "mlflow-run",
                parent=parent,
            )
            if config.mlflow
            else None
        )
        # Those that leave files start last: a port or a server that is refused leaves the folder empty.
        wanted = (*others, prometheus, self._mlflow, self._log, self._board)
        super().__init__(
            [reporter for reporter in wanted if reporter is not None],
            gpus=Gpus(find_nvml()),
            throttle=Throttle(config.interval_s, _GPU_SHARE),
        )

    @property
    def mlflow_run_id(self) -> str | None:
        """The MLflow run, once it has started."""
        return self._mlflow.run_id if self._mlflow is not None else None

    @property
    def logged_until(self) -> float:
        """``step`` of the last row that MLflow has, with every one before it; -1 for none."""
        return self._mlflow.logged_until if self._mlflow is not None else -1.0

    def report(self) -> TelemetryReport:
        """Where everything is, and what went wrong."""
        return TelemetryReport(
            mlflow_run_id=self.mlflow_run_id,
            tensorboard=self._board.folder if self._board is not None else None,
            progress_log=self._log.path if self._log is not None else None,
            metrics_url=self._http.url if self._http is not None else None,
            problems=dict(self.problems),
        )
