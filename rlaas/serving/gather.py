"""Requests that arrive in one turn of the event loop are decided together.

No request waits for another: what is there when the loop has read its sockets is taken, be it one or sixty. On a loaded
replica that makes a decision several times as cheap (see :meth:`rlaas.serving.engine.DecisionEngine.answer_together`).
"""

from __future__ import annotations

import asyncio

from rlaas.serving.engine import DecisionEngine
from rlaas.serving.questions import Question

__all__ = ["Gather"]


class Gather:
    """Questions of the present turn; belongs to one event loop.

    Args:
        engine: that answers them.
    """

    def __init__(self, engine: DecisionEngine) -> None:
        self._engine = engine
        self._waiting: list[tuple[Question, asyncio.Future[bytes]]] = []

    def ask(self, question: Question) -> asyncio.Future[bytes]:
        """The answer to a plain question, with the next turn of the loop."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((question, answer))
        return answer

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        answers = self._engine.answer_together([question for question, _ in waiting])
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.done():  # whoever asked has gone: the decision is in the log, nobody acts on it
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
