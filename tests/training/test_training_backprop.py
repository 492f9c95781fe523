"""The passes written out against autograd, and PPO's step against the losses it is made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlaas.training import TrainingConfig, build_algorithm
from rlaas.training.backprop import FlatAdam, FlatParameters, Pass, TwinPass
from rlaas.training.networks import GatedMLP, TwinCritic


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    objectives=st.integers(0, 3),
    activation=st.sampled_from(["tanh", "relu"]),
    rows=st.integers(1, 7),
)
def test_a_pass_is_what_autograd_says(seed, hidden, objectives, activation, rows):
    torch.manual_seed(seed)
    net = GatedMLP(4, objectives, hidden, 3, activation=activation, last_gain=1.0).double()
    flat = FlatParameters(net.parameters())
    features, toward = torch.randn(rows, 4 + objectives).double(), torch.randn(rows, 3).double()
    out = net(features)
    (out * toward).sum().backward()
    wanted = flat.value.grad.clone()
    assert wanted.abs().max() > 0
    flat.value.grad.fill_(torch.nan)
    with torch.no_grad():
        one = Pass(net)
        torch.testing.assert_close(one.forward(features), out.detach())
        one.backward(toward)
        torch.testing.assert_close(flat.value.grad, wanted)
        # Of some rows alone, as if they had come alone.
        one.forward(torch.cat((torch.randn_like(features), features)))
        one.backward(toward, slice(rows, 2 * rows))
    torch.testing.assert_close(flat.value.grad, wanted)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3), rows=st.integers(1, 7))
def test_a_twin_pass_is_what_autograd_says(seed, hidden, rows):
    torch.manual_seed(seed)
    net = TwinCritic(5, hidden, 3).double()
    flat = FlatParameters(net.parameters())
    inputs, toward = torch.randn(rows, 5).double().requires_grad_(), torch.randn(2, rows, 3).double()
    out = net(inputs)
    (out * toward).sum().backward()
    wanted = flat.value.grad.clone()
    flat.value.grad.fill_(torch.nan)
    with torch.no_grad():
        one = TwinPass(net)
        torch.testing.assert_close(one.forward(inputs), out.detach())
        torch.testing.assert_close(one.to_inputs(toward), inputs.grad)
        one.backward(toward)
    torch.testing.assert_close(flat.value.grad, wanted)


def test_a_step_is_adams():
    torch.manual_seed(1)
    ours, theirs = (nn.Parameter(torch.arange(7.0)) for _ in range(2))
    mine, reference = FlatAdam([ours], lr=0.1, eps=1e-7, fused=True), torch.optim.Adam([theirs], lr=0.1, eps=1e-7)
    for number in range(6):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        if number == 3:
            # The state is Adam's: either may go on with the other's.
            again = FlatAdam([ours], lr=0.1, eps=1e-7, fused=True)
            again.load_state_dict(mine.state_dict())
            mine = again
        mine.advance()
        reference.step()
        torch.testing.assert_close(ours, theirs)
    assert float(mine.state[ours]["step"]) == 6


def test_parameters_live_in_one_vector():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flat = FlatParameters(net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    net.load_state_dict({name: torch.full_like(value, 0.5) for name, value in before.items()})
    assert torch.equal(flat.value.detach(), torch.full((11,), 0.5))
    torch.optim.SGD([flat.value], lr=0.0).zero_grad(set_to_none=False)
    net(torch.ones(4, 3)).sum().backward()
    by_hand = [parameter.grad.clone() for parameter in net.parameters()]
    assert torch.equal(flat.value.grad, torch.cat([gradient.flatten() for gradient in by_hand]))
    wanted = float(torch.linalg.vector_norm(flat.value.grad)) / 2
    flat.clip(wanted)
    assert float(torch.linalg.vector_norm(flat.value.grad)) == pytest.approx(wanted, rel=1e-5)
    flat.clip(2 * wanted)
    assert float(torch.linalg.vector_norm(flat.value.grad)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.ray
@pytest.mark.parametrize("problem", ["training_toys:Toy", "training_toys:DiscreteToy", "CartPole-v1"])
def test_a_step_of_ppo_has_the_gradients_of_its_losses(problem: str, local_ray: None) -> None:
    name = "environment" if problem == "CartPole-v1" else "scenario"
    values: dict[str, Any] = {name: problem, "seed": 4, "num_envs": 16, "hidden": (24, 16), "algorithm": "ppo"}
    ppo: dict[str, Any] = {"rollout_length": 32, "minibatch": 128}
    if problem == "training_toys:Toy":
        ppo["final_noise"] = 0.1
    algo = build_algorithm(TrainingConfig(**values, steps=4_096, ppo=ppo), "ppo")
    for _ in range(3):
        algo.train()
    assert "final_noise" not in ppo or algo.learner.net.policy.noise[1] < -0.1
    learner = algo.learner
    with torch.no_grad():
        rows = learner._rows(algo.sample(32))
    # Far enough from the policy that acted that both bounds of the ratio are met.
    rows["log_prob"] = rows["log_prob"] + 0.5 * torch.randn(len(rows["log_prob"]), 1, generator=learner.generator)
    batch = {name: value[:256] for name, value in rows.items()}
    learner.flat.value.grad.zero_()
    parts = learner.losses(batch)
    learner.compute_loss_for_module(module_id="", config=None, batch=batch, fwd_out=None).backward()
    wanted = learner.flat.value.grad.clone()
    with torch.no_grad():
        ours = learner._step(batch)
    torch.testing.assert_close(ours, parts.detach())
    torch.testing.assert_close(learner.flat.value.grad, wanted, rtol=1e-4, atol=1e-6)
    assert wanted.abs().max() > 1e-2
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("runners", [0, 1])
def test_noise_falls_to_its_share_and_runners_follow(runners: int, local_ray: None) -> None:
    settings: dict[str, Any] = {"rollout_length": 16, "minibatch": 64, "final_noise": 0.05, "noise_from": 0.5}
    config = TrainingConfig(
        scenario="training_toys:Toy", num_envs=8, steps=1_024, num_env_runners=runners, algorithm="ppo", ppo=settings
    )
    algo = build_algorithm(config, "ppo")
    seen = []
    for _ in range(9):
        algo.train()
        seen.append(float(algo.learner.net.policy.noise[1]))
    # From half of the training on by the same factor for each decision; the first rollout has none behind it.
    assert seen == pytest.approx([math.log(0.05) * max(0, share - 4) / 4 for share in range(9)])
    rollout, policy = algo.sample(16), algo.learner.net.policy
    with torch.no_grad():
        asked = policy.heads(policy.features(rollout.observation[0], rollout.preference[0]))["log_std"]
    torch.testing.assert_close(rollout.extras["log_std"][0], asked)
    assert asked.max() < math.log(0.05) + 0.5, "what the policy asks for itself has hardly changed"
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize(
    "problem", ["training_toys:Toy", "Pendulum-v1", "training_toys:DiscreteToy", "training_toys:MaskedToy"]
)
@pytest.mark.parametrize("head_start", [0, 1_000_000])
def test_a_step_of_sac_has_the_gradients_of_its_losses(problem: str, head_start: int, local_ray: None) -> None:
    name = "environment" if problem == "Pendulum-v1" else "scenario"
    values: dict[str, Any] = {name: problem, "seed": 4, "num_envs": 4, "hidden": (24, 16), "algorithm": "sac"}
    sac = {"learning_starts": 300, "head_start": head_start}
    algo = build_algorithm(TrainingConfig(**values, steps=100_000, sac=sac), "sac")
    algo.train()
    learner = algo.learner
    batch = learner._read(algo.replay.sample(256, learner.generator))
    # Some errors beyond Huber's bound.
    batch["reward"] = batch["reward"] * 6.0
    noise = learner._noise(batch["action"])
    flats = (learner._flat_actor.value, learner._flat_others.value)
    for flat in flats:
        flat.grad.zero_()
    parts = learner.losses(batch, noise)
    parts[:3].sum().backward()
    wanted = [flat.grad.clone() for flat in flats]
    for flat in flats:
        flat.grad.fill_(torch.nan)
    with torch.no_grad():
        ours = learner._step(batch, noise)
    torch.testing.assert_close(ours, parts.detach(), rtol=1e-4, atol=1e-5)
    for flat, gradient in zip(flats, wanted, strict=True):
        torch.testing.assert_close(flat.grad, gradient, rtol=1e-4, atol=1e-5)
    assert (wanted[0].abs().max() > 1e-4) == (head_start == 0)
    assert wanted[1].abs().max() > 1e-2
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("jointly", [False, True])
def test_gradients_are_clipped_by_themselves_or_jointly(jointly: bool, local_ray: None) -> None:
    settings: dict[str, Any] = {"rollout_length": 16, "minibatch": 64, "max_grad_norm": 0.5, "clip_jointly": jointly}
    config = TrainingConfig(scenario="training_toys:DiscreteToy", num_envs=8, steps=2_000, gamma=0.5, ppo=settings)
    algo = build_algorithm(config, "ppo")
    learner = algo.learner
    gradient, size = learner.flat.value.grad, learner._policy_size
    gradient[:size], gradient[size:] = 1.0, 100.0
    with torch.no_grad():
        learner._advance()
    policy, critic = (float(torch.linalg.vector_norm(part)) for part in (gradient[:size], gradient[size:]))
    assert critic == pytest.approx(0.5, rel=1e-3)
    # Jointly the policy is left with its share of a norm that is nearly all the critic's.
    assert policy == pytest.approx(0.5, rel=1e-3) if not jointly else policy < 0.02
    algo.stop()
