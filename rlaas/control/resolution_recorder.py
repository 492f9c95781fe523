"""Keeps count of resolutions while they happen, and judges them by the fronts that come later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from rlaas.control.resolution_gauges import ResolutionGauges
from rlaas.control.resolutions import ResolutionStore
from rlaas.decisions.effectiveness import Resolution
from rlaas.decisions.fallback import Answer, TimedFront
from rlaas.errors import RlaasError, shown
from rlaas.objectives import Mode

__all__ = ["RecorderLoop", "ResolutionRecorder"]


class ResolutionRecorder:
    """Records answers and settles them. Thread-safe; nothing it fails at keeps an answer from its caller.

    Args:
        store: where resolutions are kept.
        gauges: that are published.
        fronts: the fronts that are known now, each with the time it was made.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        store: ResolutionStore,
        gauges: ResolutionGauges,
        fronts: Callable[[], Iterable[TimedFront]],
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store, self._gauges, self._fronts, self._clock = store, gauges, fronts, clock
        self._events = structlog.get_logger("rlaas.control")

    def observe(self, answer: Answer, *, scenario: str, names: Sequence[str], mode: Mode) -> None:
        """Record an answer; a failure is logged.

        Args:
            answer: that was given.
            scenario: name of the scenario.
            names: of its objectives in the order of the candidate's means.
            mode: that was resolved.
        """
        try:
            self._store.record(Resolution.of(answer, scenario=scenario, names=names, mode=mode, time_us=self._clock()))
        except (RlaasError, SQLAlchemyError) as problem:
            self._events.error("resolution_not_recorded", scenario=scenario, error=shown(problem, str))

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

    def tick(self) -> None:
        """Settle, then publish the gauges; call it every now and then."""
        self.settle()
        try:
            self._gauges.publish()
        except SQLAlchemyError as problem:
            self._events.error("resolution_gauges_not_published", error=shown(problem, str))


class RecorderLoop:
    """Ticks a recorder in a thread of its own.

    Args:
        recorder: settles and publishes.
        interval_s: between the end of a tick and the next.
    """

    def __init__(self, recorder: ResolutionRecorder, *, interval_s: float) -> None:
        self._recorder = recorder
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resolution-recorder", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start ticking."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the present tick; a tick that takes longer is left to itself."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self._recorder.tick()
            except Exception as problem:  # whatever ails one tick, the next may do better; choices do not wait for it
                structlog.get_logger("rlaas.control").exception("recorder_tick_failed", error=shown(problem, str))
