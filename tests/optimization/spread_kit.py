"""Workers in virtual time, for what must not depend on a clock: the order of arrival, losses, calls in flight."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from rlaas.optimization import FunctionProblem
from rlaas.optimization.problems import Problem
from rlaas.optimization.spread.workers import Answer, Task, Usage, evaluate_rows


class VirtualWorkers:
    """Computes a call when it is answered; calls take lognormal times of a seed, on ``size`` workers.

    Args:
        problem: what tasks get.
        size: workers.
        seed: of the times.
        lose: calls (1 for the first) that are answered as lost.
    """

    def __init__(self, problem: Problem, size: int, seed: int = 0, lose: tuple[int, ...] = ()) -> None:
        self.size = size
        self.usage = Usage()
        self.most_in_flight = 0
        self.submitted = 0
        self._problem = problem
        self._rng = np.random.default_rng(seed)
        self._lose = lose
        self._free = [0.0] * size
        self._calls: list[tuple[float, int, Task, Any]] = []
        self._now = 0.0

    def submit(self, task: Task, payload: Any, *, deadline_seconds: float | None = None, ahead: bool = False) -> int:
        self.submitted += 1
        worker = int(np.argmin(self._free))
        took = float(self._rng.lognormal(-0.35, 0.83))
        self._free[worker] = max(self._free[worker], self._now) + took
        heapq.heappush(self._calls, (self._free[worker], self.submitted, task, payload))
        self.usage.busy_seconds += took
        self.most_in_flight = max(self.most_in_flight, len(self._calls))
        return self.submitted

    def completed(self, timeout: float | None = None) -> list[Answer]:
        if not self._calls:
            return []
        self._now, ticket, task, payload = heapq.heappop(self._calls)
        if ticket in self._lose:
            return [Answer(ticket=ticket, lost="actor_died")]
        try:
            return [Answer(ticket=ticket, value=task(self._problem, payload), seconds=1.0)]
        except Exception as error:
            return [Answer(ticket=ticket, error=error)]

    def drop(self) -> None:
        self._calls.clear()

    def evaluate(self, X: np.ndarray, *, rows_per_call: int | None = None) -> np.ndarray:
        return evaluate_rows(self._problem, X)


def sphere_problem(n_var: int = 6) -> FunctionProblem:
    """DTLZ2-like: a front on the unit sphere's positive part, three objectives."""

    def evaluate(X: np.ndarray) -> np.ndarray:
        distance = 1 + ((X[:, 2:] - 0.5) ** 2).sum(axis=1)
        a, b = X[:, 0] * np.pi / 2, X[:, 1] * np.pi / 2
        return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1) * distance[:, None]

    return FunctionProblem(evaluate, np.zeros(n_var), np.ones(n_var), n_obj=3)


def same(first: Any, second: Any) -> bool:
    """Whether two populations are the same bits."""
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in ("X", "F", "G"))
