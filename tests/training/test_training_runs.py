"""Whole runs on toys with known answers, with a real local Ray and RLlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_toys import DiscreteToy, Toy

from rlaas.bundles import load_bundle
from rlaas.errors import ConfigurationError, TrainingError
from rlaas.objectives import Preference
from rlaas.scenarios import ConstantController, Scenario, evaluate
from rlaas.training import PolicyController, TrainingConfig, TrainingRun, build_algorithm, train
from rlaas.training.sac import transitions_of

pytestmark = pytest.mark.ray

SAC: dict[str, Any] = {"scenario": "training_toys:Toy", "seed": 4, "num_envs": 16, "hidden": (32, 32), "gamma": 0.5}
PPO: dict[str, Any] = {"scenario": "training_toys:DiscreteToy", "seed": 4, "num_envs": 16, "hidden": (32, 32)}
SHORT_ROLLOUTS: dict[str, Any] = {"rollout_length": 32, "minibatch": 128}


def _values(scenario: Scenario, run: TrainingRun, weights: list[float]) -> np.ndarray:
    preference = Preference.of(scenario.objectives, weights)
    controller = PolicyController(load_bundle(run.bundle), preference)
    return evaluate(scenario, controller, (101, 102, 103), steps=60).mean()


def _check_it_learned_the_trade_off(scenario: Scenario, run: TrainingRun) -> None:
    near, mirror = _values(scenario, run, [1.0, 0.0]), _values(scenario, run, [0.0, 1.0])
    still = evaluate(scenario, ConstantController(scenario.baselines["still"].make().action), (101, 102), steps=60)
    assert near[0] > 0.9 > float(still.mean()[0])
    assert mirror[1] > 0.9
    # What one preference gains the other gives up: the policy does listen to it.
    assert near[0] > mirror[0] + 0.5


def test_sac_learns_a_front(local_ray: None, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = TrainingConfig(
        **SAC,
        steps=12_000,
        sac={"learning_starts": 500, "updates_per_step": 0.1, "head_start": 100, "actor_learning_rate": 1e-3},
        evaluation_seeds=(7, 8),
        evaluation_preferences=4,
        evaluation_steps=40,
        evaluation_warmup=0,
    )
    run = train(config, output=tmp_path / "run", progress=lambda done, of, metrics: seen.append((done, of)))
    _check_it_learned_the_trade_off(Toy(), run)
    assert seen[-1] == (12_000, 12_000)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    # 16 rows a step and 750 steps, of which the first 32 were warm-up, at .1 updates each.
    assert run.metrics["steps"] == 12_000
    assert run.metrics["updates"] == pytest.approx((12_000 - 512) * 0.1, abs=1)
    assert run.curve[-1]["reward"] > run.curve[0]["reward"] + 0.1
    assert {"critic_loss", "entropy", "temperature", "return", "reward_near"} <= run.curve[-1].keys()
    assert run.front is not None
    assert run.front.candidates[0].name == "policy@follow"
    assert {c.name for c in run.front.candidates} >= {"policy@near=1.00", "policy@mirror=1.00"}
    manifest = load_bundle(run.bundle).manifest
    assert manifest.preference_conditioned
    assert manifest.lineage["seed"] == 4
    assert manifest.lineage["steps"] == 12_000


def test_ppo_learns_a_front(local_ray: None, tmp_path: Path) -> None:
    # An on-policy learner may settle on the compromise for one half of the preferences: about one seed in six does.
    scenario, learned, run = DiscreteToy(), 0, None
    for seed in (4, 5, 6):
        values = PPO | {"seed": seed, "steps": 30_000, "gamma": 0.5, "learning_rate": 2e-3, "ppo": SHORT_ROLLOUTS}
        run = train(TrainingConfig(**values), output=tmp_path / f"run{seed}")
        near, mirror = _values(scenario, run, [1.0, 0.0]), _values(scenario, run, [0.0, 1.0])
        learned += near[0] > 0.9 and mirror[1] > 0.9 and near[0] > mirror[0] + 0.5
        assert run.curve[-1]["entropy"] < run.curve[0]["entropy"]
    assert learned >= 2
    assert run is not None
    assert run.front is None


def test_ppo_moves_boxes_too(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(
        **SAC, algorithm="ppo", steps=30_000, learning_rate=2e-3, ppo={"rollout_length": 32, "minibatch": 128}
    )
    run = train(config, output=tmp_path / "run")
    near = _values(Toy(), run, [1.0, 0.0])
    assert near[0] > 0.85
    assert run.metrics["reward"] > run.metrics["first_reward"]


def test_cartpole_improves(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(
        environment="CartPole-v1",
        steps=20_000,
        seed=2,
        num_envs=16,
        gamma=0.98,
        ppo=SHORT_ROLLOUTS,
        evaluation_seeds=(1, 2, 3),
        evaluation_steps=500,
        evaluation_warmup=0,
    )
    run = train(config, output=tmp_path / "run")
    assert run.curve[0]["return"] < 40
    assert run.front is not None
    assert run.front.candidates[0].mean[0] > 120
    assert not load_bundle(run.bundle).manifest.preference_conditioned


@pytest.mark.parametrize("kind", ["sac", "ppo", "ppo in a box whose noise falls"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(kind: str, local_ray: None, tmp_path: Path) -> None:
    values = SAC | {
        "sac": {"learning_starts": 200, "buffer_size": 1500, "head_start": 50},
        "batch_size": 64,
        "steps": 50_000,
    }
    if kind == "ppo":
        values = PPO | {"ppo": {"rollout_length": 16, "minibatch": 64}, "steps": 50_000}
    elif kind != "sac":
        ppo = {"rollout_length": 16, "minibatch": 64, "final_noise": 0.1}
        values, kind = PPO | {"scenario": SAC["scenario"], "ppo": ppo, "steps": 50_000}, "ppo"
    # 35 steps an episode and a hold of 20: episodes, holds and iterations end at different times.
    config = TrainingConfig(**values, options={"length": 35}, preference_hold=20)
    first = build_algorithm(config, kind)  # type: ignore[arg-type]
    first.train()
    first.train()
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    before = {k: v.clone() for k, v in first.policy.state_dict().items()}
    first.train()
    second = build_algorithm(config, kind)  # type: ignore[arg-type]
    second.restore_from_path(path)
    assert second.steps_done == first.steps_done * 2 // 3
    for name, value in second.policy.state_dict().items():
        assert torch.equal(value, before[name]), name
    second.train()
    moved = False
    for name, value in second.policy.state_dict().items():
        assert torch.equal(value, first.policy.state_dict()[name]), name
        moved |= not torch.equal(value, before[name])
    assert moved
    assert first.sampled.scalar == second.sampled.scalar
    first.stop()
    second.stop()


@pytest.mark.parametrize("terminates", [True, False])
def test_autoreset_steps_are_no_experience(terminates: bool, local_ray: None) -> None:
    config = TrainingConfig(**SAC, options={"length": 3, "rows": 2, "terminates": terminates})
    algo = build_algorithm(config, "sac")
    runner = algo.runner
    rollout = runner.sample(num_timesteps=9, random_actions=True)
    # Three steps of an episode, then the reset: the fourth and eighth step are no experience.
    valid = rollout.valid.all(dim=1).tolist()
    assert valid == [True, True, True, False, True, True, True, False, True]
    assert rollout.valid.shape == (9, 32)
    assert float(rollout.reward[~rollout.valid].abs().sum()) == 0.0
    rows = transitions_of(rollout)
    assert len(rows.action) == 7 * 32
    # Feature "share" is the step within the episode: each transition moves on by one, none crosses a reset.
    moved = rows.next_observation[:, 1] - rows.observation[:, 1]
    assert torch.allclose(moved, torch.full_like(moved, 1 / 3), atol=1e-6)
    at_end = torch.isclose(rows.next_observation[:, 1], torch.ones(()))
    assert torch.equal(rows.terminated.squeeze(1) > 0, at_end if terminates else torch.zeros_like(at_end))
    # Both rows of an environment share a preference; it changes with the episode and only then.
    preference = rollout.preference[:-1].reshape(9, 16, 2, 2)
    assert torch.equal(preference[:, :, 0], preference[:, :, 1])
    assert torch.equal(preference[0], preference[3])
    assert not torch.equal(preference[3], preference[4])
    algo.stop()


def test_a_box_policy_starts_at_the_default_configuration(local_ray: None) -> None:
    for kind in ("sac", "ppo"):
        algo = build_algorithm(TrainingConfig(**SAC, options={"default": 1.5}), kind)  # type: ignore[arg-type]
        with torch.no_grad():
            heads = algo.policy(torch.rand(50, 2), torch.full((50, 2), 0.5))
        # The default 1.5 of [-2, 2] is 0.75 of [-1, 1].
        assert torch.allclose(torch.tanh(heads["mean"]), torch.tensor(0.75), atol=0.05)
        algo.stop()


def test_rewards_are_clipped_for_learning_only(local_ray: None) -> None:
    algo = build_algorithm(TrainingConfig(**SAC, reward_clip=0.25), "sac")
    rollout = algo.runner.sample(num_timesteps=10, random_actions=True)
    assert float(rollout.reward.abs().max()) == 0.25
    assert float(algo.runner.pop_rewards().vector.max()) > 160 * 0.3
    algo.stop()


def test_the_actor_waits_for_the_critics(local_ray: None) -> None:
    sac = {"learning_starts": 200, "updates_per_step": 0.05, "head_start": 60}
    algo = build_algorithm(TrainingConfig(**SAC, steps=5_000, sac=sac), "sac")

    def snapshot() -> tuple[torch.Tensor, torch.Tensor]:
        net = algo.learner.net
        return net.policy.body.layers[0].weight.clone(), net.critic.weights[0].clone()

    actor, critic = snapshot()
    algo.train()
    assert 0 < algo.updates < 60
    assert torch.equal(snapshot()[0], actor)
    assert not torch.equal(snapshot()[1], critic)
    algo.train()
    assert algo.updates > 60
    assert not torch.equal(snapshot()[0], actor)
    algo.stop()


def test_nan_is_a_training_error(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(**SAC | {"scenario": "training_toys:BrokenToy"}, steps=3_000)
    with pytest.raises(TrainingError, match="critic_loss became nan"):
        train(config, output=tmp_path / "run")
    assert not (tmp_path / "run" / "bundle").exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (PPO | {"scenario": "training_toys:SeveralToy", "algorithm": "sac"}, "algorithm"),
        (PPO | {"constraints": [{"part": "speed", "at_least": 1.0}]}, "constraints.0.part"),
        (PPO | {"ppo": {"memory": 8, "rollout_length": 48}}, "ppo.minibatch"),
        (PPO | {"ppo": {"memory": 8}, "centralised_critic": True}, "centralised_critic"),
        (SAC | {"steps": 900, "sac": {"learning_starts": 900}}, "sac.learning_starts"),
        (PPO | {"num_envs": 1, "ppo": {"rollout_length": 4}}, "ppo.minibatch"),
        ({"scenario": "nowhere"}, "scenario"),
        (SAC | {"options": {"colour": "red"}}, None),
        ({"environment": "NoSuchThing-v0"}, "environment"),
        ({"environment": "CartPole-v1", "options": {"colour": "red"}}, "environment"),
    ],
)
def test_impossible_runs_are_refused_before_they_start(
    values: dict[str, Any], field: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        train(TrainingConfig(**values), output=tmp_path / "run")
    if field is not None:
        assert caught.value.field == field
    assert not (tmp_path / "run").exists()


def test_rllib_refuses_what_cannot_be_shared_out() -> None:
    from rlaas.training.sac import SACConfig

    config = SACConfig.of(TrainingConfig(**SAC)).env_runners(num_env_runners=3)
    with pytest.raises(ConfigurationError, match="num_envs 16 cannot be shared out evenly among num_env_runners 3"):
        config.validate()


@pytest.mark.parametrize("name", ["network5g-ppo", "network5g-sac", "recsys-ppo"])
def test_shipped_scenarios_train(name: str, local_ray: None, repository: Path, tmp_path: Path) -> None:
    from rlaas.training import load_config
    from rlaas.training.problems import problem_of

    config = load_config(repository / "configs" / "training" / f"{name}.yaml")
    config = config.model_copy(
        update={
            "steps": 3_000,
            "num_envs": 16,
            "evaluation_seeds": (),
            "ppo": config.ppo.model_copy(update={"minibatch": 128}),
        }
    )
    scenario = problem_of(config)
    run = train(config, output=tmp_path / "run")
    mode = scenario.modes[scenario.primary_mode]
    values = evaluate(
        scenario, PolicyController(load_bundle(run.bundle), mode.preference), (1, 2), steps=20, replicas=4
    ).mean()
    assert np.isfinite(values).all()
