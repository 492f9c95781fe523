"""Runs a committer, and the join behind it, in the background of a process."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import structlog

from rlaas.lake.committer import CommitReport, Committer
from rlaas.lake.joins import update_transitions
from rlaas.lake.tables import Lake

__all__ = ["CommitterLoop", "JoinLoop"]

_log = structlog.get_logger("rlaas.lake")
_MAX_PAUSE_S = 30.0


class _Loop(ABC):
    """A thread that does something every ``interval_s`` seconds and survives every error."""

    def __init__(self, name: str, failed: str, tenant: str, interval_s: float) -> None:
        self._name, self._failed, self._tenant = name, failed, tenant
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last_error: Exception | None = None
        self._well_at = time.monotonic()

    @property
    def last_error(self) -> Exception | None:
        """Error of the latest run; ``None`` if that went well."""
        return self._last_error

    @property
    def since_success_s(self) -> float:
        """How long ago the latest run that went well ended, seconds; since the start where none has."""
        return time.monotonic() - self._well_at

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; does nothing if it runs."""
        if self.running:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """Stop the thread after the run in progress; what is left stays where it is."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    @abstractmethod
    def flush(self) -> Any:
        """Do it now, in the calling thread."""

    def _run(self) -> None:
        pause_s = self._interval_s
        while not self._stop.wait(pause_s):
            try:
                self.flush()
            except Exception as problem:
                pause_s = min(max(pause_s, self._interval_s) * 2, _MAX_PAUSE_S)
                _log.error(self._failed, tenant=self._tenant, error=str(problem), retry_in_s=pause_s)
            else:
                pause_s = self._interval_s


class CommitterLoop(_Loop):
    """A thread that commits every ``interval_s`` seconds and survives every error.

    After an error it logs, keeps it in :attr:`last_error`, and tries again with growing pauses (30 s at most).

    Args:
        committer: what to run.
        interval_s: pause between runs, seconds.
    """

    def __init__(self, committer: Committer, interval_s: float = 0.5) -> None:
        super().__init__("rlaas-committer", "lake_commit_failed", committer.tenant, interval_s)
        self._committer = committer
        self._total = CommitReport()

    @property
    def total(self) -> CommitReport:
        """What all runs together moved."""
        return self._total

    def stop(self) -> None:
        """Stop the thread after the run in progress, then commit what is left.

        Raises:
            RlaasError: the last run failed.
        """
        self.halt()
        self.flush()

    def flush(self) -> CommitReport:
        """Commit now, in the calling thread; on return everything sealed before the call is in the table.

        Raises:
            RlaasError: the run failed.
        """
        with self._mutex:
            try:
                report = self._committer.run_once()
            except Exception as problem:
                self._last_error = problem
                raise
            self._last_error, self._well_at = None, time.monotonic()
            self._total += report
        if report.segments:
            _log.info(
                "lake_committed",
                tenant=self._committer.tenant,
                decisions=report.decisions,
                outcomes=report.outcomes,
                refused=report.refused,
                segments=report.segments,
                adopted=report.adopted,
            )
        return report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class JoinLoop(_Loop):
    """A thread that brings ``silver.transitions`` up to date every ``interval_s`` seconds and survives every error.

    Args:
        lake: the tables.
        interval_s: pause between updates, seconds.
    """

    def __init__(self, lake: Lake, interval_s: float = 5.0) -> None:
        super().__init__("rlaas-join", "lake_join_failed", lake.tenant, interval_s)
        self._lake = lake

    def flush(self) -> int:
        """Update now, in the calling thread; the number of rows in ``silver.transitions``.

        Raises:
            RlaasError: the update failed.
        """
        with self._mutex:
            try:
                rows = update_transitions(self._lake)
            except Exception as problem:
                self._last_error = problem
                raise
            self._last_error, self._well_at = None, time.monotonic()
        return rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.halt()
