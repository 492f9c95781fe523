"""A pool's bookkeeping: calls, and the places of the workers that compute them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from rlaas.optimization.spread.workers import Task

__all__ = ["Call", "Slot"]


@dataclass(slots=True)
class Call:
    """A task on its way.

    Attributes:
        ticket: the number its answer will carry.
        task, payload: what to run, and on what.
        limit: seconds that it may take.
        ahead: whether it may wait behind another call on a busy worker.
        attempt: attempts that ended without an answer.
        dropped: nobody waits for the answer any more.
    """

    ticket: int
    task: Task
    payload: Any
    limit: float
    ahead: bool
    attempt: int = 0
    dropped: bool = False


@dataclass(slots=True)
class Slot:
    """A place for one worker.

    Attributes:
        actor: who works here now; None once it was given up.
        calls: what it was given, by reference, first in first out: it works on the first.
        since: when it took up the first, in seconds of the monotonic clock.
        starting: reference to the news that it is up; None once it is.
        start_by: when it should have started.
        failed_starts: starts in a row that failed.
    """

    actor: Any = None
    calls: dict[Any, Call] = field(default_factory=dict)
    since: float = 0.0
    starting: Any = None
    start_by: float = math.inf
    failed_starts: int = 0

    def takes(self, call: Call, depth: int) -> bool:
        """Whether it takes the call behind ``depth`` others.

        A call whose attempt ended without an answer is given a worker of its own: it may be what killed the last one,
        and must not take along what waits with it.
        """
        if not self.up or len(self.calls) != depth:
            return False
        return depth == 0 or not (call.attempt or any(other.attempt for other in self.calls.values()))

    @property
    def up(self) -> bool:
        """Whether it takes calls."""
        return self.actor is not None and self.starting is None

    @property
    def due(self) -> float:
        """When its first call misses the deadline."""
        return self.since + next(iter(self.calls.values())).limit
