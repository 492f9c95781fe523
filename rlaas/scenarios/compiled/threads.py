"""Threads for kernels that release the interpreter lock: environments dealt out in short runs, no shared state."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.scenarios.compiled.kernels import entry_point, inner

__all__ = ["Workers", "claim", "default_threads"]

_NEXT, _COUNT, _RUN, _DONE = range(4)
_LONGEST_RUN = 8
_PATIENCE = 4000
"""Times to look for a thread that is about to finish, before going to sleep: waking up takes as long as all of them."""


def default_threads() -> int:
    """Threads a scenario uses unless told: ``OMP_NUM_THREADS`` where it is set (Ray does), else the cores at hand."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Call:
    """A call that a helper may begin, or the caller take back, whoever comes first."""

    __slots__ = ("_begun", "_call", "_ended", "_error", "_token")

    def __init__(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        self._call = (kernel, arguments)
        self._token, self._ended = Lock(), Event()
        self._begun = False
        self._error: BaseException | None = None

    def take(self) -> bool:
        """Whether nobody had taken it before."""
        return self._token.acquire(blocking=False)

    def make(self) -> None:
        """Make the call, once taken."""
        self._begun = True
        kernel, arguments = self._call
        try:
            kernel(*arguments)
        except BaseException as error:
            self._error = error
        self._ended.set()

    def settle(self) -> None:
        """Wait until no helper is at it, whoever took it."""
        while not self._ended.wait(0.1) and self._begun:
            pass

    def result(self) -> None:
        """Wait for the end of what a helper took, and raise what it raised."""
        self._ended.wait()
        if self._error is not None:
            raise self._error


def _help(calls: SimpleQueue[_Call]) -> None:
    while True:
        call = calls.get()
        if call.take():
            call.make()


@cache
def _helpers(count: int, process: int) -> SimpleQueue[_Call]:
    """The queue of so many threads. An executor's bookkeeping would cost a tenth of a step of a hundred networks."""
    # The process is part of the key: a forked child inherits the queue but none of the threads.
    calls: SimpleQueue[_Call] = SimpleQueue()
    for number in range(count):
        Thread(target=_help, args=(calls,), name=f"rlaas-scenario-{process}-{number}", daemon=True).start()
    return calls


@intrinsic
def _fetch_and_add(_typing: Any, array: Any, _index: Any, _amount: Any) -> Any:
    """Add to a number of an array in one step that no other thread can come between; returns what was there.

    What a thread wrote before is seen by every thread that adds to the same number after it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "acq_rel")

    return types.int64(array, types.int64, types.int64), generate


@inner
def claim(tickets):  # type: ignore[no-untyped-def]
    """The next environments nobody has taken, from the first to before the last; an empty range when all are taken.

    A kernel stops at its first empty range, which says that it is done.

    Args:
        tickets: the second argument of a kernel, see :meth:`Workers.run`.
    """
    first = _fetch_and_add(tickets, _NEXT, tickets[_RUN])
    if first >= tickets[_COUNT]:
        _fetch_and_add(tickets, _DONE, 1)
    return first, min(first + tickets[_RUN], tickets[_COUNT])


@entry_point
def _all_done(tickets, threads):  # type: ignore[no-untyped-def]
    """Whether so many threads are done, or will be within some 50 microseconds."""
    left = _PATIENCE
    while left > 0 and _fetch_and_add(tickets, _DONE, 0) < threads:
        left -= 1
    return left > 0


class Workers:
    """Runs a kernel over environments on several threads.

    Args:
        environments: how many there are.
        threads: how many threads to use; None for :func:`default_threads`.
        smallest: fewest environments worth a thread of their own.

    Attributes:
        count: threads it uses, each with working memory of its own.

    Raises:
        ConfigurationError: fewer than one thread.
    """

    def __init__(self, environments: int, threads: int | None = None, smallest: int = 8) -> None:
        wanted = default_threads() if threads is None else threads
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise ConfigurationError(f"threads must be a whole number >= 1 or None, got {wanted!r}", field="threads")
        self.count = max(1, min(wanted, environments // smallest))
        # Alone, a thread takes everything at once; with others, runs short enough for all to end together.
        run = environments if self.count == 1 else max(1, min(_LONGEST_RUN, environments // (4 * self.count)))
        self._tickets: NDArray[np.int64] = np.array([0, environments, run, 0], dtype=np.int64)

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Call ``kernel(worker, tickets, *arguments)`` on every thread and wait until all environments are done.

        Threads deal the environments out among themselves: a kernel asks :func:`claim` for some until none is left. A
        thread that wakes up late, or whose core is busy with something else, takes fewer of them.
        """
        self._tickets[_NEXT] = self._tickets[_DONE] = 0
        if self.count == 1:
            kernel(0, self._tickets, *arguments)
            return
        helpers = _helpers(self.count - 1, os.getpid())
        calls = [_Call(kernel, worker, self._tickets, *arguments) for worker in range(1, self.count)]
        try:
            for call in calls:
                helpers.put(call)
            kernel(0, self._tickets, *arguments)
            # Nothing is left for those that have not begun by now.
            begun = [call for call in calls if not call.take()]
            if not _all_done(self._tickets, 1 + len(begun)):
                for call in begun:
                    call.result()
        except BaseException:
            # Whatever interrupts this thread, nobody is left at work on arrays that the next step writes to.
            for call in calls:
                call.take()
                call.settle()
            raise
