from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from rlaas.errors import ConfigurationError
from rlaas.training import TrainingConfig, load_config
from rlaas.training.ppo import PPOConfig
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.sac import SACConfig


def test_shipped_configurations_load(repository: Path) -> None:
    files = sorted((repository / "configs" / "training").glob("*.yaml"))
    problems = {
        "deep-sea-treasure.yaml": ("ppo", "mo_gymnasium:deep-sea-treasure-v0"),
        "network5g-ppo.yaml": ("ppo", "network5g"),
        "network5g-sac.yaml": ("sac", "network5g"),
        "recsys-ppo.yaml": ("ppo", "recsys"),
    }
    assert [f.name for f in files] == list(problems)
    loaded = [load_config(f) for f in files]
    assert [(c.algorithm, c.problem_name) for c in loaded] == list(problems.values())


@pytest.mark.parametrize("algorithm", ["sac", "ppo"])
def test_an_untrained_policy_acts_as_the_baseline_it_starts_at(algorithm: Literal["sac", "ppo"]) -> None:
    config = TrainingConfig(scenario="network5g", start="tuned_static", ppo={"minibatch": 64})
    scenario = problem_of(config)
    kind = {"sac": SACConfig, "ppo": PPOConfig}[algorithm]
    policy = kind.of(config).build_module().policy
    action = scenario.single_action_space
    wanted = 2 * (scenario.baselines["tuned_static"].make().action - action.low) / (action.high - action.low) - 1
    with torch.no_grad():
        heads = policy(torch.zeros(5, policy.n_features), torch.full((5, 4), 0.25))
    # At the very ends of the box the tanh passes no gradient: it begins a little inside.
    np.testing.assert_allclose(torch.tanh(heads["mean"]), np.tile(wanted.clip(-0.9, 0.9), (5, 1)), atol=0.03)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"start": "tunde_static"}, "unknown start 'tunde_static'; allowed: default, max_rsrp, tuned_static"),
        ({"start": "tuned_reactive"}, "start 'tuned_reactive' is no constant setting"),
        ({"scenario": "recsys", "start": "tuned_static", "algorithm": "ppo"}, "start 'tuned_static' is no constant"),
    ],
)
def test_a_start_that_is_no_setting_is_refused(change: dict[str, Any], complaint: str) -> None:
    config = TrainingConfig(**{"scenario": "network5g", "algorithm": "sac", **change})
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        algorithm_of(config, problem_of(config))
    assert caught.value.field == "start"


def test_an_end_of_noise_is_refused_where_actions_are_choices() -> None:
    config = TrainingConfig(scenario="recsys", algorithm="ppo", ppo={"final_noise": 0.1})
    with pytest.raises(
        ConfigurationError, match=r"actions of 'recsys' are choices.*leave ppo\.final_noise out"
    ) as caught:
        algorithm_of(config, problem_of(config))
    assert caught.value.field == "ppo.final_noise"


@pytest.mark.parametrize(
    ("values", "field", "fragment"),
    [
        ({}, "training config", "exactly one of scenario and environment"),
        ({"scenario": "a", "environment": "b"}, "training config", "exactly one"),
        ({"scenario": "a", "steps": 0}, "steps", "greater than or equal to 1"),
        ({"scenario": "a", "algorithm": "dqn"}, "algorithm", "'sac' or 'ppo'"),
        ({"scenario": "a", "step": 5}, "step", "allowed: algorithm, batch_size"),
        (
            {"scenario": "a", "sac": {"tua": 0.1}},
            "sac.tua",
            "allowed: actor_learning_rate, buffer_size, head_start",
        ),
        ({"scenario": "a", "ppo": {"clip": 2}}, "ppo.clip", "less than 1"),
        ({"scenario": "a", "hidden": [64, 0]}, "training config", "hidden"),
        ({"scenario": "a", "sac": {"buffer_size": 10}}, "training config", "batch_size"),
        ({"scenario": "a", "gamma": float("nan")}, "gamma", "gamma"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], field: str, fragment: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\w") as caught:
        TrainingConfig(**values)
    assert caught.value.field == field
    assert fragment in caught.value.message
    assert "\n" not in caught.value.message


def test_yaml_errors_name_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    with pytest.raises(ConfigurationError, match=r"run\.yaml: cannot be read"):
        load_config(file)
    file.write_text("scenario: [")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: not YAML"):
        load_config(file)
    file.write_text("- just\n- a list\n")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: expected a mapping"):
        load_config(file)
    file.write_text("scenario: network5g\nsac:\n  updates: 3\n")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: unknown key 'sac\.updates'; allowed: .*updates_per_step"):
        load_config(file)


def test_round_trip_through_json() -> None:
    config = TrainingConfig(environment="CartPole-v1", hidden=(32,), evaluation_seeds=(4, 5))
    assert TrainingConfig(**config.model_dump(mode="json")) == config
    with pytest.raises(Exception, match="frozen"):
        config.steps = 3  # type: ignore[misc]


def test_warm_up_follows_the_steps_unless_given() -> None:
    long, short = TrainingConfig(scenario="a", steps=1_000_000), TrainingConfig(scenario="a", steps=2_000)
    assert (long.resolved_learning_starts(), long.resolved_head_start()) == (10_000, 1_000)
    # A tenth of (2,000 - 100) decisions at 1/8 update each.
    assert (short.resolved_learning_starts(), short.resolved_head_start()) == (100, 23)
    given = TrainingConfig(scenario="a", sac={"learning_starts": 7, "head_start": 0})
    assert (given.resolved_learning_starts(), given.resolved_head_start()) == (7, 0)


def test_reward_clip_is_for_normalised_rewards() -> None:
    assert TrainingConfig(scenario="a").resolved_reward_clip() == 20.0
    assert TrainingConfig(environment="a").resolved_reward_clip() is None
    assert TrainingConfig(environment="a", reward_clip=2.0).resolved_reward_clip() == 2.0
