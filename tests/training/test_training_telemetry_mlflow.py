"""MLflow while a training runs: in batches, against a store that is there and a server that is killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from support.mlflow_server import mlflow_server
from support.processes import free_port
from support.telemetry_kit import Clock, row
from training_toys import Toy

from rlaas.errors import ConfigurationError, RetryableError, TrainingError
from rlaas.registry import LiveRun
from rlaas.settings import Settings, load_settings
from rlaas.training import RunTelemetry, Telemetry, TelemetryConfig, TrainingConfig
from rlaas.training.telemetry.mlflow import MlflowRun
from rlaas.training.telemetry.throttle import Throttle

CONFIG = TrainingConfig(scenario="training_toys:Toy", steps=1000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One database for the module: MLflow takes seconds to make one."""
    return load_settings(home=tmp_path_factory.mktemp("mlflow"))


def _run(settings: Settings, clock: Clock, interval_s: float = 5.0) -> MlflowRun:
    throttle = Throttle(interval_s, 0.004, clock)
    return MlflowRun(settings, run="night-3", params={"lr": 0.001}, throttle=throttle, patience_s=20.0)


def _client(settings: Settings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)


def _steps(settings: Settings, run: MlflowRun, key: str = "curve/critic_loss") -> list[int]:
    return [point.step for point in _client(settings).get_metric_history(run.run_id, key)]


def test_rows_arrive_in_batches_and_none_is_left_out(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, batches, log = Clock(), [], LiveRun.log

    def counted(self: LiveRun, points: Any) -> None:
        batches.append({point[2] for point in points})
        log(self, points)

    monkeypatch.setattr(LiveRun, "log", counted)
    run = _run(store, clock)
    with Telemetry([run]) as telemetry:
        telemetry.started(CONFIG, Toy())
        for step in range(1, 101):
            telemetry.iteration(row(step))
            assert run._courier is not None
            # The courier's own time does not pass on the hand-set clock: let it finish.
            assert run._courier.wait(30)
            clock.now += 0.2
        assert run.logged_until >= 75
        assert _client(store).get_run(run.run_id).info.status == "RUNNING"
        telemetry.finished({"steps": 100.0, "reward": 0.5})
        assert run.logged_until == 100
    # 20 seconds at one batch in five, and what was left.
    assert len(batches) == 5
    assert batches[0] == {1}
    assert _steps(store, run) == list(range(1, 101))
    ended = _client(store).get_run(run.run_id)
    assert ended.info.status == "FINISHED"
    assert (ended.data.metrics["reward"], ended.data.params) == (0.5, {"lr": "0.001"})
    assert "curve/step" not in ended.data.metrics


@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [
        (TrainingError("critic_loss became nan"), "FAILED", "TrainingError: critic_loss became nan"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
    ],
)
def test_how_a_training_ended_is_the_runs_status(
    problem: BaseException, status: str, reason: str, store: Settings
) -> None:
    run = _run(store, Clock(), interval_s=1000.0)

    def training() -> None:
        with Telemetry([run]) as telemetry:
            telemetry.started(CONFIG, Toy())
            for step in (1, 2, 3):
                telemetry.iteration(row(step))
            raise problem

    with pytest.raises(type(problem)):
        training()
    ended = _client(store).get_run(run.run_id)
    assert ended.info.status == status
    assert ended.data.tags["rlaas.problem"] == reason
    # What was still waiting for its batch is there too.
    assert _steps(store, run) == [1, 2, 3]


def test_a_run_of_which_nothing_more_is_heard_was_killed(store: Settings) -> None:
    run = _run(store, Clock())
    telemetry = Telemetry([run])
    telemetry.started(CONFIG, Toy())
    telemetry.close()
    assert _client(store).get_run(run.run_id).info.status == "KILLED"


def test_a_training_that_goes_on_goes_on_in_its_run(store: Settings, tmp_path: Path) -> None:
    def part(steps: range) -> RunTelemetry:
        telemetry = RunTelemetry(TelemetryConfig(mlflow_interval_s=0), store, tmp_path / "run")
        telemetry.started(CONFIG, Toy())
        for step in steps:
            telemetry.iteration(row(step))
        return telemetry

    first = part(range(1, 4))
    # The process is killed here, as far as MLflow can tell: nothing more is heard of it.
    second = part(range(3, 6))
    assert second.mlflow_run_id == first.mlflow_run_id
    assert _client(store).get_run(second.mlflow_run_id).info.status == "RUNNING"
    second.finished({"steps": 5.0})
    second.close()
    assert second.logged_until == 5
    points = _client(store).get_metric_history(second.mlflow_run_id, "curve/reward")
    assert {3, 4, 5} <= {point.step for point in points} <= {1, 2, 3, 4, 5}
    assert _client(store).get_run(second.mlflow_run_id).info.status == "FINISHED"
    first.close()
    # A run that is gone is no reason not to train.
    _client(store).delete_run(second.mlflow_run_id)
    third = part(range(5, 6))
    third.close()
    assert third.mlflow_run_id != second.mlflow_run_id
    assert second.problems == third.problems == {}


def test_what_did_not_arrive_is_sent_again_at_the_end(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log, fails = LiveRun.log, [True]

    def once_lost(self: LiveRun, points: Any) -> None:
        if fails.pop() if fails else False:
            raise RetryableError("lost on the way", field="mlflow_url")
        log(self, points)

    monkeypatch.setattr(LiveRun, "log", once_lost)
    run = _run(store, Clock())
    with Telemetry([run], say=lambda line: None) as telemetry:
        telemetry.started(CONFIG, Toy())
        telemetry.iteration(row(1))
        assert run._courier is not None
        assert run._courier.wait(30)
        telemetry.finished({"steps": 1.0})
    assert _steps(store, run) == [1]
    assert run.logged_until == 1


def test_a_server_that_is_killed_costs_the_curve_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its client would ask again for minutes; the training would not wait for it, the test would.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    clock = Clock()
    with mlflow_server(tmp_path) as server:
        settings = load_settings(home=tmp_path / "home", mlflow_url=server.url)
        run = _run(settings, clock, interval_s=1.0)
        telemetry = Telemetry([run], say=said.append)
        telemetry.started(CONFIG, Toy())
        assert run._courier is not None
        telemetry.iteration(row(1))
        assert run._courier.wait(30)
        assert _steps(settings, run) == [1]
        server.end(signal.SIGKILL)
        for step in range(2, 8):
            clock.now += 1000.0
            telemetry.iteration(row(step))
            assert run._courier.wait(30)
        telemetry.finished({"steps": 7.0})
        telemetry.close()
    assert len(said) == 1
    assert said[0].startswith("mlflow has failed, the training goes on without it: the registry refused: API request")
    assert set(telemetry.problems) == {"mlflow"}
    # A registration would bring the others.
    assert run.logged_until == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "carrier-pigeon://roof"])
def test_a_store_that_is_not_there_refuses_the_training_and_leaves_its_folder_empty(url: str, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", mlflow_url=url.format(port=free_port()))
    telemetry = RunTelemetry(TelemetryConfig(metrics_port=(port := free_port())), settings, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="mlflow_url: ") as caught:
        telemetry.started(CONFIG, Toy())
    assert caught.value.field == "mlflow_url"
    assert not (tmp_path / "run").exists()
    # The port, which came first, is free again.
    again = RunTelemetry(TelemetryConfig(mlflow=False, metrics_port=port), settings, tmp_path / "run")
    again.started(CONFIG, Toy())
    again.close()
    assert again.report().problems == {}
