"""Optuna behind Ray Tune, told the truth about trials that did not run to their end."""

from __future__ import annotations

from typing import Any

from ray.tune.search.optuna import OptunaSearch

from rlaas.tuning.figures import FAILURE, FINISHED

__all__ = ["PatientOptunaSearch"]


class PatientOptunaSearch(OptunaSearch):
    """Ray's ``OptunaSearch`` with three kinds of ends.

    Ray reports whatever a trial said last as its value. A trial that was stopped early would then count as if its
    figures were final: few seconds spent, for one, would look like a merit. Here such a trial is *pruned* (Optuna then
    uses what it reported on the way, where the sampler can), one that failed is *failed*, and only one that ran to its
    end is *complete*.
    """

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended."""
        if error or (result is not None and FAILURE in result):
            super().on_trial_complete(trial_id, None, error=True)
        elif result is not None and not result.get(FINISHED):
            # Tune keeps from its searcher the very report that a trial is stopped at.
            self.on_trial_result(trial_id, result)
            super().on_trial_complete(trial_id, None)
        else:
            super().on_trial_complete(trial_id, result)
