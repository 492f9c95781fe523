"""Runs that are logged to while they go on, and policies that are registered into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.processes import free_port
from support.registry_bundles import MakeBundle

from rlaas.errors import ConflictError, InvalidInputError, OperatorError, RetryableError
from rlaas.registry import LiveRun, Registry
from rlaas.settings import Settings, load_settings


def _client(settings: Settings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)


def _opened(registry: Registry, **params: object) -> LiveRun:
    return registry.open_run("night-3", scenario="toy", algorithm="sac", params={"lr": 0.001, **params})


def test_a_run_is_there_while_it_goes_on(registry: Registry, settings: Settings) -> None:
    run, client = _opened(registry, hidden=[64, 64], nothing=None), _client(settings)
    begun = client.get_run(run.run_id)
    assert (begun.info.status, begun.info.run_name) == ("RUNNING", "night-3")
    assert begun.data.params == {"lr": "0.001", "hidden": "[64, 64]"}
    tags = {key: value for key, value in begun.data.tags.items() if key.startswith("rlaas.")}
    assert tags == {"rlaas.tenant": "default", "rlaas.scenario": "toy", "rlaas.algorithm": "sac"}

    # More than MLflow takes in one batch, and a number that it would not take at all.
    run.log([("curve/return", float(i), i, 1000 + i) for i in range(1200)])
    run.log([("curve/loss", float("nan"), 1, 5), ("curve/loss", 0.5, 2, 6)])
    history = client.get_metric_history(run.run_id, "curve/return")
    assert sorted((m.step, m.value, m.timestamp) for m in history) == [(i, float(i), 1000 + i) for i in range(1200)]
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "curve/loss")] == [(2, 0.5)]

    run.end("FAILED", "TrainingError: critic_loss became nan " + "x" * 1000)
    assert registry.resume_run("0" * 32) is None
    ended = client.get_run(run.run_id)
    assert ended.info.status == "FAILED"
    assert ended.data.tags["rlaas.problem"].startswith("TrainingError: critic_loss became nan")
    assert ended.info.end_time >= ended.info.start_time


def test_a_policy_goes_into_the_run_that_made_it(
    registry: Registry, settings: Settings, make_bundle: MakeBundle
) -> None:
    run, client = _opened(registry), _client(settings)
    run.log([("curve/return", 1.0, 10, 1), ("gain", 0.5, 0, 2)])
    made = registry.register(
        "toy",
        make_bundle(),
        params={"lr": 0.5, "kind": "policy"},
        metrics={"gain": 0.5, "hypervolume": 0.25},
        curve=[{"step": 20, "return": 2.0}],
        run_id=run.run_id,
    )
    assert made.run_id == run.run_id
    # What the registration says stands with the version; what the training has logged stays in the run.
    assert made.params == {"lr": "0.5", "kind": "policy"}
    still = client.get_run(run.run_id)
    assert still.info.status == "RUNNING"
    assert still.data.params == {"lr": "0.001", "kind": "policy"}
    assert still.data.metrics == {"curve/return": 2.0, "gain": 0.5, "hypervolume": 0.25}
    assert len(client.get_metric_history(run.run_id, "gain")) == 1
    assert registry.resume_run(run.run_id) is None, "it has its policy"
    run.end("FINISHED")
    assert client.get_run(run.run_id).info.status == "FINISHED"
    with pytest.raises(ConflictError, match="already holds a bundle"):
        registry.register("toy", make_bundle("second"), run_id=run.run_id)
    # The training happened, whether or not its policy is kept.
    registry.delete("toy", 1)
    assert client.get_run(run.run_id).info.lifecycle_stage == "active"


def test_a_registration_that_fails_leaves_the_run_and_nothing_of_its_own(
    registry: Registry, settings: Settings, make_bundle: MakeBundle
) -> None:
    run, client = _opened(registry), _client(settings)
    with pytest.raises(InvalidInputError):
        registry.register("toy", make_bundle(), metrics={"gain": float("nan")}, run_id=run.run_id)
    assert client.get_run(run.run_id).info.lifecycle_stage == "active"
    assert client.list_artifacts(run.run_id) == []
    made = registry.register("toy", make_bundle("again"), run_id=run.run_id)
    assert (made.version, made.run_id) == (1, run.run_id)


def test_an_unusable_parameter_opens_no_run(unopened: Registry, settings: Settings) -> None:
    with pytest.raises(InvalidInputError, match="params has key"):
        _opened(unopened, **{"../lr": 1})
    assert not Path(settings.home / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        ("http://127.0.0.1:{port}", RetryableError, "no MLflow server answers at http://127.0.0.1:"),
        ("http://127.0.0.1:port", OperatorError, "is no address of an MLflow server"),
        ("carrier-pigeon://roof", OperatorError, "the registry refused"),
        ("sqlite:////proc/nowhere/mlflow.db", OperatorError, "database .*/proc/nowhere/mlflow.db cannot be opened"),
        ("sqlite:////proc/mlflow.db", OperatorError, "database .*/proc/mlflow.db cannot be opened"),
    ],
)
def test_a_store_that_is_not_there_is_said_at_once(
    url: str, error: type[Exception], expected: str, tmp_path: Path
) -> None:
    registry = Registry(load_settings(home=tmp_path, mlflow_url=url.format(port=free_port())))
    with pytest.raises(error, match=expected):
        _opened(registry)
