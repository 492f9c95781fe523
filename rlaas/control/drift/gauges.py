"""Drift as gauges for Prometheus; see ``clusters/monitoring/alerts.yaml``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rlaas.control.drift.store import DriftStore

__all__ = ["DRIFT_GAUGES", "DRIFT_LABELS", "DriftGauges"]

DRIFT_LABELS = ("tenant", "policy")
"""Of every gauge."""
DRIFT_GAUGES = {
    "rlaas_drift_active": "1 while an episode of drift lasts",
    "rlaas_drift_episodes": "episodes of drift so far",
    "rlaas_drift_evidence_ratio": "evidence of drift over the bar, 0 to 1",
    "rlaas_drift_watching": "1 while the streams are watched, 0 while their baseline is learned",
    "rlaas_drift_behind_seconds": "since the newest second that was judged",
    "rlaas_drift_retrain_failed": "1 while an episode lasts whose retraining could not be begun",
}


class DriftGauges:
    """Gauges of every watched policy of a tenant, read from the state database; take the maximum over Controls.

    Args:
        store: the watches.
        tenant: label ``tenant``.
        clock: UTC time in microseconds.
    """

    def __init__(
        self, store: DriftStore, tenant: str, *, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._store, self._tenant, self._clock = store, tenant, clock
        self._on_ray: dict[str, Any] = {}

    def values(self) -> dict[tuple[str, str], float]:
        """Value by gauge and policy."""
        found: dict[tuple[str, str], float] = {}
        for stored in self._store.configs():
            watch, episode = self._store.watch(stored.model), self._store.open_episode(stored.model)
            document = {} if watch is None else watch.document
            evidence = sum(one["evidence"] for one in document.get("evidence", ()))
            values = {
                "rlaas_drift_active": float(episode is not None),
                "rlaas_drift_episodes": float(self._store.count(stored.model)),
                "rlaas_drift_evidence_ratio": min(evidence, 1.0),
                "rlaas_drift_watching": float(document.get("phase") == "watching"),
                "rlaas_drift_retrain_failed": float(episode is not None and episode.retrain == "failed"),
            }
            last = document.get("last_second", -1)
            if last >= 0:
                values["rlaas_drift_behind_seconds"] = max(self._clock() / 1e6 - last, 0.0)
            found |= {(name, stored.model): value for name, value in values.items()}
        return found

    def publish(self) -> None:
        """Set every gauge in ``ray.util.metrics``, from where the node exports it as ``ray_<name>``."""
        from ray.util import metrics

        for (name, policy), value in self.values().items():
            if name not in self._on_ray:
                self._on_ray[name] = metrics.Gauge(name, DRIFT_GAUGES[name], DRIFT_LABELS)
            self._on_ray[name].set(value, {"tenant": self._tenant, "policy": policy})
