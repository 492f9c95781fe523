"""Whole trainings that are watched: one MLflow run, gauges on Ray, and where the time went."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.event_files import scalars
from support.telemetry_kit import Recorder

from rlaas.errors import InvalidInputError, OperatorError, RetryableError, TrainingError
from rlaas.pipeline import run_training
from rlaas.registry import LiveRun, Registry
from rlaas.settings import Settings, load_settings
from rlaas.training import TelemetryConfig, TrainingConfig, build_algorithm, train
from rlaas.training.telemetry import RUN_LABELS
from rlaas.training.timing import PHASES

pytestmark = pytest.mark.ray

SAC: dict[str, Any] = {
    "scenario": "training_toys:Toy",
    "seed": 4,
    "num_envs": 16,
    "hidden": (16, 16),
    "steps": 6_000,
    "sac": {"learning_starts": 500, "updates_per_step": 0.02, "head_start": 10},
}
PPO: dict[str, Any] = {
    "scenario": "training_toys:DiscreteToy",
    "num_envs": 16,
    "hidden": (16, 16),
    "steps": 2_048,
    "ppo": {"rollout_length": 32, "minibatch": 128},
}
# As often as the shares of the time allow.
EAGER = TelemetryConfig(interval_s=0, mlflow_interval_s=0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(home=tmp_path_factory.mktemp("runs") / "home", tenant="acme")


def _client(settings: Settings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)


def _runs(settings: Settings) -> list[Any]:
    client = _client(settings)
    experiment = client.get_experiment_by_name("rlaas-acme")
    return list(client.search_runs([experiment.experiment_id])) if experiment is not None else []


def _exported(run: str, name: str, at_last: dict[str | None, float] | None = None) -> dict[str | None, float]:
    """What the node exports of a gauge for ``run``, by the gauge's own label; waits until it is there, or ``at_last``.

    Ray exports every few seconds: what is there may be from the middle of a training that has ended since.
    """
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found: dict[str | None, float] = {}
        for family in text_string_to_metric_families(httpx.get(url).text):
            for sample in family.samples:
                if sample.name == f"ray_{name}" and sample.labels.get("run") == run:
                    assert {sample.labels[label] for label in RUN_LABELS} == {"toy", "sac", run, "acme"}
                    found[sample.labels.get("phase") or sample.labels.get("loss")] = sample.value
        if found and at_last in (None, found):
            return found
        time.sleep(0.5)
    raise AssertionError(f"{url} never showed ray_{name} as {at_last}")


class Watcher(Recorder):
    """In its third iteration, looks at MLflow until the first one has arrived there."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.seen: Any = None

    def iteration(self, row: Mapping[str, float]) -> None:
        super().iteration(row)
        if len(self.calls) != 4:
            return
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            (self.seen,) = _runs(self.settings)
            if "curve/reward" in self.seen.data.metrics:
                return
            time.sleep(0.05)


def test_a_training_is_one_run_of_mlflow_from_the_start_to_the_registered_policy(
    local_ray: None, settings: Settings, tmp_path: Path
) -> None:
    watcher, folder = Watcher(settings), tmp_path / "night-3"
    run, version = run_training(TrainingConfig(**SAC), settings, output=folder, telemetry=EAGER, reporters=[watcher])
    assert version is not None
    assert watcher.seen.info.status == "RUNNING"
    assert watcher.seen.data.params["num_envs"] == "16"
    (ended,) = _runs(settings)
    assert ended.info.run_id == watcher.seen.info.run_id == version.run_id == run.mlflow_run_id
    assert (ended.info.status, ended.info.run_name) == ("FINISHED", "night-3")
    assert Registry(settings).path("toy", "candidate").is_dir()

    rows = [row for method, row in watcher.calls if method == "iteration"]
    assert len(rows) == len(run.curve) == 6
    wanted = [(row["step"], row["reward"]) for row in run.curve]
    history = _client(settings).get_metric_history(version.run_id, "curve/reward")
    assert [(point.step, point.value) for point in history] == wanted, "each row is logged, and once"
    log = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    assert [(line["step"], line["reward"]) for line in log] == wanted
    board = scalars(folder / "tensorboard")["train/reward"]
    # As many as its share of the time allows, and the first and the last in any case.
    assert (board[0][0], board[-1][0]) == (wanted[0][0], wanted[-1][0])
    assert [(step, pytest.approx(reward)) for step, reward in wanted if step in dict(board)] == board
    assert run.telemetry is not None
    assert run.telemetry.problems == {}
    assert (run.telemetry.progress_log, run.telemetry.tensorboard) == (
        folder / "progress.jsonl",
        folder / "tensorboard",
    )

    # The curve is the same for the same seed; times are none of its business.
    assert not any(key.startswith("seconds") for key in run.curve[-1])
    last = rows[-1]
    assert {f"seconds_{phase}" for phase in PHASES} | {"steps_per_second"} <= last.keys()
    assert last["seconds"] == pytest.approx(sum(last[f"seconds_{phase}"] for phase in PHASES))
    assert [row["seconds_learn"] for row in rows] == sorted(row["seconds_learn"] for row in rows)

    # The last gauge to be set: once it is there, so are the others.
    _exported("night-3", "rlaas_training_running", at_last={None: 0.0})
    phases = _exported("night-3", "rlaas_training_phase_seconds")
    assert phases == {phase: pytest.approx(last[f"seconds_{phase}"]) for phase in PHASES}
    assert set(_exported("night-3", "rlaas_training_loss")) == {"critic", "actor", "temperature"}
    assert _exported("night-3", "rlaas_training_steps") == {None: 6000.0}
    assert _exported("night-3", "rlaas_training_steps_per_second") == {None: 0.0}


@pytest.mark.parametrize("values", [SAC, PPO], ids=["sac", "ppo"])
def test_times_sum_to_the_trainings(values: dict[str, Any], local_ray: None, tmp_path: Path) -> None:
    run = train(TrainingConfig(**values), output=tmp_path / "run")
    metrics = run.metrics
    assert sum(metrics[f"seconds_{phase}"] for phase in PHASES) == pytest.approx(metrics["seconds"])
    for phase in ("environment", "sample", "learn", "other"):
        assert metrics[f"seconds_{phase}"] > 0, phase
    assert metrics["seconds_sync"] == 0.0


def test_rllib_has_the_times_under_its_own_names(local_ray: None) -> None:
    algo = build_algorithm(TrainingConfig(**PPO), "ppo")
    first, second = algo.train(), algo.train()
    spent = algo.time_spent
    assert spent["environment"] < spent["sample"]
    for phase, (group, timer) in {
        "sample": ("timers", "env_runner_sampling_timer"),
        "learn": ("timers", "learner_update_timer"),
        "sync": ("timers", "synch_weights"),
        "environment": ("env_runners", "env_step_timer"),
    }.items():
        # Those of an iteration, which sum to what has been spent.
        assert first[group][timer] + second[group][timer] == pytest.approx(spent[phase]), phase
    algo.stop()


@pytest.mark.parametrize("kind", ["fails", "is interrupted"])
def test_a_training_that_ends_early_says_so_in_mlflow(
    kind: str, local_ray: None, settings: Settings, tmp_path: Path
) -> None:
    values = SAC | ({"scenario": "training_toys:BrokenToy"} if kind == "fails" else {})

    def interrupt(done: int, of: int, metrics: Any) -> None:
        if done > 3_000:
            raise KeyboardInterrupt

    folder = tmp_path / kind
    with pytest.raises(TrainingError if kind == "fails" else KeyboardInterrupt):
        run_training(TrainingConfig(**values), settings, output=folder, telemetry=EAGER, progress=interrupt)
    (ended,) = (run for run in _runs(settings) if run.info.run_name == kind)
    assert ended.info.status == ("FAILED" if kind == "fails" else "KILLED")
    assert ("critic_loss became nan" in ended.data.tags["rlaas.problem"]) == (kind == "fails")
    assert not (folder / "bundle").exists()
    logged = len((folder / "progress.jsonl").read_text().splitlines())
    assert logged == (0 if kind == "fails" else 3)
    assert len(_client(settings).get_metric_history(ended.info.run_id, "curve/reward")) == logged


def test_the_registration_brings_the_rows_that_mlflow_has_missed(
    local_ray: None, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, batches = LiveRun.log, 0

    def flaky(self: LiveRun, points: Any) -> None:
        nonlocal batches
        batches += 1
        if batches > 1:
            raise RetryableError("the registry is busy: for the rest of the training", field="mlflow_url")
        log(self, points)

    monkeypatch.setattr(LiveRun, "log", flaky)
    run, version = run_training(TrainingConfig(**SAC), settings, output=tmp_path / "missed", telemetry=EAGER)
    assert run.telemetry is not None
    assert run.telemetry.problems == {"mlflow": "the registry is busy: for the rest of the training"}
    assert version is not None
    assert version.run_id == run.telemetry.mlflow_run_id
    history = _client(settings).get_metric_history(version.run_id, "curve/reward")
    assert [(point.step, point.value) for point in history] == [(row["step"], row["reward"]) for row in run.curve]
    assert _client(settings).get_run(version.run_id).info.status == "FINISHED"


def test_a_registration_that_fails_says_where_the_policy_is(
    local_ray: None, settings: Settings, tmp_path: Path
) -> None:
    nowhere = load_settings(home=settings.home, tenant="beta", artifact_url="/proc/nowhere")
    with pytest.raises(OperatorError, match=f"trained and not registered: {tmp_path}/run/bundle$"):
        run_training(TrainingConfig(**PPO), nowhere, output=tmp_path / "run")
    assert (tmp_path / "run" / "bundle" / "bundle.json").is_file()
    client = _client(settings)
    (ended,) = client.search_runs([client.get_experiment_by_name("rlaas-beta").experiment_id])
    assert ended.info.status == "FAILED"
    # The training itself had come to its end.
    assert ended.data.metrics["steps"] == 2048


def test_an_alias_that_cannot_be_is_refused_before_the_training(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not usable"):
        run_training(TrainingConfig(**PPO), settings, output=tmp_path / "run", alias="Latest!")
    assert not (tmp_path / "run").exists()


def test_a_reporter_that_breaks_does_not_end_the_training(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Recorder("board", breaks="iteration")
    run = train(TrainingConfig(**PPO), output=tmp_path / "run", reporter=broken)
    assert run.metrics["steps"] == 2_048
    assert broken.methods == ["started", "iteration", "finished"]
    assert capsys.readouterr().err.count("board has failed") == 1


def test_an_environment_has_its_run_too_and_no_policy(local_ray: None, settings: Settings, tmp_path: Path) -> None:
    config = TrainingConfig(environment="CartPole-v1", **{k: v for k, v in PPO.items() if k != "scenario"})
    run, version = run_training(config, settings, output=tmp_path / "cart", telemetry=EAGER)
    assert version is None
    assert run.mlflow_run_id is not None
    ended = _client(settings).get_run(run.mlflow_run_id)
    assert (ended.info.status, ended.data.tags["rlaas.scenario"]) == ("FINISHED", "CartPole-v1")
    assert ended.data.metrics["steps"] == run.metrics["steps"]


def test_nothing_but_what_is_asked_for(local_ray: None, settings: Settings, tmp_path: Path) -> None:
    before = len(_runs(settings))
    nothing = TelemetryConfig(mlflow=False, tensorboard=False, progress_log=False, ray_metrics=False)
    run, version = run_training(TrainingConfig(**PPO), settings, output=tmp_path / "run", telemetry=nothing)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["bundle", "checkpoints", "config.json"]
    assert version is not None
    # The registration has a run of its own then, with the whole curve.
    assert len(_runs(settings)) == before + 1
    assert len(_client(settings).get_metric_history(version.run_id, "curve/reward")) == len(run.curve)
    assert run.telemetry is not None
    assert run.telemetry.mlflow_run_id is None
