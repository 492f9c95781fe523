"""The contract of the vector environment: determinism, autoreset, state, bounds, invariants, memory."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.power import power_model

SIZES = ("small", "medium", "large")
PARTS = Network5G().part_names
SLEEP = ACTION_NAMES.index("sleep")


def default_actions(env):
    return np.repeat(Network5G().baselines["default"].make().action[None], env.num_envs, axis=0)


def random_actions(rng, rows):
    return LOW + (HIGH - LOW) * rng.random((rows, len(LOW)))


def rollout(env, steps, seed=0, *, reset=None):
    """Everything a rollout returns, under actions that differ by cell but not by environment."""
    rng, seen = np.random.default_rng(seed), []
    if reset is not None:
        seen.append((env.reset(seed=reset)[0].copy(),))
    for _ in range(steps):
        one = random_actions(rng, env.rows_per_env)
        observation, reward, _, truncated, infos = env.step(np.tile(one, (env.num_envs // env.rows_per_env, 1)))
        found = (observation, reward, truncated, infos["numerators"], infos["denominators"])
        seen.append(tuple(array.copy() for array in found))
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
    assert env.bytes_per_environment > observation.nbytes // 2


@pytest.mark.parametrize("size", SIZES)
def test_an_environment_is_the_same_whatever_stands_beside_it(size):
    scenario, steps = Network5G(size=size, episode_steps=15), 20
    together = rollout(scenario.vector_env(5), steps, reset=[11, 12, 13, 14, 15])
    alone = rollout(scenario.vector_env(1), steps, reset=13)
    cells = scenario.cells
    assert_same([tuple(x[2 * cells : 3 * cells] for x in step) for step in together], alone)


def test_the_bits_do_not_depend_on_threads():
    scenario = Network5G(size="medium", episode_steps=12, mobility="gauss_markov", indoor=0.5)
    one, three = (scenario.vector_env(25, threads=threads) for threads in (1, 3))
    assert three.engine._workers.count == 3
    assert_same(rollout(one, 16, reset=4), rollout(three, 16, reset=4))


def test_a_reset_leaves_nothing_of_the_past():
    scenario = Network5G(size="medium", episode_steps=10)
    used, fresh = scenario.vector_env(3), scenario.vector_env(3)
    used.reset(seed=99)
    rollout(used, 14, seed=5)
    assert_same(rollout(used, 14, reset=6), rollout(fresh, 14, reset=6))


def test_an_integer_seed_is_spread_over_the_environments():
    scenario = Network5G()
    three, cells = rollout(scenario.vector_env(3), 3, reset=7), scenario.cells
    assert_same([tuple(x[:cells] for x in step) for step in three], rollout(scenario.vector_env(1), 3, reset=7))
    assert not np.array_equal(three[0][0][:cells], three[0][0][cells : 2 * cells])
    fresh = scenario.vector_env(3, seed=7)
    np.testing.assert_array_equal(fresh.reset()[0], scenario.vector_env(3).reset(seed=7)[0])
    assert not np.array_equal(fresh.reset()[0], scenario.vector_env(3).reset(seed=7)[0])


@pytest.mark.parametrize("mobility", ["waypoint", "gauss_markov"])
def test_actions_do_not_touch_the_random_stream(mobility):
    scenario = Network5G(episode_steps=30, mobility=mobility)
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
        here, there = first.measurements()["users"], second.measurements()["users"]
        np.testing.assert_array_equal(here[["x", "y"]], there[["x", "y"]])


def test_state_round_trip_is_exact_and_copied():
    env = Network5G(episode_steps=40, delays=True).vector_env(3)
    env.reset(seed=5)
    rollout(env, 17)
    state = env.get_state()
    first = rollout(env, 30, seed=1)
    env.set_state(state)
    assert_same(first, rollout(env, 30, seed=1))
    other = Network5G(episode_steps=40, delays=True).vector_env(3, seed=99)
    other.set_state(state)
    assert_same(first, rollout(other, 30, seed=1))
    with pytest.raises(InvalidInputError, match=r"state\.environments has shape \(3,\); expected \(2,\)"):
        Network5G(episode_steps=40, delays=True).vector_env(2).set_state(state)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"load": "high"}, {}, "load is 'high' there and 'mid' here"),
        ({}, {"episode_steps": 40}, "episode_steps is 700 there and 40 here"),
        ({"hour": 3}, {"hour": 4.5}, "hour is 3 there and 4.5 here"),
        ({"delays": True}, {}, "delays is True there and False here"),
        ({"control": "central"}, {}, "control is 'central' there and 'cell' here"),
        ({"size": "medium"}, {}, "size is 'medium' there and 'small' here"),
        ({"events": [{"kind": "outage", "cell": 0, "at_s": 3}]}, {}, r"events is .* and \[\] here"),
        (
            {"mobility": "trace", "traces": [np.zeros((9, 2))]},
            {"mobility": "trace", "traces": [np.ones((9, 2))]},
            "traces is .* there and .* here",
        ),
    ],
    ids=str,
)
def test_a_state_of_other_options_is_refused_by_name(there, here, message):
    state = Network5G(**there).vector_env(1).get_state()
    env = Network5G(**here).vector_env(1, seed=3)
    env.reset()
    before = env.get_state()
    with pytest.raises(InvalidInputError, match=message) as caught:
        env.set_state(state)
    assert caught.value.field == "state"
    for name, array in env.get_state()["engine"].items():
        np.testing.assert_array_equal(array, before["engine"][name])


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({"hour": 3}, {"hour": np.float64(3.0)}),
        ({"power_model": ["type1"] * 3}, {"power_model": ("type1",) * 3}),
        (
            {"mobility": "trace", "traces": [np.ones((9, 2))]},
            {"mobility": "trace", "traces": (np.ones((9, 2), dtype=np.float32).tolist(),)},
        ),
    ],
    ids=str,
)
def test_options_that_say_the_same_continue_each_other(there, here):
    first, second = Network5G(**there).vector_env(1, seed=4), Network5G(**here).vector_env(1, seed=5)
    first.reset()
    second.reset()
    action = np.stack([first.single_action_space.sample()] * first.num_envs)
    first.step(action)
    second.set_state(pickle.loads(pickle.dumps(first.get_state())))
    for one, other in zip(first.step(action)[:4], second.step(action)[:4], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_site_file_is_known_by_what_it_says(tmp_path):
    header, rest = "x_m,y_m,azimuth_deg\n", "500,0,120\n0,800,240\n"
    states = []
    for name, first in (("a", "0,0,0\n"), ("b", "0,0,0\n"), ("c", "9,0,0\n")):
        file = tmp_path / name / "sites.csv"
        file.parent.mkdir()
        file.write_text(header + first + rest)
        states.append((file, Network5G(sites=file).vector_env(1).get_state()))
    env = Network5G(sites=str(states[0][0])).vector_env(1)
    env.set_state(states[1][1])
    with pytest.raises(InvalidInputError, match=r"sites is layout .* there and layout .* here"):
        env.set_state(states[2][1])


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


@pytest.mark.parametrize("control", ["cell", "central"])
def test_without_copies_the_values_are_the_same_and_memory_stays(control):
    scenario = Network5G(size="medium", episode_steps=1000, control=control)
    env, copying = (scenario.vector_env(256, copy=copy, threads=2) for copy in (False, True))
    assert_same(rollout_any(env, 8), rollout_any(copying, 8))
    actions = np.repeat((scenario.single_action_space.low)[None], env.num_envs, axis=0)
    first = flat(env.step(actions))
    for array, again in zip(first, flat(env.step(actions)), strict=True):
        assert np.shares_memory(array, again)
    tracemalloc.start()
    try:
        env.step(actions)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(50):
            env.step(actions)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Views and the pool's futures come and go, and numpy keeps up to a thousand small blocks of them for reuse; of a
    # step's arrays, which are larger than all of these together, none is made.
    assert after - before < 120_000 < first[0].nbytes
    assert peak - before < 120_000


def flat(result):
    observation, reward, terminated, truncated, infos = result
    return observation, reward, terminated, truncated, infos["numerators"], infos["denominators"]


def rollout_any(env, steps):
    """As ``rollout``, for either kind of control."""
    seen = [(env.reset(seed=8)[0].copy(),)]
    rng, space = np.random.default_rng(2), env.single_action_space
    for _ in range(steps):
        actions = space.low + (space.high - space.low) * rng.random((env.num_envs, *space.shape))
        seen.append(tuple(x.copy() for x in flat(env.step(actions))))
    return seen


def test_central_control_is_the_control_of_all_cells_at_once():
    cell = Network5G(size="medium", episode_steps=12).vector_env(3)
    central = Network5G(size="medium", episode_steps=12, control="central").vector_env(3)
    assert (central.num_envs, central.rows_per_env) == (3, 1)
    np.testing.assert_array_equal(cell.reset(seed=2)[0].reshape(3, -1), central.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    for _ in range(16):
        actions = random_actions(rng, cell.num_envs)
        a, b = flat(cell.step(actions)), flat(central.step(actions.reshape(3, -1)))
        np.testing.assert_array_equal(a[0].reshape(3, -1), b[0])
        np.testing.assert_allclose(a[1].reshape(3, 7, 4).mean(axis=1), b[1], rtol=1e-12)
        np.testing.assert_array_equal(a[3].reshape(3, 7)[:, 0], b[3])
        np.testing.assert_allclose(a[4].reshape(3, 7, -1).sum(axis=1), b[4], rtol=1e-12)
        np.testing.assert_allclose(a[5].reshape(3, 7, -1).sum(axis=1), b[5], rtol=1e-12)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda good: [[1, 2], [3]],
        lambda good: None,
        lambda good: good.astype(str),
        lambda good: good.astype(bool),
        lambda good: good + 5j,
        lambda good: good.astype(object),
        lambda good: np.ma.masked_array(good, mask=True),
        lambda good: np.zeros(good.shape, dtype="M8[s]"),
        lambda good: {"a": 1},
        lambda good: torch.tensor(good, requires_grad=True),
    ],
    ids=["ragged", "none", "text", "booleans", "complex", "objects", "masked", "dates", "mapping", "gradient"],
)
def test_an_action_that_is_no_array_of_numbers_is_refused(make):
    scenario = Network5G()
    env, other = scenario.vector_env(2), scenario.vector_env(2)
    for each in (env, other):
        each.reset(seed=1)
    good = default_actions(env)
    with pytest.raises(InvalidInputError, match="action is not an array of numbers") as caught:
        env.step(make(good))
    assert caught.value.field == "action"
    np.testing.assert_array_equal(env.step(good)[0], other.step(good)[0])


def test_every_array_of_numbers_is_an_action():
    env = Network5G().vector_env(2)
    good = np.tile([0, 8, 0, 3, 1, 1, 1, 1, 0], (env.num_envs, 1))
    env.reset(seed=1)
    expected = env.step(good.astype(np.float64))[0]
    for same in (good, good.tolist(), good.astype(np.float32), good.astype(np.float16), torch.tensor(good)):
        env.reset(seed=1)
        np.testing.assert_array_equal(env.step(same)[0], expected)


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        "state",
        [1],
        {"engine": {}},
        {"started": True},
        {"engine": None, "started": True},
        {"engine": "x", "started": True},
        {"engine": {}, "started": "yes"},
        {"engine": {}, "started": True},
        {"engine": {}, "started": True, "options": None},
        {"engine": {}, "started": True, "options": {}},
        {"engine": {}, "started": True, "options": Network5G().vector_env(1).get_state()["options"]},
    ],
    ids=str,
)
def test_a_state_that_is_none_is_refused(state):
    env = Network5G().vector_env(1)
    with pytest.raises(InvalidInputError) as caught:
        env.set_state(state)
    assert caught.value.field == "state"


def test_a_bad_central_action_names_its_cell():
    env = Network5G(control="central").vector_env(2)
    env.reset(seed=1)
    actions = np.repeat(env.single_action_space.low[None], 2, axis=0)
    actions[1, 2 * len(LOW) + ACTION_NAMES.index("alpha")] = 0.0
    with pytest.raises(InvalidInputError, match=r"alpha of environment 1, cell 2 is 0; allowed: \[0.5, 2.5\]"):
        env.step(actions)


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


def check_parts(scenario, env, result):
    """What holds in every step under any settings."""
    observation, reward, _, _, infos = result
    model = power_model(env.engine.network.power_models[0])
    column = {name: i for i, name in enumerate(PARTS)}
    n, d = infos["numerators"], infos["denominators"]
    assert env.observation_space.contains(observation)
    for array in (reward, n, d):
        assert np.isfinite(array).all()
    assert (n >= -1e-9).all()
    assert (d >= -1e-9).all()
    # Resource blocks used are at most those there are; a part of a whole is at most the whole.
    for name in ("rb_use", "satisfaction", "outage", "asleep"):
        assert (n[:, column[name]] <= d[:, column[name]] + 1e-9).all()
    power = n[:, column["energy"]] / d[:, column["energy"]]
    off = observation[:, scenario.observation_names.index("own_off")] > 0.5
    asleep, use = n[:, column["asleep"]], n[:, column["rb_use"]]
    assert (asleep[~off] + use[~off] <= 1 + 1e-9).all()
    assert (use[off] == 0).all()
    switching = max(model.light_switch_j, model.deep_switch_j) / 0.1
    assert (power >= model.deep_w - 1e-9).all()
    assert (power[off] <= model.idle_w + switching + 1e-9).all()
    assert (power[~off] <= model.full_w + 1e-9).all()
    awake = ~off & (asleep == 0)
    assert (power[awake] >= model.idle_w - 1e-9).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from(["small", "medium"]), load=st.sampled_from(["low", "high"]))
def test_invariants_hold_under_any_actions(seed, size, load):
    scenario = Network5G(size=size, load=load, episode_steps=25)
    env = scenario.vector_env(2)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    for _ in range(25):
        check_parts(scenario, env, env.step(random_actions(rng, env.num_envs)))


ODD = (
    {},
    {"interlock": False},
    {"users": 3},
    {"cells": 1, "users": 3},
    {"cells": 1, "users": 60, "load": "high"},
    {"cells": 2, "sectors": 1, "mobility": "gauss_markov", "indoor": 1.0},
    {"cells": 3, "sectors": 3, "columns": 8, "layers": 4, "modulation": "256qam", "bandwidth_mhz": 100.0},
    {"size": "medium", "propagation": "umi", "embb_traffic": "constant", "mmtc_traffic": "beta", "hours_per_s": 1.0},
    {"power_model": "tr38864_set1", "delays": True, "load": "high"},
)


@pytest.mark.parametrize("options", ODD, ids=lambda options: "-".join(options))
@settings(max_examples=4, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_a_step_is_finite_on_the_corners_of_the_box(options, data, seed):
    scenario = Network5G(**options, episode_steps=20)
    env = scenario.vector_env(1)
    env.reset(seed=seed)
    corner = st.lists(st.booleans(), min_size=len(LOW), max_size=len(LOW))
    for _ in range(3):
        high = np.array([data.draw(corner) for _ in range(env.num_envs)])
        actions = np.where(high, HIGH, LOW)
        if data.draw(st.booleans(), label="all off"):
            actions[:, SLEEP] = 1.0
        for _ in range(4):
            check_parts(scenario, env, env.step(actions))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), load=st.sampled_from(["low", "high"]), beta=st.booleans())
def test_bits_in_are_bits_out_waiting_or_discarded_for_every_user(seed, load, beta):
    scenario = Network5G(load=load, episode_steps=50, mmtc_traffic="beta" if beta else "poisson")
    env = scenario.vector_env(2, threads=1)
    env.reset(seed=seed)
    rng, work = np.random.default_rng(seed), env.engine.scratch.users[0]
    embb, urllc, _ = scenario.users
    gone = {name: np.zeros(sum(scenario.users)) for name in ("offered", "carried", "dropped")}
    served, offered = PARTS.index("served"), 0.0
    for _ in range(50):
        infos = env.step(random_actions(rng, env.num_envs))[4]
        # The working arrays are those of the last environment of the chunk.
        for name, total in gone.items():
            total += work[name]
        mine = slice(scenario.cells, None)
        assert infos["numerators"][mine, served].sum() == pytest.approx(work["carried"].sum())
        assert infos["denominators"][mine, served].sum() == pytest.approx(work["offered"].sum())
        offered += work["offered"].sum()
        state = env.engine.state
        waiting = np.concatenate([state.embb["backlog"][1], np.zeros(urllc), state.mmtc["backlog"][1]])
        assert gone["offered"] == pytest.approx(gone["carried"] + gone["dropped"] + waiting, abs=1e-9)
        assert (waiting >= 0).all()
        for fluid, part in ((state.embb[1], slice(0, embb)), (state.mmtc[1], slice(embb + urllc, None))):
            assert fluid["arrived"] == pytest.approx(gone["offered"][part], abs=1e-9)
            assert fluid["departed"] + fluid["backlog"] == pytest.approx(fluid["arrived"], abs=1e-9)
    assert offered > 0


def test_users_are_handed_over_and_all_cells_off_serves_nobody():
    scenario = Network5G(size="medium", interlock=False)
    env = scenario.vector_env(4)
    env.reset(seed=1)
    handovers = sum(
        env.step(default_actions(env))[4]["numerators"][:, PARTS.index("handovers")].sum() for _ in range(150)
    )
    # 4 networks, 56 moving users, 15 s: about one in ten per user and second at 8 m/s and 500 m between sites.
    assert 30 < handovers < 1500
    dark = default_actions(env)
    dark[:, SLEEP] = 1.0
    env.step(dark)
    infos = env.step(dark)[4]
    assert infos["numerators"][:, PARTS.index("served")].sum() == 0
    power = infos["numerators"][:, PARTS.index("energy")] / infos["denominators"][:, PARTS.index("energy")]
    model = power_model(scenario.reference.energy.model)
    assert power == pytest.approx(model.deep_w)


def test_a_sleeping_cell_loses_its_users_and_saves_energy():
    scenario = Network5G(load="low")
    env, model = scenario.vector_env(8), power_model(scenario.reference.energy.model)
    env.reset(seed=1)
    actions = default_actions(env)
    actions[::3, SLEEP] = 1.0
    for _ in range(3):
        infos = env.step(actions)[4]
    assert not (env.measurements()["users"]["serving"] == 0).any()
    energy = infos["numerators"][:, PARTS.index("energy")]
    assert energy[::3] == pytest.approx(0.1 * model.deep_w)
    assert energy[1::3].min() >= 0.1 * model.idle_w - 1e-9


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


def test_delays_are_recorded_on_request_and_add_up_to_the_mean():
    scenario = Network5G(delays=True, load="mid", hour=12)
    env = scenario.vector_env(16)
    env.reset(seed=3)
    n = d = 0.0
    for _ in range(150):
        infos = env.step(default_actions(env))[4]
        n, d = n + infos["numerators"].sum(axis=0), d + infos["denominators"].sum(axis=0)
    found, means = env.delays(), n / d
    for i, name in enumerate(("embb", "urllc", "mmtc")):
        # Bins are 24 % wide; what still waits is in the sums of the parts but not yet in the histogram.
        assert found[name]["mean_ms"] == pytest.approx(means[i], rel=0.3)
        assert 0 < found[name]["p95_ms"] <= found[name]["p99_ms"] <= found[name]["p99999_ms"]
        assert 0 <= found[name]["late"] <= 1
    with pytest.raises(InvalidInputError, match="delays=True"):
        Network5G().vector_env(1).delays()
