"""Retrieval, ranking, diversification and exploration of the kernel against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlaas.errors import InvalidInputError
from rlaas.scenarios.recsys import Recommender
from rlaas.scenarios.recsys.actions import ActionTable
from rlaas.scenarios.recsys.collaborative import als, cosine_neighbours
from rlaas.scenarios.recsys.engine.diversity import OUT, RIDGE, determinantal, list_diversity, marginal_relevance
from rlaas.scenarios.recsys.engine.retrieval import (
    HIDDEN,
    add_linear,
    collaborate,
    neighbours,
    select,
    solve,
    spread_of,
)

F = np.float32
SCENARIO = Recommender(items=300, episode_steps=10)
CATALOGUE = SCENARIO.catalogue
NAMES = SCENARIO.reference.actions


def run_select(score, hidden, wanted):
    room = np.full(-(-len(score) // 16) * 16, HIDDEN, dtype=F)
    room[: len(score)] = score
    room[list(hidden)] = HIDDEN
    chosen = np.zeros(wanted, dtype=np.int32)
    best, found = np.zeros((2, len(room)), dtype=F), np.zeros((2, len(room) + 1), dtype=np.int32)
    select(room, best, found, chosen)
    return np.sort(chosen)


def plain_select(score, hidden, wanted):
    order = sorted((i for i in range(len(score)) if i not in set(hidden)), key=lambda i: (-float(score[i]), i))
    return sorted(order[:wanted])


@settings(max_examples=150)
@given(
    hnp.arrays(np.float32, st.integers(60, 200), elements=st.floats(-8, 8, width=16)),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_selection_is_the_exact_top(score, wanted, random) -> None:
    # Half-precision elements: ties abound.
    hidden = random.sample(range(len(score)), random.randint(0, len(score) - wanted))
    assert run_select(score, hidden, wanted).tolist() == plain_select(score, hidden, wanted)


def test_selection_of_equals_takes_the_first() -> None:
    assert run_select(np.ones(100, dtype=F), [0, 3], 10).tolist() == [1, 2, *range(4, 12)]
    assert run_select(np.arange(40, dtype=F), [], 40).tolist() == list(range(40))


@pytest.mark.parametrize("topics", [1, 3, 4, 7, 12])
def test_linear_scores(topics: int) -> None:
    rng = np.random.default_rng(topics)
    rows, weights = rng.random((topics, 50), dtype=F), rng.normal(size=topics).astype(F)
    score = np.zeros(50, dtype=F)
    add_linear(score, weights, rows)
    np.testing.assert_allclose(score, weights.astype(np.float64) @ rows, rtol=1e-5, atol=1e-5)


def some_candidates(seed: int):
    rng = np.random.default_rng(seed)
    items = rng.choice(300, 50, replace=False)
    vectors = CATALOGUE.vectors_ik[items]
    return items, vectors, np.ascontiguousarray(vectors.T, dtype=F), rng.random(50, dtype=F), rng.random(50, dtype=F)


def buffers():
    return np.zeros(50, dtype=F), np.zeros(50, dtype=F), np.zeros(10, dtype=np.int64)


def naive_mmr(relevance, second, use_second, vectors, strength):
    """Carbonell and Goldstein's rule, one item at a time."""
    chosen: list[int] = []
    for position in range(10):
        opinion = second if use_second[position] else relevance
        best, best_score = -1, -np.inf
        for j in range(len(vectors)):
            if j in chosen:
                continue
            nearest = max((float(vectors[j] @ vectors[i]) for i in chosen), default=0.0)
            score = (1 - strength) * float(opinion[j]) - strength * nearest
            # A margin above float32 rounding: the first of equals wins in both.
            if score > best_score + 1e-6:
                best, best_score = j, score
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_slates_are_maximal_marginal_relevance(strength: float, seed: int) -> None:
    _, vectors, local, relevance, second = some_candidates(seed)
    use_second = np.random.default_rng(seed).random(10) < (0.0 if seed < 3 else 0.4)
    expected = naive_mmr(relevance, second, use_second, vectors, strength)
    nearest, gain, taken = buffers()
    marginal_relevance(relevance, second, use_second, local, F(strength), nearest, gain, taken)
    assert taken.tolist() == expected
    if strength == 0.0 and seed < 3:
        _, _, _, relevance, _ = some_candidates(seed)
        assert taken.tolist() == np.argsort(-relevance)[:10].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_determinantal_slates_grow_the_determinant_most(seed: int) -> None:
    _, vectors, local, relevance, second = some_candidates(100 + seed)
    trust = 2.0
    quality = np.exp(trust * relevance.astype(np.float64))
    kernel = np.outer(quality, quality) * (vectors @ vectors.T + float(RIDGE) * np.eye(50))
    nearest, gain, taken = buffers()
    factor, first = np.zeros((10, 50), dtype=F), np.zeros(10, dtype=bool)
    determinantal(relevance.copy(), second, first, local, F(trust), factor, nearest, gain, taken)
    assert len(set(taken.tolist())) == 10
    chosen: list[int] = []
    for column in taken.tolist():
        logs = np.full(50, -np.inf)
        for j in set(range(50)) - set(chosen):
            on = [*chosen, j]
            logs[j] = np.linalg.slogdet(kernel[np.ix_(on, on)])[1]
        # What was taken is the best up to rounding, by the definition and not by the recursion.
        assert logs[column] >= logs.max() - 1e-3
        chosen.append(column)


@pytest.mark.parametrize("strength", [0.0, 0.45, 1.0, -1.0])
def test_room_behind_the_candidates_is_never_taken(strength: float) -> None:
    _, _, vectors, relevance, second = some_candidates(11)
    # Twelve candidates, ten to take: what is no candidate looks dissimilar to all.
    local, few = np.zeros((12, 64), dtype=F), np.full((2, 64), OUT, dtype=F)
    local[:, :12], few[0, :12], few[1, :12] = vectors[:, :12], relevance[:12], second[:12]
    use_second, taken = np.arange(10) % 2, np.zeros(10, dtype=np.int64)
    work = np.zeros((2, 64), dtype=F)
    if strength < 0:
        determinantal(few[0], few[1], use_second, local, F(2), np.zeros((10, 64), dtype=F), work[0], work[1], taken)
    else:
        marginal_relevance(few[0], few[1], use_second, local, F(strength), work[0], work[1], taken)
    assert len(set(taken.tolist())) == 10
    assert taken.max() < 12


def test_diversity_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        slate = rng.choice(300, 10, replace=False)
        cosines = [CATALOGUE.vectors_ik[i] @ CATALOGUE.vectors_ik[j] for i, j in itertools.combinations(slate, 2)]
        got = list_diversity(10, CATALOGUE.vectors_ik[slate].sum(axis=0).astype(F))
        assert got == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    same = list_diversity(10, (10 * CATALOGUE.vectors_ik[7]).astype(F))
    assert same == pytest.approx(0, abs=1e-5)


def test_spread_is_the_quadratic_form_of_linucb() -> None:
    rng = np.random.default_rng(4)
    alpha = rng.random(12) + 0.1
    mean = alpha / alpha.sum()
    inverse = (np.diag(mean) - np.outer(mean, mean)) / (alpha.sum() + 1)
    prior, precision = rng.random(300).astype(F) + F(0.1), rng.random(300).astype(F)
    weight, length, quality = 5.0, np.linalg.norm(mean), 0.4
    got, scratch = np.zeros(300, dtype=F), np.zeros((2, 300), dtype=F)
    scale = weight**2 / length**2 / (alpha.sum() + 1)
    t = SCENARIO.tables
    spread_of(got, scratch, t.vectors_ki, mean.astype(F), F(scale), F(quality**2), prior, precision)
    form = np.einsum("ik,kl,il->i", CATALOGUE.vectors_ik, inverse, CATALOGUE.vectors_ik) * (weight / length) ** 2
    np.testing.assert_allclose(got, np.sqrt(form + quality**2 / (1 / prior + precision)), rtol=1e-3)


def test_fold_in_is_the_ridge_solution_over_known_and_content_factors() -> None:
    rng = np.random.default_rng(5)
    t = SCENARIO.tables
    known = rng.random(300).astype(F)
    recent = np.array([3, 40, 200, 0, 0, 0, 0, 0], dtype=np.int16)
    factors = known * t.factors[0] + (1 - known) * t.factors[1]
    y = factors[:, recent[:3]].astype(np.float64)
    user = np.linalg.solve(t.gram + 10 * y @ y.T, 11 * y.sum(axis=1))
    score = np.zeros(300, dtype=F)
    size = len(t.gram)
    work = np.zeros((size, size), dtype=F), np.zeros((2, size), dtype=F), np.zeros((2, 300), dtype=F)
    collaborate(score, F(2.0), t.factors, t.gram, F(10), known, recent, 3, *work)
    np.testing.assert_allclose(score, 2.0 * user @ factors, rtol=1e-2, atol=1e-3)
    untouched = np.ones(300, dtype=F)
    collaborate(untouched, F(2.0), t.factors, t.gram, F(10), known, recent, 0, *work)
    neighbours(untouched, F(2.0), t.neighbours, known, recent, 0)
    assert (untouched == 1).all()
    score[:] = 0
    neighbours(score, F(2.0), t.neighbours, known, recent, 3)
    np.testing.assert_allclose(score, 2 * known * t.neighbours[recent[:3]].mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 5, 12])
def test_solve_is_a_linear_solve(n: int) -> None:
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, n))
    matrix, right = (root @ root.T + np.eye(n)).astype(F), rng.normal(size=n).astype(F)
    answer = np.zeros(n, dtype=F)
    expected = np.linalg.solve(matrix.astype(np.float64), right)
    solve(matrix.copy(), right, answer)
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


def test_als_reaches_a_stationary_point_of_its_loss() -> None:
    rng = np.random.default_rng(6)
    clicks = rng.random((60, 40)) < 0.15
    x, y = als(clicks, 4, 5.0, 1)
    weight = 1 + 5.0 * clicks

    def loss(users) -> float:
        return float((weight * (clicks - users @ y.T) ** 2).sum() + (users**2).sum() + (y**2).sum())

    def best_users():
        out = np.zeros_like(x)
        for u in range(len(x)):
            left = (y * weight[u][:, None]).T @ y + np.eye(4)
            out[u] = np.linalg.solve(left, (y * weight[u][:, None]).T @ clicks[u])
        return out

    # The last half-step solved for the items, so users may move a little and the loss hardly.
    assert loss(best_users()) <= loss(x)
    assert loss(best_users()) == pytest.approx(loss(x), rel=0.02)
    assert loss(x) < loss(np.zeros_like(x))


def test_neighbours_are_cosines_of_click_columns() -> None:
    clicks = np.random.default_rng(7).random((50, 12)) < 0.3
    got = cosine_neighbours(clicks)
    for i, j in itertools.product(range(12), repeat=2):
        a, b = clicks[:, i].astype(float), clicks[:, j].astype(float)
        assert got[i, j] == pytest.approx(0.0 if i == j else a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def shortlist_of(strategy: int, steps: int = 4):
    """What the kernel retrieves after some pages, with the state it retrieved from."""
    env = SCENARIO.vector_env(16, seed=5 + strategy)
    env.reset()
    action = np.full(16, SCENARIO.actions.index(strategy, 1, 2, 0))
    for _ in range(steps):
        env.step(action)
    state = env.get_state()
    slates = env.step(action)[4]["slate"]
    return state, slates


@pytest.mark.parametrize("strategy", [0, 1, 2, 3, 4])
def test_slates_come_from_the_best_items_not_yet_shown(strategy: int) -> None:
    state, slates = shortlist_of(strategy)
    weights = list(NAMES.retrieval.values())[strategy]
    c, prior = CATALOGUE, SCENARIO.tables.interests[1]
    for e in np.flatnonzero(slates[:, 0] >= 0):
        day = int(state["clock"][e] // 24) % 64
        evidence = 0 if weights["rule"] == "demographic" else state["evidence"][e]
        taste = prior[state["segment"][e]] + evidence
        taste = taste / np.linalg.norm(taste)
        score = weights["popularity"] * c.popularity_di[day] + weights["freshness"] * c.freshness_di[day]
        score = score + weights["quality"] * (c.observed_quality_di[day] + state["estimate"][e])
        score = score - weights["economy"] * c.log_cost_i
        score += c.vectors_ik @ (weights["match"] * taste + weights["trend"] * state["measured"][e])
        shown = state["shown_items"][e, : state["shown_count"][e]]
        score[shown] = -np.inf
        assert not set(shown.tolist()) & set(slates[e].tolist())
        # Every item of the slate is among the 50 best; float32 may order near-equal items at the cut differently.
        assert (score[slates[e]] >= np.sort(score)[-50] - 1e-4).all()


LISTED = Recommender(retrieval="shortlist")


def test_candidate_lists_hold_distinct_items_where_their_places_say() -> None:
    tables = LISTED.tables
    by_name = dict(zip(NAMES.retrieval, tables.strategies["listed"].tolist(), strict=True))
    # What matches the user is listed by topic, what is new or popular by day; the log's models go by clicks.
    assert by_name["content"] == 2
    assert by_name["popularity"] == by_name["fresh"] == 1
    assert by_name["collaborative"] == by_name["item_knn"] == 0
    for r, kind in enumerate(by_name.values()):
        for key in range({0: 0, 1: 64, 2: 12}[kind]):
            items = tables.candidates[0, r, key]
            assert len(set(items.tolist())) == len(items) == 384
            places = tables.places[0, r, key]
            np.testing.assert_array_equal(np.flatnonzero(places >= 0), items)
            np.testing.assert_array_equal(items[places[items]], items)
            np.testing.assert_array_equal(tables.candidate_vectors[0, r, key], tables.vectors_ki[:, items])


def test_a_shortlist_is_nearly_what_full_scoring_finds() -> None:
    full = Recommender()
    env = full.vector_env(400, seed=6)
    env.reset()
    rng = np.random.default_rng(1)
    for _ in range(30):
        env.step(rng.integers(735, size=400))
    state = env.get_state()
    for strategy in range(5):
        action = np.full(400, full.actions.index(strategy, 0, 0, 0))
        slates = []
        for scenario in (full, LISTED):
            one = scenario.vector_env(400)
            # Retrieval decides nothing that a state remembers.
            one.set_state({**state, "scenario": one.get_state()["scenario"]})
            slates.append(one.step(action)[4]["slate"])
        shown = slates[0][:, 0] >= 0
        same = np.mean([len(np.intersect1d(a, b)) for a, b in zip(slates[0][shown], slates[1][shown], strict=True)])
        assert same > 9.7, strategy
        if strategy == 2:
            # Fresh items are listed by day and all found.
            np.testing.assert_array_equal(*slates)


def test_lists_as_long_as_the_catalogue_are_no_lists() -> None:
    # 1.5 times the 150 items that ten pages and a shortlist take, in whole words.
    assert Recommender(items=300, episode_steps=10, retrieval="shortlist").tables.candidates.shape[3] == 256
    every = Recommender(items=250, episode_steps=10, retrieval="shortlist")
    assert every.tables.strategies["listed"].max() == 0


def test_diversity_levels_diversify() -> None:
    column = SCENARIO.part_names.index("diversity")
    means = []
    for level in range(4):
        env = SCENARIO.vector_env(64, seed=1)
        env.reset()
        up = sum(env.step(np.full(64, SCENARIO.actions.index(1, 1, level, 0)))[4]["numerators"] for _ in range(3))
        means.append(up[:, column].mean())
    assert (np.diff(means) > 0).all()


def test_exploration_replaces_at_its_rate() -> None:
    names = list(NAMES.exploration)
    changed = []
    for exploration in ("none", "uniform"):
        env = SCENARIO.vector_env(2000, seed=2)
        env.reset()
        action = SCENARIO.actions.index(0, 0, 0, names.index(exploration))
        changed.append(env.step(np.full(2000, action))[4]["slate"])
    rate = (changed[0] != changed[1]).mean()
    # A ticket may draw an item of the slate itself, which replaces nothing.
    assert rate == pytest.approx(0.1 * (1 - 10 / 300), abs=5 * np.sqrt(0.09 / 20_000))


@pytest.mark.parametrize("retrieval", ["full", "shortlist"])
@pytest.mark.parametrize("exploration", range(7))
def test_every_action_builds_ten_distinct_unseen_items(exploration: int, retrieval: str) -> None:
    scenario = Recommender(items=300, episode_steps=10, retrieval=retrieval)
    actions = np.flatnonzero(scenario.actions.parts[:, 3] == exploration)
    env = scenario.vector_env(len(actions), seed=exploration)
    env.reset()
    seen: list[set[int]] = [set() for _ in actions]
    for _ in range(25):
        slates = env.step(actions)[4]["slate"]
        for e, slate in enumerate(slates.tolist()):
            if slate[0] < 0:
                seen[e] = set()
                continue
            assert len(set(slate)) == 10
            assert not seen[e] & set(slate)
            assert all(0 <= item < 300 for item in slate)
            seen[e] |= set(slate)


def test_actions_decode_one_to_one() -> None:
    table = ActionTable((4, 3, 4, 2))
    assert table.n == 96
    assert len({tuple(parts) for parts in table.parts}) == 96
    assert all(table.index(*(int(p) for p in parts)) == action for action, parts in enumerate(table.parts))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 735], "0 to 734, got 735 in row 1"),
        ([-1, 0], "0 to 734, got -1 in row 0"),
        ([0.0, 1.0], "0 to 734, got float64 0.0"),
        ([np.nan, 1], "0 to 734, got float64 nan"),
        ([True, False], "0 to 734, got bool True"),
        (["a", "b"], "0 to 734, got <U1 a"),
        ([1], r"shape \(1,\); expected \(2,\)"),
        ([[1, 2]], r"shape \(1, 2\); expected \(2,\)"),
    ],
)
def test_bad_actions_name_the_field(actions, message) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        SCENARIO.actions.check(actions, 2)
    assert caught.value.field == "action"
    assert "action" in caught.value.message
