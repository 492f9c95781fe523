"""Keeps count of resolutions while they happen, and judges them by the fronts that come later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from rlaas.control.resolution_gauges import ResolutionGauges
from rlaas.control.resolutions import ResolutionStore
from rlaas.decisions.effectiveness import Resolution
from rlaas.decisions.fallback import Answer, TimedFront
from rlaas.errors import RlaasError, shown
from rlaas.objectives import Mode

__all__ = ["ResolutionRecorder"]

MOST_WAITING = 1000
"""Answers that wait to be recorded; a database that is locked holds them up for seconds each."""


class ResolutionRecorder:
    """Records answers in a thread of its own, and settles them. Thread-safe; no answer waits for it.

    Args:
        store: where resolutions are kept.
        gauges: that are published.
        fronts: the fronts that are known now, each with the time it was made.
        clock: UTC time in microseconds.
        most_waiting: answers that may wait to be recorded; one more is dropped and logged.
    """

    def __init__(
        self,
        store: ResolutionStore,
        gauges: ResolutionGauges,
        fronts: Callable[[], Iterable[TimedFront]],
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._store, self._gauges, self._fronts, self._clock = store, gauges, fronts, clock
        self._most_waiting = most_waiting
        self._waiting: deque[Resolution] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._writer: threading.Thread | None = None
        self._events = structlog.get_logger("rlaas.control")

    def observe(self, answer: Answer, *, scenario: str, names: Sequence[str], mode: Mode) -> None:
        """Have an answer recorded, soon; a failure is logged.

        Args:
            answer: that was given.
            scenario: name of the scenario.
            names: of its objectives in the order of the candidate's means.
            mode: that was resolved.
        """
        try:
            resolution = Resolution.of(answer, scenario=scenario, names=names, mode=mode, time_us=self._clock())
            refused = self._enqueue(resolution)
        except (RlaasError, RuntimeError) as problem:  # RuntimeError: no thread is to be had
            refused = shown(problem, str)
        if refused is not None:
            self._events.error("resolution_not_recorded", scenario=scenario, error=refused)

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until every answer so far is recorded or has failed to be; whether that is so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Take no more answers, and record those that wait; what takes longer than ``timeout_s`` is left to itself."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            writer = self._writer
        if writer is not None:
            writer.join(timeout_s)

    def settle(self) -> int:
        """Judge what was resolved before the present fronts were made; how many were.

        A resolution is never judged by the front it was chosen from, which would find little to regret.
        """
        settled = 0
        for found in self._fronts():
            try:
                settled += len(self._store.settle(found.front, time_us=found.made_us - 1))
            except (RlaasError, SQLAlchemyError) as problem:
                self._events.error("resolutions_not_settled", scenario=found.front.scenario, error=shown(problem, str))
        return settled

    def _enqueue(self, resolution: Resolution) -> str | None:
        """Why ``resolution`` cannot be recorded, None if it will be."""
        with self._changed:
            if self._closed:
                return "the recorder is closed"
            if len(self._waiting) >= self._most_waiting:
                return f"{self._most_waiting} others wait to be recorded"
            if self._writer is None:
                writer = threading.Thread(target=self._write, name="resolution-writer", daemon=True)
                writer.start()
                self._writer = writer
            self._waiting.append(resolution)
            self._changed.notify_all()
            return None

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                resolution = self._waiting[0]
            try:
                self._store.record(resolution)
            except Exception as problem:  # whatever ails one, the next may do better
                self._events.error(
                    "resolution_not_recorded", scenario=resolution.scenario, error=shown(problem, str), exc_info=True
                )
            with self._changed:  # only now: whoever flushes wants it recorded
                self._waiting.popleft()
                self._changed.notify_all()

    def tick(self) -> None:
        """Settle, then publish the gauges; call it every now and then."""
        self.settle()
        try:
            self._gauges.publish()
        except SQLAlchemyError as problem:
            self._events.error("resolution_gauges_not_published", error=shown(problem, str))
