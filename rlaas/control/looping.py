"""Work that is done every now and then, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from rlaas.errors import shown

__all__ = ["Loop"]


class Loop:
    """Calls a function again and again until it is stopped; what fails is logged, and tried again at its next turn.

    Args:
        tick: what to call.
        name: of the thread, and of what is logged.
        interval_s: between the end of a call and the next.
        at_end: called once behind the last.
    """

    def __init__(
        self, tick: Callable[[], object], *, name: str, interval_s: float, at_end: Callable[[], object] | None = None
    ) -> None:
        self._tick, self._interval_s, self._at_end = tick, interval_s, at_end
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start ticking."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the present call; one that takes longer is left to itself."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._call(self._tick)
        if self._at_end is not None:
            self._call(self._at_end)

    def _call(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as problem:  # whatever ails one turn, such as a database that is away, the next may do better
            events = structlog.get_logger("rlaas.control")
            events.exception("tick_failed", loop=self._thread.name, error=shown(problem, str))
