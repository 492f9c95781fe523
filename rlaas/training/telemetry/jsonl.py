"""The progress log: one JSON object per iteration, on disk as soon as the iteration is over."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from rlaas.errors import ConfigurationError
from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig

__all__ = ["ProgressLog"]


class ProgressLog:
    """Appends to ``path``; a run that goes on from a checkpoint goes on in the same file.

    Each line holds ``time`` (UTC, ISO 8601) and the row's numbers; one that is not finite is null.
    """

    name = "progress log"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Open the file.

        Raises:
            ConfigurationError: it cannot be opened.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as problem:
            raise ConfigurationError(
                f"output: {self.path} cannot be written: {problem.strerror or problem}", field="output"
            ) from problem

    def iteration(self, row: Mapping[str, float]) -> None:
        """Write a line."""
        if self._file is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        numbers = {key: float(value) if math.isfinite(value) else None for key, value in row.items()}
        self._file.write(json.dumps({"time": now, **numbers}, allow_nan=False) + "\n")
        self._file.flush()

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Nothing: the last iteration has its line."""

    def failed(self, problem: BaseException) -> None:
        """Nothing: the last iteration has its line."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
