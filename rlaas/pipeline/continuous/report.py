"""What became of each stage and of the pipeline, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Observer", "PipelineReport", "StagePlan", "StageReport"]

Status = Literal["cached", "run", "failed", "skipped"]
Outlook = Literal["cached", "run", "skipped", "open"]

KEY_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What became of one stage.

    Attributes:
        name: of the stage.
        status: ``cached`` (an earlier result was taken), ``run``, ``failed`` or ``skipped``.
        reason: why it ran, failed or was skipped; empty for a cached one.
        key: of its inputs; empty for a skipped one.
        seconds: wall time now, waiting for another pipeline included.
        attempts: made now.
        metrics: figures of the result.
        run_id: MLflow run of the stage.
    """

    name: str
    status: Status
    reason: str = ""
    key: str = ""
    seconds: float = 0.0
    attempts: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "stage": self.name,
            "status": self.status,
            "reason": self.reason,
            "key": self.key,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
            "metrics": dict(self.metrics),
            "mlflow_run": self.run_id,
        }

    def row(self) -> tuple[str, ...]:
        """Cells of a table: stage, status, seconds, attempts, key, why."""
        ran = self.status in ("run", "failed")
        return (
            self.name,
            self.status,
            f"{self.seconds:.1f}" if ran else "-",
            str(self.attempts) if ran else "-",
            self.key[:KEY_SHOWN] or "-",
            self.reason or "-",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What a pipeline would do with one stage.

    Attributes:
        name: of the stage.
        outlook: ``cached``, ``run``, ``skipped``, or ``open`` where an earlier stage has to run first: this one runs
            unless that one gives the same result as before.
        reason: why.
        key: of its inputs; empty where they are not known yet.
    """

    name: str
    outlook: Outlook
    reason: str = ""
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"stage": self.name, "outlook": self.outlook, "reason": self.reason, "key": self.key}

    def row(self) -> tuple[str, ...]:
        """Cells of a table: stage, outlook, key, why."""
        return (self.name, self.outlook, self.key[:KEY_SHOWN] or "-", self.reason or "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineReport:
    """What a pipeline did.

    Attributes:
        scenario: its name.
        stages: in the order of the pipeline.
        contract: of the data: whether it holds, and each check.
        verdict: the candidate against the champion.
        policy: name, version and aliases of the registered policy; None if none was registered.
        reasons: why it was registered, or was not.
        protocol: how much was simulated for the evaluation.
        front: its size, and hypervolumes.
        resolved: by mode the chosen candidate and its objectives.
        run_id: MLflow run that the stages' runs are nested in.
    """

    scenario: str
    stages: Sequence[StageReport]
    contract: Mapping[str, Any]
    verdict: Mapping[str, Any]
    policy: Mapping[str, Any] | None
    reasons: Sequence[str]
    protocol: str
    front: Mapping[str, Any]
    resolved: Mapping[str, Any]
    run_id: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "scenario": self.scenario,
            "policy": None if self.policy is None else dict(self.policy),
            "reasons": list(self.reasons),
            "protocol": self.protocol,
            "front": dict(self.front),
            "resolved": dict(self.resolved),
            "verdict": dict(self.verdict),
            "contract": dict(self.contract),
            "stages": [stage.to_dict() for stage in self.stages],
            "mlflow_run": self.run_id,
        }


class Observer:
    """Hears what happens while it happens; as it stands it does nothing."""

    def started(self, stage: str, reason: str) -> None:
        """A stage begins to run."""

    def advanced(self, stage: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """A stage got further."""

    def noted(self, stage: str, text: str) -> None:
        """Something that a person who waits wants to know: another pipeline is waited for, an attempt failed."""

    def finished(self, report: StageReport) -> None:
        """A stage is done with, one way or another."""
