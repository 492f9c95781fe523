"""Which experiments have found something, as a gauge for Prometheus; see ``clusters/monitoring/alerts.yaml``."""

from __future__ import annotations

from typing import Any

from rlaas.control.experiments.store import ACTIVE, ExperimentStore

__all__ = ["EFFECT_GAUGE", "EFFECT_LABELS", "EffectGauges"]

EFFECT_GAUGE = "rlaas_experiment_significant"
EFFECT_LABELS = ("tenant", "policy", "experiment")


class EffectGauges:
    """A gauge for each experiment that runs, read from its latest result; take the maximum over Controls.

    Args:
        store: the experiments.
        tenant: label ``tenant``.
    """

    def __init__(self, store: ExperimentStore, tenant: str) -> None:
        self._store, self._tenant = store, tenant
        self._on_ray: Any = None
        self._said: set[tuple[str, str]] = set()

    def values(self) -> dict[tuple[str, str], float]:
        """By policy and experiment: 1 once the latest result says to ship a treatment or to keep the control."""
        found: dict[tuple[str, str], float] = {}
        for stored in self._store.all():
            if stored.state not in ACTIVE:
                continue
            analysis = self._store.analysis(stored.document.id)
            action = None if analysis is None else analysis.result["recommendation"]["action"]
            found[stored.document.policy, stored.document.id] = float(action in ("ship", "keep"))
        return found

    def publish(self) -> None:
        """Set it in ``ray.util.metrics``; one that has been stopped is set to 0, as Ray goes on exporting it."""
        from ray.util import metrics

        values = self.values()
        if self._on_ray is None:
            what = "1 while an experiment runs that has found a difference, or that there is none"
            self._on_ray = metrics.Gauge(EFFECT_GAUGE, what, EFFECT_LABELS)
        for policy, experiment in values.keys() | self._said:
            labels = {"tenant": self._tenant, "policy": policy, "experiment": experiment}
            self._on_ray.set(values.get((policy, experiment), 0.0), labels)
        self._said |= values.keys()
