"""How often something may be reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Throttle"]


class Throttle:
    """Says when a report is due: not before its interval is over, and not before the last one has been paid off.

    What took long is done less often: a report of 20 ms at a share of 0.005 is followed by 4 s without one. Whatever a
    report costs, all of them together take at most ``share`` of the time (and the first one).

    Args:
        interval_s: seconds from one report to the next, at least.
        share: of the time, for the reports.
        clock: seconds that only grow.
        cost: seconds that a report has cost, read before and after it; None for ``clock``. A thread that waits for a
            server takes nothing from anybody: there ``time.thread_time`` counts.
    """

    def __init__(
        self,
        interval_s: float,
        share: float,
        clock: Callable[[], float] = time.perf_counter,
        *,
        cost: Callable[[], float] | None = None,
    ) -> None:
        self._interval_s, self._share = interval_s, share
        self._clock, self._cost = clock, cost or clock
        self._next = -float("inf")

    def due(self) -> bool:
        """Whether the next report may be made now."""
        return self._clock() >= self._next

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Around a report: what it costs puts off the next one, also where it fails."""
        started, before = self._clock(), self._cost()
        try:
            yield
        finally:
            spent = self._cost() - before
            self._next = max(started + self._interval_s, self._clock() + spent / self._share)
