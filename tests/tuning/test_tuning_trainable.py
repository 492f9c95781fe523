"""A trial by itself: reports, checkpoints, and being taken over by another configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_kit import JUDGED, TRAINING

from rlaas.training import TrainingConfig
from rlaas.tuning import PolicyTrainable
from rlaas.tuning.trainable import trial_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("tuning_ray")]

PPO: dict[str, Any] = {"algorithm": "ppo", "ppo": {"rollout_length": 16, "minibatch": 64}, "learning_rate": 1e-3}


def trial(point: dict[str, Any], *metrics: str, **training: Any) -> Any:
    base = TrainingConfig(**{**TRAINING, **training})
    config = trial_config(base, metrics=metrics or ("training_reward",), interval=1_024)
    return PolicyTrainable({**config, "point": point})


def states(one: Any) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Weights of all networks, and Adam's moments."""
    learner = one._algorithm.learner
    weights = {name: value.clone() for name, value in learner.net.state_dict().items()}
    return weights, [s[key].clone() for s in learner.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]


def rates(one: Any) -> list[float]:
    return [group["lr"] for group in one._algorithm.learner.optimizer.param_groups]


@pytest.mark.parametrize("training", [{}, PPO], ids=["sac", "ppo"])
def test_a_taken_over_trial_brings_its_learning_and_keeps_the_new_values(
    training: dict[str, Any], tmp_path: Path
) -> None:
    strong = trial({"learning_rate": 1e-3, "gamma": 0.5}, **training)
    strong.train()
    folder = tmp_path / "strong"
    folder.mkdir()
    strong.save_checkpoint(str(folder))
    weak = trial({"learning_rate": 5e-3, "gamma": 0.3, "batch_size": 128, "sac.tau": 0.2, "ppo.epochs": 2}, **training)
    wanted = rates(weak)
    assert wanted != rates(strong)
    weak.load_checkpoint(folder)

    for mine, theirs in zip(states(weak)[0].items(), states(strong)[0].items(), strict=True):
        assert mine[0] == theirs[0]
        assert torch.equal(mine[1], theirs[1]), mine[0]
    moments = states(weak)[1]
    assert moments
    assert all(torch.equal(a, b) for a, b in zip(moments, states(strong)[1], strict=True))
    assert weak._algorithm.steps_done == strong._algorithm.steps_done == 1_024
    if not training:
        mine, theirs = weak._algorithm.replay, strong._algorithm.replay
        assert len(mine) == len(theirs) > 0
        assert torch.equal(mine.stored().reward, theirs.stored().reward)

    assert rates(weak) == wanted, "the restored optimizer does not bring its learning rate along"
    learner = weak._algorithm.learner
    assert learner.config.gamma == 0.3
    assert (learner.training.batch_size, learner.training.sac.tau, learner.training.ppo.epochs) == (128, 0.2, 2)
    # They are in force: from the same state the two learn different things.
    same = trial({"learning_rate": 1e-3, "gamma": 0.5}, **training)
    same.load_checkpoint(folder)
    for one in (strong, same, weak):
        one.train()
    first, second, third = (states(one)[0] for one in (strong, same, weak))
    name = next(key for key in first if key.startswith("policy.body") and key.endswith("weight"))
    assert torch.equal(first[name], second[name]), "the same configuration goes on bit for bit"
    assert not torch.equal(first[name], third[name])
    for one in (strong, same, weak):
        one.stop()


def test_plain_rllib_would_have_brought_the_other_learning_rate(tmp_path: Path) -> None:
    """The trap that the test above stands guard over."""
    strong, weak = trial({"learning_rate": 1e-3}), trial({"learning_rate": 5e-3})
    strong.train()
    weak._algorithm.restore_from_path(strong._algorithm.save_to_path(str(tmp_path / "checkpoint")))
    assert rates(weak) == rates(strong)
    strong.stop()
    weak.stop()


def test_reports_say_what_is_searched_for_until_the_steps_are_taken() -> None:
    one = trial({"sac.tau": 0.05}, "hypervolume", "near@follow", **JUDGED)
    reports = [one.train() for _ in range(3)]
    assert [r["steps"] for r in reports] == [1_024, 2_048, 3_008]
    assert [r["done"] for r in reports] == [False, False, True]
    last = reports[-1]
    assert last["finished"]
    assert 0.0 < last["hypervolume"] <= 1.0
    assert last["utility@follow"] == pytest.approx(0.9 * last["near@follow"] + 0.1 * last["mirror@follow"])
    # The rewards that were collected: more than either objective's, since the policy listens to the preference.
    assert last["training_reward"] > max(last["training_reward_near"], last["training_reward_mirror"])
    assert reports[0]["seconds"] < last["seconds"]
    one.stop()


def test_a_gymnasium_environment_is_judged_by_its_return() -> None:
    one = trial(
        {},
        "return",
        scenario=None,
        environment="CartPole-v1",
        algorithm="ppo",
        ppo={"rollout_length": 16, "minibatch": 64},
        evaluation_seeds=[1, 2],
        evaluation_steps=200,
    )
    report = one.train()
    assert 8.0 <= report["return"] <= 200.0
    assert 8.0 <= report["training_return"] <= 200.0
    one.stop()


@pytest.mark.parametrize(
    ("point", "training", "reason"),
    [
        ({"learning_rate": 1e-3}, {"scenario": "training_toys:BrokenToy"}, "became nan after"),
        ({"ppo.minibatch": 10_000}, PPO, "ppo.minibatch 10000 exceeds a rollout"),
        ({"gamma": 1.5}, {}, "gamma: Input should be less than 1"),
    ],
)
def test_what_cannot_work_is_a_last_report_with_the_reason(
    point: dict[str, Any], training: dict[str, Any], reason: str
) -> None:
    one = trial(point, **training)
    report = one.train()
    assert reason in report["failure"]
    assert report["done"]
    assert not report["finished"]
    assert math.isnan(report["training_reward"])
    one.stop()


def test_a_process_becomes_another_trial() -> None:
    one = trial({"learning_rate": 1e-3, "hidden": "[16, 16]"})
    one.train()
    config = dict(one.config)
    assert one.reset({**config, "point": {"learning_rate": 2e-3, "hidden": "[8]"}})
    assert one._algorithm.steps_done == 0
    assert one._training.hidden == (8,)
    assert rates(one)[1] == 2e-3
    one.stop()


def test_a_trial_that_is_over_says_the_same_again_without_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train._internal.storage import StorageContext

    # A trial with storage would take this process into its folder and leave it there.
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")

    def storage() -> StorageContext:
        return StorageContext(
            storage_path=str(tmp_path),
            experiment_dir_name="search",
            trial_dir_name="trial-1",
            current_checkpoint_index=0,
        )

    base = TrainingConfig(**{**TRAINING, "steps": 1_500})
    config = {**trial_config(base, metrics=("training_reward",), interval=1_024), "point": {}}
    one = PolicyTrainable(dict(config), storage=storage())
    first, last = one.train(), one.train()
    assert (first["done"], last["done"]) == (False, True)
    again = PolicyTrainable(dict(config), storage=storage())
    report = again.train()
    assert again._algorithm.steps_done == 0
    for key in ("training_reward", "seconds", "steps", "done", "finished", "training_iteration"):
        assert report[key] == last[key], key
    assert json.loads((tmp_path / "search" / "trial-1" / "last-report.json").read_text())["finished"]
    one.stop()
    again.stop()
