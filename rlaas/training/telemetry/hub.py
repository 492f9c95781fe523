"""All reporters of a training as one, of which none can stop it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig
from rlaas.training.telemetry.gpus import Gpus
from rlaas.training.telemetry.reporter import Reporter
from rlaas.training.telemetry.throttle import Throttle

__all__ = ["Telemetry", "warn"]


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


class Telemetry:
    """Passes everything on to each reporter.

    A reporter that cannot start refuses the training before it begins. One that fails later is said once, with its
    cause, and gets no more iterations; how the training ends it is told nevertheless. As a context manager it closes
    all of them, and passes on what ended the block.

    Args:
        reporters: in the order in which they are told.
        gpus: sampled for the rows, or None.
        throttle: of that sampling; in between, rows hold the last sample.
        say: gets the line about a reporter that has failed.

    Attributes:
        problems: what went wrong, by the reporter's name.
    """

    name = "telemetry"

    def __init__(
        self,
        reporters: Sequence[Reporter] = (),
        *,
        gpus: Gpus | None = None,
        throttle: Throttle | None = None,
        say: Callable[[str], None] = warn,
    ) -> None:
        self._reporters = tuple(reporters)
        self._gpus, self._throttle, self._say = gpus, throttle, say
        self._sample: dict[str, float] = {}
        self._open: list[Reporter] = []
        self._failed = False
        self.problems: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if problem is not None and not self._failed:
            self.failed(problem)
        self.close()

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Start every reporter.

        Raises:
            ConfigurationError: one of them cannot report; the others are closed again.
        """
        for reporter in self._reporters:
            try:
                reporter.started(config, scenario)
            except BaseException as problem:
                self.failed(problem)
                # It may hold half of what it needs; what it says about the other half is no news.
                self.problems[reporter.name] = str(problem)
                self._open.append(reporter)
                self.close()
                raise
            self._open.append(reporter)

    def iteration(self, row: Mapping[str, float]) -> None:
        """Tell those that have not failed, with the GPUs' figures added."""
        told = {**row, **self._gpu_figures()}
        for reporter in self._open:
            if reporter.name not in self.problems:
                self._try(reporter, partial(reporter.iteration, told))

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Tell all of them."""
        for reporter in self._open:
            self._try(reporter, partial(reporter.finished, metrics))

    def failed(self, problem: BaseException) -> None:
        """Tell all of them."""
        self._failed = True
        for reporter in self._open:
            self._try(reporter, partial(reporter.failed, problem))

    def close(self) -> None:
        """Close all of them."""
        reporters, self._open = self._open, []
        for reporter in reporters:
            self._try(reporter, reporter.close)
        if self._gpus is not None:
            self._gpus.close()

    def _gpu_figures(self) -> dict[str, float]:
        if self._gpus is not None and self._throttle is not None and self._throttle.due():
            with self._throttle.spending():
                self._sample = self._gpus.sample()
        return self._sample

    def _try(self, reporter: Reporter, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as problem:  # whatever it is: a training of hours is worth more than a report about it
            if reporter.name in self.problems:
                return
            cause = " ".join(str(problem).split()) or type(problem).__name__
            self.problems[reporter.name] = cause[:300]
            self._say(f"{reporter.name} has failed, the training goes on without it: {cause[:300]}")
