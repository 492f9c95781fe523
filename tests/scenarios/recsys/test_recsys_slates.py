"""Retrieval, ranking, diversification and exploration against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.errors import InvalidInputError
from rlaas.scenarios.recsys import Recommender
from rlaas.scenarios.recsys.choice import unit
from rlaas.scenarios.recsys.slates import ActionTable, Beliefs, diversify, explore, intra_list_diversity

SCENARIO = Recommender(items=300, episode_steps=10)
CATALOGUE = SCENARIO.catalogue
BUILDER = SCENARIO.slate_builder


def some_beliefs(rng: np.random.Generator, n: int) -> Beliefs:
    return Beliefs(
        taste=unit(rng.dirichlet(np.full(12, 0.3), size=n)),
        trend=rng.normal(size=(n, 12)),
        price_sensitivity=rng.random(n) * 2,
        day=rng.integers(64, size=n),
    )


def naive_mmr(relevance, items, strength):
    """Carbonell and Goldstein's rule, one item at a time, cosines from the vectors."""
    vectors = CATALOGUE.topics_ik[items] / np.linalg.norm(CATALOGUE.topics_ik[items], axis=1)[:, None]
    chosen: list[int] = []
    while len(chosen) < 10:
        best, best_score = -1, -np.inf
        for j in range(len(items)):
            if j in chosen:
                continue
            nearest = max((float(vectors[j] @ vectors[i]) for i in chosen), default=0.0)
            score = (1 - strength) * float(relevance[j]) - strength * nearest
            # A margin above float32 rounding: the first of equals wins in both.
            if score > best_score + 1e-6:
                best, best_score = j, score
        chosen.append(best)
    return chosen


def test_diversify_is_maximal_marginal_relevance() -> None:
    rng = np.random.default_rng(1)
    n = 40
    candidates = np.stack([rng.choice(300, 50, replace=False) for _ in range(n)])
    relevance = rng.random((n, 50), dtype=np.float32)
    strength = rng.choice([0.0, 0.2, 0.45, 0.7, 1.0], n).astype(np.float32)
    got = diversify(relevance, candidates, CATALOGUE.similarity_ii, strength)
    for e in range(n):
        assert got[e].tolist() == naive_mmr(relevance[e], candidates[e], float(strength[e])), e


def test_without_diversity_it_is_the_best_ten_in_order() -> None:
    rng = np.random.default_rng(2)
    relevance = rng.random((8, 50), dtype=np.float32)
    candidates = np.tile(np.arange(50), (8, 1))
    got = diversify(relevance, candidates, CATALOGUE.similarity_ii, np.zeros(8, dtype=np.float32))
    np.testing.assert_array_equal(got, np.argsort(-relevance, axis=1)[:, :10])


def test_diversity_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(3)
    slates = np.stack([rng.choice(300, 10, replace=False) for _ in range(20)])
    got = intra_list_diversity(slates, CATALOGUE.similarity_ii)
    for slate, value in zip(slates, got, strict=True):
        cosines = [
            CATALOGUE.topics_ik[i]
            @ CATALOGUE.topics_ik[j]
            / (np.linalg.norm(CATALOGUE.topics_ik[i]) * np.linalg.norm(CATALOGUE.topics_ik[j]))
            for i, j in itertools.combinations(slate, 2)
        ]
        assert value == pytest.approx(np.mean([1 - c for c in cosines]), abs=1e-5)
    assert intra_list_diversity(np.full((1, 10), 7), CATALOGUE.similarity_ii)[0] == pytest.approx(0.0, abs=1e-6)


def test_diversity_factor_diversifies() -> None:
    rng = np.random.default_rng(4)
    beliefs = some_beliefs(rng, 64)
    shown = np.zeros((64, 300), dtype=bool)
    means = []
    for level in range(4):
        actions = np.full(64, SCENARIO.actions.index(1, 1, level, 0))
        slates = BUILDER.build(actions, beliefs, shown, np.ones((64, 10)), np.zeros((64, 10)))
        means.append(intra_list_diversity(slates, CATALOGUE.similarity_ii).mean())
    assert (np.diff(means) > 0).all()


@pytest.mark.parametrize("strategy", range(4))
def test_retrieval_takes_the_best_items_not_yet_shown(strategy: int) -> None:
    rng = np.random.default_rng(5 + strategy)
    beliefs = some_beliefs(rng, 16)
    shown = rng.random((16, 300)) < 0.3
    got = BUILDER.retrieve(np.full(16, strategy), beliefs, shown)
    weights = list(SCENARIO.reference.actions.retrieval.values())[strategy]
    c = CATALOGUE
    for e in range(16):
        day = beliefs.day[e]
        score = weights["popularity"] * c.popularity_di[day] + weights["freshness"] * c.freshness_di[day]
        score = score + weights["quality"] * c.observed_quality_di[day] - weights["economy"] * c.log_cost_i
        score += c.vectors_ik @ (weights["match"] * beliefs.taste[e] + weights["trend"] * beliefs.trend[e])
        score[shown[e]] = -np.inf
        assert not shown[e][got[e]].any()
        assert len(set(got[e])) == 50
        # By score, not by number: float32 may order near-equal items at the cut differently.
        np.testing.assert_allclose(np.sort(score[got[e]]), np.sort(score)[-50:], atol=1e-4)


def test_relevance_spans_zero_to_one_and_follows_the_preset() -> None:
    rng = np.random.default_rng(6)
    beliefs = some_beliefs(rng, 12)
    candidates = np.stack([rng.choice(300, 50, replace=False) for _ in range(12)])
    popular = BUILDER.rank(np.zeros(12, dtype=np.int64), beliefs, candidates)
    np.testing.assert_allclose(popular.min(axis=1), 0.0)
    np.testing.assert_allclose(popular.max(axis=1), 1.0)
    for e in range(12):
        score = CATALOGUE.popularity_di[beliefs.day[e], candidates[e]]
        score = score + CATALOGUE.vectors_ik[candidates[e]] @ beliefs.trend[e]
        assert np.argmax(score) == np.argmax(popular[e])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_explored_slates_stay_distinct_and_unseen(seed, rate) -> None:
    rng = np.random.default_rng(seed)
    n, items = 6, 30  # few items, so that collisions abound
    shown = rng.random((n, items)) < 0.3
    slates = np.stack([rng.choice(np.flatnonzero(~row), 10, replace=False) for row in shown])
    got = explore(slates, np.full(n, rate), rng.random((n, 10)), rng.random((n, 10)), shown)
    assert all(len(set(row)) == 10 for row in got)
    assert not np.take_along_axis(shown, got, axis=1).any()


def test_exploration_replaces_at_its_rate() -> None:
    rng = np.random.default_rng(7)
    n = 4_000
    slates = np.tile(np.arange(10), (n, 1))
    shown = np.zeros((n, 100_000), dtype=bool)[:, :5000]
    got = explore(slates, np.full(n, 0.1), rng.random((n, 10)), rng.random((n, 10)), shown)
    assert (got != slates).mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / (10 * n)))
    unchanged = explore(slates, np.zeros(n), rng.random((n, 10)), rng.random((n, 10)), shown)
    np.testing.assert_array_equal(unchanged, slates)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_action_builds_ten_distinct_items(seed) -> None:
    rng = np.random.default_rng(seed)
    n = SCENARIO.actions.n
    shown = rng.random((n, 300)) < 0.4
    slates = BUILDER.build(np.arange(n), some_beliefs(rng, n), shown, rng.random((n, 10)), rng.random((n, 10)))
    assert slates.shape == (n, 10)
    assert all(len(set(row)) == 10 for row in slates)
    assert ((slates >= 0) & (slates < 300)).all()
    assert not np.take_along_axis(shown, slates, axis=1).any()


def test_actions_decode_one_to_one() -> None:
    table = ActionTable((4, 3, 4, 2))
    assert table.n == 96
    assert len({tuple(parts) for parts in table.parts}) == 96
    assert all(table.index(*(int(p) for p in parts)) == action for action, parts in enumerate(table.parts))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 96], "0 to 95, got 96 in row 1"),
        ([-1, 0], "0 to 95, got -1 in row 0"),
        ([0.0, 1.0], "0 to 95, got float64 0.0"),
        ([np.nan, 1], "0 to 95, got float64 nan"),
        ([True, False], "0 to 95, got bool True"),
        (["a", "b"], "0 to 95, got <U1 a"),
        ([1], r"shape \(1,\); expected \(2,\)"),
        ([[1, 2]], r"shape \(1, 2\); expected \(2,\)"),
    ],
)
def test_bad_actions_name_the_field(actions, message) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        SCENARIO.actions.check(actions, 2)
    assert caught.value.field == "action"
    assert "action" in caught.value.message
