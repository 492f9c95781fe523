"""Telemetry of a training: MLflow, TensorBoard, Prometheus and a progress log, none of which can stop it."""

from rlaas.training.telemetry.config import RunTelemetry, TelemetryConfig, check_telemetry
from rlaas.training.telemetry.figures import GAUGES, RUN_LABELS, figure_of
from rlaas.training.telemetry.hub import Telemetry
from rlaas.training.telemetry.reporter import Reporter, TelemetryReport

__all__ = [
    "GAUGES",
    "RUN_LABELS",
    "Reporter",
    "RunTelemetry",
    "Telemetry",
    "TelemetryConfig",
    "TelemetryReport",
    "check_telemetry",
    "figure_of",
]
