"""Formulas against oracles written by others, or against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import Toy

from rlaas.training.conditioning import RunningMoments, anchors_of, reward_scale, sample_preferences, spread_preferences
from rlaas.training.distributions import squashed_sample
from rlaas.training.networks import TwinCritic
from rlaas.training.ppo_learner import generalised_advantages
from rlaas.training.replay import ReplayBuffer, Transitions
from rlaas.training.sac_learner import SACModule, utility


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 12),
    rows=st.integers(1, 4),
    gamma=st.floats(0, 0.999),
    lam=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_advantages_match_the_naive_sum(steps: int, rows: int, gamma: float, lam: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(steps, rows)), rng.normal(size=(steps + 1, rows))
    terminated = rng.random((steps, rows)) < 0.2
    truncated = (rng.random((steps, rows)) < 0.2) & ~terminated
    got = generalised_advantages(
        *(torch.from_numpy(a) for a in (reward, value, terminated, truncated)), gamma=gamma, lam=lam
    ).numpy()
    for n in range(rows):
        for t in range(steps):
            # Definition: sum over l of (gamma lam)^l delta_{t+l}, up to the episode's last step.
            expected, factor = 0.0, 1.0
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, n] else value[k + 1, n]
                expected += factor * (reward[k, n] + gamma * bootstrap - value[k, n])
                if terminated[k, n] or truncated[k, n]:
                    break
                factor *= gamma * lam
            assert got[t, n] == pytest.approx(expected, abs=1e-5)


def test_squashed_density_matches_torch() -> None:
    torch.manual_seed(0)
    mean, log_std = torch.randn(64, 3, dtype=torch.float64), torch.randn(64, 3, dtype=torch.float64) * 0.5
    noise = torch.randn(64, 3, dtype=torch.float64)
    action, log_prob = squashed_sample(mean, log_std, noise)
    base = torch.distributions.Normal(mean, log_std.exp())
    oracle = torch.distributions.TransformedDistribution(
        base, [torch.distributions.transforms.TanhTransform(cache_size=1)]
    )
    before = mean + log_std.exp() * noise
    assert torch.allclose(action, torch.tanh(before))
    # The oracle inverts the tanh, which loses digits near the ends: its cache keeps the value before.
    value = oracle.transforms[0](before)
    assert torch.allclose(log_prob, oracle.log_prob(value).sum(dim=1), atol=1e-9)


def test_stacked_critic_is_two_separate_networks() -> None:
    torch.manual_seed(0)
    critic = TwinCritic(5, (8, 6), 3)
    x = torch.randn(7, 5, requires_grad=True)
    for which in range(2):
        h = x
        for i in range(3):
            h = torch.nn.functional.linear(h, critic.weights[i][which].T, critic.biases[i][which, 0])
            h = torch.relu(h) if i < 2 else h
        assert torch.allclose(critic(x)[which], h, atol=1e-6)
    critic(x, frozen=True).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in critic.parameters())


def test_critics_preference_weighted_sum_is_in_the_utilitys_own_units() -> None:
    """Heads are learned in units of their own deviation; the sum the actor climbs must undo exactly that."""
    module = SACModule.__new__(SACModule)
    torch.nn.Module.__init__(module)
    module.register_buffer("reward_scale", torch.tensor([0.5, 4.0]))
    module.register_buffer("utility_scale", torch.tensor(2.0))
    module.n_objectives, module.n_constraints, module.chebyshev, module.returns = 2, 0, False, None
    returns = torch.tensor([[[3.0, -1.0]], [[2.0, 5.0]]])  # two twins, one row, two objectives
    entropy = torch.tensor([[[0.25]], [[0.5]]])
    heads = torch.cat((returns * module.reward_scale, entropy), dim=-1)
    preference = torch.tensor([[0.75, 0.25]])
    expected = 2.0 * (returns * preference).sum(dim=-1) + entropy.squeeze(-1)
    assert torch.allclose(utility(heads, module.weights(preference)), expected)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_preferences_lie_on_the_simplex(n: int, seed: int) -> None:
    drawn = sample_preferences(n, anchors_of(Toy()), np.random.default_rng(seed))
    assert drawn.shape == (n, 2)
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)


def test_anchors_and_corners_are_drawn_often() -> None:
    drawn = sample_preferences(4000, anchors_of(Toy()), np.random.default_rng(0))
    follow = np.isclose(drawn, [0.9, 0.1]).all(axis=1).mean()
    corner = (drawn.max(axis=1) == 1.0).mean()
    assert follow == pytest.approx(0.125, abs=0.02)
    assert corner == pytest.approx(0.1, abs=0.02)
    assert len(np.unique(drawn, axis=0)) > 2000


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 5), n=st.integers(1, 40))
def test_spread_preferences_are_distinct_and_start_plain(m: int, n: int) -> None:
    names = [f"o{i}" for i in range(m)]
    spread = spread_preferences(names, n)
    assert len({p.weights for p in spread}) == len(spread) == (1 if m == 1 else n)
    assert spread[0].weights == pytest.approx([1 / m] * m)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 100))
def test_moments_do_not_depend_on_the_chunks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunks = [rng.normal(5, 3, size=(n, 2)) for n in sizes]
    moments = RunningMoments(2)
    for chunk in chunks:
        moments.update(chunk)
    everything = np.concatenate(chunks)
    if len(everything) >= 2:
        np.testing.assert_allclose(moments.mean, everything.mean(axis=0))
        np.testing.assert_allclose(moments.deviation(), np.maximum(everything.std(axis=0), 1e-3))
    copied = RunningMoments(2)
    copied.set_state(moments.get_state())
    np.testing.assert_array_equal(copied.deviation(), moments.deviation())


def test_reward_scale_survives_constants() -> None:
    assert reward_scale(2.0, 0.0) == 0.5
    # A constant counts the steps; what varies a little is not blown up.
    assert reward_scale(0.0, -4.0) == 0.25
    assert reward_scale(1e-7, 1.0) == 1.0
    assert reward_scale(0.001, 1.0) == pytest.approx(100.0)
    assert reward_scale(0.0, 0.0) == 1.0


def _numbered(first: int, n: int) -> Transitions:
    column = torch.arange(first, first + n, dtype=torch.float32)[:, None]
    return Transitions(
        column.repeat(1, 2),
        column,
        column.repeat(1, 2),
        column.repeat(1, 2),
        column * 0,
        column.repeat(1, 2) + 0.5,
        column[:, :0],
        column[:, :0],
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_replay_keeps_the_newest(sizes: list[int]) -> None:
    replay = ReplayBuffer(7, [2, 1, 2, 2, 1, 2, 0, 0])
    first = 0
    for n in sizes:
        replay.add(_numbered(first, n))
        first += n
    kept = sorted(replay.stored().action.squeeze(1).tolist())
    assert kept == list(range(max(0, first - 7), first))
    stored = replay.stored()
    assert torch.equal(stored.next_observation, stored.action.repeat(1, 2) + 0.5)
    drawn = replay.sample(50, torch.Generator().manual_seed(1))
    assert set(drawn.action.squeeze(1).tolist()) <= set(kept)
    copied = ReplayBuffer(7, [2, 1, 2, 2, 1, 2, 0, 0])
    copied.set_state(replay.get_state())
    for buffer in (replay, copied):
        buffer.add(_numbered(first, 3))
    assert torch.equal(copied.stored().action, replay.stored().action)
