"""Running evaluations and other tasks on Ray actors; the one file of this room that knows Ray."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import ray
import structlog
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from rlaas.errors import ConfigurationError, NotReadyError, OperatorError, OverloadedError
from rlaas.optimization.spread.slots import Call, Slot
from rlaas.optimization.spread.workers import MIN_CALL_SECONDS, Answer, Host, Task, Usage, evaluate_rows

__all__ = ["ActorPool", "processors"]

FloatArray = NDArray[np.float64]

CHUNKS_PER_WORKER = 2
"""More, smaller chunks even out uneven times; fewer, larger ones suit vectorised problems. Two is the compromise."""

ATTEMPTS = 2

STARTS = 3
"""Starts in a row that a worker may fail before the others go on without it."""

DEPTH = 2
"""Calls given to one worker at a time: the second hides the way there and back of the first."""

_GONE = (RayActorError, ObjectLostError, WorkerCrashedError, OutOfMemoryError)

log = structlog.get_logger(__name__)


class ActorPool:
    """Spreads work over Ray actors, each holding its own copy of the problem.

    ``evaluate`` spreads the rows of one evaluation and returns them in order. Underneath, ``submit`` and ``completed``
    run any task on whichever worker is free. A call whose actor died (alone, or with its node) or that missed its
    deadline is tried once more on another or a replaced actor; then it is *unknown* (NaN rows). While a replacement
    starts, the other actors go on. An exception raised by the problem itself is a defect: ``evaluate`` raises it, an
    ``Answer`` carries it. Use the pool as a context manager, inside an initialised Ray:

        with ActorPool(lambda: ConfigurationProblem(scenario, "static", seeds=range(3), steps=200)) as pool:
            minimize(problem, generations=50, evaluator=pool.evaluate)

    Args:
        factory: builds the problem, called once in each actor's process; sent there by cloudpickle.
        workers: actors.
        cpus_per_worker: processors that Ray sets aside for each (0.5 to 1 is usual).
        deadline_seconds: longest that one call may take.
        start_seconds: longest that an actor may take to start, while no other is up.

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
        self.size = workers
        self.usage = Usage()
        self._factory = factory
        self._remote = ray.remote(num_cpus=cpus_per_worker, max_restarts=0, max_task_retries=0)(Host)
        self._deadline = deadline_seconds
        self._start_limit = start_seconds
        self._slots: list[Slot] = []
        self._waiting: deque[Call] = deque()
        self._tickets = 0
        self._columns = 0
        self._row_seconds = 0.0
        self._defect: Exception | None = None

    def __enter__(self) -> ActorPool:
        """Start the actors and wait until all of them are up.

        Raises:
            NotReadyError: Ray is not initialised.
            OverloadedError: the cluster has no room for so many workers.
            OperatorError: a worker's process died while it started.
        """
        if not ray.is_initialized():
            raise NotReadyError("an ActorPool needs a running Ray; call ray.init() first")
        self._defect = None  # of an earlier opening
        try:
            self._slots = [Slot() for _ in range(self.size)]
            for slot in self._slots:
                self._start(slot)
            while pending := [slot for slot in self._slots if slot.starting is not None]:
                limit = max(slot.start_by for slot in pending) - time.monotonic()
                ready = self._ready([slot.starting for slot in pending], max(0.0, limit))
                if not ready:
                    raise self._no_room(len(pending))
                for slot in pending:
                    if slot.starting in ready:
                        self._started(slot, opening=True)
                if self._defect is not None:
                    raise self._defect
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
        for slot in self._slots:
            if slot.actor is not None:
                ray.kill(slot.actor)
        self._slots = []
        self._waiting.clear()

    def evaluate(self, X: FloatArray, *, rows_per_call: int | None = None) -> FloatArray:
        """Values [n, n_obj + n_constraints] of the candidates X [n, n_var]; a NaN row is unknown.

        Calls still open from before, such as those of an evaluation that raised, are dropped.

        Args:
            X: candidates.
            rows_per_call: candidates in each call; by default two calls for each worker, more rows where one call
                would be shorter than 10 ms.

        Raises:
            NotReadyError: the pool is not open.
            OperatorError: no worker is left.
        """
        self.drop()
        X = np.asarray(X, dtype=np.float64)
        values = np.full((len(X), self._columns), np.nan)
        chunks = {self.submit(evaluate_rows, X[c.start : c.stop]): c for c in self._chunks(len(X), rows_per_call)}
        while chunks:
            for answer in self.completed():
                chunk = chunks.pop(answer.ticket)
                if answer.error is not None:
                    raise answer.error
                if answer.lost is None:
                    values[chunk.start : chunk.stop] = answer.value
                    each = answer.seconds / (chunk.stop - chunk.start)
                    self._row_seconds = each if self._row_seconds == 0 else 0.8 * self._row_seconds + 0.2 * each
        return values

    def submit(self, task: Task, payload: Any, *, deadline_seconds: float | None = None, ahead: bool = False) -> int:
        """Queue ``task(problem, payload)`` for the next free worker and return the call's ticket.

        Args:
            task: a function that the workers can import, or that cloudpickle can send.
            payload: its second argument.
            deadline_seconds: longest that it may take, from when a worker takes it up; default the pool's.
            ahead: it may be sent to a worker that is still busy, to hide the way there. It then waits for that one,
                even where another falls idle: right for a steady flow, wrong for the last calls of a batch.

        Raises:
            NotReadyError: the pool is not open.
        """
        if not self._slots:
            raise NotReadyError("the ActorPool is not open; use it as a context manager")
        self._tickets += 1
        self._waiting.append(Call(self._tickets, task, payload, deadline_seconds or self._deadline, ahead))
        self._dispatch()
        return self._tickets

    def completed(self, timeout: float | None = None) -> list[Answer]:
        """Wait for at least one answer.

        Args:
            timeout: seconds to wait at most; default as long as it takes, for every call has a deadline.

        Returns:
            Answers in the order of arrival; none after ``timeout`` seconds, or where no call is open.

        Raises:
            OverloadedError: no worker is up, and the cluster has no room for a replacement.
            OperatorError: no worker is left, for replacements died while they started.
            Exception: the factory's own, from a replacement.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._waiting or any(slot.calls for slot in self._slots):
            self._dispatch()
            answers = self._collect(max(0.0, min(until, self._next_event()) - time.monotonic()))
            answers += self._expire()
            self._dispatch()
            if answers or time.monotonic() >= until:
                return answers
            self._check()
        return []

    def drop(self) -> None:
        """Forget every call that has not been answered. What the workers are computing, they finish unheard."""
        self._waiting.clear()
        for slot in self._slots:
            for call in slot.calls.values():
                call.dropped = True

    def _chunks(self, n: int, size: int | None = None) -> list[slice]:
        """Cut n rows so that every worker has some, and each call is worth its overhead where that is known."""
        if size is None:
            size = math.ceil(n / (self.size * CHUNKS_PER_WORKER))
            if self._row_seconds > 0:
                size = max(size, min(n, math.ceil(MIN_CALL_SECONDS / self._row_seconds)))
        size = max(1, size)
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def _dispatch(self) -> None:
        """Give waiting calls to the workers with the fewest: first one each; then a second, while many wait."""
        for depth in range(DEPTH):
            for slot in self._slots:
                if not self._waiting or not (depth == 0 or self._waiting[0].ahead or len(self._waiting) > self.size):
                    return
                if slot.takes(self._waiting[0], depth):
                    call = self._waiting.popleft()
                    if not slot.calls:
                        slot.since = time.monotonic()
                    slot.calls[slot.actor.run.remote(call.task, call.payload)] = call

    def _collect(self, timeout: float) -> list[Answer]:
        """Answers that arrive within ``timeout`` seconds; starts and losses of actors are dealt with on the way."""
        references = [r for slot in self._slots for r in (*slot.calls, *([slot.starting] if slot.starting else ()))]
        ready = self._ready(references, timeout)
        answers: list[Answer] = []
        for slot in self._slots:
            if slot.starting is not None and slot.starting in ready:
                self._started(slot)
                continue
            gone = False
            for reference in [r for r in slot.calls if r in ready]:
                try:
                    value, seconds = ray.get(reference)
                    answer = Answer(ticket=slot.calls[reference].ticket, value=value, seconds=seconds)
                    self.usage.calls += 1
                    self.usage.busy_seconds += seconds
                except RayTaskError as problem:
                    answer = Answer(ticket=slot.calls[reference].ticket, error=_cause(problem))
                except _GONE:
                    gone = True
                    continue
                except RayError as problem:  # such as a value that cannot be unpickled here
                    answer = Answer(ticket=slot.calls[reference].ticket, error=problem)
                slot.since = time.monotonic()
                if not slot.calls.pop(reference).dropped:
                    answers.append(answer)
            if gone:
                answers += self._lose(slot, "actor_died")
        return answers

    def _expire(self) -> list[Answer]:
        """Replace the workers whose first call has missed its deadline."""
        answers: list[Answer] = []
        now = time.monotonic()
        for slot in self._slots:
            # It may have finished while this process was at something else.
            if slot.calls and slot.due <= now and not self._ready([next(iter(slot.calls))], 0):
                answers += self._lose(slot, "deadline_missed")
        return answers

    def _check(self) -> None:
        """Raise what stops the whole pool; called once the answers that came before it are handed out."""
        if self._defect is not None:
            raise self._defect
        if any(slot.up for slot in self._slots):
            return
        starting = [slot.start_by for slot in self._slots if slot.starting is not None]
        if starting and max(starting) <= time.monotonic():
            raise self._no_room(len(starting))

    def _lose(self, slot: Slot, reason: str) -> list[Answer]:
        """Replace the actor; its first call has had an attempt, those behind it go back to the queue as they were."""
        ray.kill(slot.actor)
        first, *behind = slot.calls.values()
        slot.calls = {}
        self._waiting.extendleft(call for call in reversed(behind) if not call.dropped)
        first.attempt += 1
        again = first.attempt < ATTEMPTS and not first.dropped
        log.warning("optimization_worker_replaced", reason=reason, attempt=first.attempt, retry=again)
        self.usage.replaced += 1
        self._start(slot)
        if again:
            self.usage.retried += 1
            self._waiting.append(first)
        if again or first.dropped:
            return []
        self.usage.lost += 1
        return [Answer(ticket=first.ticket, lost=reason)]

    def _start(self, slot: Slot) -> None:
        slot.actor = self._remote.remote(self._factory)
        slot.starting = slot.actor.build.remote()
        slot.start_by = time.monotonic() + self._start_limit

    def _started(self, slot: Slot, *, opening: bool = False) -> None:
        """Take the actor into use, or start another in its place."""
        reference, slot.starting = slot.starting, None
        try:
            self._columns = int(ray.get(reference))
            slot.failed_starts = 0
        except RayTaskError as problem:
            slot.actor, self._defect = None, _cause(problem)
        except _GONE as problem:
            reason = str(problem).strip().splitlines()[-1].strip()
            slot.actor, slot.failed_starts = None, slot.failed_starts + 1
            log.warning("optimization_worker_start_failed", reason=reason, failed_starts=slot.failed_starts)
            if slot.failed_starts < STARTS:
                self._start(slot)
            elif opening or all(other.actor is None for other in self._slots):
                self._defect = OperatorError(f"a worker died while it started: {reason}")

    def _next_event(self) -> float:
        """When a deadline passes next, or the last hope for a worker."""
        times = [slot.due for slot in self._slots if slot.calls]
        if not any(slot.up for slot in self._slots):
            times.append(max((slot.start_by for slot in self._slots if slot.starting is not None), default=-math.inf))
        return min(times, default=math.inf)

    def _ready(self, references: list[Any], timeout: float) -> set[Any]:
        """Those of ``references`` that are there, after at most ``timeout`` seconds for the first."""
        if not references:
            return set()
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not ready and timeout > 0:
            ready, _ = ray.wait(references, num_returns=1, timeout=None if math.isinf(timeout) else timeout)
        return set(ready)

    def _no_room(self, workers: int) -> OverloadedError:
        return OverloadedError(
            f"{workers} of {self.size} workers did not start within {self._start_limit:g} s; the cluster has "
            f"{ray.available_resources().get('CPU', 0.0):g} free processors: lower workers or cpus_per_worker",
            field="workers",
        )


def _cause(problem: RayTaskError) -> Exception:
    """The task's own exception, with the worker's traceback behind it."""
    cause: Exception = problem.cause
    cause.__cause__ = problem
    return cause


def processors() -> float:
    """Processors that this Ray can really compute on at once.

    Ray believes what it is told (``ray.init(num_cpus=16)`` on two cores); on this machine the truth is known.
    """
    here = len(os.sched_getaffinity(0))
    if not ray.is_initialized():
        return float(here)
    address = ray.util.get_node_ip_address()
    counts: dict[bool, float] = {True: 0.0, False: 0.0}
    for node in ray.nodes():
        if node["Alive"]:
            counts[node["NodeManagerAddress"] == address] += node["Resources"].get("CPU", 0.0)
    return min(counts[True], float(here)) + counts[False]
