"""Training that stays on one device: the same experience and updates, and nothing asked of the device in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from rlaas.errors import ConfigurationError
from rlaas.training import TrainingConfig, build_algorithm, train
from rlaas.training.capture import Captured

BASE: dict[str, Any] = {
    "scenario": "network5g",
    "options": {"episode_steps": 9},
    "seed": 3,
    "num_envs": 4,
    "hidden": (16, 16),
    "preference_hold": 6,
    "batch_size": 32,
}
PPO = BASE | {"algorithm": "ppo", "steps": 960, "ppo": {"rollout_length": 20, "minibatch": 48, "epochs": 2}}
SAC = BASE | {
    "algorithm": "sac",
    "steps": 2_400,
    "sac": {"learning_starts": 600, "head_start": 20, "updates_per_step": 0.05},
}


class Fetches(TorchDispatchMode):
    """Notes where the host would have to wait for a number: also on a CPU, where nothing else would tell.

    It raises nothing, since torch takes an error within a call for an overload that does not fit, and tries the next.
    """

    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.masked_select", "aten._unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        by_mask = name.startswith("aten.index") and any(
            isinstance(part, torch.Tensor) and part.dtype == torch.bool
            for argument in args[1:2]
            if isinstance(argument, list | tuple)
            for part in argument
        )
        if by_mask or name.startswith(self.WAITING):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_fetches_are_seen() -> None:
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    with Fetches() as fetches:
        float(values[0])
        values[mask]
        values[mask] = 0.0
        values * 2.0 + values.sum()
    assert [name.split(".")[1] for name in fetches.seen] == ["_local_scalar_dense", "index", "index_put_"]


@pytest.mark.ray
@pytest.mark.parametrize("options", [PPO, SAC], ids=["ppo", "sac"])
def test_both_lanes_see_the_same(local_ray: None, options: dict[str, Any]) -> None:
    """From the same parameters and seeds: the same first observations, resets and preferences."""
    name = options["algorithm"]
    here, there = (build_algorithm(TrainingConfig(**options, device=device), name) for device in (None, "cpu"))
    there.net.load_state_dict(here.net.state_dict())
    for one in (here, there):
        one.runner._rng = np.random.default_rng(5)
    ours, theirs = (one.runner.sample(num_timesteps=20, explore=False) for one in (here, there))
    assert ours.whole is theirs.whole is False
    for field in ("terminated", "truncated", "valid"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
    # The first preferences were drawn before the generators were set alike.
    assert torch.equal(ours.preference[7:], theirs.preference[7:])
    assert len({tuple(row) for row in theirs.preference[:, 0].tolist()}) == 3
    torch.testing.assert_close(theirs.observation[0], ours.observation[0], rtol=1e-4, atol=1e-4)
    for one in (here, there):
        one.stop()


@pytest.mark.ray
def test_a_rollout_is_the_engines(local_ray: None) -> None:
    """The tensors' experience, action by action, is what the compiled engine answers to these actions."""
    algo = build_algorithm(TrainingConfig(**PPO, device="cpu"), "ppo")
    runner = algo.runner
    rollout = runner.sample(num_timesteps=20)
    env = runner.scenario.vector_env(4, seed=3)
    observation, _ = env.reset(seed=3)
    low, high = env.single_action_space.low, env.single_action_space.high
    returns, length, finished = np.zeros(12), 0, []
    for t in range(20):
        np.testing.assert_allclose(rollout.observation[t], observation, rtol=2e-3, atol=2e-3)
        actions = low + (rollout.action[t].numpy() + 1.0) / 2.0 * (high - low)
        was_over = t in (9, 19)
        observation, reward, _, truncated, _ = env.step(actions)
        assert bool(rollout.valid[t].all()) is not was_over
        np.testing.assert_array_equal(rollout.truncated[t], truncated)
        if was_over:
            continue
        np.testing.assert_allclose(rollout.reward[t], reward.clip(-20, 20), rtol=1e-3, atol=2e-3)
        returns += (reward * rollout.preference[t].numpy()).sum(axis=1)
        length += 1
        if truncated.any():
            finished += returns.tolist()
            returns, length = np.zeros(12), 0
    sums = runner.pop_rewards()
    assert sums.rows == 18 * 12
    assert sums.lengths == [9.0] * 24
    np.testing.assert_allclose(sums.returns, finished, rtol=1e-3, atol=1e-2)
    assert runner.pop_rewards().rows == 0
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("options", [PPO, SAC], ids=["ppo", "sac"])
def test_nothing_is_asked_of_the_device_in_between(local_ray: None, options: dict[str, Any]) -> None:
    constraint = {"part": "latency_urllc", "at_most": 1.0}
    config = TrainingConfig(**options, device="cpu", constraints=[constraint], centralised_critic=True)
    algo = build_algorithm(config, options["algorithm"])
    losses: list[torch.Tensor] = []

    def watched(work: Any, under: Any = None) -> Any:
        def call(*inputs: torch.Tensor) -> torch.Tensor:
            with Fetches() as fetches:
                losses.append(work(*inputs))
            assert fetches.seen == []
            return losses[-1]

        return call

    algo.learner.captured = watched
    while not losses:
        algo.train()
    assert all(bool(torch.isfinite(each).all()) for each in losses)
    with Fetches() as fetches:
        algo.runner.sample(num_timesteps=12)
    assert fetches.seen == []
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("options", [PPO, SAC], ids=["ppo", "sac"])
def test_an_update_is_the_other_lanes_update(local_ray: None, options: dict[str, Any]) -> None:
    """From the same experience and generators both learn the same: learning rate and clip are float32 here."""
    here, there = (
        build_algorithm(TrainingConfig(**options, device=device), options["algorithm"]) for device in (None, "cpu")
    )
    while not there.updates:
        there.train()
    here.learner.set_state(there.learner.get_state())
    if options is PPO:
        rollout = there.sample(20)
        for one in (here, there):
            one.learner.update_from_rollout(rollout, 0.3)
    else:
        for one in (here, there):
            one.learner.update_from_replay(there.replay, 5)
    mine, theirs = here.net.state_dict(), there.net.state_dict()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6, msg=name)
    for one in (here, there):
        one.stop()


@pytest.mark.ray
@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_actor_waits_for_just_so_many_updates(local_ray: None, device: str | None) -> None:
    head_start = 400
    config = TrainingConfig(**SAC | {"sac": SAC["sac"] | {"head_start": head_start}}, device=device)
    algo = build_algorithm(config, "sac")
    learner = algo.learner
    while not learner.updates:
        algo.train()
    weight = algo.net.policy.body.layers[-1].weight
    before = weight.clone()
    learner.update_from_replay(algo.replay, head_start - learner.updates)
    assert learner.updates == head_start
    assert torch.equal(weight, before)
    learner.update_from_replay(algo.replay, 1)
    assert not torch.equal(weight, before)
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("options", [PPO, SAC], ids=["ppo", "sac"])
def test_an_interrupted_run_goes_on_bit_for_bit(local_ray: None, tmp_path: Path, options: dict[str, Any]) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(done: int, of: int, row: Any) -> None:
        if done >= of // 2:
            raise Interrupted

    config = TrainingConfig(**options, device="cpu", checkpoint_interval=1, evaluation_seeds=[1], evaluation_steps=8)
    whole = train(config, output=tmp_path / "whole")
    assert whole.front is not None
    with pytest.raises(Interrupted):
        train(config, output=tmp_path / "parts", progress=interrupt)
    resumed = train(config, output=tmp_path / "parts", resume=True)
    mine, theirs = (load_file(run.bundle / "policy.safetensors") for run in (whole, resumed))
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name])
    assert whole.metrics["reward"] == resumed.metrics["reward"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"scenario": "recsys", "options": {}, "algorithm": "ppo"}, "device: recsys has no environments of tensors"),
        ({"options": {"delays": True}}, "the torch twin records none"),
        ({"options": {"control": "central"}}, "controlled by cell"),
        ({"ppo": {"memory": 8, "rollout_length": 8, "minibatch": 16}}, "ppo.memory and device cannot be combined"),
        ({"num_env_runners": 2}, "stays on one device has no num_env_runners"),
        ({"num_learners": 2}, "stays on one device has no num_learners"),
        ({"device": "tpu"}, "device: Input should be 'cpu' or 'cuda'"),
    ],
)
def test_what_cannot_stay_on_a_device_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        build_algorithm(TrainingConfig(**{**PPO, "device": "cpu", **change}), "ppo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="device cuda: torch finds no CUDA device here; leave device out"):
        build_algorithm(TrainingConfig(**PPO, device="cuda"), "ppo")


def test_work_is_called_as_it_is_where_there_are_no_graphs() -> None:
    total = torch.zeros(2)
    captured = Captured(total.add_, torch.device("cpu"))
    for _ in range(6):
        captured(torch.ones(2))
    assert total.tolist() == [6.0, 6.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.ray
@pytest.mark.parametrize("options", [PPO, SAC], ids=["ppo", "sac"])
def test_a_graph_learns_what_its_work_learns(local_ray: None, options: dict[str, Any]) -> None:
    graphed, plain = (build_algorithm(TrainingConfig(**options, device="cuda"), options["algorithm"]) for _ in "ab")
    plain.learner.captured = lambda work, under=None: work
    while graphed.updates < 40:
        graphed.train()
        plain.train()
    assert all(captured._graph is not None for captured in graphed.learner._captured.values())
    for name, value in graphed.net.state_dict().items():
        torch.testing.assert_close(value, plain.net.state_dict()[name], rtol=1e-3, atol=1e-4)
    for one in (graphed, plain):
        one.stop()
