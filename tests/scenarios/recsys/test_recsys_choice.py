"""The user model against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, softmax

from rlaas.scenarios.recsys.choice import (
    choice_probabilities,
    click_satisfaction,
    conversion_probability,
    dot,
    exit_utility,
    pick,
    position_penalty,
    return_probability,
    slate_utility,
)
from rlaas.scenarios.recsys.reference import load_reference

REFERENCE = load_reference()
UTILITIES = hnp.arrays(np.float64, (3, 10), elements=st.floats(-700, 700))
EXITS = hnp.arrays(np.float64, (3,), elements=st.floats(-700, 700))


@given(UTILITIES, EXITS)
def test_choice_is_a_softmax_with_the_exit_as_one_more_item(utility, exit_) -> None:
    expected = softmax(np.column_stack([utility, exit_]), axis=1)
    got = choice_probabilities(utility, exit_)
    np.testing.assert_allclose(got, expected[:, :10], rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(got.sum(axis=1) + expected[:, 10], 1.0, atol=1e-12)
    assert (got >= 0).all()


@given(UTILITIES, EXITS, st.floats(-50, 50))
def test_choice_depends_on_differences_only(utility, exit_, shift) -> None:
    np.testing.assert_allclose(
        choice_probabilities(utility + shift, exit_ + shift),
        choice_probabilities(utility, exit_),
        rtol=1e-6,
        atol=1e-12,
    )


def test_picks_follow_the_probabilities() -> None:
    rng = np.random.default_rng(1)
    probability = choice_probabilities(rng.normal(size=(1, 10)), np.array([1.5]))
    n = 200_000
    picks = pick(np.repeat(probability, n, axis=0), rng.random(n))
    share = np.bincount(picks + 1, minlength=11) / n
    expected = np.concatenate([[1 - probability.sum()], probability[0]])
    # Five standard errors of a share.
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_pick_at_the_edges() -> None:
    probability = np.full((2, 10), 0.1)
    probability[1] = 0.0
    assert pick(probability[:1], np.array([0.0])).tolist() == [0]
    assert pick(probability[1:], np.array([0.0])).tolist() == [-1]


def test_utility_by_hand() -> None:
    c = REFERENCE.choice
    rng = np.random.default_rng(2)
    names = ("match", "quality", "freshness", "trend", "price", "satiation")
    facts = {name: rng.random((2, 10)) for name in names}
    sensitivity = np.array([0.3, 1.7])
    got = slate_utility(c, price_sensitivity=sensitivity, **facts) - position_penalty(c, np.array([True, False]), 10)
    for user in range(2):
        for j in range(10):
            f = {name: facts[name][user, j] for name in names}
            expected = c.match * f["match"] + c.quality * f["quality"] + c.freshness * f["freshness"]
            expected += c.trend * f["trend"] - c.satiation * f["satiation"]
            expected -= c.price * sensitivity[user] * (f["price"] - 1)
            expected -= c.position * (c.mobile_position if user == 0 else 1.0) * math.log(1 + j)
            assert got[user, j] == pytest.approx(expected)


def test_earlier_positions_and_evenings_get_more_clicks() -> None:
    c = REFERENCE.choice
    utility = -position_penalty(c, np.array([True, False]), 10)
    probability = choice_probabilities(utility, np.zeros(2))
    assert (np.diff(probability, axis=1) < 0).all()
    assert probability[0, -1] < probability[1, -1]  # a small screen hides the end
    hours = np.arange(24.0)
    assert np.argmin(exit_utility(c, hours)) == c.evening_peak_hour


@given(st.floats(0, 1), st.floats(-4, 4), st.floats(0.05, 8), st.floats(0, 6))
def test_orders_rise_with_match_and_quality_and_fall_with_price(match, quality, price, sensitivity) -> None:
    c = REFERENCE.conversion

    def at(m: float, q: float, p: float) -> float:
        return float(conversion_probability(c, *(np.array([x]) for x in (m, q, p, sensitivity)))[0])

    base = at(match, quality, price)
    by_hand = expit(c.intercept + c.match * match + c.quality * quality - c.price * sensitivity * (price - 1))
    assert base == pytest.approx(float(by_hand))
    assert at(match + 0.1, quality, price) >= base
    assert at(match, quality + 0.1, price) >= base
    assert at(match, quality, price + 0.1) <= base
    pleased = click_satisfaction(REFERENCE.session, *(np.array([x]) for x in (match, quality, price, sensitivity)))
    assert 0 <= pleased[0] <= 1


def test_satisfied_users_return_more_often() -> None:
    assert (np.diff(return_probability(REFERENCE.session, np.linspace(0, 1, 5))) > 0).all()


@given(st.integers(1, 40))
def test_inner_products_have_the_same_bits_for_any_batch(rows) -> None:
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(40, 10, 12)), rng.normal(size=(40, 1, 12))
    together = dot(a, b)
    assert (dot(np.ascontiguousarray(a[:rows]), np.ascontiguousarray(b[:rows])) == together[:rows]).all()
    np.testing.assert_allclose(together, np.einsum("eik,elk->ei", a, b))
