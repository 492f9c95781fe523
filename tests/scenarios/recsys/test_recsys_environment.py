"""The vector environment's contract: seeds, states, autoreset, parts and what drifts."""

from __future__ import annotations

import pickle
import tracemalloc

import gymnasium
import numpy as np
import pytest

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import normalise
from rlaas.scenarios.recsys import Recommender

SCENARIO = Recommender()
SMALL = Recommender(items=300, episode_steps=10)


def rollout(env, actions, seed=None):
    """Everything that comes out, stacked over steps."""
    observation, _ = env.reset(seed=seed)
    steps = [env.step(a) for a in actions]
    keys = steps[0][4].keys()
    return {
        "observation": np.stack([observation, *(s[0] for s in steps)]),
        "reward": np.stack([s[1] for s in steps]),
        "terminated": np.stack([s[2] for s in steps]),
        "truncated": np.stack([s[3] for s in steps]),
        **{key: np.stack([s[4][key] for s in steps]) for key in keys},
    }


def some_actions(steps, n, seed=0):
    return np.random.default_rng(seed).integers(SCENARIO.actions.n, size=(steps, n))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_shapes_and_types() -> None:
    env = SCENARIO.vector_env(5, seed=1)
    out = rollout(env, some_actions(30, 5))
    n_features = len(SCENARIO.observation_names)
    assert out["observation"].shape == (31, 5, n_features)
    assert out["observation"].dtype == np.float32
    assert out["reward"].shape == (30, 5, 4)
    assert out["reward"].dtype == np.float64
    assert out["numerators"].shape == out["denominators"].shape == (30, 5, len(SCENARIO.part_names))
    assert out["terminated"].dtype == out["truncated"].dtype == np.bool_
    assert all(env.observation_space.contains(o) for o in out["observation"])
    assert env.reward_space.shape == (4,)
    assert np.isfinite(out["observation"]).all()
    assert np.isfinite(out["reward"]).all()


@pytest.mark.parametrize("n", [1, 3, 17])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_environments(n: int) -> None:
    seeds = list(range(100, 133))
    actions = some_actions(80, 33)
    together = rollout(SCENARIO.vector_env(33, seed=seeds), actions)
    alone = rollout(SCENARIO.vector_env(n, seed=seeds[:n]), actions[:, :n])
    assert_same({key: value[:, :n] for key, value in together.items()}, alone)


def test_an_integer_seed_starts_with_itself() -> None:
    actions = some_actions(40, 4)
    four, one = rollout(SMALL.vector_env(4, seed=7), actions), rollout(SMALL.vector_env(1, seed=[7]), actions[:, :1])
    assert_same({key: value[:, :1] for key, value in four.items()}, one)
    again = rollout(SMALL.vector_env(4, seed=99), actions, seed=7)
    assert_same(four, again)
    other = rollout(SMALL.vector_env(4, seed=8), actions)
    assert (other["observation"] != four["observation"]).any()
    # The environments of one batch are different worlds.
    assert (four["observation"][0, 0] != four["observation"][0, 1]).any()


def test_reset_without_a_seed_goes_on_with_the_stream() -> None:
    env = SMALL.vector_env(2, seed=3)
    first, _ = env.reset()
    second, _ = env.reset()
    assert (first != second).any()


def test_the_random_stream_does_not_depend_on_actions() -> None:
    a, b = SMALL.vector_env(8, seed=5), SMALL.vector_env(8, seed=5)
    a.reset()
    b.reset()
    for left, right in zip(some_actions(70, 8, 1), some_actions(70, 8, 2), strict=True):
        a.step(left)
        b.step(right)
    left, right = a.get_state(), b.get_state()
    # Trends and random numbers are the world's, not the platform's.
    for name in ("key", "step", "trend"):
        np.testing.assert_array_equal(left[name], right[name])
    assert (left["taste"] != right["taste"]).any()


@pytest.mark.parametrize("scenario", [SMALL, Recommender(retrieval="shortlist")], ids=["full", "shortlist"])
@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(threads: int, scenario: Recommender) -> None:
    actions = some_actions(40, 33)
    assert_same(
        rollout(scenario.vector_env(33, seed=7, threads=1), actions),
        rollout(scenario.vector_env(33, seed=7, threads=threads), actions),
    )


@pytest.mark.parametrize("transport", ["direct", "pickled"])
def test_state_round_trip_is_exact(transport: str) -> None:
    actions = some_actions(120, 6)
    env = SMALL.vector_env(6, seed=11)
    env.reset()
    for a in actions[:50]:
        env.step(a)
    state = env.get_state()
    if transport == "pickled":
        raw = pickle.dumps(state)
        assert len(raw) < 2_000_000  # the catalogue does not travel along
        state = pickle.loads(raw)
    ahead = [env.step(a) for a in actions[50:]]
    for other in (SMALL.vector_env(6, seed=0), env):
        other.set_state(state)
        for expected, a in zip(ahead, actions[50:], strict=True):
            got = other.step(a)
            for x, y in zip(expected[:4], got[:4], strict=True):
                np.testing.assert_array_equal(x, y)
            for key, value in expected[4].items():
                np.testing.assert_array_equal(value, got[4][key])


def test_steps_allocate_nothing_after_the_first() -> None:
    env = SMALL.vector_env(64, seed=1, copy=False, threads=1)
    env.reset()
    actions = some_actions(60, 64)
    for a in actions[:20]:
        env.step(a)
    arrays = [env.step(a)[0] for a in actions[20:22]]
    assert arrays[0] is arrays[1]
    tracemalloc.start()
    try:
        env.step(actions[22])
        before = tracemalloc.get_traced_memory()[0]
        for a in actions[23:]:
            env.step(a)
        grown, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What a step holds for a moment (a future, a dictionary) is smaller than the observations alone.
    assert grown - before < 2_000
    assert peak - before < arrays[0].nbytes


def test_memory_per_environment_is_bounded() -> None:
    assert SCENARIO.vector_env(4).bytes_per_environment < 12_000


def test_fresh_arrays_and_buffers_hold_the_same() -> None:
    actions = some_actions(30, 8)
    fresh, buffered = SMALL.vector_env(8, seed=3), SMALL.vector_env(8, seed=3, copy=False)
    fresh.reset()
    buffered.reset()
    for a in actions:
        x, y = fresh.step(a), buffered.step(a)
        for left, right in zip((*x[:4], *x[4].values()), (*y[:4], *y[4].values()), strict=True):
            np.testing.assert_array_equal(left, right)


def test_state_of_another_size_is_refused() -> None:
    env = SMALL.vector_env(2)
    env.reset()
    with pytest.raises(InvalidInputError, match="state has 2 environments; expected 3"):
        SMALL.vector_env(3).set_state(env.get_state())
    with pytest.raises(InvalidInputError, match="of other options"):
        SCENARIO.vector_env(2).set_state(env.get_state())
    with pytest.raises(InvalidInputError, match="state lacks clicks, clock, covered"):
        env.set_state({"started": True})
    with pytest.raises(InvalidInputError, match="what get_state returned"):
        env.set_state(None)
    for name, value in (("started", np.zeros(2)), ("scenario", np.zeros(2)), ("ended", [1, [2]]), ("page", None)):
        with pytest.raises(InvalidInputError, match=r"^state "):
            env.set_state(env.get_state() | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("page", 10**8, "page beyond 0 .. "),
        ("page", -5, "page beyond 0 .. "),
        ("shown_count", 10**8, "shown_count beyond 0 .. "),
        ("segment", 99, "segment beyond 0 .. "),
        ("evidence", np.nan, "evidence that is not finite"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(name, value, message) -> None:
    env = SMALL.vector_env(2)
    env.reset()
    before, state = env.get_state(), env.get_state()
    state[name][...] = value
    with pytest.raises(InvalidInputError, match=message):
        env.set_state(state)
    state[name] = before[name].astype(np.float16)
    with pytest.raises(InvalidInputError, match=f"{name} of float16"):
        env.set_state(state)
    for key, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[key])


def test_the_bits_do_not_depend_on_where_memory_lies() -> None:
    kept: list[object] = []
    rng, found = np.random.default_rng(0), set()
    for _ in range(60):
        env = SMALL.vector_env(1, seed=0, threads=1)
        kept += [env, np.zeros(rng.integers(1, 20000), np.uint8)]
        seen = [env.reset(seed=0)[0]] + [env.step(np.array([k * 17 % SMALL.actions.n]))[0] for k in range(20)]
        found.add(np.concatenate(seen).tobytes())
    assert len(found) == 1


def test_returned_arrays_are_never_overwritten() -> None:
    env = SMALL.vector_env(4, seed=2)
    observation, _ = env.reset()
    kept = [(observation, observation.copy())]
    for a in some_actions(80, 4):
        step = env.step(a)
        kept += [(x, x.copy()) for x in (*step[:4], *step[4].values())]
    for now, then in kept:
        np.testing.assert_array_equal(now, then)


def test_autoreset_comes_in_the_step_after_the_end() -> None:
    env = SMALL.vector_env(16, seed=4)
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    out = rollout(env, some_actions(150, 16))
    ended = out["terminated"] | out["truncated"]
    assert out["terminated"].any()
    assert out["truncated"].any()
    assert not (out["terminated"] & out["truncated"]).any()
    opening = np.zeros_like(ended)
    opening[1:] = ended[:-1]
    assert not ended[opening].any()
    for key in ("reward", "numerators", "denominators"):
        assert (out[key][opening] == 0).all(), key
        assert out[key][~opening].any(axis=-1).all(), key
    assert (out["slate"][opening] == -1).all()
    assert (out["click"][opening] == -1).all()
    page = SMALL.observation_names.index("page")
    assert (out["observation"][1:][opening][:, page] == 0).all()
    # What was done in the ignored step changes nothing.
    other = some_actions(150, 16)
    other[opening] = (other[opening] + 1) % SCENARIO.actions.n
    assert_same(out, rollout(SMALL.vector_env(16, seed=4), other))


def test_no_session_exceeds_its_pages() -> None:
    out = rollout(SMALL.vector_env(16, seed=6), some_actions(200, 16))
    pages = out["observation"][1:, :, SMALL.observation_names.index("page")]
    assert pages.max() == pytest.approx(1.0)
    np.testing.assert_allclose(pages[out["truncated"]], 1.0)


def test_slates_hold_ten_distinct_items_and_repeat_none_within_a_session() -> None:
    env = SCENARIO.vector_env(8, seed=9)
    out = rollout(env, some_actions(120, 8))
    ended = out["terminated"] | out["truncated"]
    for e in range(8):
        seen: set[int] = set()
        for t in range(120):
            slate = out["slate"][t, e]
            if slate[0] < 0:
                seen = set()
                continue
            assert len(set(slate)) == 10
            assert not seen & set(slate.tolist())
            seen |= set(slate.tolist())
            if ended[t, e]:
                seen = set()


def test_parts_say_what_happened() -> None:
    out = rollout(SCENARIO.vector_env(32, seed=10), some_actions(150, 32))
    part = {name: i for i, name in enumerate(SCENARIO.part_names)}
    up, down = out["numerators"], out["denominators"]
    shown = out["slate"][:, :, 0] >= 0
    clicked = out["click"] >= 0
    np.testing.assert_array_equal(up[..., part["ctr"]], clicked)
    np.testing.assert_array_equal(down[..., part["ctr"]], 10.0 * shown)
    np.testing.assert_array_equal(up[..., part["cvr"]], out["order"])
    np.testing.assert_array_equal(down[..., part["cvr"]], clicked)
    assert not (out["order"] & ~clicked).any()
    np.testing.assert_array_equal(down[..., part["diversity"]], shown)
    assert (up >= 0).all()
    # Costs by hand: items plus the strategy's retrieval, per 1,000 impressions.
    actions = some_actions(150, 32)
    for t, e in [(0, 0), (3, 5), (7, 31), (100, 2)]:
        if shown[t, e]:
            retrieval = SCENARIO.reference.actions.retrieval[SCENARIO.describe_action(actions[t, e])["retrieval"]]
            expected = SCENARIO.catalogue.cost_i[out["slate"][t, e]].sum() + 10 * retrieval["cost"]
            assert up[t, e, part["cost"]] == pytest.approx(expected)
    sessions = down[..., part["impressions_per_session"]].sum()
    opened = 32 + (~shown[:-1]).sum()  # a session counts with its first page
    assert sessions == opened
    assert up[..., part["impressions_per_session"]].sum() == 10 * shown.sum()


def test_coverage_counts_the_distinct_items_of_a_window() -> None:
    out = rollout(SCENARIO.vector_env(4, seed=12), np.zeros((70, 4), dtype=int))
    uncovered = out["numerators"][..., SCENARIO.part_names.index("coverage")]
    for e in range(4):
        pages = [
            (slate, fresh) for slate, fresh in zip(out["slate"][:, e], uncovered[:, e], strict=True) if slate[0] >= 0
        ]
        window = pages[:50]
        assert sum(fresh for _, fresh in window) == len({i for slate, _ in window for i in slate})
        assert pages[50][1] == 10  # a new window has seen nothing


def test_rewards_are_the_normalised_objectives_of_the_page() -> None:
    out = rollout(SCENARIO.vector_env(64, seed=13), some_actions(100, 64))
    shown = out["slate"][:, :, 0] >= 0
    reward, up, down = out["reward"][shown], out["numerators"][shown], out["denominators"][shown]
    values = SCENARIO.objective_values(up, down)
    expected = normalise(SCENARIO.objectives, values)
    for i in (0, 2, 3):
        np.testing.assert_allclose(reward[:, i], expected[:, i], rtol=1e-12)
    calibrated = SCENARIO.calibrated
    cvr = SCENARIO.objectives[1]
    surplus = (up[:, 1] - calibrated.cvr0 * down[:, 1]) / calibrated.clicks_per_page
    np.testing.assert_allclose(reward[:, 1], (calibrated.cvr0 + surplus - cvr.low) / (cvr.high - cvr.low))
    neutral = (calibrated.cvr0 - cvr.low) / (cvr.high - cvr.low)
    np.testing.assert_allclose(reward[down[:, 1] == 0, 1], neutral)
    # Sums of rewards are the objectives, so what is learned is what is reported.
    pooled = normalise(SCENARIO.objectives, SCENARIO.objective_values(up.sum(axis=0), down.sum(axis=0)))
    np.testing.assert_allclose(reward.mean(axis=0)[[0, 2, 3]], pooled[[0, 2, 3]])


def test_expected_rewards_have_the_same_mean_and_less_noise() -> None:
    actions = some_actions(150, 128)
    realised = rollout(SCENARIO.vector_env(128, seed=18), actions)
    expected = rollout(Recommender(reward="expected").vector_env(128, seed=18), actions)
    shown = realised["slate"][:, :, 0] >= 0
    a, b = realised.pop("reward")[shown], expected.pop("reward")[shown]
    assert_same(realised, expected)  # the world, and what is reported of it, are the same
    np.testing.assert_array_equal(a[:, 2:], b[:, 2:])
    difference = (a - b)[:, :2]
    standard_error = difference.std(axis=0) / np.sqrt(len(difference))
    assert (np.abs(difference.mean(axis=0)) < 4 * standard_error).all()
    assert (b[:, :2].std(axis=0) < 0.6 * a[:, :2].std(axis=0)).all()


def test_interests_and_trends_drift() -> None:
    env = SCENARIO.vector_env(32, seed=14)
    env.reset()
    start = env.get_state()
    zero = np.zeros(32, dtype=int)
    env.step(zero)
    one = env.get_state()
    moved = np.abs(one["taste"] - start["taste"]).sum(axis=1)
    assert (moved > 0).all()
    assert moved.max() < 0.2  # gently within a session
    assert (one["trend"] != start["trend"]).all()
    largest = 0.0
    for _ in range(150):
        before = env.get_state()["trend"]
        env.step(zero)
        largest = max(largest, float((env.get_state()["trend"] - before).max()))
    users = SCENARIO.reference.users
    assert largest > users.shock_size - 6 * users.trend_noise  # a shock came
    later = env.get_state()
    np.testing.assert_allclose(later["taste"].sum(axis=1), 1.0, rtol=1e-5)
    assert (later["taste"] >= 0).all()


def test_arrivals_follow_their_constants() -> None:
    env = SCENARIO.vector_env(4000, seed=21)
    env.reset()
    state, users = env.get_state(), SCENARIO.reference.users
    share = np.bincount(state["segment"], minlength=4) / 4000
    np.testing.assert_allclose(share, users.segment_shares, atol=5 * np.sqrt(0.25 / 4000))
    assert state["mobile"].mean() == pytest.approx(users.mobile_share, abs=5 * np.sqrt(0.25 / 4000))
    for segment in range(4):
        here = state["segment"] == segment
        n = here.sum()
        for name, mean, shape in (
            ("sensitivity", users.price_sensitivity[segment], users.price_sensitivity_shape),
            ("patience", users.patience_pages[segment], users.patience_shape),
        ):
            values = state[name][here] / mean
            # Gamma with mean 1: variance 1 / shape.
            assert values.mean() == pytest.approx(1.0, abs=5 / np.sqrt(shape * n)), name
            assert values.var() == pytest.approx(1 / shape, rel=0.35), name
        logits = state["logits"][here] - SCENARIO.catalogue.segment_centre_sk[segment]
        assert logits.std() == pytest.approx(users.taste_spread, rel=5 / np.sqrt(2 * 12 * n))
        np.testing.assert_allclose(
            state["taste"][here].mean(axis=0), SCENARIO.catalogue.segment_mean_sk[segment], atol=5 * 0.35 / np.sqrt(n)
        )


def test_item_estimates_learn_the_hidden_quality() -> None:
    env = Recommender(items=300, topics=4, episode_steps=10).vector_env(512, seed=22)
    env.reset()
    rng = np.random.default_rng(0)
    n = env.single_action_space.n
    for _ in range(150):
        env.step(rng.integers(n, size=512))
    state, cat = env.get_state(), env.scenario.catalogue
    day = (state["clock"] // 24).astype(int) % 64
    residual = cat.quality_i - cat.observed_quality_di[day]
    informed = state["precision"] > 0.05
    estimate = state["estimate"][informed]
    assert np.corrcoef(estimate, residual[informed])[0, 1] > 0.05
    # Using them brings the platform closer to the truth than its prior alone.
    assert ((residual[informed] - estimate) ** 2).mean() < (residual[informed] ** 2).mean()


def test_the_estimate_approaches_the_taste_it_cannot_see() -> None:
    env = SCENARIO.vector_env(256, seed=15)
    observation, _ = env.reset()
    columns = [SCENARIO.observation_names.index(f"taste_{k}") for k in range(12)]
    action = np.full(256, SCENARIO.actions.index(1, 1, 3, 0))

    def agreement(observation) -> float:
        latent = env.get_state()["taste"]
        shares = observation[:, columns]
        cosine = (latent * shares).sum(axis=1)
        return float((cosine / np.linalg.norm(latent, axis=1) / np.linalg.norm(shares, axis=1)).mean())

    at_first = agreement(observation)
    for _ in range(5):
        observation, *_ = env.step(action)
    assert agreement(observation) > at_first + 0.05


def test_observations_hold_nothing_latent() -> None:
    env = SMALL.vector_env(8, seed=16)
    first, _ = env.reset()
    state = env.get_state()
    for name in ("taste", "logits", "sensitivity", "satisfaction", "patience", "trend"):
        state[name] = state[name] * 0.5 + 0.01
    env.set_state(state)
    np.testing.assert_array_equal(env.observe(), first)


def test_satisfied_users_come_back_and_are_remembered() -> None:
    env = SCENARIO.vector_env(64, seed=17)
    out = rollout(env, np.full((200, 64), SCENARIO.actions.index(1, 1, 3, 0)))
    names = SCENARIO.observation_names
    opening = out["slate"][:, :, 0] < 0
    first = out["observation"][1:][opening]
    returning = first[:, names.index("returning")] > 0
    assert 0.2 < returning.mean() < 0.95
    confidence = first[:, names.index("confidence")]
    assert confidence[returning].mean() > 0.3
    assert (confidence[~returning] == 0).all()
    # A running number changes exactly when a new user arrives.
    arrived = (np.diff(out["user"], axis=0) == 1)[opening[1:]]
    later = out["observation"][2:][opening[1:]][:, names.index("returning")] == 0
    np.testing.assert_array_equal(arrived, later)


def test_step_needs_a_reset_and_good_actions() -> None:
    env = SMALL.vector_env(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, dtype=int))
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset before observe"):
        env.observe()
    env.reset()
    before = env.get_state()
    with pytest.raises(InvalidInputError, match="action must be whole numbers from 0 to 734, got 735 in row 1"):
        env.step(np.array([0, 735]))
    # A refused action moved nothing, not even the random stream.
    after = env.get_state()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([1, [2, 3]], r"action must be an array \(2,\) of whole numbers from 0 to 734, got \[1, \[2, 3\]\]"),
        ([[1], [2]], r"action has shape \(2, 1\); expected \(2,\)"),
        (None, r"action has shape \(\)"),
        ("ab", r"action has shape \(\)"),
        (["a", "b"], "action must be whole numbers from 0 to 734"),
        ([1.0, 2.0], "action must be whole numbers from 0 to 734, got float64"),
        ([None, 1], "action must be whole numbers from 0 to 734, got object"),
        ([True, False], "action must be whole numbers from 0 to 734, got bool"),
        (np.ma.masked_all(2, dtype=int), "action is masked"),
    ],
)
def test_odd_actions_are_refused_by_name(actions, message) -> None:
    env = SMALL.vector_env(2)
    env.reset()
    with pytest.raises(InvalidInputError, match=message) as caught:
        env.step(actions)
    assert caught.value.field == "action"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        *(({"num_envs": value}, "num_envs") for value in (None, "2", 2.0, [2], True, 10**30)),
        *(({"seed": value}, "seed") for value in ("7", 1.5, [1, "b"], [[1], [2]], {"a": 1}, np.ones((2, 2)), b"12")),
        *(({"threads": value}, "threads") for value in (0, 1.5, "two", True)),
        *(({"copy": value}, "copy") for value in ("yes", None, np.ones(2))),
    ],
)
def test_odd_options_of_an_environment_are_refused_by_name(options, field) -> None:
    with pytest.raises((InvalidInputError, ConfigurationError), match=field) as caught:
        SMALL.vector_env(**({"num_envs": 2} | options))
    assert caught.value.field == field


@pytest.mark.parametrize(("seed", "message"), [([1], "1 entries; expected 2"), (-1, ">= 0"), ([1, -2], ">= 0")])
def test_bad_seeds_are_refused(seed, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SMALL.vector_env(2, seed=seed)
    with pytest.raises(InvalidInputError, match=message):
        SMALL.vector_env(2).reset(seed=seed)


def test_needs_at_least_one_environment() -> None:
    with pytest.raises(InvalidInputError, match="num_envs must be a whole number >= 1, got 0"):
        SMALL.vector_env(0)
