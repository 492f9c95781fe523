"""Breadth of the engine: action spaces, masks, memory, resets of either kind, other processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from training_toys import MaskedToy, RecallToy, SeveralToy

from rlaas.training import TrainingConfig, build_algorithm
from rlaas.training.gymnasium_scenario import GymnasiumScenario
from rlaas.training.ppo import PPOConfig
from rlaas.training.sac import transitions_of

pytestmark = pytest.mark.ray

SHORT: dict[str, Any] = {"rollout_length": 32, "minibatch": 128}


def _config(problem: str, **values: Any) -> TrainingConfig:
    base: dict[str, Any] = {"scenario": f"training_toys:{problem}", "seed": 3, "num_envs": 16, "hidden": (32, 32)}
    return TrainingConfig(**(base | {"gamma": 0.5, "steps": 30_000} | values))


def _trained(config: TrainingConfig, kind: str) -> Any:
    algo = build_algorithm(config, kind)  # type: ignore[arg-type]
    while algo.steps_done < config.steps:
        algo.train()
    return algo


def _follow(algo: Any, observation: np.ndarray, preference: list[float]) -> np.ndarray:
    """Logits at observations [n, n_features]."""
    asked = torch.tensor([preference] * len(observation))
    with torch.no_grad():
        return np.asarray(algo.policy(torch.from_numpy(observation.astype(np.float32)), asked)["logits"])


def test_several_choices_at_once(local_ray: None) -> None:
    algo = _trained(_config("SeveralToy", algorithm="ppo", learning_rate=2e-3, ppo=SHORT), "ppo")
    targets = np.array([[-0.9, 0.2], [-0.5, 0.2], [0.5, 0.2], [0.9, 0.2]])
    logits = _follow(algo, targets, [1.0, 0.0])
    chosen = np.stack([logits[:, :2].argmax(axis=1), logits[:, 2:].argmax(axis=1)], axis=1)
    # The sign is one choice, the distance another: nobody learns the one without the other.
    np.testing.assert_allclose(SeveralToy().level(chosen), targets[:, 0], atol=0.55)
    assert (np.sign(SeveralToy().level(chosen)) == np.sign(targets[:, 0])).all()
    algo.stop()


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_forbidden_choices_are_never_taken(kind: str, local_ray: None) -> None:
    # The environment asserts it in every step.
    settings: dict[str, Any] = {"ppo": SHORT, "learning_rate": 2e-3}
    if kind == "sac":
        settings = {"sac": {"learning_starts": 500, "updates_per_step": 0.1, "head_start": 100}, "steps": 12_000}
    algo = build_algorithm(_config("MaskedToy", algorithm=kind, **settings), kind)  # type: ignore[arg-type]
    for _ in range(12):
        algo.train()
    allowed = np.ones((2, 5))
    allowed[1, 3:] = 0
    seen = np.concatenate((np.array([[0.9, 0.2], [0.9, 0.2]]), allowed), axis=1)
    logits = _follow(algo, seen, [1.0, 0.0])
    assert (logits[1, 3:] == -1e9).all()
    assert (np.abs(logits[0]) < 100).all()
    assert MaskedToy().masked_actions
    algo.stop()


def test_discrete_sac_learns_the_trade_off(local_ray: None) -> None:
    sac = {"learning_starts": 500, "updates_per_step": 0.1, "head_start": 100, "actor_learning_rate": 1e-3}
    algo = _trained(_config("DiscreteToy", algorithm="sac", steps=12_000, sac=sac | {"updates_per_step": 0.25}), "sac")
    targets = np.array([[-0.95, 0.2], [-0.5, 0.2], [0.0, 0.2], [0.5, 0.2], [0.95, 0.2]])
    assert _follow(algo, targets, [1.0, 0.0]).argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert _follow(algo, targets, [0.0, 1.0]).argmax(axis=1).tolist() == [4, 3, 2, 1, 0]
    algo.stop()


def test_a_memory_recalls_what_was_shown(local_ray: None) -> None:
    ppo = {"rollout_length": 32, "minibatch": 128, "memory": 16, "entropy": 0.01}
    plain = _trained(_config("RecallToy", learning_rate=5e-3, ppo={**ppo, "memory": 0}), "ppo")
    with_memory = _trained(_config("RecallToy", learning_rate=5e-3, ppo=ppo), "ppo")

    def reward(algo: Any) -> float:
        rollout = algo.runner.sample(num_timesteps=64)
        scalar = (rollout.reward * rollout.preference[:-1]).sum(dim=-1)
        return float(scalar[rollout.valid].mean())

    # Without a memory only an episode's first action can know the target.
    assert reward(with_memory) > reward(plain) + 0.15
    assert RecallToy().name == "toy-recall"
    plain.stop()
    with_memory.stop()


def test_memory_along_a_rollout_is_that_of_single_steps(local_ray: None) -> None:
    """What learning recomputes is what sampling saw: through resets, and from the middle of episodes."""
    config = _config("RecallToy", options={"length": 6}, ppo={"rollout_length": 16, "minibatch": 64, "memory": 8})
    algo = build_algorithm(config, "ppo")
    algo.train()
    rollout = algo.sample(16)
    net, learner = algo.net, algo.learner
    with torch.no_grad():
        features = net.policy.features(rollout.observation, rollout.preference)
        own, _ = rollout.memory.chunk(2, dim=1)
        heads = net.heads_along(features[:-1], None, own, learner._fresh(rollout)[:-1])
    assert float(rollout.memory.abs().max()) > 0.0
    assert (~rollout.valid).any()
    torch.testing.assert_close(heads["logits"], rollout.extras["logits"], rtol=1e-4, atol=1e-5)
    algo.stop()


class _Counting(gymnasium.Env[np.ndarray, int]):
    """Observes the step of the episode; ends at 3 (for good) or is cut off at 5, by its number."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int) -> None:
        self.length, self.clock = length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        over = self.clock >= self.length
        here = np.full(1, self.clock, np.float32)
        return here, 1.0, over and self.length == 3, over and self.length != 3, {}


def _same_step(num_envs: int = 2, **_: Any) -> SyncVectorEnv:
    lengths = [3, 5] * (num_envs // 2) or [3]
    return SyncVectorEnv([lambda n=n: _Counting(n) for n in lengths], autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.fixture
def same_step_environment() -> Any:
    name = "rlaas-test/SameStep-v0"
    gymnasium.register(name, entry_point=lambda: _Counting(3), vector_entry_point=_same_step)
    yield name
    gymnasium.registry.pop(name)


def test_same_step_resets_are_experience_with_true_last_observations(
    same_step_environment: str, local_ray: None
) -> None:
    config = TrainingConfig(
        environment=same_step_environment, num_envs=2, steps=100_000, ppo={"rollout_length": 16, "minibatch": 16}
    )
    algo = build_algorithm(config, "ppo")
    rollout = algo.runner.sample(num_timesteps=16)
    assert rollout.valid.all()
    rows = transitions_of(rollout)
    assert torch.equal(rows.next_observation, rows.observation + 1.0)
    ends = rollout.terminated | rollout.truncated
    assert rollout.following[ends].flatten().unique().tolist() == [3.0, 5.0]
    assert set(rollout.following[rollout.terminated].flatten().tolist()) == {3.0}
    # The value of a cut-off episode's true last observation, not that of the next episode's first.
    learner = algo.learner
    with torch.no_grad():
        value = learner._values_after(rollout)
        direct = algo.net.critic(algo.net.policy.features(rollout.final.flatten(0, 1), None)).view(16, 2, 1)
    torch.testing.assert_close(value, direct)
    for _ in range(3):
        algo.train()
    assert sorted(set(algo.sampled.returns)) == [3.0, 5.0]
    assert sorted(set(algo.sampled.lengths)) == [3.0, 5.0]
    algo.stop()


def test_any_gymnasium_environment_becomes_a_scenario() -> None:
    flat = GymnasiumScenario("FrozenLake-v1")
    assert flat.algorithm == "ppo"
    assert len(flat.observation_names) == 16
    masked = GymnasiumScenario("Taxi-v3")
    assert masked.masked_actions
    assert masked.observation_names[-1] == "allowed_5"
    env = masked.vector_env(3, seed=1)
    observation, _ = env.reset()
    assert observation.shape == (3, 506)
    assert set(np.unique(observation[:, -6:])) <= {0.0, 1.0}
    assert (observation[:, :-6].sum(axis=1) == 1.0).all()
    several = GymnasiumScenario("mo_gymnasium:deep-sea-treasure-v0")
    assert [o.name for o in several.objectives] == ["return_0", "return_1"]
    compiled = GymnasiumScenario("CartPole-v1").vector_env(4, seed=2)
    first, _ = compiled.reset()
    again, _ = GymnasiumScenario("CartPole-v1").vector_env(4, seed=2).reset()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_learners_in_other_processes_make_the_update_of_one(kind: str, local_ray: None) -> None:
    """Two learners share every minibatch: after the same experience they hold the parameters that one would."""
    problem = "Toy" if kind == "sac" else "DiscreteToy"
    values: dict[str, Any] = {"algorithm": kind, "batch_size": 64, "num_envs": 8}
    values |= {"ppo": {"rollout_length": 16, "minibatch": 64}, "sac": {"learning_starts": 64, "head_start": 5}}
    one = build_algorithm(_config(problem, **values), kind)  # type: ignore[arg-type]
    two = build_algorithm(_config(problem, num_learners=2, **values), kind)  # type: ignore[arg-type]
    # The same first parameters and numbers everywhere.
    two.learner_group.set_state(one.learner_group.get_state())
    two.learners.follow()
    if kind == "ppo":
        one.renormalise()
        two.renormalise()
        rollout = one.sample(16)
        losses = one.learners.learn("update_from_rollout", rollout=rollout, progress=0.0)
        shared = two.learners.learn("update_from_rollout", rollout=ray.put(rollout.arrays()), progress=0.0)
    else:
        one.train()
        two.learner_group.set_state(one.learner_group.get_state())
        two.learners.follow()
        batches = [one.replay.rows(64, torch.Generator().manual_seed(n)) for n in range(8)]
        rows = torch.stack(batches).numpy()
        losses = one.learners.learn("update_from_batches", rows=rows)
        shared = two.learners.learn("update_from_batches", rows=ray.put(rows))
    for name, value in one.net.state_dict().items():
        torch.testing.assert_close(two.net.state_dict()[name], value, rtol=1e-3, atol=2e-5, msg=name)
    assert shared == pytest.approx(losses, rel=1e-3, abs=1e-4)
    two.train()
    assert two.updates > one.updates
    one.stop()
    two.stop()


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_runners_in_other_processes(kind: str, local_ray: None) -> None:
    problem = "Toy" if kind == "sac" else "DiscreteToy"
    values: dict[str, Any] = {"algorithm": kind, "batch_size": 64, "num_envs": 8, "num_env_runners": 2}
    values |= {"ppo": {"rollout_length": 32, "minibatch": 64}, "sac": {"learning_starts": 64, "head_start": 5}}
    algo = build_algorithm(_config(problem, **values), kind)  # type: ignore[arg-type]
    result = algo.train()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == algo.steps_done
    assert algo.sampled.rows > 0
    assert algo.updates > 0
    rollout = algo.sample(4)
    assert rollout.valid.shape == (4, 8)
    # Environments of different runners differ, and rows of one runner do too.
    first = rollout.observation[0, :, 0]
    assert len(first.unique()) == 8
    # A runner dies in its process: the others' experience is learned from, and it comes back.
    group = algo.env_runner_group
    pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    before, rows = algo.steps_done, []
    for _ in range(20):
        algo.train()
        rows.append(algo.sampled.rows)
        if group.num_healthy_remote_env_runners() == 2 and len(rows) > 3:
            break
    assert algo.steps_done > before
    assert group.num_healthy_remote_env_runners() == 2
    algo.stop()


@pytest.mark.parametrize(("minibatch", "parts"), [(0.3, 3), (0.24, 4), (0.26, 4), (0.6, 2), (0.7, 1), (2.0, 1)])
def test_epochs_are_cut_into_equal_minibatches(minibatch: float, parts: int, local_ray: None) -> None:
    algo = build_algorithm(_config("Toy", ppo={"rollout_length": 32, "minibatch": 128, "epochs": 1}), "ppo")
    algo.train()
    learner = algo.learner
    rollout = algo.sample(32)
    n = int(rollout.valid.sum())
    assert not rollout.whole
    size = min(round(minibatch * n), n)
    learner.training = learner.training.model_copy(
        update={"ppo": learner.training.ppo.model_copy(update={"minibatch": size})}
    )
    before, seen = learner.updates, []
    learner._step = lambda batch: (seen.append(batch["features"].clone()), torch.zeros(3))[1]
    learner.update_from_rollout(rollout, 0.0)
    assert [len(batch) for batch in seen] == [size] * parts
    assert learner.updates - before == parts
    # Each decision once before any comes a second time.
    everything = torch.cat(seen)[:n].tolist()
    wanted = learner._rows(rollout)["features"].tolist()
    count = {tuple(row): wanted.count(row) for row in everything}
    assert all(everything.count(list(row)) <= times for row, times in count.items())
    algo.stop()


def test_rllib_evaluation(local_ray: None) -> None:
    """`evaluation_interval` works as for any other algorithm: without exploration, beside training."""
    config = TrainingConfig(environment="CartPole-v1", seed=2, num_envs=16, gamma=0.98, steps=20_000, ppo=SHORT)
    rllib = PPOConfig.of(config).evaluation(evaluation_interval=2, evaluation_duration=12)
    algo = rllib.algo_class(config=rllib)
    assert "evaluation" not in algo.train()
    before = {name: value.clone() for name, value in algo.policy.state_dict().items()}
    found = algo.train()["evaluation"]["env_runners"]
    assert found["num_episodes"] >= 12
    assert found["episode_return_mean"] == found["episode_len_mean"] > 5
    assert found["reward_return"] == pytest.approx(1.0)
    assert any(not torch.equal(value, before[name]) for name, value in algo.policy.state_dict().items())
    while algo.steps_done < 5_000:
        algo.train()
    # The same policy explores less well than it acts.
    assert algo.evaluate()["env_runners"]["episode_return_mean"] > np.mean(algo.sampled.returns)
    algo.stop()
