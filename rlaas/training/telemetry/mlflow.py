"""MLflow while it happens: the run exists from the start, and its curves grow with the training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.errors import ConfigurationError, OperatorError, RlaasError
from rlaas.registry import LiveRun, Registry
from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig
from rlaas.training.problems import algorithm_of
from rlaas.training.telemetry.courier import Courier
from rlaas.training.telemetry.throttle import Throttle

if TYPE_CHECKING:
    from rlaas.settings import Settings

__all__ = ["MlflowRun", "check_mlflow"]

_CURVE = "curve/"  # as a registration names the points of a curve
_PATIENCE_INTERRUPTED_S = 5.0


def check_mlflow(settings: Settings) -> None:
    """Ask whether anything answers where MLflow should be; a database is looked at when the run starts.

    Raises:
        ConfigurationError: nothing does.
    """
    try:
        Registry(settings).check_reachable()
    except RlaasError as problem:
        raise _refusal(problem) from problem


def _refusal(problem: RlaasError) -> ConfigurationError:
    return ConfigurationError(f"mlflow_url: {problem.message}", field="mlflow_url")


class MlflowRun:
    """Logs every row, in batches, from a thread of its own: a slow server costs the training nothing.

    A policy that is registered afterwards takes the same run (``run_id``), and brings the rows that are missing there
    (those after ``logged_until``).

    Args:
        settings: name the store and the tenant.
        run: name of the run.
        params: logged at the start.
        throttle: of the batches.
        memory: file that remembers the run; a training that goes on in the same folder goes on in the same run.
        parent: id of the run that it is nested in, if there is one.
        patience_s: how long the end of a training waits for what is still to be logged.

    Attributes:
        run_id: of the MLflow run, once it has started.
        logged_until: ``step`` of the last row that MLflow has confirmed, and every one before it; -1 for none.
    """

    name = "mlflow"

    def __init__(
        self,
        settings: Settings,
        *,
        run: str,
        params: Mapping[str, object],
        throttle: Throttle,
        memory: Path | None = None,
        parent: str | None = None,
        patience_s: float = 30.0,
    ) -> None:
        self._settings, self._name, self._params = settings, run, params
        self._memory, self._parent = memory, parent
        self._throttle, self._patience_s = throttle, patience_s
        self._run: LiveRun | None = None
        self._courier: Courier | None = None
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._sent = 0  # of those, the first that are on their way
        self._status, self._reason = "KILLED", ""
        self.run_id: str | None = None
        self.logged_until = -1.0

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Create the run, or go on with it.

        Raises:
            ConfigurationError: MLflow cannot be reached, or refuses; or the run cannot be remembered.
        """
        registry, algorithm = Registry(self._settings), algorithm_of(config, scenario)
        try:
            if self._memory is not None and self._memory.is_file():
                self._run = registry.resume_run(self._memory.read_text().strip(), parent=self._parent)
            if self._run is None:
                self._run = registry.open_run(
                    self._name,
                    scenario=scenario.name,
                    algorithm=algorithm,
                    params=self._params,
                    parent=self._parent,
                )
            if self._memory is not None:
                self._memory.parent.mkdir(parents=True, exist_ok=True)
                self._memory.write_text(f"{self._run.run_id}\n")
        except RlaasError as problem:
            raise _refusal(problem) from problem
        except OSError as problem:
            raise ConfigurationError(
                f"output: {self._memory} cannot be written: {problem.strerror or problem}", field="output"
            ) from problem
        self.run_id = self._run.run_id
        self._courier = Courier("rlaas-mlflow")

    def iteration(self, row: Mapping[str, float]) -> None:
        """Keep the row, and send all that are kept when a batch is due and the last one has arrived."""
        courier = self._connected()
        self._waiting.append((time.time_ns() // 10**6, row))
        if courier.idle:
            self._confirm(courier)
            if self._throttle.due():
                self._send(courier)

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Send what is left, with the final figures, and wait until MLflow has it."""
        self._status = "FINISHED"
        self._send_all(metrics)

    def failed(self, problem: BaseException) -> None:
        """Remember how it ended, send what is left, and wait until MLflow has it."""
        # An interrupt is nobody's fault: MLflow calls that killed. Who interrupts does not want to wait either.
        self._status = "FAILED"
        if not isinstance(problem, Exception):
            self._status, self._patience_s = "KILLED", min(self._patience_s, _PATIENCE_INTERRUPTED_S)
        self._reason = f"{type(problem).__name__}: {problem}".rstrip(": ")
        self._send_all({})

    def close(self) -> None:
        """End the run with the status that its training had; without a word of its end it was killed."""
        if self._courier is None or self._run is None:
            return
        courier, run, self._courier = self._courier, self._run, None
        try:
            self._await(courier)
            courier.send(lambda: run.end(self._status, self._reason))
            self._await(courier)
            courier.check()
        finally:
            courier.stop()

    def _send_all(self, metrics: Mapping[str, float]) -> None:
        courier = self._connected()
        self._await(courier)
        # What went wrong before has been kept, and is sent once more now.
        with contextlib.suppress(RlaasError):
            self._confirm(courier)
        self._send(courier, metrics)
        self._await(courier)
        self._confirm(courier)

    def _connected(self) -> Courier:
        if self._courier is None:
            raise OperatorError("the MLflow run is not open", field="mlflow_url")
        return self._courier

    def _send(self, courier: Courier, metrics: Mapping[str, float] | None = None) -> None:
        now_ms = time.time_ns() // 10**6
        points = [
            (_CURVE + key, value, int(row["step"]), time_ms)
            for time_ms, row in self._waiting
            for key, value in row.items()
            if key != "step"
        ] + [(key, value, 0, now_ms) for key, value in (metrics or {}).items()]
        run, self._sent = self._run, len(self._waiting)

        def log() -> None:
            assert run is not None
            with self._throttle.spending():
                run.log(points)

        courier.send(log)

    def _confirm(self, courier: Courier) -> None:
        """Forget the rows that have arrived; raises what went wrong on the way, and then keeps them to be sent."""
        sent, self._sent = self._sent, 0
        courier.check()
        if sent:
            self.logged_until = self._waiting[sent - 1][1]["step"]
            del self._waiting[:sent]

    def _await(self, courier: Courier) -> None:
        if not courier.wait(self._patience_s):
            raise self._unanswered()

    def _unanswered(self) -> OperatorError:
        return OperatorError(f"MLflow has not answered for {self._patience_s:.0f} s", field="mlflow_url")
