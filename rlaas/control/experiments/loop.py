"""The thread that analyses experiments."""

from __future__ import annotations

import structlog

from rlaas.control.experiments.service import ExperimentService
from rlaas.control.looping import Loop
from rlaas.errors import ConflictError, shown

__all__ = ["AnalysisLoop"]


class AnalysisLoop(Loop):
    """Analyses every experiment that may have something new, and moves the weights of adaptive ones.

    What a stopped round has not stored is nothing.

    Args:
        experiments: the service.
        interval_s: between the end of a round and the next.
    """

    def __init__(self, experiments: ExperimentService, *, interval_s: float = 30.0) -> None:
        super().__init__(self.round, name="experiments", interval_s=interval_s)
        self._experiments = experiments

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
                self._experiments.reallocate(id_)
            except ConflictError as problem:  # another Control was faster: its result is as good
                events.info("experiment_analysed_elsewhere", experiment=id_, error=problem.message)
            except Exception as problem:  # a lake that cannot be read now may be in the next round
                events.exception("experiment_not_analysed", experiment=id_, error=shown(problem, str))
