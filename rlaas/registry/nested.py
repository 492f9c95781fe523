"""MLflow runs that are no registrations: the steps of longer work, one nested in the other."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from rlaas.registry.lineage import as_text
from rlaas.registry.runs import PARENT_RUN_TAG
from rlaas.registry.store import Store
from rlaas.settings import Settings

__all__ = ["NestedRuns"]

Status = Literal["FINISHED", "FAILED", "KILLED"]

_LONGEST_PARAMETER = 500  # what MLflow's pages still show
_PER_BATCH = 100  # MLflow's limit for parameters and tags


class NestedRuns:
    """Runs in the MLflow experiment of one tenant.

    Args:
        settings: names the MLflow store and the tenant.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings)

    def start(self, name: str, *, parent: str | None = None, tags: Mapping[str, object] | None = None) -> str:
        """Open a run, nested in ``parent`` if there is one; returns its id.

        Raises:
            RetryableError, OperatorError: MLflow cannot be reached, or refused.
        """
        own = {"mlflow.runName": name, **({} if parent is None else {PARENT_RUN_TAG: parent})}
        texts = {key: as_text(value) for key, value in (tags or {}).items() if value is not None}
        return str(self._store.call("create_run", self._store.experiment(), tags={**texts, **own}).info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, object] | None = None,
        documents: Mapping[str, Any] | None = None,
    ) -> None:
        """Add to a run. Parameters longer than 500 characters are cut; documents are JSON files, whole.

        Raises:
            RetryableError, OperatorError: MLflow cannot be reached, or refused.
        """
        entities = self._store.mlflow.entities
        now_ms = int(time.time() * 1000)
        given = [(key, as_text(value)) for key, value in (params or {}).items() if value is not None]
        parameters = [entities.Param(key, text[:_LONGEST_PARAMETER]) for key, text in given]
        labels = [entities.RunTag(key, as_text(value)) for key, value in (tags or {}).items() if value is not None]
        figures = [entities.Metric(key, float(value), now_ms, 0) for key, value in (metrics or {}).items()]
        for start in range(0, max(len(parameters), len(labels), len(figures)), _PER_BATCH):
            batch = slice(start, start + _PER_BATCH)
            self._store.call("log_batch", run_id, params=parameters[batch], tags=labels[batch], metrics=figures[batch])
        for name, document in (documents or {}).items():
            self._store.call("log_text", run_id, json.dumps(document, indent=1, sort_keys=True) + "\n", name)

    def end(self, run_id: str, status: Status) -> None:
        """Close a run.

        Raises:
            RetryableError, OperatorError: MLflow cannot be reached, or refused.
        """
        self._store.call("set_terminated", run_id, status)

    def end_family(self, run_id: str, status: Status) -> None:
        """Close a run and the runs nested in it at any depth, those that are still open; an unknown run has none.

        Raises:
            RetryableError, OperatorError: MLflow cannot be reached, or refused.
        """
        nested = self._store.call(
            "search_runs",
            [self._store.experiment()],
            f"tags.`{PARENT_RUN_TAG}` = '{run_id}' and attributes.status = 'RUNNING'",
        )
        for run in nested:
            self.end_family(run.info.run_id, status)
        own = self._store.call("get_run", run_id, expected=("RESOURCE_DOES_NOT_EXIST",))
        if own is not None and own.info.status == "RUNNING":
            self.end(run_id, status)
