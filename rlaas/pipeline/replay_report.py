"""Off-policy estimators on real logs, as a section of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlaas.pipeline.replay import compare_estimators
from rlaas.scenarios import LoggedPair
from rlaas.scenarios.reports import Section

__all__ = ["replay_section"]

RUNS = 30


def replay_section(
    pairs: Sequence[LoggedPair], *, runs: int = RUNS, progress: Callable[[int, int], None] | None = None
) -> Section:
    """Errors of every estimator on every pair of logs, smallest first.

    Args:
        pairs: logs of policies that ran side by side.
        runs: bootstrap runs of each, at least 2.
        progress: called with (pairs done, pairs).

    Raises:
        InvalidInputError: logs that do not fit one another, or fewer than 2 runs.
    """
    rows: list[tuple[str, str, float, str, float, float]] = []
    notes = []
    for done, pair in enumerate(pairs, 1):
        found = compare_estimators(pair.behaviour, pair.evaluation, pair.distribution, runs=runs)
        title = f"{found.evaluation} from {found.behaviour} / {found.campaign}"
        rows += [
            (title, e.estimator, e.error, f"{e.low:.3f} to {e.high:.3f}", e.bias, e.effective_sample_size)
            for e in found.errors
        ]
        notes.append(
            f"{title}: the truth is {100 * found.truth:.3f} % and itself uncertain, so that a perfect estimator would "
            f"show {found.noise:.3f}; differences below that mean nothing."
        )
        if progress is not None:
            progress(done, len(pairs))
    return Section(
        title="Off-policy estimators on the logs",
        text=(
            (
                "Two policies ran side by side, so the value of each is known. It is estimated from the other's log, "
                f"{runs} times on bootstrap samples, and the mean relative error is shown with its 95 % interval. "
                "*logged rate* ignores the policy that is asked about."
            ),
        ),
        header=("question", "estimator", "error", "interval", "bias", "effective rows"),
        rows=rows,
        notes=notes,
    )
