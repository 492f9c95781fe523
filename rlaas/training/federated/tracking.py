"""A federation in MLflow: one run, and one nested run for each round."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rlaas.registry import PARENT_RUN_TAG, Store
from rlaas.training.federated.results import RoundResult

__all__ = ["Tracker"]

KIND_TAG = "rlaas.kind"
ROUND_TAG = "rlaas.round"
NAME_TAG = "mlflow.runName"
_LONGEST = 5_000  # characters of a tag that every MLflow store takes


class Tracker:
    """Writes the runs of one federation.

    Args:
        store: the connection.
        name: of the federation.
        run_id: of its run, if it has one from before.
        params: of the configuration, flat; entered once.
    """

    def __init__(self, store: Store, name: str, run_id: str | None, params: Mapping[str, Any]) -> None:
        self._store = store
        if run_id is None:
            tags = {NAME_TAG: f"federation {name}", KIND_TAG: "federation"}
            run_id = str(store.call("create_run", store.experiment(), tags=tags).info.run_id)
            param = store.mlflow.entities.Param
            store.call("log_batch", run_id, params=[param(key, str(value)[:500]) for key, value in params.items()])
        else:
            store.call("update_run", run_id, status="RUNNING")
        self.run_id = run_id

    def catch_up(self, rounds: Iterable[RoundResult]) -> None:
        """Log the rounds that an earlier driver did not live to log; drop a nested run that it left half-written."""
        found = self._store.call(
            "search_runs", [self._store.experiment()], f"tags.`{PARENT_RUN_TAG}` = '{self.run_id}'", max_results=5_000
        )
        for run in found:
            if run.info.status != "FINISHED":
                self._store.call("delete_run", run.info.run_id)
        logged = {run.data.tags.get(ROUND_TAG) for run in found if run.info.status == "FINISHED"}
        for result in rounds:
            if str(result.number) not in logged:
                self.log(result)

    def log(self, result: RoundResult) -> None:
        """Write a round as a nested run, and its figures as points of the federation's curves."""
        entities = self._store.mlflow.entities
        began, ended = int(1000 * result.began), int(1000 * (result.began + result.seconds))
        tags = {
            PARENT_RUN_TAG: self.run_id,
            NAME_TAG: f"round {result.number}",
            KIND_TAG: "federated-round",
            ROUND_TAG: str(result.number),
            "rlaas.sites": ", ".join(result.sites)[:_LONGEST],
            "rlaas.left_out": json.dumps(dict(result.left_out))[:_LONGEST],
            "rlaas.failures": json.dumps(list(result.failures))[:_LONGEST],
        }
        run = self._store.call("create_run", self._store.experiment(), start_time=began, tags=tags)
        figures = result.metrics()
        for run_id, prefix in ((run.info.run_id, ""), (self.run_id, "round/")):
            points = [
                entities.Metric(f"{prefix}{key}", value, ended, result.number)
                for key, value in figures.items()
                if not (prefix and key == "round")
            ]
            self._store.call("log_batch", run_id, metrics=points)
        self._store.call("set_terminated", run.info.run_id, "FINISHED", ended)

    def close(self, *, failed: bool) -> None:
        """Mark the federation's run as ended."""
        self._store.call("set_terminated", self.run_id, "FAILED" if failed else "FINISHED")
