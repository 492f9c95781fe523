"""Every pipeline as an MLflow run, its stages nested in it; what a kill left open is closed by the next one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaas.control.lineage.openlineage import Emitter, Job, Read, Run, Written
from rlaas.pipeline.continuous.artefacts import Artefact
from rlaas.pipeline.continuous.locks import try_exclusive
from rlaas.pipeline.continuous.report import StageReport
from rlaas.registry import NestedRuns
from rlaas.settings import Settings

__all__ = ["Tracker"]

LARGEST_DOCUMENT = 1_000_000
"""Bytes; larger JSON files of a result are not copied to MLflow."""


class Tracker:
    """The MLflow side of one scenario's pipeline.

    Args:
        settings: of the process.
        scenario: name of the scenario.
        root: folder of the scenario's pipeline; ``runs/`` in it names the runs that are under way.
    """

    def __init__(self, settings: Settings, scenario: str, root: Path) -> None:
        self._runs, self._scenario, self._folder = NestedRuns(settings), scenario, root / "runs"
        self._events, self._job = Emitter(settings), Job(f"pipeline.{scenario}", "PIPELINE")
        self.run_id = ""

    @contextmanager
    def pipeline(self, tags: Mapping[str, object]) -> Iterator[str]:
        """The run of the pipeline for the length of the block; yields its id.

        Raises:
            RetryableError, OperatorError: MLflow cannot be reached, or refused.
        """
        self._close_orphans()
        self.run_id = self._runs.start(
            f"pipeline {self._scenario}", tags={"kind": "pipeline", "scenario": self._scenario, **tags}
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / self.run_id
        fresh = marker.with_suffix(".new")
        with fresh.open("w") as file:
            # Locked before it has its name: nobody can take it for the trace of a dead process.
            fcntl.flock(file, fcntl.LOCK_EX)
            fresh.rename(marker)
            try:
                with self._events.run(self._job, run_id=self.run_id):
                    yield self.run_id
            except Exception:
                self._runs.end_family(self.run_id, "FAILED")
                raise
            except BaseException:
                self._runs.end_family(self.run_id, "KILLED")
                raise
            else:
                self._runs.end(self.run_id, "FINISHED")
            finally:
                marker.unlink()

    def open_stage(self, stage: str) -> str:
        """The nested run of a stage; returns its id."""
        run_id = self._runs.start(stage, parent=self.run_id, tags={"kind": "stage", "scenario": self._scenario})
        self._events.emit("START", self._event_run(run_id, stage))
        return run_id

    def close_stage(
        self,
        run_id: str,
        report: StageReport,
        *,
        inputs: Mapping[str, Any],
        lineage: Mapping[str, object],
        artefact: Artefact | None,
    ) -> None:
        """Log what became of a stage, and close its run."""
        documents: dict[str, Any] = {}
        if inputs:
            documents["inputs.json"] = dict(inputs)
        if artefact is not None:
            for path in sorted(artefact.folder.glob("*.json")):
                if path.name != "manifest.json" and path.stat().st_size <= LARGEST_DOCUMENT:
                    documents[path.name] = artefact.read(path.name)
        self._runs.log(
            run_id,
            params={"key": report.key or None, **{f"inputs.{group}": value for group, value in inputs.items()}},
            metrics={**report.metrics, "seconds": report.seconds, "attempts": float(report.attempts)},
            tags={"status": report.status, "reason": report.reason or None, **lineage},
            documents=documents,
        )
        self._runs.end(run_id, "FAILED" if report.status == "failed" else "FINISHED")
        run = self._event_run(run_id, report.name)
        earlier: Mapping[str, str] = inputs.get("stages") or {}
        tables: Mapping[str, int] = inputs.get("lake") or {}
        run.inputs = [Read(table, str(version)) for table, version in tables.items()]
        run.inputs += [Read(f"{self._job.name}/{stage}", digest) for stage, digest in earlier.items()]
        if artefact is not None:
            run.outputs = [Written(f"{self._job.name}/{report.name}", artefact.digest)]
            if lineage.get("policy") is not None:
                run.outputs.append(Written(f"policy/{self._scenario}", str(lineage["policy"]).rpartition("/")[2]))
        failed = report.status == "failed"
        self._events.emit("FAIL" if failed else "COMPLETE", run, error=report.reason if failed else None)

    def close(self, document: Mapping[str, Any], tags: Mapping[str, object]) -> None:
        """Log the report of the whole pipeline."""
        self._runs.log(self.run_id, tags=tags, documents={"report.json": dict(document)})

    def _event_run(self, run_id: str, stage: str) -> Run:
        return Run(Job(f"{self._job.name}.{stage}", "STAGE"), run_id, (self.run_id, self._job))

    def _close_orphans(self) -> None:
        """Close the runs of pipelines whose process is gone."""
        for marker in sorted(self._folder.glob("*")):
            with try_exclusive(marker) as free:
                if free:
                    self._runs.end_family(marker.name.removesuffix(".new"), "KILLED")
                    marker.unlink(missing_ok=True)
