"""The book of a search: every trial with its values, its reports and its end, kept in ``trials.json`` as it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray.tune import Callback

from rlaas.errors import OperatorError
from rlaas.tuning.figures import FAILURE, FINISHED, STEPS
from rlaas.tuning.files import write_json
from rlaas.tuning.space import values_of

__all__ = ["Book", "Status", "TrialRecord"]

SCHEMA_VERSION = 1
_AGE = "training_iteration"

Status = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass(slots=True, kw_only=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: counts from 1, in the order in which trials were begun.
        id: Tune's name for it.
        status: ``waiting``, ``running``, ``finished`` (all steps taken), ``stopped`` (by the scheduler) or ``failed``.
        values: searched fields by dotted name; with population based training those of the last report.
        figures: metrics of the last report by name.
        reports: ``report``, ``steps``, metrics, and ``values`` where they changed, one row a report.
        failure: why it failed.
        crashes: how often it was continued after a crash.
        mlflow_run_id: its nested run.
    """

    number: int
    id: str
    status: Status = "waiting"
    values: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None
    crashes: int = 0
    mlflow_run_id: str | None = None

    @property
    def steps(self) -> int:
        """Decisions taken up to the last report."""
        return int(self.reports[-1][STEPS]) if self.reports else 0

    def judged(self, metrics: Iterable[str]) -> bool:
        """Whether it ran to its end and has a finite figure for each metric."""
        return self.status == "finished" and all(math.isfinite(self.figures.get(m, math.nan)) for m in metrics)


class Book(Callback):
    """Keeps the records, in the driver.

    Args:
        path: where they are written.
        metrics: names of the figures that are kept.
    """

    def __init__(self, path: Path, metrics: Iterable[str]) -> None:
        self.path = path
        self.records: dict[str, TrialRecord] = {}
        self.changes = 0
        self._metrics = tuple(metrics)

    def record(self, trial: Any) -> TrialRecord:
        """The record of a Tune trial, made when it is first seen."""
        if trial.trial_id not in self.records:
            self.records[trial.trial_id] = TrialRecord(
                number=len(self.records) + 1, id=trial.trial_id, values=values_of(trial.config["point"])
            )
        return self.records[trial.trial_id]

    def write(self) -> None:
        """Write ``trials.json``."""
        self.changes += 1
        write_json(self.path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All records as plain JSON types."""
        return {"schema_version": SCHEMA_VERSION, "trials": [asdict(record) for record in self.records.values()]}

    def read(self, path: Path) -> None:
        """Go on from a book that was written before.

        Raises:
            OperatorError: it is damaged or of another version.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["schema_version"] != SCHEMA_VERSION:
                raise OperatorError(f"{path}: schema_version {document['schema_version']} is not {SCHEMA_VERSION}")
            records = [TrialRecord(**row) for row in document["trials"]]
        except (ValueError, KeyError, TypeError) as problem:
            raise OperatorError(f"{path}: damaged: {problem}", field="resume") from problem
        for record in records:
            # JSON has no NaN.
            record.figures = _numbers(record.figures)
            record.reports = [_numbers(row) for row in record.reports]
        self.records = {record.id: record for record in records}
        write_json(self.path, self.to_dict())

    # Tune's callbacks.

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or goes on."""
        self.record(trial).status = "running"
        self.write()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports."""
        record = self.record(trial)
        record.figures = {name: float(result[name]) for name in self._metrics if name in result}
        record.failure = result.get(FAILURE)
        # As the trial had them: population based training has changed those of ``trial.config`` by now.
        age, record.values = int(result[_AGE]), values_of(result["config"]["point"])
        # One that goes on from a checkpoint says some things again.
        kept = [row for row in record.reports if row["report"] < age]
        before = next((row["values"] for row in reversed(kept) if "values" in row), None)
        changed = {} if record.values == before else {"values": record.values}
        record.reports = [*kept, {"report": age, STEPS: int(result[STEPS]), **record.figures, **changed}]
        if result.get(FINISHED):
            record.status = "finished"
        self.write()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended by itself or by the scheduler."""
        record = self.record(trial)
        if record.failure is not None:
            record.status = "failed"
        elif record.status != "finished":
            record.status = "stopped"
        self.write()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has crashed and goes on from its checkpoint."""
        record = self.record(trial)
        record.crashes += 1
        record.status = "waiting"
        self.write()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has crashed for good."""
        record = self.record(trial)
        record.status, record.failure = "failed", reason_of(trial)
        self.write()


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}


def reason_of(trial: Any) -> str:
    """Why a Tune trial crashed, on one line."""
    problem = trial.get_pickled_error()
    if problem is None:
        return "it crashed without a word"
    cause = getattr(problem, "cause", None) or problem
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"[:300]
