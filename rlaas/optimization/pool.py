"""Evaluating candidates on Ray actors; the one file of this room that knows Ray."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import ray
import structlog
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError

from rlaas.errors import ConfigurationError, NotReadyError, OperatorError, OverloadedError
from rlaas.optimization.problems import as_problem, check_values, n_columns

__all__ = ["ActorPool"]

FloatArray = NDArray[np.float64]

MIN_CALL_SECONDS = 0.010
"""A remote call costs about 1 ms: below ten times that, spreading loses more than it gains."""

CHUNKS_PER_WORKER = 2
"""More, smaller chunks even out uneven times; fewer, larger ones suit vectorised problems. Two is the compromise."""

ATTEMPTS = 2

log = structlog.get_logger(__name__)


class _Worker:
    """Holds one problem in an actor's process."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory

    def build(self) -> int:
        """Build the problem and say how many columns an evaluation has.

        Not done on construction: there Ray would wrap the factory's own error, such as an unknown scenario, in the
        news that the actor died.
        """
        self._problem = as_problem(self._factory())
        return n_columns(self._problem)

    def evaluate(self, X: FloatArray) -> tuple[FloatArray, float]:
        """Values [n, n_columns] of X [n, n_var] and the seconds they took."""
        started = time.perf_counter()
        values = check_values(self._problem, X, self._problem.evaluate(X))
        return values, time.perf_counter() - started


@dataclass(slots=True)
class _Chunk:
    """Rows ``start:stop`` and how often they were tried."""

    start: int
    stop: int
    attempt: int = 0


@dataclass(slots=True)
class _Call:
    """A chunk in flight on the actor in one slot."""

    slot: int
    chunk: _Chunk
    due: float


class ActorPool:
    """Spreads the rows of an evaluation over Ray actors, each holding its own copy of the problem.

    Rows come back in order. A chunk whose actor died or that missed its deadline is tried once more on another or a
    replaced actor; then its rows are NaN, which says *unknown*. An exception raised by the problem itself is a defect
    and is raised here. Use it as a context manager, inside an initialised Ray:

        with ActorPool(lambda: ConfigurationProblem(scenario, "static", seeds=range(3), steps=200)) as pool:
            minimize(problem, generations=50, evaluator=pool.evaluate)

    Args:
        factory: builds the problem, called once in each actor's process; sent there by cloudpickle.
        workers: actors.
        cpus_per_worker: processors that Ray sets aside for each (0.5 to 1 is usual).
        deadline_seconds: longest that one chunk may take.
        start_seconds: longest that an actor may take to start.

    Raises:
        ConfigurationError: fewer than one worker, or a time or share that is not positive.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        workers: int = 2,
        *,
        cpus_per_worker: float = 1.0,
        deadline_seconds: float = 300.0,
        start_seconds: float = 120.0,
    ) -> None:
        checks = {"cpus_per_worker": cpus_per_worker, "deadline_seconds": deadline_seconds}
        for name, value in {"workers": workers, **checks, "start_seconds": start_seconds}.items():
            if not value > 0:
                raise ConfigurationError(f"{name} must be positive, got {value}", field=name)
        self._factory = factory
        self._workers = workers
        self._remote = ray.remote(num_cpus=cpus_per_worker, max_restarts=0, max_task_retries=0)(_Worker)
        self._deadline = deadline_seconds
        self._start_limit = start_seconds
        self._actors: list[Any] = []
        self._columns = 0
        self._row_seconds = 0.0

    def __enter__(self) -> ActorPool:
        """Start the actors.

        Raises:
            NotReadyError: Ray is not initialised.
            OverloadedError: the cluster has no room for so many workers.
            OperatorError: a worker's process died while it started.
        """
        if not ray.is_initialized():
            raise NotReadyError("an ActorPool needs a running Ray; call ray.init() first")
        try:
            self._actors = [self._remote.remote(self._factory) for _ in range(self._workers)]
            self._columns = self._wait_until_up(self._actors)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors; what they were computing is dropped."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def evaluate(self, X: FloatArray) -> FloatArray:
        """Values [n, n_obj + n_constraints] of the candidates X [n, n_var]; a NaN row is unknown.

        Raises:
            NotReadyError: the pool is not open.
        """
        if not self._actors:
            raise NotReadyError("the ActorPool is not open; use it as a context manager")
        X = np.asarray(X, dtype=np.float64)
        values = np.full((len(X), self._columns), np.nan)
        waiting = self._chunks(len(X))
        idle = deque(range(self._workers))
        calls: dict[Any, _Call] = {}
        while waiting or calls:
            while waiting and idle:
                self._dispatch(X, waiting.popleft(), idle.popleft(), calls)
            soonest = min(call.due for call in calls.values())
            done, _ = ray.wait(list(calls), num_returns=1, timeout=max(0.0, soonest - time.monotonic()))
            if done:
                for reference in done:
                    self._collect(reference, calls.pop(reference), values, waiting, idle)
            else:
                self._expire(calls, waiting, idle)
        return values

    def _chunks(self, n: int) -> deque[_Chunk]:
        """Cut n rows so that every worker has some, and each call is worth its overhead where that is known."""
        size = math.ceil(n / (self._workers * CHUNKS_PER_WORKER))
        if self._row_seconds > 0:
            size = max(size, min(n, math.ceil(MIN_CALL_SECONDS / self._row_seconds)))
        return deque(_Chunk(start, min(start + size, n)) for start in range(0, n, max(1, size)))

    def _dispatch(self, X: FloatArray, chunk: _Chunk, slot: int, calls: dict[Any, _Call]) -> None:
        chunk.attempt += 1
        reference = self._actors[slot].evaluate.remote(X[chunk.start : chunk.stop])
        calls[reference] = _Call(slot, chunk, time.monotonic() + self._deadline)

    def _collect(
        self, reference: Any, call: _Call, values: FloatArray, waiting: deque[_Chunk], idle: deque[int]
    ) -> None:
        try:
            rows, seconds = ray.get(reference)
        except RayActorError:
            self._lose(call, "actor_died", waiting, idle)
            return
        values[call.chunk.start : call.chunk.stop] = rows
        each = seconds / max(1, len(rows))
        self._row_seconds = each if self._row_seconds == 0 else 0.8 * self._row_seconds + 0.2 * each
        idle.append(call.slot)

    def _expire(self, calls: dict[Any, _Call], waiting: deque[_Chunk], idle: deque[int]) -> None:
        now = time.monotonic()
        for reference in [r for r, call in calls.items() if call.due <= now]:
            # Replacing another actor takes a while, in which this one may have finished after all.
            if not ray.wait([reference], timeout=0)[0]:
                call = calls.pop(reference)
                ray.kill(self._actors[call.slot])
                self._lose(call, "deadline_missed", waiting, idle)

    def _lose(self, call: _Call, reason: str, waiting: deque[_Chunk], idle: deque[int]) -> None:
        """Replace the actor; queue its chunk again, or leave its rows unknown."""
        again = call.chunk.attempt < ATTEMPTS
        rows = call.chunk.stop - call.chunk.start
        log.warning("optimization_worker_replaced", reason=reason, rows=rows, attempt=call.chunk.attempt, retry=again)
        self._actors[call.slot] = self._remote.remote(self._factory)
        self._wait_until_up([self._actors[call.slot]])
        idle.append(call.slot)
        if again:
            waiting.append(call.chunk)

    def _wait_until_up(self, actors: list[Any]) -> int:
        try:
            columns = ray.get([actor.build.remote() for actor in actors], timeout=self._start_limit)
        except GetTimeoutError as problem:
            raise OverloadedError(
                f"{len(actors)} workers did not start within {self._start_limit:g} s; the cluster has "
                f"{ray.available_resources().get('CPU', 0.0):g} free processors: lower workers or cpus_per_worker",
                field="workers",
            ) from problem
        except RayActorError as problem:
            reason = str(problem).strip().splitlines()[-1].strip()
            raise OperatorError(f"a worker died while it started: {reason}") from problem
        return int(columns[0])
