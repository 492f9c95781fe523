from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaas.errors import ConfigurationError
from rlaas.training import TrainingConfig, load_config


def test_shipped_configurations_load(repository: Path) -> None:
    files = sorted((repository / "configs" / "training").glob("*.yaml"))
    assert [f.name for f in files] == ["deep-sea-treasure.yaml", "network5g-sac.yaml", "recsys-ppo.yaml"]
    loaded = [load_config(f) for f in files]
    assert [c.algorithm for c in loaded] == ["ppo", "sac", "ppo"]
    assert [c.problem_name for c in loaded] == ["mo_gymnasium:deep-sea-treasure-v0", "network5g", "recsys"]


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
