"""Versions that decide beside the served one and never answer: how they would have acted, how fast, how often not.

Requests leave a copy and go on; the copies are worked off in batches when there is time. Where they come faster than
that, they are dropped: a shadow must not cost what is served anything but idle time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaas.bundles import BoxAction, Float32
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.tally import Tally

__all__ = ["Shadows"]


@dataclass(frozen=True, slots=True)
class _Copy:
    live: LivePolicy
    rows: Float32
    mode: str | None
    preference: Mapping[str, float] | None
    actions: Any


class Shadows:
    """Copies that wait, and what becomes of them.

    Args:
        tally: counts the shadows' decisions, errors, latencies and differences.
        most: copies that may wait.

    Attributes:
        dropped: copies that were not worked off because too many waited.
    """

    def __init__(self, tally: Tally, most: int = 1024) -> None:
        self._tally = tally
        self._most = most
        self._waiting: deque[_Copy] = deque()
        self._working = threading.Lock()
        self.dropped = 0

    def offer(
        self, live: LivePolicy, rows: Float32, mode: str | None, preference: Mapping[str, float] | None, actions: Any
    ) -> None:
        """Leave a copy of what was decided.

        Args:
            live: the deployment; without shadows nothing is copied.
            rows: observations float32 [n, n_features].
            mode, preference: as asked for.
            actions: as served [n, ...].
        """
        if not live.shadows:
            return
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        self._waiting.append(_Copy(live, rows, mode, preference, actions))

    def work(self) -> int:
        """Work off what waits now; how many copies that was. Slow: call it off the event loop."""
        if not self._working.acquire(blocking=False):
            return 0
        try:
            count = len(self._waiting)
            for _ in range(count):
                copy = self._waiting.popleft()
                for shadow in copy.live.shadows:
                    self._decide(shadow, copy)
            return count
        finally:
            self._working.release()

    def _decide(self, shadow: LoadedVariant, copy: _Copy) -> None:
        started = time.perf_counter_ns()
        try:
            weights, _ = shadow.preference(copy.mode, copy.preference)
            actions, _ = shadow.policy.act(copy.rows, weights)
            usable = bool(np.isfinite(actions).all())
        except Exception:  # counted, which is what a shadow is for
            usable = False
        if not usable:
            self._tally.failed(shadow.policy_name, shadow.version)
            return
        count = len(copy.rows)
        self._tally.decided(shadow.policy_name, shadow.version, count, time.perf_counter_ns() - started)
        self._tally.compared(shadow.policy_name, shadow.version, count, _difference(shadow, actions, copy.actions))


def _difference(shadow: LoadedVariant, actions: Any, served: Any) -> float:
    """Sum over the rows of the distance of the two actions."""
    action = shadow.policy.manifest.action
    if isinstance(action, BoxAction):
        span = np.subtract(action.high, action.low)
        return float((np.abs(actions - served) / span).mean(axis=1).sum())
    return float(np.asarray(actions != served).reshape(len(actions), -1).any(axis=1).sum())
