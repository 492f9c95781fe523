from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats

from rlaas.errors import ConfigurationError
from rlaas.experiments.allocation.quadrature import (
    MOST_ARMS,
    BetaMeans,
    StudentMeans,
    expected_loss,
    probability_best,
    top_two,
)

FloatArray = NDArray[np.float64]


def _beta(*pairs: tuple[float, float]) -> BetaMeans:
    a, b = np.array(pairs, dtype=float).T
    return BetaMeans(a, b)


def _student(location: Any, scale: Any, degrees: Any) -> StudentMeans:
    return StudentMeans(*(np.asarray(part, dtype=float) for part in (location, scale, degrees)))


def _second_is_larger(a1: float, b1: float, a2: int, b2: float) -> float:
    """Closed form of P(X2 > X1) of two beta variables with a whole number a2 (Miller 2014)."""
    i = np.arange(a2)
    terms = special.betaln(a1 + i, b1 + b2) - np.log(b2 + i) - special.betaln(1 + i, b2) - special.betaln(a1, b1)
    return float(np.exp(terms).sum())


@pytest.mark.parametrize("seed", range(6))
def test_two_betas_agree_with_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        size = 10 ** rng.uniform(0, 4, 2)
        a, b = np.ceil(size * rng.uniform(0.01, 1, 2)), np.ceil(size * rng.uniform(0.01, 1, 2))
        best = probability_best(_beta((a[0], b[0]), (a[1], b[1])))
        assert best[1] == pytest.approx(_second_is_larger(a[0], b[0], int(a[1]), b[1]), rel=1e-7, abs=1e-14)
        assert best.sum() == pytest.approx(1, abs=1e-14)


def test_symmetric_betas_with_few_successes_are_even() -> None:
    for a in (0.1, 0.5, 1.0, 3.0):
        assert probability_best(_beta(*[(a, 2.0)] * 4)) == pytest.approx(np.full(4, 0.25), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_normals_agree_with_the_closed_forms_into_the_tails(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        location, scale = rng.normal(size=2) * 10 ** rng.uniform(-1, 1), 10 ** rng.uniform(-2, 1, 2)
        means, spread = _student(location, scale, [np.inf, np.inf]), np.hypot(*scale)
        z = (location[1] - location[0]) / spread
        assert probability_best(means)[1] == pytest.approx(stats.norm.cdf(z), rel=1e-6, abs=1e-40)
        # E max(X2 - X1, 0) of a normal difference; the closed form itself loses its digits in the tail.
        loss = spread * (stats.norm.pdf(z) + z * stats.norm.cdf(z))
        assert expected_loss(means)[0] == pytest.approx(loss, rel=1e-8, abs=1e-13 * spread)


@pytest.mark.parametrize("seed", range(5))
def test_three_students_agree_with_scipy_quadrature(seed: int) -> None:
    rng = np.random.default_rng(seed)
    location, scale = rng.normal(size=3), 10 ** rng.uniform(-1, 0.7, 3)
    degrees = rng.choice([3.0, 7.0, 200.0], 3)
    means = _student(location, scale, degrees)
    best, loss = probability_best(means), expected_loss(means)
    points = sorted(m + k * s for m, s in zip(location, scale, strict=True) for k in (-9, -3, 0, 3, 9))

    def below(arm: int, x: float) -> float:
        return float(special.stdtr(degrees[arm], (x - location[arm]) / scale[arm]))

    def total(function: Any) -> float:
        ends = itertools.pairwise([-np.inf, *points, np.inf])
        return sum(float(integrate.quad(function, a, b, epsabs=1e-11, epsrel=1e-9)[0]) for a, b in ends)

    for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
        density = stats.t(degrees[i], location[i], scale[i]).pdf
        expected = total(lambda x, d=density, j=j, k=k: d(x) * below(j, x) * below(k, x))
        assert best[i] == pytest.approx(expected, abs=1e-9)
        lost = total(lambda x, i=i, j=j, k=k: below(i, x) * (1 - below(j, x) * below(k, x)))
        assert loss[i] == pytest.approx(lost, rel=1e-6)


def test_loss_of_betas_agrees_with_draws_and_with_scipy() -> None:
    means = _beta((30, 70), (34, 66), (5, 9))
    loss = expected_loss(means)
    drawn = means.draw(np.random.default_rng(0), 400_000)
    sampled = drawn.max(axis=1, keepdims=True) - drawn
    assert np.abs(loss - sampled.mean(axis=0)).max() < 5 * sampled.std(axis=0).max() / np.sqrt(len(drawn))
    one = [stats.beta(a, b) for a, b in ((30, 70), (34, 66), (5, 9))]
    exact = integrate.quad(lambda x: one[0].cdf(x) * (1 - one[1].cdf(x) * one[2].cdf(x)), 0, 1, epsabs=1e-13)[0]
    assert loss[0] == pytest.approx(exact, rel=1e-9)


def test_a_sharp_posterior_next_to_a_wide_one_is_seen() -> None:
    best = probability_best(_student([0.0, 1e-3], [1.0, 1e-9], [np.inf, np.inf]))
    assert best[0] == pytest.approx(stats.norm.sf(1e-3), rel=1e-9)


def test_few_successes_agree_with_scipy_quadrature() -> None:
    """Poles at both ends: a tenth of a success and of a failure against two of each."""
    best = probability_best(_beta((0.1, 0.1), (2.0, 3.0)))
    exact = integrate.quad(lambda x: stats.beta(2, 3).pdf(x) * stats.beta(0.1, 0.1).cdf(x), 0, 1, limit=500)[0]
    assert best[1] == pytest.approx(exact, rel=1e-6)
    assert best.sum() == pytest.approx(1)


def test_posteriors_of_billions_of_rows_and_far_from_zero() -> None:
    a = np.array([5e8, 5e8 + 2e4])
    b = 1e9 - a
    spread = np.sqrt((a * b / 1e27).sum())
    assert probability_best(BetaMeans(a, b))[1] == pytest.approx(stats.norm.cdf(2e-5 / spread), abs=1e-6)
    # 1e9 and a scale of 1e-9: the axis itself has steps of 1e-7 there.
    assert probability_best(_student([1e9, 1e9], [1e-9, 2e-9], [5, np.inf])) == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize("family", ["beta", "student"])
def test_draws_follow_the_distribution_functions(family: str) -> None:
    means: Any = _beta((2, 5), (0.5, 0.5)) if family == "beta" else _student([0, 3], [1, 2], [3, np.inf])
    drawn = means.draw(np.random.default_rng(3), 20_000)
    for arm in range(2):
        z = special.logit(drawn[:, arm]) if family == "beta" else drawn[:, arm] - 3.0  # from the best location on
        z = np.sort(np.clip(z, -700, 700))
        below = means.below(z)[arm]
        assert stats.kstest(below, "uniform").pvalue > 1e-4
        assert means.above(z)[arm] == pytest.approx(1 - below, abs=1e-11)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.2, 500), st.floats(0.2, 500)), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_order_of_arms_does_not_matter_and_shares_sum_to_one(pairs: list[tuple[float, float]], random: Any) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)
    best, loss = probability_best(_beta(*pairs)), expected_loss(_beta(*pairs))
    moved = _beta(*(pairs[i] for i in order))
    assert probability_best(moved) == pytest.approx(best[order], abs=1e-12)
    assert expected_loss(moved) == pytest.approx(loss[order], abs=1e-12)
    assert best.sum() == pytest.approx(1, abs=1e-12)
    assert (best >= 0).all()
    # E max - E mean_i, so that losses differ by the difference of means.
    a, b = np.array(pairs).T
    assert loss - loss[0] == pytest.approx(a[0] / (a[0] + b[0]) - a / (a + b), abs=1e-9)


def test_top_two_agrees_with_drawing_twice() -> None:
    best = np.array([0.55, 0.3, 0.1, 0.05])
    rng = np.random.default_rng(0)
    n = 300_000
    first = rng.choice(4, n, p=best)
    second = rng.choice(4, n, p=best)
    while (again := second == first).any():
        second[again] = rng.choice(4, int(again.sum()), p=best)
    for leader in (0.5, 0.8):
        played = np.where(rng.random(n) < leader, first, second)
        counts = np.bincount(played, minlength=4)
        assert stats.chisquare(counts, n * top_two(best, leader)).pvalue > 1e-3


def test_top_two_of_a_certain_leader_divides_the_rest() -> None:
    assert top_two(np.array([1.0, 0.0, 0.0]), 0.5) == pytest.approx([0.5, 0.25, 0.25])
    # A rival with 1e-30 to win is still the second one, for certain.
    assert top_two(np.array([1.0, 1e-30, 0.0]), 0.5) == pytest.approx([0.5, 0.5, 0.0])
    assert top_two(np.array([0.9, 0.1]), 0.5) == pytest.approx([0.5, 0.5])


def test_too_many_arms_say_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="at most 50, set draws"):
        probability_best(_beta(*[(1, 1)] * (MOST_ARMS + 1)))
