"""The contract of the vector environment: determinism, autoreset, state, bounds, invariants."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW

SIZES = ("small", "medium", "large")
PARTS = Network5G().part_names


def default_actions(env):
    return np.repeat(Network5G().baselines["default"].make().action[None], env.num_envs, axis=0)


def random_actions(rng, rows):
    return LOW + (HIGH - LOW) * rng.random((rows, len(LOW)))


def rollout(env, steps, seed=0, *, reset=None):
    """Everything a rollout returns, under actions that differ by cell but not by environment."""
    rng, seen = np.random.default_rng(seed), []
    if reset is not None:
        seen.append((env.reset(seed=reset)[0],))
    for _ in range(steps):
        one = random_actions(rng, env.rows_per_env)
        observation, reward, _, _, infos = env.step(np.tile(one, (env.num_envs // env.rows_per_env, 1)))
        seen.append((observation, reward, infos["numerators"], infos["denominators"]))
    return seen


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("size", SIZES)
def test_shapes_types_and_rows(size):
    scenario = Network5G(size=size)
    env = scenario.vector_env(2)
    assert env.rows_per_env == scenario.cells
    assert env.num_envs == 2 * scenario.cells
    observation, _ = env.reset(seed=1)
    assert observation.dtype == np.float32
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, infos = env.step(default_actions(env))
    assert env.observation_space.contains(observation)
    assert reward.shape == (env.num_envs, 4)
    assert reward.dtype == np.float64
    assert terminated.shape == truncated.shape == (env.num_envs,)
    assert terminated.dtype == truncated.dtype == bool
    for name in ("numerators", "denominators"):
        assert infos[name].shape == (env.num_envs, len(scenario.part_names))
        assert infos[name].dtype == np.float64
    assert len(scenario.observation_names) == observation.shape[1]


@pytest.mark.parametrize("size", SIZES)
def test_an_environment_is_the_same_whatever_stands_beside_it(size):
    scenario, steps = Network5G(size=size, episode_steps=15), 20
    together = rollout(scenario.vector_env(5), steps, reset=[11, 12, 13, 14, 15])
    alone = rollout(scenario.vector_env(1), steps, reset=13)
    cells = scenario.cells
    assert_same([tuple(x[2 * cells : 3 * cells] for x in step) for step in together], alone)


def test_an_integer_seed_is_spread_over_the_environments():
    scenario = Network5G()
    three, cells = rollout(scenario.vector_env(3), 3, reset=7), scenario.cells
    assert_same([tuple(x[:cells] for x in step) for step in three], rollout(scenario.vector_env(1), 3, reset=7))
    assert not np.array_equal(three[0][0][:cells], three[0][0][cells : 2 * cells])
    fresh = scenario.vector_env(3, seed=7)
    np.testing.assert_array_equal(fresh.reset()[0], scenario.vector_env(3).reset(seed=7)[0])
    assert not np.array_equal(fresh.reset()[0], scenario.vector_env(3).reset(seed=7)[0])


def test_actions_do_not_touch_the_random_stream():
    scenario = Network5G(episode_steps=30)
    first, second = scenario.vector_env(2), scenario.vector_env(2)
    first.reset(seed=3)
    second.reset(seed=3)
    rng, offered = np.random.default_rng(0), PARTS.index("served")
    for _ in range(45):  # across an autoreset
        a = first.step(default_actions(first))[4]["denominators"]
        b = second.step(random_actions(rng, second.num_envs))[4]["denominators"]
        per_env = (2, scenario.cells)
        np.testing.assert_allclose(
            a[:, offered].reshape(per_env).sum(axis=1), b[:, offered].reshape(per_env).sum(axis=1), rtol=1e-12
        )
        np.testing.assert_array_equal(first.measurements()["position"], second.measurements()["position"])


def test_state_round_trip_is_exact_and_copied():
    env = Network5G(episode_steps=40).vector_env(3)
    env.reset(seed=5)
    rollout(env, 17)
    state = env.get_state()
    first = rollout(env, 30, seed=1)
    env.set_state(state)
    assert_same(first, rollout(env, 30, seed=1))
    other = Network5G(episode_steps=40).vector_env(3, seed=99)
    other.set_state(state)
    assert_same(first, rollout(other, 30, seed=1))
    with pytest.raises(InvalidInputError, match="3 environments; expected 2"):
        Network5G().vector_env(2).set_state(state)


def test_autoreset_happens_in_the_next_step():
    env = Network5G(episode_steps=5).vector_env(2)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=1)
    for step in range(5):
        *_, truncated, infos = env.step(default_actions(env))
        assert truncated.all() == (step == 4)
        assert not truncated.any() or truncated.all()
    served = PARTS.index("served")
    assert infos["denominators"][:, served].sum() > 0
    # The action of the resetting step is ignored, so any valid one gives the same observation.
    state = env.get_state()
    first, reward, terminated, truncated, infos = env.step(default_actions(env))
    assert not reward.any()
    assert not (terminated | truncated).any()
    assert not infos["numerators"].any()
    assert not infos["denominators"].any()
    env.set_state(state)
    second = env.step(random_actions(np.random.default_rng(0), env.num_envs))[0]
    np.testing.assert_array_equal(first, second)
    assert env.step(default_actions(env))[4]["denominators"].any()


def test_what_was_returned_is_never_overwritten():
    env = Network5G(episode_steps=4).vector_env(2)
    kept = [env.reset(seed=1)[0]]
    copies = [kept[0].copy()]
    for _ in range(9):
        observation, reward, terminated, truncated, infos = env.step(default_actions(env))
        new = [observation, reward, terminated, truncated, *infos.values()]
        kept, copies = kept + new, copies + [x.copy() for x in new]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 17.0])
def test_a_bad_action_names_its_place_and_changes_nothing(bad):
    env = Network5G().vector_env(2)
    env.reset(seed=1)
    actions = default_actions(env)
    actions[4, ACTION_NAMES.index("tilt_deg")] = bad
    before = env.get_state()
    with pytest.raises(InvalidInputError, match=r"tilt_deg of environment 1, cell 1 .* allowed: \[0, 16\]"):
        env.step(actions)
    after = rollout(env, 2)
    env.set_state(before)
    assert_same(after, rollout(env, 2))


def test_a_misshapen_action_or_a_missing_reset_is_refused():
    env = Network5G().vector_env(2)
    with pytest.raises(InvalidInputError, match="call reset first"):
        env.step(default_actions(env))
    env.reset()
    with pytest.raises(InvalidInputError, match=r"expected \(6, 9\)"):
        env.step(default_actions(env)[:3])
    with pytest.raises(InvalidInputError, match="not an array of numbers"):
        env.step(np.array([["up"] * 9] * 6))
    with pytest.raises(InvalidInputError, match="expected 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(InvalidInputError, match=">= 0"):
        env.reset(seed=-1)


def test_the_action_passed_in_is_neither_kept_nor_changed():
    env = Network5G().vector_env(1)
    env.reset(seed=1)
    actions = default_actions(env)
    before = actions.copy()
    first = env.step(actions)[0]
    np.testing.assert_array_equal(actions, before)
    copy = first.copy()
    actions[...] = HIGH
    np.testing.assert_array_equal(first, copy)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from(["small", "medium"]), load=st.sampled_from(["low", "high"]))
def test_invariants_hold_under_any_actions(seed, size, load):
    scenario = Network5G(size=size, load=load, episode_steps=25)
    env = scenario.vector_env(2)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    energy = scenario.reference.energy
    floor = energy.transceivers * energy.sleep_w
    ceiling = energy.transceivers * (energy.idle_w * (1 + energy.switch_ms / 100) + energy.slope * energy.maximum_w)
    column = {name: i for i, name in enumerate(PARTS)}
    for _ in range(25):
        observation, reward, _, _, infos = env.step(random_actions(rng, env.num_envs))
        n, d = infos["numerators"], infos["denominators"]
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward).all()
        assert np.isfinite(n).all()
        assert np.isfinite(d).all()
        assert (n >= -1e-9).all()
        assert (d >= -1e-9).all()
        assert (n[:, column["rb_use"]] <= d[:, column["rb_use"]] + 1e-9).all()
        assert (n[:, column["satisfaction"]] <= d[:, column["satisfaction"]] + 1e-9).all()
        assert (n[:, column["asleep"]] + n[:, column["rb_use"]] <= 1 + 1e-9).all()
        power = n[:, column["energy"]] / d[:, column["energy"]]
        assert (power >= floor - 1e-9).all()
        assert (power <= ceiling + 1e-9).all()


def test_bits_offered_are_bits_served_dropped_or_waiting():
    env = Network5G(load="high", episode_steps=60).vector_env(2)
    env.reset(seed=2)
    rng, column = np.random.default_rng(0), PARTS.index("served")
    served = offered = 0.0
    urllc_lost = 0.0
    for _ in range(60):
        infos = env.step(random_actions(rng, env.num_envs))[4]
        served += infos["numerators"][:, column].sum()
        offered += infos["denominators"][:, column].sum()
    state = env.measurements()
    gone = sum(state[s]["total_departed"].sum() - state[s]["total_served"].sum() for s in ("embb", "mmtc"))
    waiting = sum(state[s]["backlog"].sum() for s in ("embb", "mmtc"))
    urllc_lost = offered - served - gone - waiting
    # URLLC queues hold nothing between intervals: what is missing is URLLC that found no service.
    assert -1e-9 <= urllc_lost <= 0.02 * offered


def test_users_are_handed_over_and_all_cells_off_serves_nobody():
    env = Network5G(size="medium").vector_env(4)
    env.reset(seed=1)
    handovers = sum(
        env.step(default_actions(env))[4]["numerators"][:, PARTS.index("handovers")].sum() for _ in range(150)
    )
    # 4 networks, 56 moving users, 15 s: about one in ten per user and second at 8 m/s and 500 m between sites.
    assert 30 < handovers < 1500
    dark = default_actions(env)
    dark[:, ACTION_NAMES.index("sleep")] = 1.0
    env.step(dark)
    infos = env.step(dark)[4]
    assert infos["numerators"][:, PARTS.index("served")].sum() == 0
    power = infos["numerators"][:, PARTS.index("energy")] / infos["denominators"][:, PARTS.index("energy")]
    assert power == pytest.approx(150.0)


def test_a_sleeping_cell_loses_its_users_and_saves_energy():
    env = Network5G(load="low").vector_env(8)
    env.reset(seed=1)
    actions = default_actions(env)
    actions[::3, ACTION_NAMES.index("sleep")] = 1.0
    for _ in range(3):
        infos = env.step(actions)[4]
    assert not (env.measurements()["serving"] == 0).any()
    energy = infos["numerators"][:, PARTS.index("energy")]
    assert energy[::3] == pytest.approx(15.0)
    assert energy[1::3].min() >= 26.0 - 1e-9


def test_the_end_of_an_episode_adds_what_still_waits():
    scenario = Network5G(load="high", episode_steps=30)
    env, longer = scenario.vector_env(3), Network5G(load="high", episode_steps=31).vector_env(3)
    env.reset(seed=4)
    longer.reset(seed=4)
    for _ in range(30):
        _, reward, _, _, infos = env.step(default_actions(env))
        _, usual, _, _, without = longer.step(default_actions(longer))
    np.testing.assert_array_equal(reward, usual)
    extra = infos["numerators"] - without["numerators"]
    assert (extra[:, :3] >= 0).all()
    assert extra[:, 0].sum() > 0
    assert not extra[:, 3:].any()
