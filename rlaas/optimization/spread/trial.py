"""Measuring what an evaluation costs before deciding who is to evaluate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown
from rlaas.optimization.problems import Problem, check_values
from rlaas.optimization.spread.recipe import Recipe

__all__ = ["Clock", "EvaluationTimes", "measure"]

FloatArray = NDArray[np.float64]

SAMPLES = 48
"""Single evaluations at most: enough for the spread of a lognormal to within some 15 %."""

MIN_SAMPLES = 4
"""Single evaluations at least, however long they take."""

WHOLE_GENERATION_SECONDS = 1e-3
"""Single evaluations shorter than this are also timed a generation at a time, with the selection between."""


SELECTION_SECONDS = 0.002
"""Breeding and selection of a generation of usual size; beside slow evaluations it need not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTimes:
    """What evaluations cost in one process.

    Attributes:
        mean: seconds of a candidate evaluated alone.
        cv: coefficient of variation of these (standard deviation / mean).
        samples: evaluations measured.
        row_seconds: seconds that one more candidate adds to a call; less than ``mean`` for a vectorised problem.
        cores: processors kept busy while evaluating: about 1 where it computes, 0 where it waits.
        selection_seconds: breeding and selection of one generation.
    """

    mean: float
    cv: float
    samples: int
    row_seconds: float
    cores: float = 1.0
    selection_seconds: float = SELECTION_SECONDS

    def __post_init__(self) -> None:
        for name in ("mean", "cv", "row_seconds", "cores", "selection_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InvalidInputError(f"{name} must be a finite number >= 0, got {shown(value)}", field=name)
        if not self.mean > 0:
            raise InvalidInputError("mean must be above 0 s", field="mean")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "mean": self.mean,
            "cv": self.cv,
            "samples": self.samples,
            "row_seconds": self.row_seconds,
            "cores": self.cores,
            "selection_seconds": self.selection_seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What times are read from, in seconds.

    Attributes:
        wall: time that passes.
        processor: time that this process computed.
    """

    wall: Callable[[], float] = time.perf_counter
    processor: Callable[[], float] = time.process_time


def measure(
    problem: Problem, recipe: Recipe, *, limit_seconds: float = 1.0, clock: Clock | None = None
) -> EvaluationTimes:
    """Evaluate some candidates of the first generation, in this process, and time them.

    The first evaluation is not counted where there is time for more: it pays for imports and compilation. Of a problem
    that is quick, whole generations are timed as well.

    Args:
        problem: what is to be searched.
        recipe: of the engine whose candidates are evaluated; a seed means the same ones each time.
        limit_seconds: time after which no further single evaluation is begun, once there are 4.
        clock: that times are read from; default the process's own.

    Raises:
        InvalidInputError: an evaluation of the wrong shape.
        Exception: the problem's own.
    """
    clock = clock or Clock()
    engine = recipe.build(problem)
    X = engine.ask()
    walls: list[float] = []
    cpu = 0.0
    began = clock.wall()
    for row in range(min(SAMPLES, max(MIN_SAMPLES, len(X))) + 1):
        if len(walls) > MIN_SAMPLES and clock.wall() - began > limit_seconds:
            break
        one = X[row % len(X)][None]
        cpu_before, wall_before = clock.processor(), clock.wall()
        check_values(problem, one, problem.evaluate(one))
        walls.append(clock.wall() - wall_before)
        cpu += (clock.processor() - cpu_before) if row else 0.0
    times = np.array(walls[1:])
    mean = max(float(times.mean()), 1e-9)
    row_seconds, selection = mean, SELECTION_SECONDS
    if mean < WHOLE_GENERATION_SECONDS:
        row_seconds, selection = _generations(problem, recipe, clock)
    elif len(X) > 1:
        row_seconds = _added(problem, X, mean, clock)
    return EvaluationTimes(
        mean=mean,
        cv=float(times.std(ddof=1)) / mean,
        samples=len(times),
        row_seconds=min(row_seconds, mean),
        cores=cpu / float(times.sum()) if times.sum() > 0 else 1.0,
        selection_seconds=selection,
    )


def _added(problem: Problem, X: FloatArray, mean: float, clock: Clock) -> float:
    """Seconds that another candidate in the same call takes [of four]."""
    some = X[:4]
    began = clock.wall()
    check_values(problem, some, problem.evaluate(some))
    return max(0.0, (clock.wall() - began - mean) / max(1, len(some) - 1))


def _generations(problem: Problem, recipe: Recipe, clock: Clock) -> tuple[float, float]:
    """Seconds for a candidate among a whole generation, and for the selection between two: the better of two each."""
    engine = recipe.build(problem)
    evaluating, selecting = [], []
    for _ in range(3):
        began = clock.wall()
        X = engine.ask()
        if not len(X):
            break
        asked = clock.wall()
        values = check_values(problem, X, problem.evaluate(X))
        evaluated = clock.wall()
        engine.tell(X, values)
        evaluating.append((evaluated - asked) / len(X))
        selecting.append(asked - began + clock.wall() - evaluated)
    return min(evaluating), min(selecting)
