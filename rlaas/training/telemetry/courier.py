"""A thread that carries slow messages, so that a training never waits for a server."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["Courier"]


class Courier:
    """Does pieces of work in a thread of its own, one at a time.

    The thread ends with :meth:`stop`, or with the process: one that hangs in a connection holds nobody up.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """What was sent is done, or has failed."""
        return self._idle.is_set()

    def send(self, work: Callable[[], None]) -> None:
        """Have ``work`` done; only the thread that owns the courier may ask for it.

        Raises:
            RuntimeError: the last piece is not done yet.
        """
        if not self.idle:
            raise RuntimeError("the courier is still on its way")
        self._idle.clear()
        self._work.put(work)

    def wait(self, seconds: float) -> bool:
        """Wait until it is idle, at most ``seconds``; whether it is."""
        return self._idle.wait(seconds)

    def check(self) -> None:
        """Raise what the last piece of work raised, once."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def stop(self) -> None:
        """End the thread once it is idle."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as problem:  # it belongs to the owner, who asks for it
                self._problem = problem
            finally:
                self._idle.set()
