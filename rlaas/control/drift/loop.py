"""The thread that follows drift."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rlaas.control.drift.reconciler import DriftReconciler
from rlaas.control.looping import Loop

__all__ = ["DriftLoop"]

_PUBLISH_S = 5.0


class DriftLoop(Loop):
    """Ticks a reconciler, and behind the last tick lets another process go on.

    Args:
        reconciler: that follows.
        interval_s: between the end of a tick and the next.
        publish: each called every few seconds, for gauges.
    """

    def __init__(
        self, reconciler: DriftReconciler, *, interval_s: float = 1.0, publish: Sequence[Callable[[], object]] = ()
    ) -> None:
        self._reconciler, self._publish, self._published = reconciler, publish, 0.0
        super().__init__(self._turn, name="drift", interval_s=interval_s, at_end=reconciler.release)
        # In a thread of its own: a receiver that hangs must not hold up the watch, nor cost it the lease.
        self._sending = Loop(reconciler.deliveries.send, name="drift-webhooks", interval_s=interval_s)

    def start(self) -> None:
        """Start ticking and sending."""
        super().start()
        self._sending.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End both after what they are at."""
        super().stop(timeout_s)
        self._sending.stop(timeout_s)

    def _turn(self) -> None:
        self._reconciler.tick()
        if time.monotonic() - self._published >= _PUBLISH_S:
            self._published = time.monotonic()
            for one in self._publish:
                one()
