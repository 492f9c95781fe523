"""The join of decisions with their outcomes, which tells of every version that it makes."""

from __future__ import annotations

import uuid

from rlaas.control.lineage.openlineage import Emitter, Job, Read, Run, Written
from rlaas.errors import shown
from rlaas.lake import JoinLoop
from rlaas.lake.privacy import ProtectedLake

__all__ = ["TellingJoinLoop"]

_SILVER = "silver.transitions"
_BRONZE = ("bronze.decisions", "bronze.outcomes")
_JOB = Job("lake.join", "JOIN")


class TellingJoinLoop(JoinLoop):
    """A :class:`rlaas.lake.loop.JoinLoop` that emits an OpenLineage run for every join that wrote or failed.

    One that found nothing new is told of by nobody: there is one every second.

    Args:
        lake: the tables.
        emitter: where events go.
        interval_s: pause between runs, seconds.
    """

    def __init__(self, lake: ProtectedLake, emitter: Emitter, interval_s: float = 1.0) -> None:
        super().__init__(lake, interval_s=interval_s)
        self._told, self._tables = emitter, lake

    def flush(self) -> int:
        """Join now; returns the rows of ``silver.transitions``.

        Raises:
            RlaasError: the join failed.
        """
        with self._tables.gate.writing():  # an erasure waits until what was read is written
            return self._flush()

    def _flush(self) -> int:
        if not self._told.listening:
            return super().flush()
        before = self._tables.version(_SILVER)
        run = Run(_JOB, uuid.uuid4().hex, inputs=self._read())
        try:
            rows = super().flush()
        except Exception as problem:
            self._told.emit("START", run)
            self._told.emit("FAIL", run, error=shown(problem, str))
            raise
        after = self._tables.version(_SILVER)
        if after is not None and after != before:
            self._told.emit("START", run)
            run.outputs = [Written(_SILVER, str(after), rows)]
            self._told.emit("COMPLETE", run)
        return rows

    def _read(self) -> list[Read]:
        versions = {table: self._tables.version(table) for table in _BRONZE}
        return [Read(table, str(version)) for table, version in versions.items() if version is not None]
