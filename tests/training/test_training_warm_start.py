"""Fits, checkpoints and bundles as starting points: what is taken over, what it brings, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from offline_logs import logged
from training_toys import DiscreteToy, Toy

from rlaas.bundles import load_bundle
from rlaas.errors import ConfigurationError
from rlaas.objectives import Preference
from rlaas.scenarios import ConstantController
from rlaas.training import FitSettings, TrainingConfig, build_algorithm, export_constant, fit_offline, train
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.warm_start import read_warm_start

ray = pytest.mark.usefixtures("local_ray")


def _config(kind: type[Toy], **more: Any) -> TrainingConfig:
    ppo = {"rollout_length": 32, "minibatch": 128}
    return TrainingConfig(
        **{"scenario": f"training_toys:{kind.__name__}", "steps": 6_000, "num_envs": 8, "ppo": ppo} | more
    )


def _fit(kind: type[Toy], output: Path, method: str = "iql", conditioned: bool = True, **settings: Any) -> Path:
    scenario = kind()
    preference = None if conditioned else Preference.uniform(scenario.objectives)
    chosen = FitSettings(**{"method": method, "epochs": 80, "gamma": 0.9} | settings)
    fit_offline(logged(scenario, 150), scenario, preference=preference, output=output, settings=chosen)
    return output


def _algorithm(config: TrainingConfig) -> Any:
    return build_algorithm(config, algorithm_of(config, problem_of(config)))


def _steps_to(config: TrainingConfig, reward: float) -> float:
    """Decisions until an iteration's mean reward is at least ``reward``; infinite if none is."""
    algo = _algorithm(config)
    try:
        while algo.steps_done < config.steps:
            before = algo.steps_done
            algo.train()
            if algo.sampled.scalar / algo.sampled.rows >= reward:
                return float(before)
    finally:
        algo.stop()
    return float("inf")


@ray
@pytest.mark.parametrize(("kind", "reward", "scratch"), [(Toy, 0.68, 1_024), (DiscreteToy, 0.62, 3_072)])
def test_fine_tuning_reaches_a_reward_in_fewer_steps(
    kind: type[Toy], reward: float, scratch: int, tmp_path: Path
) -> None:
    """A uniformly random log is worth the first decisions of training: a thousand of SAC, thousands of PPO."""
    start = _fit(kind, tmp_path)
    for seed in (1, 2, 3):
        assert _steps_to(_config(kind, seed=seed, warm_start=str(start)), reward) == 0
        assert _steps_to(_config(kind, seed=seed), reward) >= scratch


@ray
def test_a_fit_brings_policy_normaliser_and_critics(tmp_path: Path) -> None:
    start = _fit(Toy, tmp_path)
    algo = _algorithm(_config(Toy, warm_start=str(start)))
    try:
        warm = read_warm_start(start)
        assert algo.taken_over == {
            "path": str(tmp_path / "checkpoint"),
            "kind": "fit",
            "observations": logged(Toy(), 150).num_rows,
            "critics": "taken",
        }
        for name, value in algo.policy.state_dict().items():
            assert torch.equal(value, warm.policy[name]), name
        net = algo.learner.net
        for name, value in net.critic.state_dict().items():
            assert torch.equal(value[..., :2] if name.endswith("2") else value, warm.critics[f"critic.{name}"]), name
        assert not net.critic.weights[-1][..., 2].any()
        for mine, target in zip(net.critic.parameters(), net.target.parameters(), strict=True):
            assert torch.equal(mine, target)
        assert net.reward_scale.tolist() == pytest.approx(warm.scales["reward_scale"])
        # What the run observes is added to what the log held.
        scale = net.reward_scale.clone()
        for _ in range(2):
            algo.train()
        assert torch.equal(net.reward_scale, scale)
        assert algo.moments.count >= 1_144 + 1_024
        table = np.array(logged(Toy(), 150).column("observation").to_pylist())
        prior, count = warm.moments, 1_144.0
        np.testing.assert_allclose(prior["mean"], table.mean(axis=0), rtol=1e-6)
        later = (algo.moments.mean * algo.moments.count - prior["mean"] * count) / (algo.moments.count - count)
        assert abs(later[0]) < 0.1
        assert later[1] == pytest.approx(0.5, abs=0.05)
    finally:
        algo.stop()


@ray
def test_a_value_network_serves_ppo_where_it_means_the_same(tmp_path: Path) -> None:
    """One objective: the fit's value is PPO's, in PPO's scale. Another discount factor means another value."""
    scenario = problem_of(TrainingConfig(environment="CartPole-v1"))
    env = scenario.vector_env(8, seed=0)
    observation, _ = env.reset()
    rows: dict[str, list[Any]] = {name: [] for name in ("observation", "action", "next_observation", "terminated")}
    rng, ended = np.random.default_rng(0), np.zeros(8, dtype=bool)
    for _ in range(60):
        action = rng.integers(2, size=8)
        following, _, terminated, truncated, _ = env.step(action)
        for i in np.flatnonzero(~ended):
            values = (observation[i].tolist(), [float(action[i])], following[i].tolist(), bool(terminated[i]))
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
        ended, observation = terminated | truncated, following
    n = len(rows["action"])
    outcomes = pa.array([[("return", 1.0)]] * n, type=pa.map_(pa.string(), pa.float64()))
    table = pa.table({**rows, "outcome": outcomes, "truncated": [False] * n})
    settings = FitSettings(method="iql", epochs=2, gamma=0.98)
    fit_offline(table, scenario, preference=None, output=tmp_path, settings=settings)
    taken = {}
    for gamma in (0.98, 0.9):
        algo = _algorithm(TrainingConfig(environment="CartPole-v1", steps=512, gamma=gamma, warm_start=str(tmp_path)))
        try:
            taken[gamma] = algo.taken_over["critics"]
            if gamma == 0.98:
                warm, net = read_warm_start(tmp_path), algo.learner.net
                features = torch.randn(5, 4)
                fitted = {k.removeprefix("value."): v for k, v in warm.critics.items() if k.startswith("value.")}
                ours = net.critic(features)
                net.critic.load_state_dict(fitted)
                theirs = net.critic(features)
                # Values per unit of reward agree.
                expected = theirs / warm.scales["reward_scale"][0]
                torch.testing.assert_close(ours / net.reward_scale, expected, rtol=1e-4, atol=1e-4)
        finally:
            algo.stop()
    assert taken == {0.98: "taken", 0.9: "not taken: their gamma is 0.98, this run's is 0.9"}


@ray
@pytest.mark.parametrize("kind", [Toy, DiscreteToy])
def test_checkpoints_and_bundles_start_runs_too(kind: type[Toy], tmp_path: Path) -> None:
    first = train(_config(kind, steps=2_048), output=tmp_path / "first")
    taken = {}
    for name, path in (("run", tmp_path / "first"), ("checkpoint", first.checkpoint), ("bundle", first.bundle)):
        algo = _algorithm(_config(kind, warm_start=str(path)))
        try:
            taken[name] = algo.taken_over
            policy = {key: value.clone() for key, value in algo.policy.state_dict().items()}
        finally:
            algo.stop()
        stored = read_warm_start(first.bundle).policy
        assert all(torch.equal(policy[key], stored[key]) for key in stored)
    assert taken["run"] == taken["checkpoint"]
    assert taken["run"]["critics"] == "taken"
    assert taken["run"]["observations"] >= 2_000
    assert taken["bundle"]["kind"] == "bundle"
    assert taken["bundle"]["critics"].startswith("not taken: there is no")
    assert taken["bundle"]["observations"] == 2_048
    again = train(_config(kind, steps=1_024, warm_start=str(first.bundle)), output=tmp_path / "second")
    assert load_bundle(again.bundle).manifest.lineage["warm_start"] == taken["bundle"]


def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    one = _fit(Toy, tmp_path / "one", conditioned=False, epochs=1)
    narrow = _fit(Toy, tmp_path / "narrow", hidden=(32, 32), epochs=1)
    ppo = _fit(Toy, tmp_path / "tanh", algorithm="ppo", epochs=1)
    choices = _fit(DiscreteToy, tmp_path / "choices", algorithm="sac", epochs=1)
    constant = export_constant(Toy(), ConstantController(np.zeros(1)).action, tmp_path / "constant")
    damaged = _fit(Toy, tmp_path / "damaged", epochs=1)
    (damaged / "checkpoint" / "policy.safetensors").write_bytes(b"no tensors")
    for path, message in (
        (tmp_path / "nowhere", "holds nothing to start from; allowed: the output folder"),
        (one, r"objectives 0 there, 2 in this run \(fit with conditioned: true\)"),
        (narrow, r"hidden \[32, 32\] there, \[64, 64\] in this run \(set hidden: \[32, 32\]\)"),
        (ppo, r"its networks are tanh, those of sac are relu \(fit with fit.algorithm: sac\)"),
        (choices, r"outputs 5 there, 2 in this run \(another action space\)"),
        (constant, "is a configuration, not a network"),
        (damaged, "is damaged"),
    ):
        with pytest.raises(ConfigurationError, match=message) as refused:
            train(_config(Toy, warm_start=str(path)), output=tmp_path / "out")
        assert refused.value.field == "warm_start"
    assert not (tmp_path / "out").exists()
