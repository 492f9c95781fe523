"""Whole searches on toys, with a real Ray, real MLflow and processes that really die."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuning_kit import JUDGED, TRAINING, searched

from rlaas.errors import ConfigurationError, ConflictError, TrainingError
from rlaas.registry import Store
from rlaas.settings import load_settings
from rlaas.training import TrainingConfig, load_config
from rlaas.tuning import TuningResult, tune
from rlaas.tuning.progress import Waiting

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("tuning_ray")]


def test_a_search_for_a_front_outlives_a_crash_and_a_configuration_that_fails(tmp_path: Path) -> None:
    config = searched(
        training={**JUDGED, "scenario": "tuning_toys:MortalToy", "options": {"marker": str(tmp_path / "died")}},
        space={
            "learning_rate": {"kind": "choice", "values": [1e-3, 5e-3, 1e30]},
            "sac.updates_per_step": {"kind": "choice", "values": [0.05, 0.1]},
        },
        search="grid",
        trials=None,
        objectives=["utility@follow", "seconds"],
        scheduler={"kind": "asha", "metric": "hypervolume", "reduction": 4},
        concurrency=2,
        confirmation={"training_seeds": [71, 72], "evaluation_seeds": [81, 82], "most": 1},
    )
    settings, seen = load_settings(home=tmp_path / "home"), []
    output = tmp_path / "search"
    result = tune(config, output=output, settings=settings, progress=lambda *event: seen.append(event))

    assert [trial.number for trial in result.trials] == [1, 2, 3, 4, 5, 6]
    failed = [t for t in result.trials if t.status == "failed"]
    assert {t.values["learning_rate"] for t in failed} == {1e30}
    assert len(failed) == 2, "both failed, and the search went on"
    assert all("became" in str(t.failure) for t in failed)
    assert sum(t.crashes for t in result.trials) == 1
    assert (tmp_path / "died").exists()
    finished = [t for t in result.trials if t.status == "finished"]
    assert finished
    assert result.counts() == {
        key: n for key, n in (("finished", len(finished)), ("stopped", 4 - len(finished)), ("failed", 2)) if n
    }

    # The front: no finished trial dominates a member, and each is a file that `rlaas train` takes.
    assert result.directions == ("maximize", "minimize")
    for number, found in enumerate(result.found, start=1):
        assert found.name == f"pareto-{number}"
        loaded = load_config(output / f"{found.name}.yaml")
        assert loaded.learning_rate == found.values["learning_rate"]
        assert loaded.sac.updates_per_step == found.values["sac.updates_per_step"]
        assert (loaded.seed, loaded.evaluation_seeds) == (4, (1, 2)), "the base's own"
        for other in finished:
            better = other.figures["utility@follow"] >= found.figures["utility@follow"]
            assert not (better and other.figures["seconds"] < found.figures["seconds"])
    assert "chosen, hence flattering" in (output / "pareto-1.yaml").read_text()
    assert "Trained anew, on fresh seeds: utility@follow" in (output / "pareto-1.yaml").read_text()

    assert [(one.name, one.seeds) for one in result.confirmation] == [("base", (71, 72)), ("pareto-1", (71, 72))]
    assert all(0.0 < one.mean("utility@follow") < 1.0 for one in result.confirmation)
    cases = json.loads(next(output.glob("confirmation-*.json")).read_text())["trials"]
    assert len(cases) == 4

    assert seen[-1][0] == seen[-1][1] == 4 * 3_000
    totals = [done for done, total, _ in seen if total == 6 * 3_000]
    assert totals[-1] == 6 * 3_000

    trials = json.loads((output / "trials.json").read_text())["trials"]
    assert [row["status"] for row in trials] == [t.status for t in result.trials]
    assert json.loads((output / "result.json").read_text())["mlflow_run_id"] == result.mlflow_run_id
    _check_mlflow(settings, result)
    assert not list(output.glob("search/*/checkpoint_*")), "ended trials leave no checkpoints behind"

    written = (output / "trials.json").read_text()
    again = tune(config, output=output, settings=settings, resume=True)
    assert again.to_dict() == result.to_dict(), "nothing is left to do: neither a trial nor a confirmation is repeated"
    assert (output / "trials.json").read_text() == written


def _check_mlflow(settings: Any, result: TuningResult) -> None:
    store = Store(settings)
    runs = {run.info.run_id: run for run in store.call("search_runs", [store.experiment()])}
    parent = runs.pop(str(result.mlflow_run_id))
    assert parent.info.status == "FINISHED"
    assert parent.data.params["search"] == "grid"
    assert parent.data.tags["rlaas.tenant"] == "default"
    assert parent.data.metrics["confirmed/pareto-1/utility/follow"] == pytest.approx(
        result.confirmation[1].mean("utility@follow")
    )
    names = {a.path for a in store.call("list_artifacts", parent.info.run_id, "tuning")}
    assert {"tuning/pareto-1.yaml", "tuning/trials.json", "tuning/result.json"} <= names
    assert len(runs) == len(result.trials)
    for trial in result.trials:
        run = runs[str(trial.mlflow_run_id)]
        assert run.data.tags["mlflow.parentRunId"] == result.mlflow_run_id
        assert run.data.tags["rlaas.status"] == trial.status
        assert run.info.status == ("FAILED" if trial.status == "failed" else "FINISHED")
        assert float(run.data.params["learning_rate"]) == trial.values["learning_rate"]
        if trial.status == "failed":
            assert run.data.tags["rlaas.failure"] == trial.failure
        else:
            assert run.data.metrics["utility/follow"] == pytest.approx(trial.figures["utility@follow"])
            history = store.call("get_metric_history", run.info.run_id, "utility/follow")
            assert {m.step for m in history} == {row["steps"] for row in trial.reports}


def test_a_population_hands_its_learning_on(tmp_path: Path) -> None:
    config = searched(
        training={"steps": 6_000},
        space={
            "learning_rate": {"kind": "choice", "values": [1e-6, 3e-3]},
            "gamma": {"kind": "uniform", "low": 0.3, "high": 0.6},
        },
        scheduler={"kind": "pbt", "quantile": 0.5},
        trials=3,
    )
    result = tune(config, output=tmp_path / "search")
    assert result.counts() == {"finished": 3}
    changed = [row for trial in result.trials for row in trial.reports[1:] if "values" in row]
    assert changed, "somebody took over somebody"
    assert all(0.3 <= row["values"]["gamma"] <= 0.6 for row in changed)
    file = tmp_path / "search" / "best.yaml"
    assert load_config(file).gamma == result.found[0].values["gamma"]
    assert "A population changes these values" in file.read_text()


def test_one_error_when_every_trial_fails(tmp_path: Path) -> None:
    config = searched(training={"scenario": "training_toys:BrokenToy"}, trials=2, concurrency=2)
    settings = load_settings(home=tmp_path / "home")
    with pytest.raises(TrainingError, match=r"^all 2 trials failed: critic_loss became nan"):
        tune(config, output=tmp_path / "search", settings=settings)
    store = Store(settings)
    statuses = [run.info.status for run in store.call("search_runs", [store.experiment()])]
    assert statuses == ["FAILED"] * 3
    assert not (tmp_path / "search" / "best.yaml").exists()


def test_our_algorithms_are_plain_rllib_to_tune(tmp_path: Path) -> None:
    from ray import tune as ray_tune
    from ray.tune import CheckpointConfig, RunConfig, Tuner

    from rlaas.training.ppo import PPOAlgorithm, PPOConfig

    training = {**TRAINING, "scenario": "training_toys:DiscreteToy", "ppo": {"rollout_length": 32, "minibatch": 128}}
    space = PPOConfig.of(TrainingConfig(**training))
    space.training(lr=ray_tune.grid_search([1e-6, 5e-3]))
    results = Tuner(
        PPOAlgorithm,
        param_space=space,
        run_config=RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 12},
            checkpoint_config=CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    assert not results.errors
    slow, fast = sorted(results, key=lambda result: result.config["lr"])
    assert slow.metrics["env_runners"]["num_env_steps_sampled_lifetime"] == 12 * 32 * 16
    assert fast.metrics["env_runners"]["episode_return_mean"] > slow.metrics["env_runners"]["episode_return_mean"] + 1.0
    restored = PPOConfig.of(TrainingConfig(**training))
    algorithm = PPOAlgorithm(config=restored)
    algorithm.restore_from_path(fast.checkpoint.path)
    assert algorithm.steps_done == 12 * 32 * 16
    algorithm.stop()


def test_a_folder_holds_one_search(tmp_path: Path) -> None:
    output = tmp_path / "search"
    with pytest.raises(ConfigurationError, match="holds no search to resume"):
        tune(searched(), output=output, resume=True)
    output.mkdir()
    begun = searched().model_dump(mode="json")
    (output / "search.json").write_text(json.dumps({"schema_version": 1, "config": begun, "mlflow_run_id": None}))
    with pytest.raises(ConflictError, match="holds a search already; resume it with --resume"):
        tune(searched(), output=output)
    with pytest.raises(ConflictError, match="resume: training is not what the search was begun with"):
        tune(searched(training={"gamma": 0.6}), output=output, resume=True)
    with pytest.raises(ConflictError, match="trials 2, but the search was begun with 3; it may only grow"):
        tune(searched(trials=2), output=output, resume=True)


def test_a_trial_reserves_what_its_runners_need(tmp_path: Path) -> None:
    """Two trials of a process and a runner each do not fit on two CPUs together: they take turns."""
    import ray

    seen: list[float] = []

    def watch(done: int, of: int, figures: Mapping[str, float]) -> None:
        seen.append(figures["running"])
        if figures["running"]:
            free.append(ray.available_resources().get("CPU", 0.0))

    free: list[float] = []
    training = {"num_env_runners": 1, "steps": 1_024}
    config = searched(training=training, trials=2, concurrency=2)
    result = tune(config, output=tmp_path / "search", progress=watch)
    assert [trial.status for trial in result.trials] == ["finished", "finished"]
    assert max(seen) == 1.0
    assert min(free) == 0.0, "a trial's process and its runner take both"


def test_waiting_for_resources_is_said_after_half_a_minute_and_again() -> None:
    class Trial:
        status = "PENDING"

    now, messages, trial = [0.0], [], Trial()
    waiting = Waiting(messages.append, [{"CPU": 62.0}, {"CPU": 1.0}, {"CPU": 1.0}], clock=lambda: now[0])
    for now[0] in (0.0, 10.0, 29.0):
        waiting.on_step_end(0, [trial])
    assert messages == []
    for now[0] in (31.0, 59.0, 62.0):
        waiting.on_step_end(0, [trial, trial])
    assert len(messages) == 2
    # Ray may still be taking back what the search before this one had.
    assert re.fullmatch(
        r"waiting for resources: 2 trials of 64 CPUs each, and [\d.]+ of the cluster's 2 CPUs are free; "
        "end other work, or lower cpus_per_trial",
        messages[0],
    )
    trial.status = "RUNNING"
    for now[0] in (100.0, 200.0):
        waiting.on_step_end(0, [trial])
    assert len(messages) == 2


def test_shipped_searches_can_start(repository: Path) -> None:
    from rlaas.tuning import load_tuning_config
    from rlaas.tuning.checks import check_tuning

    for path in sorted((repository / "configs" / "tuning").glob("*.yaml")):
        scenario, aim = check_tuning(load_tuning_config(path))
        assert yaml.safe_load(path.read_text())["training"]["scenario"] == scenario.name
        assert aim.metrics
