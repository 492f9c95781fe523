"""Asking a source that may fail, hang or come late, with at most one call on its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from rlaas.errors import InvalidInputError, shown
from rlaas.fronts import Front

__all__ = ["Failed", "FrontSource", "Late", "SingleFlight", "TimedFront"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedFront:
    """A front and when it was made, in UTC microseconds."""

    front: Front
    made_us: int

    def __post_init__(self) -> None:
        if not isinstance(self.front, Front):
            raise InvalidInputError(f"a timed front needs a Front, got {shown(self.front)}", field="front")
        if isinstance(self.made_us, bool) or not isinstance(self.made_us, int):
            raise InvalidInputError(
                f"made_us must be whole UTC microseconds, got {shown(self.made_us)}", field="made_us"
            )


FrontSource = Callable[[], TimedFront | Front | None]
"""Gives the present front. One without a time counts as made when it is asked for; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The source raised; ``error`` names what."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """The source has not answered in time."""

    detail: str


T = TypeVar("T")


class _Flight(Generic[T]):
    """One call of the source."""

    def __init__(self) -> None:
        self.landed: Future[T | Failed | None] = Future()
        self.started = time.monotonic()


class SingleFlight(Generic[T]):
    """Calls a source in a thread of its own; whoever asks meanwhile waits for the same call.

    A call cannot be stopped, so that one that hangs keeps its thread; no second one is started before it ends, and
    nobody waits for it longer than they would for a fresh one: it has had its time.

    Args:
        source: to call.
        accept: checks what the source gave, and adds the time where it has none; may raise. It is called once for each
            call that ends, however late.
        afterwards: called after each call, once nobody waits for it any longer.
    """

    def __init__(
        self,
        source: Callable[[], object],
        accept: Callable[[object], T | None],
        afterwards: Callable[[], None],
    ) -> None:
        self._source, self._accept, self._afterwards = source, accept, afterwards
        self._lock = threading.Lock()
        self._flight: _Flight[T] | None = None
        self._events = structlog.get_logger("rlaas.decisions")

    def fetch(self, patience_s: float) -> T | Failed | Late | None:
        """What the source gives within ``patience_s`` seconds."""
        with self._lock:
            flight = self._flight
            if flight is None:
                flight = _Flight()
                thread = threading.Thread(target=self._fly, args=(flight,), name="rlaas-front-source", daemon=True)
                try:
                    thread.start()
                except RuntimeError as problem:  # no thread is to be had now; the next call may get one
                    self._events.warning("front_source_failed", error=str(problem))
                    return Failed(error=f"RuntimeError: {shown(problem, str)}")
                self._flight = flight
        begun_s = time.monotonic() - flight.started
        try:
            return flight.landed.result(timeout=max(0.0, patience_s - begun_s))
        except LateError:
            waited_s = time.monotonic() - flight.started
            self._events.warning("front_source_late", waited_s=round(waited_s, 3))
            return Late(detail=f"the source has not answered for {waited_s:.3g} s")

    def _fly(self, flight: _Flight[T]) -> None:
        outcome: T | Failed | None
        try:
            outcome = self._accept(self._source())
        except BaseException as problem:  # SystemExit too: it would end the thread and leave everybody waiting
            outcome = Failed(error=f"{type(problem).__name__}: {shown(problem, str)}")
            self._events.warning("front_source_failed", error=outcome.error, exc_info=True)
        with self._lock:
            self._flight = None
        # After that: whoever sees this one landed gets a fresh call next time.
        flight.landed.set_result(outcome)
        self._afterwards()
