"""What a search says while it runs: how far it is, and what it waits for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from rlaas.tuning.book import Book

__all__ = ["Notice", "Progress", "Reporter", "Waiting"]

Progress = Callable[[int, int, dict[str, float]], None]
Notice = Callable[[str], None]

PATIENCE_S = 30.0


class Reporter(Callback):
    """Calls ``progress`` with the decisions taken, those wanted, and the state of the search.

    A trial that was stopped or has failed counts as done: nothing more comes of it.

    Args:
        book: of the search.
        progress: what to call.
        trials: how many there will be.
        steps: decisions of each.
        metric: whose best value so far is shown.
        mode: ``max`` or ``min``.
        counted: name under which the number of trials that are over is shown.
    """

    def __init__(
        self,
        book: Book,
        progress: Progress,
        *,
        trials: int,
        steps: int,
        metric: str,
        mode: str,
        counted: str = "ended",
    ) -> None:
        self._book, self._progress, self._counted = book, progress, counted
        self._trials, self._steps, self._metric, self._best = trials, steps, metric, max if mode == "max" else min

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune calls this several times a second."""
        records = list(self._book.records.values())
        ended = [record for record in records if record.status in ("finished", "stopped", "failed")]
        done = len(ended) * self._steps + sum(min(r.steps, self._steps) for r in records if r not in ended)
        note = {}
        values = [v for r in records if (v := r.figures.get(self._metric)) is not None and math.isfinite(v)]
        if values:
            note["best"] = self._best(values)
        note |= {self._counted: float(len(ended)), "running": float(sum(r.status == "running" for r in records))}
        self._progress(done, self._trials * self._steps, note)


class Waiting(Callback):
    """Says so when trials wait for resources that do not come, every 30 s.

    Args:
        notice: takes the message.
        room: what the processes of a trial reserve, by Ray's names.
        patience: seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        notice: Notice,
        room: list[dict[str, float]],
        *,
        patience: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notice, self._room, self._patience, self._clock = notice, room, patience, clock
        self._since: float | None = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune calls this several times a second."""
        states = [trial.status for trial in trials]
        if "RUNNING" in states or "PENDING" not in states:
            self._since = None
            return
        now = self._clock()
        if self._since is None:
            self._since = now
        elif now - self._since >= self._patience:
            self._since = now
            self._notice(self._message(states.count("PENDING")))

    def _message(self, waiting: int) -> str:
        import ray

        free, there = ray.available_resources(), ray.cluster_resources()
        needed = {name: sum(process.get(name, 0.0) for process in self._room) for name in ("CPU", "GPU")}
        wanted = " and ".join(f"{amount:g} {name}s" for name, amount in needed.items() if amount)
        have = " and ".join(
            f"{free.get(name, 0.0):g} of the cluster's {there.get(name, 0.0):g} {name}s"
            for name, amount in needed.items()
            if amount
        )
        return (
            f"waiting for resources: {waiting} trial{'s' if waiting > 1 else ''} of {wanted} each, and {have} are "
            "free; end other work, or lower cpus_per_trial"
        )
