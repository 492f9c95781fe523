"""The thread that reconciles rollouts."""

from __future__ import annotations

import threading

import structlog

from rlaas.control.rollouts.controller import RolloutController
from rlaas.errors import shown

__all__ = ["RolloutLoop"]


class RolloutLoop:
    """Ticks a controller in a thread of its own.

    Args:
        controller: that reconciles.
        interval_s: between the end of a tick and the next.
    """

    def __init__(self, controller: RolloutController, *, interval_s: float = 1.0) -> None:
        self._controller, self._interval_s = controller, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start ticking."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the present tick, and let another process go on; a longer tick is left to itself."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        events = structlog.get_logger("rlaas.control")
        while not self._ended.wait(self._interval_s):
            try:
                self._controller.tick()
            except Exception as problem:  # a database that is away now may be back at the next tick
                events.exception("rollout_tick_failed", error=shown(problem, str))
        try:
            self._controller.release()
        except Exception as problem:  # the lease runs out by itself
            events.warning("lease_not_released", error=shown(problem, str))
