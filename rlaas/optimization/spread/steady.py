"""The asynchronous way: a steady flow of candidates, none of which waits for a generation to end.

The population is renewed as answers come in, as in the steady-state scheme of Durillo, Nebro, Luna & Alba 2008 ("A
study of master-slave approaches to parallelize NSGA-II"), but selection works on micro-batches: one selection for each
answer would make the driver the bottleneck. What is bred from, and so the result, depends on the order in which answers
arrive; the event log keeps that order, and :func:`replay` walks it again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import OperatorError
from rlaas.optimization.history import SearchResult
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.population import Engine
from rlaas.optimization.problems import Problem
from rlaas.optimization.spread.events import Asked, EventLog, Events, fingerprint, read_events
from rlaas.optimization.spread.recipe import Recipe, Shape
from rlaas.optimization.spread.workers import Answer, Workers, evaluate_rows

__all__ = ["SteadySearch", "replay"]

FloatArray = NDArray[np.float64]

IN_FLIGHT_PER_WORKER = 2
"""Calls open for each worker. One more than it can compute keeps it busy; more would only breed from older parents."""

SELECTION_SHARE = 0.1
"""Of the driver's time that may go into selection; micro-batches grow until it does not take more."""


class SteadySearch:
    """An asynchronous search that is driven by events, live or from a log.

    Args:
        problem: what is searched; only its counts are used.
        engine: who breeds and selects.
        ledger: the run's account.
        log: where what happens is recorded; None for nowhere.

    Attributes:
        engine, ledger: as given.
        open: candidates asked for and not told yet, by number, each [n_var].
    """

    def __init__(self, problem: Problem, engine: Engine, ledger: Ledger, log: EventLog | None = None) -> None:
        self.engine = engine
        self.ledger = ledger
        self.open: dict[int, FloatArray] = {}
        self._columns = problem.n_obj + problem.n_constraints
        self._log = log
        self._asked = 0

    @property
    def asked(self) -> int:
        """Candidates asked for so far."""
        return self._asked

    def ask(self, wanted: int) -> list[int]:
        """Numbers of at most ``wanted`` new candidates; fewer where a finite space is nearly exhausted."""
        X = self.engine.ask(wanted)
        if self._log is not None:
            self._log.asked(wanted, X)
        numbers = list(range(self._asked, self._asked + len(X)))
        self.open.update(zip(numbers, X, strict=True))
        self._asked += len(X)
        return numbers

    def tell(self, numbers: Sequence[int], values: FloatArray) -> None:
        """Take in what came of candidates: their columns [n, n_obj + n_constraints], NaN rows where unknown.

        Raises:
            OperatorError: not one candidate of the first generation has a value.
        """
        if self._log is not None:
            self._log.told(numbers, values, self.ledger.seconds)
        self.engine.tell(np.stack([self.open.pop(number) for number in numbers]), values)
        missing = int((~np.isfinite(values).all(axis=1)).sum())
        self.ledger.add(len(numbers), missing)
        if self.ledger.unknown == self.ledger.evaluations >= self.engine.size:
            raise OperatorError(
                f"none of the {self.ledger.evaluations} candidates of the first generation could be evaluated"
            )
        self.ledger.close_generation(self.engine.population)

    def walk(self, events: Events) -> None:
        """Do again what a log says.

        Raises:
            OperatorError: this engine breeds other candidates than the one that wrote the log.
        """
        log, self._log = self._log, None
        for position, event in enumerate(events.entries, start=1):
            if isinstance(event, Asked):
                numbers = self.ask(event.wanted)
                X = np.array([self.open[number] for number in numbers])
                if len(numbers) != event.given or (numbers and fingerprint(X) != event.fingerprint):
                    raise OperatorError(
                        f"event {position} of the log does not repeat: this engine breeds other candidates than the "
                        "one that wrote it (another problem, or another version)",
                        field="log",
                    )
            elif any(number not in self.open for number in event.numbers):
                raise OperatorError(f"event {position} of the log tells of candidates that are not open", field="log")
            else:
                self.ledger.set_clock(event.seconds)
                self.tell(event.numbers, event.values)
        self._log = log

    def run(self, workers: Workers, *, rows_per_call: int = 1, micro_batch: int | None = None) -> str:
        """Search until a stop holds, and say which.

        Candidates that are open already (of a resumed run) are evaluated first. Whatever is raised, what was answered
        until then has been told.

        Args:
            workers: who evaluates; at most two calls for each are open at a time.
            rows_per_call: candidates in one call.
            micro_batch: answers told at a time; by default as few as leave the driver nine tenths of its time.

        Raises:
            OperatorError: the whole first generation is unknown, or no worker is left.
            Exception: the problem's own.
        """
        workers.drop()
        calls: dict[int, list[int]] = {}
        waiting = list(self.open)
        answered: list[tuple[list[int], Answer]] = []
        pace = _Pace(micro_batch, self.engine.size, workers.size)
        while True:
            reason = self.ledger.stopped_by()
            if reason is not None:
                workers.drop()
                return reason
            free = IN_FLIGHT_PER_WORKER * workers.size - len(calls)
            wanted = min(free * rows_per_call - len(waiting), self.ledger.limit - self._asked)
            if wanted > 0:
                waiting += self.ask(int(wanted))
            while waiting and free:
                numbers, waiting = waiting[:rows_per_call], waiting[rows_per_call:]
                X = np.stack([self.open[number] for number in numbers])
                calls[workers.submit(evaluate_rows, X, ahead=True)] = numbers
                free -= 1
            if not calls and not answered:
                return "every candidate of the finite space was tried"
            try:
                arrived = workers.completed() if calls else []
            except BaseException:
                self._take_in(answered)
                raise
            answered += [(calls.pop(answer.ticket), answer) for answer in arrived]
            defect = next((answer.error for answer in arrived if answer.error is not None), None)
            count = sum(len(numbers) for numbers, _ in answered)
            if count >= pace.batch or not calls or defect is not None:
                started = time.perf_counter()
                self._take_in([(numbers, answer) for numbers, answer in answered if answer.error is None])
                pace.told(count, time.perf_counter() - started)
                answered = []
            if defect is not None:
                workers.drop()
                raise defect

    def _take_in(self, answered: Sequence[tuple[list[int], Answer]]) -> None:
        numbers = [number for called, _ in answered for number in called]
        if not numbers:
            return
        nothing = np.full((1, self._columns), np.nan)
        values = np.concatenate(
            [
                np.repeat(nothing, len(called), axis=0) if answer.lost is not None else answer.value
                for called, answer in answered
            ]
        )
        begun = 0
        while begun < len(numbers):
            # At most to the end of a generation, so that each has its entry in the history and stops see every one.
            end = begun + self.ledger.missing
            self.tell(numbers[begun:end], values[begun:end])
            begun = end


class _Pace:
    """Sizes micro-batches by what a selection costs and how fast answers come.

    The sizes depend on the clock; the log records the batches themselves, so a replay does not.
    """

    def __init__(self, fixed: int | None, size: int, workers: int) -> None:
        self.batch = fixed or max(1, min(size, workers // 4))
        self._fixed = fixed is not None
        self._size = size
        self._last = time.perf_counter()
        self._cost = math.inf
        self._gap = 0.0

    def told(self, count: int, seconds: float) -> None:
        """Note that telling ``count`` answers took ``seconds``."""
        now = time.perf_counter()
        gap, self._last = (now - self._last) / max(1, count), now
        # The least of late: the first selection compiles, and others wait for the processor.
        self._cost = min(seconds, 1.05 * self._cost)
        self._gap = gap if self._gap == 0 else 0.9 * self._gap + 0.1 * gap
        if not self._fixed:
            self.batch = max(1, min(self._size, math.ceil(self._cost / (SELECTION_SHARE * self._gap))))


def replay(path: str | Path, *, reference: ArrayLike | None = None) -> SearchResult:
    """Run an asynchronous search again from its event log, without evaluating anything.

    Population, front and history are those of the run that wrote the log, bit for bit (times apart); of one that was
    cut short, as far as it got.

    Args:
        path: the log, ``events.jsonl`` in the run's folder.
        reference: point [n_obj] that the history's hypervolumes are measured against.

    Raises:
        InvalidInputError: a reference of another length.
        NotFoundError: no such file.
        OperatorError: the log is damaged, or was written by an engine that bred otherwise.
    """
    events = read_events(path)
    header = events.header
    shape = Shape.from_dict(header["problem"])
    engine = Recipe.from_dict(header["recipe"]).build(shape)
    search = SteadySearch(shape, engine, Ledger(shape, engine.size, (), reference))
    search.walk(events)
    return search.ledger.result(engine.population, events.ended or "the log ends here")
