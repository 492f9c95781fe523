"""What the spreading searches ask of a pool of workers, and no more; Ray stays behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlaas.optimization.problems import Problem, as_problem, check_values, n_columns

__all__ = ["MIN_CALL_SECONDS", "Answer", "Host", "Task", "Usage", "Workers", "evaluate_rows"]

FloatArray = NDArray[np.float64]

MIN_CALL_SECONDS = 0.010
"""Shortest call worth its way there and back, which is about a millisecond, where candidates can be sent together."""

Task = Callable[[Problem, Any], Any]
"""Work on a worker's own copy of the problem: (problem, payload) to a value. A function of a module, for it travels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one call.

    Attributes:
        ticket: the number that ``submit`` gave.
        value: what the task returned; None where ``lost`` or ``error`` says why there is none.
        seconds: time that the task took in the worker.
        error: raised by the task itself: a defect, which trying again does not cure.
        lost: why two attempts brought nothing, ``actor_died`` or ``deadline_missed``: the value is unknown.
    """

    ticket: int
    value: Any = None
    seconds: float = 0.0
    error: Exception | None = None
    lost: str | None = None


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a pool did since it was opened.

    Attributes:
        calls: calls that came back with a value.
        busy_seconds: time that tasks took in the workers, all together.
        retried: attempts made again on another or a replaced worker.
        lost: calls given up as unknown.
        replaced: workers that were replaced.
    """

    calls: int = 0
    busy_seconds: float = 0.0
    retried: int = 0
    lost: int = 0
    replaced: int = 0

    def since(self, before: Usage) -> Usage:
        """What was done after ``before``."""
        return Usage(
            calls=self.calls - before.calls,
            busy_seconds=self.busy_seconds - before.busy_seconds,
            retried=self.retried - before.retried,
            lost=self.lost - before.lost,
            replaced=self.replaced - before.replaced,
        )


class Workers(Protocol):
    """Workers that each hold a copy of the problem and run tasks on it, with deadlines and one retry.

    Attributes:
        size: workers.
        usage: what they did so far; read it, do not write it.
    """

    size: int
    usage: Usage

    def submit(self, task: Task, payload: Any, *, deadline_seconds: float | None = None, ahead: bool = False) -> int:
        """Queue a call and return its ticket; the deadline counts from when a worker takes it up.

        One that is ``ahead`` may wait on a worker that is still busy, to hide the way there.
        """
        ...

    def completed(self, timeout: float | None = None) -> list[Answer]:
        """At least one answer, in the order of arrival; none after ``timeout`` seconds or where nothing is queued."""
        ...

    def drop(self) -> None:
        """Forget every call that has not been answered."""
        ...

    def evaluate(self, X: FloatArray, *, rows_per_call: int | None = None) -> FloatArray:
        """Columns [n, n_obj + n_constraints] of X [n, n_var], in order; a NaN row is unknown."""
        ...


class Host:
    """Holds one problem in a worker's process and runs tasks on it.

    Args:
        factory: builds the problem.
    """

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory

    def build(self) -> int:
        """Build the problem and say how many columns an evaluation has.

        Not done on construction: there Ray would wrap the factory's own error, such as an unknown scenario, in the
        news that the actor died.
        """
        self._problem = as_problem(self._factory())
        return n_columns(self._problem)

    def run(self, task: Task, payload: Any) -> tuple[Any, float]:
        """The task's value and the seconds it took."""
        started = time.perf_counter()
        value = task(self._problem, payload)
        return value, time.perf_counter() - started


def evaluate_rows(problem: Problem, X: FloatArray) -> FloatArray:
    """The task behind an evaluation: columns [n, n_obj + n_constraints] of X [n, n_var].

    Raises:
        InvalidInputError: the problem returned another shape.
    """
    return check_values(problem, X, problem.evaluate(X))
