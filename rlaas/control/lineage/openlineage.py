"""Runs as OpenLineage events (specification 2-0-2), to a file or an HTTP endpoint.

Telling others is worth nothing if it stops the work: whatever goes wrong here is a line in the log.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import structlog

from rlaas import __version__
from rlaas.errors import shown
from rlaas.settings import Settings

__all__ = ["Emitter", "Job", "Read", "Run", "Written"]

_PRODUCER = f"urn:rlaas:{__version__}"
_SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_SCHEMAS = {
    "parent": f"{_FACETS}/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet",
    "errorMessage": f"{_FACETS}/1-0-0/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
    "jobType": f"{_FACETS}/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
    "version": f"{_FACETS}/1-0-0/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
    "outputStatistics": f"{_FACETS}/1-0-2/OutputStatisticsOutputDatasetFacet.json"
    "#/$defs/OutputStatisticsOutputDatasetFacet",
}
_TIMEOUT_S = 2.0
_BACK_OFF_S = 30.0
"""After an endpoint failed, no event is sent for so long: a stage must not wait for it again and again."""

EventType = Literal["START", "COMPLETE", "FAIL"]


@dataclass(frozen=True, slots=True)
class Read:
    """What a run reads: a table of the lake or another store, at a version."""

    name: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a run writes."""

    name: str
    version: str | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What runs again and again under one name.

    Attributes:
        name: for example ``pipeline.network5g.train``.
        kind: ``PIPELINE``, ``STAGE`` or ``JOIN``.
    """

    name: str
    kind: str


@dataclass(slots=True)
class Run:
    """One run of a job; what it turns out to have read and written is added on the way."""

    job: Job
    id: str
    parent: tuple[str, Job] | None = None
    inputs: list[Read] = field(default_factory=list)
    outputs: list[Written] = field(default_factory=list)


class Emitter:
    """Sends events to where the settings say; nowhere by default.

    Args:
        settings: ``openlineage_url`` is an ``http(s)`` URL that takes a POST, or a file to which a line is appended.
    """

    def __init__(self, settings: Settings) -> None:
        self._target = settings.openlineage_url
        self._namespace = f"rlaas.{settings.tenant}"
        root = settings.lake_root
        # Naming of datasets: the namespace is where they lie, "file" for a local path.
        self._datasets = root if "://" in root else f"file://{root}"
        self._silent_until = 0.0

    @property
    def listening(self) -> bool:
        """Whether events go anywhere."""
        return self._target is not None

    @contextmanager
    def run(self, job: Job, *, run_id: str | None = None, parent: tuple[str, Job] | None = None) -> Iterator[Run]:
        """START, and COMPLETE or FAIL behind the block, which adds what it reads and writes."""
        run = Run(job, run_id or uuid.uuid4().hex, parent)
        self.emit("START", run)
        try:
            yield run
        except BaseException as problem:
            self.emit("FAIL", run, error=shown(problem, str) or type(problem).__name__)
            raise
        self.emit("COMPLETE", run)

    def emit(self, event: EventType, run: Run, *, error: str | None = None) -> None:
        """Send one event; never raises."""
        if self._target is None or time.monotonic() < self._silent_until:
            return
        try:
            self._send(json.dumps(self.event(event, run, error=error)).encode())
        except Exception as problem:  # whatever ails the receiver is no fault of the work
            self._silent_until = time.monotonic() + _BACK_OFF_S
            structlog.get_logger("rlaas.lineage").warning(
                "lineage_event_lost", target=self._target, kind=event, job=run.job.name, error=shown(problem, str)
            )

    def event(self, event: EventType, run: Run, *, error: str | None = None) -> dict[str, Any]:
        """The event as plain JSON types."""
        facets: dict[str, Any] = {}
        if run.parent is not None:
            parent_id, job = run.parent
            facets["parent"] = _facet(
                "parent",
                {"run": {"runId": _uuid(parent_id)}, "job": {"namespace": self._namespace, "name": job.name}},
            )
        if error is not None:
            facets["errorMessage"] = _facet("errorMessage", {"message": error, "programmingLanguage": "PYTHON"})
        kind = {"processingType": "BATCH", "integration": "RLAAS", "jobType": run.job.kind}
        return {
            "eventType": event,
            "eventTime": datetime.now(UTC).isoformat(),
            "run": {"runId": _uuid(run.id), "facets": facets},
            "job": {
                "namespace": self._namespace,
                "name": run.job.name,
                "facets": {"jobType": _facet("jobType", kind)},
            },
            "inputs": [self._dataset(one) for one in run.inputs],
            "outputs": [{**self._dataset(one), "outputFacets": _statistics(one)} for one in run.outputs],
            "producer": _PRODUCER,
            "schemaURL": _SPEC,
        }

    def _dataset(self, one: Read | Written) -> dict[str, Any]:
        facets = {} if one.version is None else {"version": _facet("version", {"datasetVersion": one.version})}
        return {"namespace": self._datasets, "name": one.name, "facets": facets}

    def _send(self, body: bytes) -> None:
        assert self._target is not None
        if re.match(r"https?://", self._target):
            import httpx

            httpx.post(
                self._target, content=body, headers={"content-type": "application/json"}, timeout=_TIMEOUT_S
            ).raise_for_status()
            return
        path = Path(self._target.removeprefix("file://")).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, body + b"\n")  # one call: lines of several processes do not mix
        finally:
            os.close(fd)


def _facet(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"_producer": _PRODUCER, "_schemaURL": _SCHEMAS[name], **content}


def _statistics(one: Written) -> dict[str, Any]:
    return {} if one.rows is None else {"outputStatistics": _facet("outputStatistics", {"rowCount": one.rows})}


def _uuid(run_id: str) -> str:
    """The id of an MLflow run is a UUID without its dashes; any other is hashed into one."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, run_id))
