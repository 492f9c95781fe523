"""Gauges for Prometheus: through Ray, whose nodes export them, and on a port of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rlaas.errors import ConfigurationError
from rlaas.scenarios import Scenario
from rlaas.training.config import TrainingConfig
from rlaas.training.problems import algorithm_of
from rlaas.training.telemetry.figures import GAUGES, RUN_LABELS, Gauge, figure_of
from rlaas.training.telemetry.throttle import Throttle

__all__ = ["Board", "HttpBoard", "Prometheus", "RayBoard"]


class Board(Protocol):
    """Where gauges are set."""

    def open(self) -> None:
        """Get ready.

        Raises:
            ConfigurationError: that cannot be; names the field.
        """

    def set(self, gauge: Gauge, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge; ``labels`` are all of its labels."""

    def close(self) -> None:
        """Give everything back."""


class RayBoard:
    """``ray.util.metrics``: every node of the Ray that is running exports the gauges of its processes.

    Prometheus sees them under ``ray_<name>`` with Ray's own labels added, some ten seconds late. They are there as long
    as this process is connected. A process without a Ray sets none.
    """

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}

    def open(self) -> None:
        """Nothing: the training starts Ray later than its reporters."""

    def set(self, gauge: Gauge, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge, if a Ray is running."""
        import ray
        from ray.util import metrics

        if not ray.is_initialized():
            return
        if gauge.name not in self._gauges:
            self._gauges[gauge.name] = metrics.Gauge(gauge.name, gauge.help, tuple(labels))
        self._gauges[gauge.name].set(float(value), dict(labels))

    def close(self) -> None:
        """Forget the gauges; Ray exports their last values as long as the process lives."""
        self._gauges = {}


class HttpBoard:
    """``prometheus_client`` on a port of this process: ``GET /metrics`` until :meth:`close`.

    Args:
        host: address to listen on.
        port: to listen on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._gauges: dict[str, Any] = {}
        self._registry: Any = None
        self._server: Any = None
        self._thread: Any = None

    @property
    def url(self) -> str:
        """Where to scrape."""
        return f"http://{self._host}:{self._port}/metrics"

    def open(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the port is taken or not allowed, or the address is none of this machine.
        """
        from prometheus_client import CollectorRegistry, start_http_server

        self._registry = CollectorRegistry()
        try:
            self._server, self._thread = start_http_server(self._port, self._host, self._registry)
        except OSError as problem:
            raise ConfigurationError(
                f"metrics_port: cannot listen on {self._host}:{self._port}: {problem.strerror or problem}; "
                "choose another port",
                field="metrics_port",
            ) from problem

    def set(self, gauge: Gauge, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        from prometheus_client import Gauge as PlainGauge

        if gauge.name not in self._gauges:
            self._gauges[gauge.name] = PlainGauge(gauge.name, gauge.help, tuple(labels), registry=self._registry)
        self._gauges[gauge.name].labels(**labels).set(value)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None


class Prometheus:
    """Sets the gauges of :data:`GAUGES` on every board.

    Args:
        boards: where.
        run: label ``run``.
        tenant: label ``tenant``.
        throttle: rows in between are left out; the last one never is.
    """

    name = "prometheus"

    def __init__(self, boards: Sequence[Board], *, run: str, tenant: str, throttle: Throttle) -> None:
        self._boards, self._throttle = tuple(boards), throttle
        self._labels = {"run": run, "tenant": tenant}
        self._objectives: Sequence[str] = ()
        self._wanted = 0
        self._left_out: Mapping[str, float] | None = None

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Open the boards.

        Raises:
            ConfigurationError: one of them cannot be opened.
        """
        self._objectives = [objective.name for objective in scenario.objectives]
        self._wanted = config.steps
        given = {"scenario": scenario.name, "algorithm": algorithm_of(config, scenario), **self._labels}
        self._labels = {label: given[label] for label in RUN_LABELS}
        for board in self._boards:
            board.open()
        self._begin()

    def iteration(self, row: Mapping[str, float]) -> None:
        """Set the gauges, where that is due."""
        if self._throttle.due():
            self._show(row)
        else:
            self._left_out = row

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Set them once more; nothing runs any longer."""
        self._end()

    def failed(self, problem: BaseException) -> None:
        """Set them once more; nothing runs any longer."""
        self._end()

    def close(self) -> None:
        """Close the boards."""
        for board in self._boards:
            board.close()

    def _begin(self) -> None:
        self._set("rlaas_training_running", 1)
        self._set("rlaas_training_steps_wanted", self._wanted)

    def _end(self) -> None:
        if self._left_out is not None:
            self._show(self._left_out)
        # A gauge keeps its last value: a run that is over must not look as if it were going on at full speed.
        self._set("rlaas_training_steps_per_second", 0)
        # Last: whoever sees it sees the final values of the others.
        self._set("rlaas_training_running", 0)

    def _show(self, row: Mapping[str, float]) -> None:
        self._left_out = None
        with self._throttle.spending():
            # Again: on Ray these could not be set before it was running.
            self._begin()
            for key, value in row.items():
                figure = figure_of(key, self._objectives)
                self._set(figure.gauge, value, figure.label)

    def _set(self, name: str, value: float, label: str | None = None) -> None:
        gauge = GAUGES[name]
        labels = self._labels if gauge.label is None or label is None else {**self._labels, gauge.label: label}
        for board in self._boards:
            board.set(gauge, value, labels)
