"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["ENVIRONMENT", "LEARN", "OTHER", "PHASES", "SAMPLE", "SYNC", "Stopwatch", "breakdown"]

ENVIRONMENT, SAMPLE, LEARN, SYNC, OTHER = "environment", "sample", "learn", "sync", "other"
PHASES = (ENVIRONMENT, SAMPLE, LEARN, SYNC, OTHER)


class Stopwatch:
    """Seconds by phase.

    Args:
        phases: known from the start, with 0 seconds.
        clock: seconds that only grow.

    Attributes:
        seconds: so far, by phase.
    """

    def __init__(self, *phases: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(phases, 0.0)
        self._clock = clock

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time of the block to ``phase``, however the block ends."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock() - started


def breakdown(spent: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Parts of ``seconds`` that exclude each other and sum to it, as ``seconds_<phase>``.

    Args:
        spent: seconds by phase as ``algo.time_spent`` has them. There ``environment`` is a part of ``sample``; here
            ``sample`` is what sampling takes beside it: asking the policy, and keeping the books.
        seconds: of the whole.

    Returns:
        One entry for each of :data:`PHASES`; ``other`` is what no phase accounts for (starting Ray, building networks
        and environments, reporting).
    """
    sample, learn, sync = (spent.get(phase, 0.0) for phase in (SAMPLE, LEARN, SYNC))
    # Runners side by side may spend more seconds in their environments than pass for the one who waits for them.
    environment = min(spent.get(ENVIRONMENT, 0.0), sample)
    parts = {ENVIRONMENT: environment, SAMPLE: sample - environment, LEARN: learn, SYNC: sync}
    parts[OTHER] = max(0.0, seconds - sum(parts.values()))
    return {f"seconds_{phase}": parts[phase] for phase in PHASES}
