"""The user model and the beliefs of the kernel against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, softmax

from rlaas.scenarios.recsys import Recommender
from rlaas.scenarios.recsys.engine.choice import exit_at, logit, order_chance, pick, pleasure
from rlaas.scenarios.recsys.engine.evolution import drift, share_out
from rlaas.scenarios.recsys.engine.ranking import believe, sample_taste
from rlaas.scenarios.recsys.engine.streams import normals

F = np.float32
SCENARIO = Recommender(items=300, episode_steps=10)
UTILITIES = hnp.arrays(np.float32, 10, elements=st.floats(-60, 60, width=32))


@given(UTILITIES, st.floats(-60, 60, width=32))
def test_choice_is_a_softmax_with_the_exit_as_one_more_item(utility, leave) -> None:
    expected = softmax(np.append(utility, F(leave)).astype(np.float64))
    got = np.zeros(10, dtype=F)
    any_click = logit(utility, F(leave), got)
    np.testing.assert_allclose(got, expected[:10], rtol=1e-4, atol=1e-7)
    assert any_click == pytest.approx(1 - expected[10], abs=1e-5)
    assert (got >= 0).all()


def test_picks_follow_the_probabilities() -> None:
    rng = np.random.default_rng(1)
    probability = np.zeros(10, dtype=F)
    logit(rng.normal(size=10).astype(F), F(1.5), probability)
    n = 100_000
    picks = np.array([pick(probability, u) for u in rng.random(n, dtype=F)])
    share = np.bincount(picks + 1, minlength=11) / n
    expected = np.concatenate([[1 - probability.sum()], probability])
    # Five standard errors of a share.
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_pick_at_the_edges() -> None:
    assert pick(np.full(10, 0.1, dtype=F), F(0.0)) == 0
    assert pick(np.zeros(10, dtype=F), F(0.0)) == -1


def click_probabilities(scenario, state, e, slate):
    """The choice model of the documentation in float64, from the hidden state."""
    c, cat = scenario.reference.choice, scenario.catalogue
    taste = state["taste"][e].astype(np.float64)
    taste /= np.linalg.norm(taste)
    day = int(state["clock"][e] // 24) % 64
    hour = state["clock"][e] % 24
    vectors = cat.vectors_ik[slate]
    utility = c.match * vectors @ taste + c.quality * cat.quality_i[slate] + c.freshness * cat.freshness_di[day, slate]
    utility += vectors @ (c.trend * state["trend"][e] - c.satiation * state["exposure"][e])
    utility -= c.price * state["sensitivity"][e] * (cat.price_i[slate] - 1)
    utility -= c.position * (c.mobile_position if state["mobile"][e] else 1.0) * np.log1p(np.arange(10))
    leave = scenario.calibrated.exit_utility - c.evening * math.cos(2 * math.pi * (hour - c.evening_peak_hour) / 24)
    return softmax(np.append(utility, leave))[:10]


def test_a_step_is_the_documented_choice_model() -> None:
    # The expected reward is the probability of a click, which shows every utility at once.
    scenario = Recommender(items=300, episode_steps=10, reward="expected")
    env = scenario.vector_env(32, seed=3)
    env.reset()
    rng = np.random.default_rng(0)
    ctr, cvr = scenario.objectives[0], scenario.objectives[1]
    v, cat, calibrated = scenario.reference.conversion, scenario.catalogue, scenario.calibrated
    checked = 0
    for _ in range(12):
        state = env.get_state()
        _, reward, _, _, infos = env.step(rng.integers(scenario.actions.n, size=32))
        for e in np.flatnonzero(infos["slate"][:, 0] >= 0):
            slate = infos["slate"][e]
            p = click_probabilities(scenario, state, e, slate)
            expected = (p.sum() / 10 - ctr.low) / (ctr.high - ctr.low)
            assert reward[e, 0] == pytest.approx(expected, rel=1e-3, abs=1e-4)
            taste = state["taste"][e] / np.linalg.norm(state["taste"][e])
            dear = state["sensitivity"][e] * (cat.price_i[slate] - 1)
            match = cat.vectors_ik[slate] @ taste
            order = expit(v.intercept + v.match * match + v.quality * cat.quality_i[slate] - v.price * dear)
            surplus = (p @ order - calibrated.cvr0 * p.sum()) / calibrated.clicks_per_page
            expected = (calibrated.cvr0 + surplus - cvr.low) / (cvr.high - cvr.low)
            assert reward[e, 1] == pytest.approx(expected, rel=1e-3, abs=1e-3)
            checked += 1
    assert checked > 300


def test_earlier_positions_and_evenings_get_more_clicks() -> None:
    c = SCENARIO.reference.choice
    screens = []
    for penalty in SCENARIO.tables.position:
        probability = np.zeros(10, dtype=F)
        logit(-penalty, F(0.0), probability)
        assert (np.diff(probability) < 0).all()
        screens.append(probability)
    assert screens[1][-1] < screens[0][-1]  # a small screen hides the end
    hours = [exit_at(F(5), F(c.evening), F(c.evening_peak_hour), F(h)) for h in range(24)]
    assert int(np.argmin(hours)) == c.evening_peak_hour


@given(st.floats(0, 1), st.floats(-4, 4), st.floats(-1, 8))
def test_orders_rise_with_match_and_quality_and_fall_with_price(match, quality, burden) -> None:
    c, s = SCENARIO.reference.conversion, SCENARIO.reference.session
    weights = [F(x) for x in (c.intercept, c.match, c.quality, c.price)]

    def at(m: float, q: float, b: float) -> float:
        return float(order_chance(*weights, F(m), F(q), F(b)))

    by_hand = expit(c.intercept + c.match * match + c.quality * quality - c.price * burden)
    assert at(match, quality, burden) == pytest.approx(float(by_hand), rel=1e-4)
    assert at(match + 0.1, quality, burden) >= at(match, quality, burden)
    assert at(match, quality + 0.1, burden) >= at(match, quality, burden)
    assert at(match, quality, burden + 0.1) <= at(match, quality, burden)
    weights = [F(x) for x in (s.satisfaction_base, s.satisfaction_match, s.satisfaction_quality, s.satisfaction_price)]
    assert 0 <= pleasure(*weights, F(match), F(quality), F(burden)) <= 1


@given(hnp.arrays(np.float32, 12, elements=st.floats(-30, 30, width=32)))
def test_shares_are_a_softmax(logits) -> None:
    got = np.zeros(12, dtype=F)
    share_out(logits, got)
    np.testing.assert_allclose(got, softmax(logits.astype(np.float64)), rtol=1e-4, atol=1e-7)


def test_drift_keeps_its_stationary_law() -> None:
    centre = np.linspace(-2, 0, 12).astype(F)
    n, spread = 2000, 2.2
    rng = np.random.default_rng(0)
    walkers = (centre + spread * rng.standard_normal((n, 12))).astype(F)
    normal = np.zeros(16, dtype=F)
    for row in range(n):
        for step in range(20):
            normals(np.uint64(row), step, 4, 12, normal)
            drift(walkers[row], centre, F(spread), F(0.7), normal)
    # Four standard errors of a mean and of a standard deviation.
    np.testing.assert_allclose(walkers.mean(axis=0), centre, atol=4 * spread / math.sqrt(n))
    np.testing.assert_allclose(walkers.std(axis=0), spread, atol=4 * spread / math.sqrt(2 * n))


def test_thompson_samples_have_the_moments_of_the_dirichlet_posterior() -> None:
    rng = np.random.default_rng(2)
    # Much evidence, so that the cut at zero hardly matters.
    prior, evidence = rng.random(6).astype(F) * 40 + 20, rng.random(6).astype(F) * 60
    mean, direction = np.zeros(6, dtype=F), np.zeros(6, dtype=F)
    total, length = believe(prior, evidence, F(1), mean, direction)
    alpha = (prior + evidence).astype(np.float64)
    m = alpha / alpha.sum()
    np.testing.assert_allclose(mean, m, rtol=1e-5)
    np.testing.assert_allclose(direction, m / np.linalg.norm(m), rtol=1e-5)
    n = 20_000
    samples, normal, out = np.zeros((n, 6)), np.zeros(12, dtype=F), np.zeros(6, dtype=F)
    for i in range(n):
        normals(np.uint64(9), i, 10, 6, normal)
        sample_taste(mean, total, length, normal, out)
        samples[i] = out * length
    covariance = (np.diag(m) - np.outer(m, m)) / (alpha.sum() + 1)
    np.testing.assert_allclose(samples.mean(axis=0), m, atol=5 * math.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.05 * covariance.max())


@pytest.mark.parametrize("attribution_pages", [0, 5])
def test_expected_rewards_have_the_mean_of_realised_ones(attribution_pages):
    means = []
    for reward in ("realised", "expected"):
        scenario = Recommender(items=300, episode_steps=10, reward=reward, attribution_pages=attribution_pages)
        env = scenario.vector_env(3000, seed=8)
        env.reset()
        action = np.full(3000, scenario.actions.index(1, 1, 2, 0))
        rewards = [env.step(action)[1] for _ in range(40)]
        totals = np.sum(rewards, axis=0) / 40
        means.append((totals.mean(axis=0), totals.std(axis=0) / np.sqrt(len(totals))))
    (realised, spread), (expected, other) = means
    assert (np.abs(realised - expected) < 4.5 * np.hypot(spread, other) + 1e-12).all(), (realised, expected)
