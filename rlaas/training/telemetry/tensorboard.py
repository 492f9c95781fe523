"""Event files for TensorBoard."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError
from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig
from rlaas.training.telemetry.figures import figure_of
from rlaas.training.telemetry.throttle import Throttle

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes the rows' numbers over the decisions taken, and the configuration as text.

    The file is written by the training's own thread: tensorboardX's ``SummaryWriter`` has a thread behind a queue, and
    a full disk ends the one and then blocks on the other.

    Args:
        folder: of the event file; made if missing. A run that goes on adds another file to it.
        throttle: rows in between are left out; the last one never is.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, throttle: Throttle) -> None:
        self.folder = folder
        self._throttle = throttle
        self._events: Any = None
        self._objectives: Sequence[str] = ()
        self._left_out: Mapping[str, float] | None = None

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Begin the file.

        Raises:
            ConfigurationError: it cannot be written.
        """
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import text

        self._objectives = [objective.name for objective in scenario.objectives]
        document = json.dumps(config.model_dump(mode="json"), indent=2)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            now = time.time_ns()
            # TensorBoard takes the names in order; the nanoseconds tell two files of one second apart.
            name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now % 10**9:09d}"
            self._events = RecordWriter(str(self.folder / name))
            self._events.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._write(text("config", f"```json\n{document}\n```"), step=0)
            self._events.flush()
        except OSError as problem:
            raise ConfigurationError(
                f"tensorboard: {self.folder} cannot be written: {problem.strerror or problem}", field="tensorboard"
            ) from problem

    def iteration(self, row: Mapping[str, float]) -> None:
        """Write the row, where one is due."""
        if self._throttle.due():
            self._add(row)
        else:
            self._left_out = row

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Write the last row and the final figures."""
        self._add_left_out()
        self._scalars({f"final/{key}": value for key, value in metrics.items()}, step=int(metrics["steps"]))
        self._events.flush()

    def failed(self, problem: BaseException) -> None:
        """Write the last row."""
        self._add_left_out()

    def close(self) -> None:
        """Close the file."""
        if self._events is not None:
            events, self._events = self._events, None
            events.close()

    def _add_left_out(self) -> None:
        if self._left_out is not None:
            self._add(self._left_out)

    def _add(self, row: Mapping[str, float]) -> None:
        self._left_out = None
        tags = ((figure_of(key, self._objectives).tag, value) for key, value in row.items())
        with self._throttle.spending():
            self._scalars({tag: value for tag, value in tags if tag is not None}, step=int(row["step"]))
            self._events.flush()

    def _scalars(self, values: Mapping[str, float], *, step: int) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        self._write(Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()]), step=step)

    def _write(self, summary: Any, *, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
