"""Drift: windows of traffic against a reference, and streams that are watched second by second.

:func:`check_window` tests a window from every side; :class:`Watch` looks for shifts in one-second means, with a bound
on the time between false alarms; :class:`OutlierModel` flags single inputs that nothing in the reference resembles.

Names are loaded on first use: whoever needs only :class:`DriftConfig` loads neither Numba nor SciPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.monitoring.aggregates import Seconds, decision_streams, outcome_streams, stream_kind
    from rlaas.monitoring.check import CheckOptions, DriftReport, Finding, Traffic, check_window
    from rlaas.monitoring.config import DriftConfig, Reference, load_drift_config
    from rlaas.monitoring.outliers import OutlierModel
    from rlaas.monitoring.tail import BronzeTail
    from rlaas.monitoring.traffic import read_traffic
    from rlaas.monitoring.watch import Detection, StreamShift, Watch

__all__ = [
    "BronzeTail",
    "CheckOptions",
    "Detection",
    "DriftConfig",
    "DriftReport",
    "Finding",
    "OutlierModel",
    "Reference",
    "Seconds",
    "StreamShift",
    "Traffic",
    "Watch",
    "check_window",
    "decision_streams",
    "load_drift_config",
    "outcome_streams",
    "read_traffic",
    "stream_kind",
]

_HOME = {
    "BronzeTail": "tail",
    "CheckOptions": "check",
    "Detection": "watch",
    "DriftConfig": "config",
    "DriftReport": "check",
    "Finding": "check",
    "OutlierModel": "outliers",
    "Reference": "config",
    "Seconds": "aggregates",
    "StreamShift": "watch",
    "Traffic": "check",
    "Watch": "watch",
    "check_window": "check",
    "decision_streams": "aggregates",
    "load_drift_config": "config",
    "outcome_streams": "aggregates",
    "read_traffic": "traffic",
    "stream_kind": "aggregates",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
