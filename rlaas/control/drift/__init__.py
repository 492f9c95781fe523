"""Drift of the policies that are served: watched, told of, and answered with one retraining for each episode."""

from __future__ import annotations

from rlaas.control.drift.gauges import DRIFT_GAUGES, DRIFT_LABELS, DriftGauges
from rlaas.control.drift.loop import DriftLoop
from rlaas.control.drift.reconciler import DriftReconciler
from rlaas.control.drift.routes import DriftRoutes
from rlaas.control.drift.service import DriftService
from rlaas.control.drift.store import DriftStore, Episode
from rlaas.control.drift.triggers import ProcessTrigger, RetrainRequest, RetrainTrigger

__all__ = [
    "DRIFT_GAUGES",
    "DRIFT_LABELS",
    "DriftGauges",
    "DriftLoop",
    "DriftReconciler",
    "DriftRoutes",
    "DriftService",
    "DriftStore",
    "Episode",
    "ProcessTrigger",
    "RetrainRequest",
    "RetrainTrigger",
]
