"""When a call is sent again, after how long, and what is raised when it is not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlaas.client.answers import Reply
from rlaas.client.wire import Call
from rlaas.errors import InvalidInputError, RetryableError

__all__ = ["Attempts", "DeadlinePassedError", "NoAnswerError", "Patience"]

_FIRST_PAUSE_S = 0.1
_LONGEST_HEADER_S = 3600.0
_LOST_ON_THE_WAY = (502, 504)


class NoAnswerError(RetryableError):
    """No answer came back.

    Attributes:
        maybe_done: the request may have reached the platform, so that what it asks for may have been done.
    """

    maybe_done: bool = False


class DeadlinePassedError(NoAnswerError):
    """The caller's deadline passed before there was an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long calls may take.

    Attributes:
        timeout_s: for one attempt: to connect, and to wait for bytes.
        deadline_s: for a call with all its attempts and pauses; None for no end but that of the attempts.
        attempts: at most.
        longest_pause_s: a platform that asks for a longer pause is not waited for.
    """

    timeout_s: float = 30.0
    deadline_s: float | None = None
    attempts: int = 5
    longest_pause_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("timeout_s", "deadline_s", "longest_pause_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidInputError(f"{name} must be seconds > 0, got {value!r}", field=name)
        if self.attempts < 1:
            raise InvalidInputError(f"attempts must be >= 1, got {self.attempts!r}", field="attempts")


class Attempts:
    """The attempts of one call.

    Args:
        call: that is made.
        patience: with it.
        clock: monotonic seconds.
    """

    def __init__(self, call: Call, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._call = call
        self._patience = patience
        self._clock = clock
        self._made = 0
        self._end = None if patience.deadline_s is None else clock() + patience.deadline_s

    def begin(self) -> float:
        """Begin an attempt; returns the seconds that it may take.

        Raises:
            DeadlinePassedError: there are none left.
        """
        self._made += 1
        left = self._left()
        if left <= 0:
            raise DeadlinePassedError(f"no answer to {self._name} within {self._patience.deadline_s:g} s")
        return min(self._patience.timeout_s, left)

    @staticmethod
    def header(seconds: float) -> dict[str, str]:
        """Tells the platform how long the caller waits, so that it begins nothing for nobody."""
        return {"x-request-timeout": f"{min(max(seconds, 0.001), _LONGEST_HEADER_S):.3f}"}

    def refused(self, problem: RetryableError, reply: Reply | None) -> float:
        """Seconds to wait after the platform said "not now".

        Nothing was done, so that every call may be sent again; but for an answer of something on the way, which does
        not know what became of the request.

        Raises:
            RetryableError: there is no next attempt.
        """
        if reply is not None and reply.status in _LOST_ON_THE_WAY and not reply.ours:
            return self._again(self._no_answer(f"HTTP {reply.status}", maybe_done=True), None)
        return self._again(problem, None if reply is None else reply.retry_after_s)

    def lost(self, problem: Exception, *, sent: bool) -> float:
        """Seconds to wait after an attempt without an answer.

        What never left may be sent again. An answer that got lost on the way back may be asked for again only if doing
        it twice does no harm.

        Args:
            problem: of the connection.
            sent: the request may have arrived.

        Raises:
            NoAnswerError: there is no next attempt.
        """
        error = self._no_answer(str(problem) or type(problem).__name__, maybe_done=sent)
        error.__cause__ = problem
        return self._again(error, None)

    @property
    def _name(self) -> str:
        return f"{self._call.method} {self._call.path}"

    def _left(self) -> float:
        return float("inf") if self._end is None else self._end - self._clock()

    def _no_answer(self, reason: str, *, maybe_done: bool) -> NoAnswerError:
        kind = DeadlinePassedError if self._left() <= 0 else NoAnswerError
        error = kind(f"no answer to {self._name}: {reason}")
        error.maybe_done = maybe_done
        return error

    def _again(self, problem: RetryableError, wait_s: float | None) -> float:
        maybe_done = isinstance(problem, NoAnswerError) and problem.maybe_done
        last = self._made >= self._patience.attempts or not self._call.patient
        if last or (maybe_done and not self._call.idempotent):
            raise problem
        # Jitter, so that clients that were turned away together do not come back together.
        pause = _FIRST_PAUSE_S * 2.0 ** (self._made - 1) * random.uniform(0.5, 1.5)
        if wait_s is not None:
            pause = max(wait_s, 0.0) + pause * 0.5
        if pause > self._patience.longest_pause_s or pause >= self._left():
            raise problem
        return pause
