"""Requests that arrive at nearly the same time are decided together.

A decision by itself is mostly spent on fetching code and tables that the one before has thrown out of the caches;
sixteen together cost a quarter (see :meth:`rlaas.serving.engine.DecisionEngine.answer_together`). What is there when
the event loop has read its sockets is taken, be it one or sixty. Only where experience says that a millisecond brings
several more is it waited for: on a quiet replica, and for callers who send the next request when they have the answer
to the last one, a wait would bring nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rlaas.serving.engine import DecisionEngine
from rlaas.serving.questions import Question

__all__ = ["Gather"]

_WAIT_S = 0.001
_WORTH_A_WAIT = 3.0
"""Questions that a wait has to bring."""

_ENOUGH = 16
"""Questions that nobody waits for more of."""

_TRY_EACH = 64
"""A wait in so many answers, to learn what it brings, where as many arrive in its time as would be worth it."""

_MEMORY = 1 / 16


class Gather:
    """Questions under way together; belongs to one event loop.

    Args:
        engine: that answers them.
        clock: monotonic seconds.
    """

    def __init__(self, engine: DecisionEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: list[tuple[Question, asyncio.Future[bytes]]] = []
        self._gain = 0.0
        self._answers = 0
        self._at_once = 0
        self._asked = 0
        self._tried = clock()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, question: Question) -> asyncio.Future[bytes]:
        """The answer to a plain question: with the next turn of the loop, or a millisecond later."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((question, answer))
        if len(self._waiting) == 1:
            loop.call_soon(self._turn)
        elif len(self._waiting) >= _ENOUGH and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            loop.call_soon(self._waited)
        return answer

    def _turn(self) -> None:
        """The loop has read its sockets once: answer, or wait for more."""
        self._at_once = len(self._waiting)
        self._answers += 1
        self._asked += self._at_once
        worth = self._gain >= _WORTH_A_WAIT
        if self._answers % _TRY_EACH == 0:
            now = self._clock()
            worth = worth or self._asked * _WAIT_S >= _WORTH_A_WAIT * (now - self._tried)
            self._asked, self._tried = 0, now
        if worth and self._at_once < _ENOUGH:
            self._timer = asyncio.get_running_loop().call_later(_WAIT_S, self._waited)
        else:
            self._answer()

    def _waited(self) -> None:
        self._timer = None
        self._gain += _MEMORY * (len(self._waiting) - self._at_once - self._gain)
        self._answer()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            answers = self._engine.answer_together([question for question, _ in waiting])
        except Exception as problem:  # nobody may be left waiting; each request says and logs that it crashed
            answers = [problem] * len(waiting)
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.done():  # whoever asked has gone: the decision is in the log, nobody acts on it
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
