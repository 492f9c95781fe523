"""Learning for several objectives: scalarisations, constraints, where preferences are drawn, critics that see more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.training import TrainingConfig, build_algorithm
from rlaas.training.conditioning import lattice, sample_preferences
from rlaas.training.scalarisation import ReturnModel, chebyshev_weights, expected_gains

BASE: dict[str, Any] = {"scenario": "training_toys:Toy", "seed": 3, "num_envs": 16, "hidden": (32, 32), "gamma": 0.5}
SAC: dict[str, Any] = BASE | {
    "algorithm": "sac",
    "steps": 12_000,
    "sac": {"learning_starts": 500, "updates_per_step": 0.1, "head_start": 100, "actor_learning_rate": 1e-3},
}
PPO: dict[str, Any] = BASE | {
    "algorithm": "ppo",
    "steps": 30_000,
    "learning_rate": 2e-3,
    "ppo": {"rollout_length": 32, "minibatch": 128},
}


def _trained(values: dict[str, Any]) -> Any:
    config = TrainingConfig(**values)
    algo = build_algorithm(config, values["algorithm"])
    while algo.steps_done < config.steps:
        algo.train()
    return algo


def _hollow_returns(algo: Any, weight: float) -> list[float]:
    """Expected rewards of the hollow toy under a preference."""
    n = 4_000
    with torch.no_grad():
        heads = algo.policy(torch.rand(n, 2), torch.tensor([[weight, 1.0 - weight]] * n))
        noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
        share = (torch.tanh(heads["mean"] + heads["log_std"].exp() * noise)[:, 0] + 1.0) / 2.0
    return [float((share**2).mean()), float(((1.0 - share) ** 2).mean())]


@pytest.mark.ray
def test_chebyshev_reaches_where_no_weighted_sum_does(local_ray: None) -> None:
    linear = _trained(SAC | {"scenario": "training_toys:HollowToy"})
    chebyshev = _trained(SAC | {"scenario": "training_toys:HollowToy", "scalarisation": "chebyshev"})
    assert min(_hollow_returns(linear, 0.5)) < 0.1
    assert min(_hollow_returns(chebyshev, 0.5)) > 0.2
    # And it still follows the preference: from one end of the front to the other, in order.
    first = [_hollow_returns(chebyshev, weight)[0] for weight in (0.1, 0.4, 0.6, 0.9)]
    assert first == sorted(first)
    assert first[0] < 0.15
    assert first[-1] > 0.8
    linear.stop()
    chebyshev.stop()


@given(seed=st.integers(0, 500), m=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_chebyshev_weights_are_the_utilitys_gradient(seed: int, m: int) -> None:
    """Where one gap is clearly the largest, they point at it, up to the augmentation; always non-negative, sum 1."""
    rng = np.random.default_rng(seed)
    preference = torch.from_numpy(rng.dirichlet(np.ones(m), 6)).float()
    returns, ideal = torch.from_numpy(rng.random((6, m))).float(), torch.ones(m)
    weights = chebyshev_weights(preference, returns, ideal)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    assert (weights >= 0).all()
    gaps = preference * (1.0 - returns)
    top, second = gaps.topk(2, dim=1).values.T
    clear = second < 0.3 * top
    worst = gaps.argmax(dim=1)
    # Its share of what the softmax lets through, weighed by the preferences.
    assert (weights[clear].argmax(dim=1) == worst[clear]).float().mean() >= 0.5 or not clear.any()
    far = chebyshev_weights(preference, ideal.expand(6, m), ideal)
    torch.testing.assert_close(far, preference)


def test_a_return_model_learns_what_it_is_shown() -> None:
    torch.manual_seed(1)
    model, rng = ReturnModel(3), np.random.default_rng(1)
    optimizer = model.optimizer()
    for _ in range(600):
        preference = torch.from_numpy(rng.dirichlet(np.ones(3), 128)).float()
        model.fit(optimizer, preference, 2.0 * preference.sqrt() + 0.1 * torch.randn(128, 3))
    asked = torch.from_numpy(rng.dirichlet(np.ones(3) * 3, 200)).float()
    with torch.no_grad():
        assert float((model(asked) - 2.0 * asked.sqrt()).abs().mean()) < 0.1
    # The best of all times, and a little more.
    assert (model.ideal() > 2.0).all()
    assert (model.ideal() < 3.2).all()


def test_gains_are_where_returns_still_grow() -> None:
    now = np.array([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]])
    before = np.array([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]])
    chances = expected_gains(now, before)
    assert chances.argmax() == 1
    assert chances[1] > 0.99
    np.testing.assert_allclose(expected_gains(now, now), 1 / 3)


@pytest.mark.parametrize(("m", "at_most", "size"), [(2, 64, 64), (3, 64, 55), (4, 64, 56), (1, 64, 1), (4, 2, 4)])
def test_lattices_fit(m: int, at_most: int, size: int) -> None:
    points = lattice(m, at_most)
    assert points.shape == (size, m)
    np.testing.assert_allclose(points.sum(axis=1), 1.0)
    assert len(np.unique(points, axis=0)) == size


def test_half_of_the_preferences_come_from_the_focus() -> None:
    points, chances = np.array([[0.2, 0.8], [0.7, 0.3]]), np.array([0.25, 0.75])
    drawn = sample_preferences(8_000, np.array([[0.5, 0.5]]), np.random.default_rng(1), (points, chances))
    shares = [float((drawn == point).all(axis=1).mean()) for point in points]
    assert shares == pytest.approx([0.125, 0.375], abs=0.02)


@pytest.mark.ray
@pytest.mark.parametrize("values", [SAC, PPO], ids=["sac", "ppo"])
def test_preferences_follow_the_expected_gain(values: dict[str, Any], local_ray: None) -> None:
    config = TrainingConfig(**values | {"preference_sampling": "hypervolume"})
    algo, seen = build_algorithm(config, values["algorithm"]), []
    for _ in range(12):
        algo.train()
        if algo.focus is not None:
            points, chances = algo.focus
            assert points.shape == (64, 2)
            assert chances.sum() == pytest.approx(1.0)
            seen.append(chances.max())
    # Now and then some preferences move more than others; where none do, all are drawn alike.
    assert max(seen) > 3 / 64
    rows = algo.runner.sample(num_timesteps=60).preference.numpy().reshape(-1, 2)
    on_lattice = np.isclose(rows[:, :1] * 63, np.round(rows[:, :1] * 63), atol=1e-4).mean()
    assert on_lattice > 0.4
    algo.stop()


@pytest.mark.ray
@pytest.mark.parametrize("values", [SAC, PPO], ids=["sac", "ppo"])
def test_a_constraint_is_kept(values: dict[str, Any], local_ray: None) -> None:
    """Following the target costs the mirror image; with a bound on that, all preferences give way."""
    constraints = [{"part": "mirror", "at_least": 0.6, "learning_rate": 2.0}]
    free, bound = _trained(values), _trained(values | {"constraints": constraints})

    def mirror(algo: Any) -> float:
        rollout = algo.runner.sample(num_timesteps=210)
        return float(rollout.reward[..., 1][rollout.valid].mean())

    assert mirror(free) < 0.55
    assert mirror(bound) > 0.57
    assert bound.multipliers[0] > 0.05
    assert bound.net.multipliers.tolist() == pytest.approx(bound.multipliers.tolist())
    rollout = bound.runner.sample(num_timesteps=21)
    # The margin's column: what is earned beyond the bound.
    torch.testing.assert_close(
        rollout.reward[..., 2][rollout.valid].double(), rollout.reward[..., 1][rollout.valid].double() - 0.6
    )
    free.stop()
    bound.stop()


@pytest.mark.ray
@pytest.mark.parametrize("values", [SAC, PPO], ids=["sac", "ppo"])
def test_a_centralised_critic_sees_its_environments_mean(values: dict[str, Any], local_ray: None) -> None:
    config = TrainingConfig(**values | {"centralised_critic": True, "options": {"rows": 2}, "constraints": []})
    algo = build_algorithm(config, values["algorithm"])
    algo.train()
    rollout = algo.runner.sample(num_timesteps=5)
    mean = rollout.observation.view(6, 16, 2, 2).mean(dim=2, keepdim=True).expand(-1, -1, 2, -1).reshape(6, 32, 2)
    torch.testing.assert_close(rollout.context(), mean)
    learner = algo.learner
    if values["algorithm"] == "ppo":
        with torch.no_grad():
            batch = learner._rows(rollout)
        learner.flat.value.grad.zero_()
        losses, flats = learner.total(learner.losses(batch)), (learner.flat,)
        losses.backward()
        wanted = [flat.value.grad.clone() for flat in flats]
        with torch.no_grad():
            learner._step(batch)
    else:
        batch = learner._read(algo.replay.sample(128, learner.generator))
        noise, flats = learner._noise(batch["action"]), (learner._flat_actor, learner._flat_others)
        assert batch["context"].shape == (128, 2)
        for flat in flats:
            flat.value.grad.zero_()
        learner.losses(batch, noise)[:3].sum().backward()
        wanted = [flat.value.grad.clone() for flat in flats]
        with torch.no_grad():
            learner._step(batch, noise)
    for flat, gradient in zip(flats, wanted, strict=True):
        torch.testing.assert_close(flat.value.grad, gradient, rtol=1e-4, atol=1e-5)
    # The policy that leaves the trainer does not need what the critic saw.
    assert algo.policy.body.layers[0].in_features == 4
    algo.stop()
