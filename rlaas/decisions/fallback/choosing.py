"""Choosing among the candidates that keep the rules, in threads of its own, so that nobody has to wait for the end."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rlaas.decisions.contest import Requirements
from rlaas.decisions.methods import Method
from rlaas.decisions.resolver import Choice, resolve
from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Mode

__all__ = ["Chooser", "NoneKeptError", "Resolved", "broken_rules", "choose"]

THREADS = 2
KEPT = 16


class NoneKeptError(Exception):
    """No candidate of a front keeps every rule; ``broken`` are those that some candidate breaks."""

    def __init__(self, candidates: int, broken: tuple[str, ...]) -> None:
        super().__init__(f"none of {candidates} candidates keeps every rule; broken: {', '.join(broken)}")
        self.broken = broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A choice that keeps every rule, and the rules that some candidate of the front breaks."""

    choice: Choice
    rules_hit: tuple[str, ...]


def choose(front: Front, mode: Mode, method: str | Method, rules: Requirements | None) -> Resolved:
    """Resolve ``front`` if one of its candidates keeps every rule.

    Args:
        front: over the mode's objectives, with at least one candidate.
        mode: preference and rules.
        method: of :func:`rlaas.decisions.resolve`.
        rules: that hold beside the mode's.

    Raises:
        NoneKeptError: no candidate does.
        InvalidInputError: what :func:`rlaas.decisions.resolve` refuses, or rules that do not fit the front.
    """
    hit, kept = broken_rules(front, mode, rules)
    if not kept:
        raise NoneKeptError(len(front.candidates), hit)
    return Resolved(choice=resolve(front, mode=mode, method=method, rules=rules), rules_hit=hit)


def broken_rules(front: Front, mode: Mode, rules: Requirements | None) -> tuple[tuple[str, ...], bool]:
    """The rules that some candidate of ``front`` breaks, and whether a candidate keeps them all.

    Raises:
        InvalidInputError: rules that do not fit the front.
    """
    values = [candidate.objectives(front.names) for candidate in front.candidates]
    columns = [[rule.violation(value[rule.objective]) > 0 for value in values] for rule in mode.rules]
    texts = list(map(str, mode.rules))
    if rules is not None:
        violations, lines = np.asarray(rules.violations(front), dtype=np.float64), rules.describe()
        if violations.shape != (len(values), len(lines)) or np.isnan(violations).any():
            raise InvalidInputError(
                f"rules gave violations of shape {violations.shape}; expected no NaN and shape "
                f"({len(values)}, {len(lines)})",
                field="rules",
            )
        columns.extend((violations > 0).T.tolist())
        texts.extend(lines)
    hit = tuple(text for text, column in zip(texts, columns, strict=True) if any(column))
    return hit, not (columns and np.any(columns, axis=0).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    front: Front
    mode: Mode
    method: str | Method
    rules: Requirements | None
    # Beside the rules themselves: an object that says something else than before is another one.
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    request: _Request
    future: Future[Resolved]

    def answers(self, request: _Request) -> bool:
        if self.future.cancelled() or self.request != request:
            return False
        # What failed once may succeed now.
        return not self.future.done() or isinstance(self.future.exception(), NoneKeptError | None)


class Chooser:
    """Runs :func:`choose` in the background and remembers the latest jobs.

    A certificate of a large front takes seconds: whoever asks again for the same front, mode and rules gets the job
    that is already going on or done. At most :data:`KEPT` jobs are wanted at a time; the oldest is given up for a new
    one, its future cancelled if it has not begun.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rlaas-chooser")
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()

    def submit(self, front: Front, mode: Mode, method: str | Method, rules: Requirements | None) -> Future[Resolved]:
        """The job for this request, going on, done, or new."""
        texts = () if rules is None else tuple(rules.describe())
        request = _Request(front=front, mode=mode, method=method, rules=rules, texts=texts)
        with self._lock:
            for job in self._jobs:
                if job.answers(request):
                    return job.future
            future = self._pool.submit(choose, front, mode, method, rules)
            self._jobs.append(_Job(request=request, future=future))
            if len(self._jobs) > KEPT:
                self._jobs.popleft().future.cancel()
            return future

    def close(self) -> None:
        """Give up what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
