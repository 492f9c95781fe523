"""A run of MLflow that is still going on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlaas.registry.store import Store
from rlaas.registry.versions import ALGORITHM_TAG, SCENARIO_TAG, TENANT_TAG, check_params

__all__ = ["BUNDLE", "MISSING", "PARENT_RUN_TAG", "PROBLEM_TAG", "LiveRun", "chunks", "log_params"]

BUNDLE = "bundle"  # folder of a run's artifacts
MISSING = ("RESOURCE_DOES_NOT_EXIST",)
PARENT_RUN_TAG = "mlflow.parentRunId"  # what MLflow's pages nest runs by
PROBLEM_TAG = "rlaas.problem"  # why a run has failed

# Limits of MLflow for one batch.
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
_MAX_PROBLEM = 500


class LiveRun:
    """A run that has begun and has not ended; ``Registry.open_run`` makes one.

    Attributes:
        run_id: of the run in MLflow; ``Registry.register`` takes it for the policy that the run brings forth.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id

    @classmethod
    def begin(
        cls,
        store: Store,
        name: str,
        *,
        tenant: str,
        scenario: str,
        algorithm: str,
        params: Mapping[str, object] | None,
        parent: str | None = None,
    ) -> LiveRun:
        """Create the run; arguments as of ``Registry.open_run``.

        Raises:
            InvalidInputError: a parameter is not acceptable.
            RetryableError: the server does not answer.
            OperatorError: MLflow refused.
        """
        texts = check_params(params)
        store.check_reachable()
        tags = {TENANT_TAG: tenant, SCENARIO_TAG: scenario, ALGORITHM_TAG: algorithm, "mlflow.runName": name}
        if parent is not None:
            tags[PARENT_RUN_TAG] = parent
        run = cls(store, str(store.call("create_run", store.experiment(), tags=tags).info.run_id))
        log_params(store, run.run_id, texts)
        return run

    @classmethod
    def again(cls, store: Store, run_id: str, *, parent: str | None = None) -> LiveRun | None:
        """A run that was begun by another process, set to running; None where there is none to go on with.

        Args:
            store: where it is.
            run_id: of the run.
            parent: the run that it is nested in from now on; None leaves it where it is.

        Raises:
            RetryableError: the server does not answer.
            OperatorError: MLflow refused.
        """
        store.check_reachable()
        found = store.call("get_run", run_id, expected=(*MISSING, "INVALID_PARAMETER_VALUE"))
        if found is None or found.info.lifecycle_stage != "active" or store.call("list_artifacts", run_id, BUNDLE):
            return None
        store.call("update_run", run_id, status="RUNNING")
        if parent is not None:
            store.call("set_tag", run_id, PARENT_RUN_TAG, parent)
        return cls(store, run_id)

    def log(self, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Add points to the run's metrics; what is not finite is left out.

        Args:
            points: key, value, step and UTC milliseconds of each.

        Raises:
            RetryableError: the server does not answer.
            OperatorError: MLflow refused.
        """
        metric = self._store.mlflow.entities.Metric
        finite = [metric(key, float(value), ms, step) for key, value, step, ms in points if math.isfinite(value)]
        for chunk in chunks(finite, METRICS_PER_BATCH):
            self._store.call("log_batch", self.run_id, metrics=chunk)

    def end(self, status: str, problem: str = "") -> None:
        """End the run.

        Args:
            status: FINISHED, FAILED or KILLED.
            problem: what went wrong, kept as the tag ``rlaas.problem``.

        Raises:
            RetryableError: the server does not answer.
            OperatorError: MLflow refused.
        """
        if problem:
            self._store.call("set_tag", self.run_id, PROBLEM_TAG, problem[:_MAX_PROBLEM])
        self._store.call("set_terminated", self.run_id, status, int(time.time() * 1000))


def log_params(store: Store, run_id: str, texts: Mapping[str, str]) -> None:
    """Log parameters that the run does not have yet; MLflow refuses to change one."""
    known = store.call("get_run", run_id).data.params
    params = [store.mlflow.entities.Param(key, text) for key, text in texts.items() if key not in known]
    for chunk in chunks(params, PARAMS_PER_BATCH):
        store.call("log_batch", run_id, params=chunk)


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    """``items`` in lists of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
