from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation.priors import GaussianPrior
from rlaas.experiments.allocation.regret import (
    bernoulli_divergence,
    gaussian_divergence,
    geometric_batches,
    lai_robbins,
    sequential_regret,
    simulated_regret,
)
from rlaas.experiments.allocation.thompson import Fixed, Thompson

TEN = (0.1, 0.05, 0.05, 0.05, 0.02, 0.02, 0.02, 0.01, 0.01, 0.01)
"""The ten arms of Kaufmann, Korda & Munos 2012 and of Garivier & Cappe 2011."""


def test_divergences_agree_with_scipy() -> None:
    for p, q in ((0.8, 0.9), (0.05, 0.1), (0.0, 0.3), (1.0, 0.2), (0.4, 0.4)):
        expected = special.rel_entr([p, 1 - p], [q, 1 - q]).sum()
        assert bernoulli_divergence(p, q) == pytest.approx(expected, abs=1e-15)
    assert bernoulli_divergence(0.5, 1.0) == math.inf
    one, two = stats.norm(0, 2), stats.norm(0.7, 2)
    exact = integrate.quad(lambda x: one.pdf(x) * (one.logpdf(x) - two.logpdf(x)), -30, 30)[0]
    assert gaussian_divergence(0.7, 2.0) == pytest.approx(exact, rel=1e-9)
    # Of unknown variance: the nearest normal with the better mean, over all variances.
    scales = np.linspace(1.5, 4, 20_001)
    nearest = (np.log(scales / 2) + (4 + 0.49) / (2 * scales**2) - 0.5).min()
    assert gaussian_divergence(0.7, 2.0, known=False) == pytest.approx(nearest, rel=1e-6)


def test_bound_of_published_settings() -> None:
    # Two arms 0.1 apart: 0.1 / KL(0.8, 0.9).
    kl = 0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1)
    assert lai_robbins((0.9, 0.8)) == pytest.approx(0.1 / kl)
    parts = [n * (0.1 - m) / bernoulli_divergence(m, 0.1) for n, m in ((3, 0.05), (3, 0.02), (3, 0.01))]
    assert lai_robbins(TEN) == pytest.approx(sum(parts))
    assert lai_robbins((1.0, 0.5, 1.0), noise=2.0) == pytest.approx(2 * 2.0**2 / 0.5)
    assert lai_robbins((1.0, 0.5), noise=2.0, known=False) > lai_robbins((1.0, 0.5), noise=2.0)
    assert lai_robbins((0.3, 0.3)) == 0.0


def test_batches_grow_and_fill_the_horizon() -> None:
    sizes = geometric_batches(1000, growth=0.2, first=10)
    assert sum(sizes) == 1000
    done = np.cumsum([0, *sizes])
    assert all(size == max(10, int(0.2 * before)) for size, before in zip(sizes[:-1], done, strict=False))


@pytest.mark.parametrize("seed", range(5))
def test_regret_of_thompson_grows_like_the_bound(seed: int) -> None:
    """Bernoulli .9/.8, 60 runs of 6,000 decisions: the level lies below the limit's bound, the slope near it."""
    marks = (600, 6000)
    regret = sequential_regret((0.9, 0.8), 6000, 60, np.random.default_rng(seed), checkpoints=marks)
    early, late = regret.mean(axis=0)
    bound = lai_robbins((0.9, 0.8))
    assert 0.25 < late / (bound * math.log(6000)) < 0.95
    # Three standard errors of a slope that is 0.6 to 1.1 of the bound's.
    noise = 3 * np.diff(regret, axis=1).std() / math.sqrt(60) / (bound * math.log(10))
    assert 0.6 - noise < (late - early) / (bound * math.log(10)) < 1.1 + noise
    assert late < 0.1 * 0.05 * 6000  # uniform allocation loses 0.05 a decision


@pytest.mark.parametrize("seed", range(5))
def test_regret_of_normal_rewards_stays_below_uniform(seed: int) -> None:
    regret = sequential_regret((0.0, -0.5), 3000, 40, np.random.default_rng(seed), noise=1.0).mean()
    assert 0.2 < regret / (lai_robbins((0.0, -0.5), noise=1.0) * math.log(3000)) < 1.2
    assert regret < 0.1 * 0.25 * 3000


def test_the_allocator_with_a_batch_of_one_is_sequential_thompson() -> None:
    means, horizon = (0.7, 0.4), 40
    ours = [
        simulated_regret(Thompson(arms=("a", "b")), means, [1] * horizon, np.random.default_rng(seed))[-1]
        for seed in range(20)
    ]
    theirs = sequential_regret(means, horizon, 4000, np.random.default_rng(9))[:, 0]
    spread = math.hypot(np.std(ours) / math.sqrt(20), theirs.std() / math.sqrt(4000))
    assert abs(np.mean(ours) - theirs.mean()) < 4 * spread


def test_the_allocator_in_batches_stays_near_sequential_and_far_from_uniform() -> None:
    batches = geometric_batches(5000, growth=0.2, first=20)
    lost, rival = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        lost.append(simulated_regret(Thompson(arms=("a", "b")), (0.9, 0.8), batches, rng)[-1])
        even = Fixed(arms=("a", "b"), weights={"a": 1, "b": 1})
        rival.append(simulated_regret(even, (0.9, 0.8), batches, rng)[-1])
    assert np.mean(rival) == pytest.approx(0.05 * 5000, rel=0.05)
    assert np.mean(lost) < 0.15 * np.mean(rival)
    normal = Thompson(arms=("a", "b"), prior=GaussianPrior(mean=0.0, variance=1.0))
    found = simulated_regret(normal, (0.0, -0.5), batches, np.random.default_rng(0), noise=1.0)
    assert (np.diff(found) >= 0).all()
    assert found[-1] < 0.15 * 0.25 * 5000


@pytest.mark.parametrize(
    ("means", "noise", "field"),
    [((0.5,), None, "means"), ((0.5, 1.5), None, "means"), ((0.5, math.nan), 1.0, "means"), ((0, 1), 0.0, "noise")],
)
def test_impossible_arms_are_refused(means: tuple[float, ...], noise: float | None, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        lai_robbins(means, noise=noise)
    assert caught.value.field == field
