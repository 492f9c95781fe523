"""The search in MLflow: one run for the whole of it, and nested in it one for each trial."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback

from rlaas.registry import PARENT_RUN_TAG, TENANT_TAG, Store, git_commit
from rlaas.registry.lineage import COMMIT_TAG, as_text
from rlaas.settings import Settings
from rlaas.tuning.book import Book, TrialRecord
from rlaas.tuning.config import Pbt, TuningConfig
from rlaas.tuning.figures import STEPS

__all__ = ["Tracking"]

NAME_TAG = "mlflow.runName"
KIND_TAG, STATUS_TAG, FAILURE_TAG = "rlaas.kind", "rlaas.status", "rlaas.failure"
# MLflow knows three ends; which of ours it was stands in a tag.
_ENDS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
_LONGEST = 500


class Tracking(Callback):
    """Writes the search to the tenant's MLflow experiment as it goes on.

    Args:
        settings: name the tracking server and the tenant.
        config: the search.
        name: of the search, for MLflow's pages.
        run_id: of the search's run if it is resumed, else None.
    """

    def __init__(self, settings: Settings, config: TuningConfig, name: str, run_id: str | None = None) -> None:
        self._store = Store(settings)
        self._tenant, self._config = settings.tenant, config
        self._book: Book | None = None
        self._mutates = isinstance(config.scheduler, Pbt)
        if run_id is None:
            run_id = self._create(name, {KIND_TAG: "tuning"})
            self._log(run_id, params=_search_parameters(config))
        else:
            self._store.call("update_run", run_id, status="RUNNING")
        self.run_id = run_id

    def follow(self, book: Book, *, dropped: Mapping[str, TrialRecord] | None = None) -> Tracking:
        """Write the trials of ``book``; those ``dropped`` from it since a crash are over."""
        self._book = book
        for record in (dropped or {}).values():
            if record.mlflow_run_id is not None:
                self._store.call("set_terminated", record.mlflow_run_id, "KILLED")
        return self

    def end(self, status: str, *, metrics: Mapping[str, float] | None = None, files: tuple[Path, ...] = ()) -> None:
        """Close the search's run.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            metrics: figures of the best configuration.
            files: what was written, kept as artifacts under ``tuning``.
        """
        self._log(self.run_id, metrics=metrics or {})
        for file in files:
            self._store.call("log_artifact", self.run_id, str(file), "tuning")
        self._store.call("set_terminated", self.run_id, status)

    # Tune's callbacks; the book has taken the event in before.

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins or goes on."""
        record = self._record(trial)
        if record.mlflow_run_id is None:
            tags = {KIND_TAG: "trial", PARENT_RUN_TAG: self.run_id, "rlaas.trial": record.id}
            record.mlflow_run_id = self._create(f"trial-{record.number}", tags)
            self._log(record.mlflow_run_id, params=record.values)
            self._books().write()
        self._tag(record)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports."""
        record = self._record(trial)
        metrics = dict(record.figures)
        if self._mutates:
            metrics |= {
                f"value/{name}": float(value)
                for name, value in record.values.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
        self._log(str(record.mlflow_run_id), metrics=metrics, step=int(result[STEPS]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended."""
        self._close(self._record(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has crashed for good."""
        self._close(self._record(trial))

    def _close(self, record: TrialRecord) -> None:
        if record.mlflow_run_id is not None:
            self._tag(record)
            self._store.call("set_terminated", record.mlflow_run_id, _ENDS[record.status])

    def _tag(self, record: TrialRecord) -> None:
        tags: dict[str, str] = {STATUS_TAG: record.status}
        if record.failure is not None:
            tags[FAILURE_TAG] = record.failure
        for key, text in tags.items():
            self._store.call("set_tag", record.mlflow_run_id, key, text[:_LONGEST])

    def _books(self) -> Book:
        assert self._book is not None, "follow() comes first"
        return self._book

    def _record(self, trial: Any) -> TrialRecord:
        return self._books().record(trial)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        commit = git_commit(Path(__file__).parent)
        own = {NAME_TAG: name, TENANT_TAG: self._tenant, **({COMMIT_TAG: commit} if commit else {})}
        return str(self._store.call("create_run", self._store.experiment(), tags={**own, **tags}).info.run_id)

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
    ) -> None:
        entities, now = self._store.mlflow.entities, int(time.time() * 1000)
        self._store.call(
            "log_batch",
            run_id,
            params=[entities.Param(key, as_text(value)[:_LONGEST]) for key, value in (params or {}).items()],
            metrics=[
                entities.Metric(key.replace("@", "/"), value, now, step)
                for key, value in (metrics or {}).items()
                if math.isfinite(value)
            ],
        )


def _search_parameters(config: TuningConfig) -> dict[str, Any]:
    base = config.training
    return {
        "problem": base.problem_name,
        "search": config.searcher,
        "scheduler": config.scheduler.kind,
        "objectives": ", ".join(objective.metric for objective in config.objectives),
        "trials": config.number_of_trials,
        "seed": config.seed,
        "steps": base.steps,
        **{f"space.{name}": parameter.model_dump(mode="json") for name, parameter in config.space.items()},
    }
