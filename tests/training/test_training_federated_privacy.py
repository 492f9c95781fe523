"""The accountant against published formulas and values, and the noise against its distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from rlaas.training.federated.noise import discrete_gaussian
from rlaas.training.federated.privacy import epsilon_of, plan_noise


def _exact_delta(rho: float, epsilon: float) -> float:
    """Of one Gaussian mechanism with that loss: Balle and Wang 2018 (arXiv 1805.06530), theorem 8."""
    mu = math.sqrt(2 * rho)
    return float(stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu))


@pytest.mark.parametrize("rho", [1e-3, 0.02, 0.5, 3.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_epsilon_lies_between_the_exact_one_and_bun_and_steinkes(rho: float, delta: float) -> None:
    ours = epsilon_of(rho, delta)
    exact = optimize.brentq(lambda e: _exact_delta(rho, e) - delta, 0.0, 200.0)
    assert exact <= ours <= rho + 2 * math.sqrt(rho * math.log(1 / delta))
    assert ours < 1.35 * exact + 0.02


# Computed with dp-accounting 0.6.0 (Google): RdpAccountant with GaussianDpEvent(noise_multiplier) composed `rounds`
# times over the orders 1 + 10^(-3 .. 3) in 20,000 steps, get_epsilon(delta).
PUBLISHED = [
    (1.0, 1, 1e-5, 4.728387),
    (4.0, 20, 1e-3, 4.052655),
    (0.8, 5, 1e-6, 17.598762),
    (10.0, 500, 1e-9, 16.118797),
]


@pytest.mark.parametrize(("multiplier", "rounds", "delta", "epsilon"), PUBLISHED)
def test_epsilon_is_that_of_a_published_accountant(
    multiplier: float, rounds: int, delta: float, epsilon: float
) -> None:
    assert epsilon_of(rounds * 0.5 / multiplier**2, delta) == pytest.approx(epsilon, rel=1e-4)


def test_nothing_spent_is_epsilon_zero() -> None:
    assert epsilon_of(0.0, 1e-5) == 0.0


@pytest.mark.parametrize("honest", [1, 2, 9])
@pytest.mark.parametrize(("clip", "multiplier"), [(1.0, 1.0), (0.01, 5.0), (30.0, 0.3)])
def test_a_round_costs_what_the_gaussian_mechanism_costs_and_never_less(
    clip: float, multiplier: float, honest: int
) -> None:
    plan = plan_noise(clip=clip, multiplier=multiplier, size=10_000, honest=honest)
    gaussian = 0.5 / multiplier**2
    assert gaussian <= plan.rho < gaussian * 1.01
    # The honest sites' shares together are the noise that was asked for.
    assert math.sqrt(honest) * plan.deviation * 2.0**-plan.bits == pytest.approx(clip * multiplier)
    assert plan.total == pytest.approx(clip * multiplier)
    assert 2**19 < plan.deviation <= 2**20


@pytest.mark.parametrize("deviation", [0.6, 2.5, 11.0])
def test_noise_has_the_discrete_gaussians_distribution(deviation: float) -> None:
    n = 200_000
    drawn = discrete_gaussian(deviation, n)
    reach = int(3.5 * deviation) + 1
    support = np.arange(-60 - reach, 61 + reach)
    mass = np.exp(-(support**2) / (2 * deviation**2))
    mass /= mass.sum()
    inside = np.abs(support) <= reach
    expected = [*(mass[inside] * n), mass[~inside].sum() * n]
    observed = [*(np.count_nonzero(drawn == k) for k in support[inside]), np.count_nonzero(np.abs(drawn) > reach)]
    kept = np.array(expected) >= 5
    folded = (np.array(observed)[~kept].sum(), np.array(expected)[~kept].sum())
    seen, wanted = np.array(observed)[kept], np.array(expected)[kept]
    seen[0], wanted[0] = seen[0] + folded[0], wanted[0] + folded[1]
    assert stats.chisquare(seen, wanted).pvalue > 1e-5


def test_large_noise_is_a_normal_with_low_bits_that_are_even() -> None:
    drawn = discrete_gaussian(2.0**20, 100_000)
    assert stats.kstest(drawn / 2.0**20, "norm").pvalue > 1e-5
    assert stats.chisquare(np.bincount(drawn & 7, minlength=8)).pvalue > 1e-5
    assert not (drawn == discrete_gaussian(2.0**20, 100_000)).all()


@pytest.mark.parametrize("deviation", [0.0, 2.0**25, math.nan])
def test_noise_of_an_impossible_size_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="deviation"):
        discrete_gaussian(deviation, 1)
