"""The thread that analyses experiments."""

from __future__ import annotations

import threading

import structlog

from rlaas.control.experiments.service import ExperimentService
from rlaas.errors import ConflictError, shown

__all__ = ["AnalysisLoop"]


class AnalysisLoop:
    """Analyses every experiment that may have something new, in a thread of its own.

    Args:
        experiments: the service.
        interval_s: between the end of a round and the next.
    """

    def __init__(self, experiments: ExperimentService, *, interval_s: float = 30.0) -> None:
        self._experiments, self._interval_s = experiments, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="experiments", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the rounds."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the present experiment; a longer analysis is left to itself: what it has not stored is nothing."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def round(self) -> None:
        """Analyse each experiment that is due; one that fails does not keep the others from it."""
        events = structlog.get_logger("rlaas.control")
        try:
            due = self._experiments.due()
        except Exception as problem:  # a database that is away now may be back in the next round
            events.exception("experiments_not_read", error=shown(problem, str))
            return
        for id_ in due:
            if self._ended.is_set():
                return
            try:
                self._experiments.analyse(id_)
            except ConflictError as problem:  # another Control was faster: its result is as good
                events.info("experiment_analysed_elsewhere", experiment=id_, error=problem.message)
            except Exception as problem:  # a lake that cannot be read now may be in the next round
                events.exception("experiment_not_analysed", experiment=id_, error=shown(problem, str))

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.round()
