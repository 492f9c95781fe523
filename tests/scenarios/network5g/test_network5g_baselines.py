"""The rules to compare with: what they do to made-up observations, and that all of them run under both controls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlaas.scenarios import evaluate
from rlaas.scenarios.controllers import ConstantController
from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES
from rlaas.scenarios.network5g.rules import LoadBalancing, LoadSleep, WaterFilling, WholeNetwork, water_fill

NAMES = ("max_rsrp", "default", "load_sleep", "load_balancing", "water_filling", "tuned_static", "tuned_reactive")
POWER, OFFSET, SLEEP = (ACTION_NAMES.index(name) for name in ("power_db", "cell_offset_db", "sleep"))
SEEN = {name: i for i, name in enumerate(OBSERVATION_NAMES)}


def quiet(rows, **values):
    observation = np.zeros((rows, len(OBSERVATION_NAMES)), dtype=np.float32)
    for name, value in values.items():
        observation[:, SEEN[name]] = value
    return observation


def test_the_baselines_have_names_and_an_order():
    scenario = Network5G()
    assert tuple(scenario.baselines) == NAMES
    assert scenario.default_baseline == "default"
    assert set(scenario.tunables) == {"static", "reactive"}
    assert all(baseline.name == name and baseline.description for name, baseline in scenario.baselines.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["small", "medium"])
def test_every_baseline_runs_the_same_under_both_controls(name, size):
    found = {}
    for control in ("cell", "central"):
        scenario = Network5G(size=size, control=control)
        controller = scenario.baselines[name].make()
        found[control] = evaluate(scenario, controller, (1, 2), steps=15, warmup=5)
        env = scenario.vector_env(3)
        fresh = scenario.baselines[name].make()
        actions = fresh.act(env.reset(seed=1)[0]) if control == "central" else None
        assert actions is None or env.action_space.shape[1:] == actions.shape[1:]
    np.testing.assert_allclose(found["cell"].values, found["central"].values, rtol=1e-12)


@pytest.mark.parametrize("family", ["static", "reactive"])
def test_every_family_runs_the_same_under_both_controls(family):
    found = []
    for control in ("cell", "central"):
        scenario = Network5G(size="medium", control=control)
        tunable = scenario.tunables[family]
        middle = 0.3 * np.array(tunable.low) + 0.7 * np.array(tunable.high)
        found.append(evaluate(scenario, tunable.controller(middle), (1, 2), steps=15))
        assert len(tunable.parameters) == len(tunable.low) == len(tunable.high)
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_stays_in_bounds_and_starts_anew_after_a_reset(name):
    rng = np.random.default_rng(0)
    scenario = Network5G(size="medium")
    rule = scenario.baselines[name].make()
    seen = rng.random((30, 14, len(OBSERVATION_NAMES))).astype(np.float32)
    runs = []
    for _ in range(2):
        rule.reset(14, 3)
        runs.append(np.stack([rule.act(observation) for observation in seen]))
    np.testing.assert_array_equal(*runs)
    assert (runs[0] >= LOW - 1e-12).all()
    assert (runs[0] <= HIGH + 1e-12).all()


def test_load_sleep_sleeps_at_night_and_not_under_load():
    asleep = {}
    for load, hour in (("low", 3.0), ("high", 18.0)):
        scenario = Network5G(load=load, hour=hour)
        found = evaluate(scenario, scenario.baselines["load_sleep"].make(), range(8), steps=100, warmup=50)
        part = scenario.part_names.index("asleep")
        asleep[load] = found.numerators[:, part].sum() / found.denominators[:, part].sum()
    assert asleep["low"] > 0.05
    assert asleep["high"] < asleep["low"] / 2


def test_load_sleep_lets_one_cell_of_three_sleep_and_wakes_it_again():
    scenario = Network5G(size="large")
    rule = scenario.baselines["load_sleep"].make()
    assert isinstance(rule, LoadSleep)
    rows = 2 * scenario.cells
    rule.reset(rows, 0)
    assert not (rule.act(quiet(rows))[:, SLEEP] == 1.0).any()
    for _ in range(100):
        actions = rule.act(quiet(rows))
    assert (actions[:, SLEEP] == 1.0).sum() == rows // 3
    for _ in range(100):
        actions = rule.act(quiet(rows, neighbours_use=0.9))
    assert not (actions[:, SLEEP] == 1.0).any()


def test_load_balancing_pushes_users_from_loaded_cells():
    base = ConstantController(Network5G().baselines["default"].make().action).action
    rule = LoadBalancing(base, slope=4.0, limit=2.0)
    observation = quiet(3, neighbours_use=0.5)
    observation[:, SEEN["use_total"]] = (0.9, 0.5, 0.4)
    for _ in range(300):
        actions = rule.act(observation)
    assert actions[:, OFFSET] == pytest.approx([-1.6, 0.0, 0.4], abs=1e-3)
    others = np.delete(actions, OFFSET, axis=1)
    np.testing.assert_array_equal(others, np.tile(np.delete(base, OFFSET), (3, 1)))
    observation[:, SEEN["use_total"]] = (1.0, 0.0, 0.4)
    observation[:, SEEN["neighbours_use"]] = (0.0, 1.0, 0.4)
    for _ in range(300):
        actions = rule.act(observation)
    assert actions[:, OFFSET] == pytest.approx([-2.0, 2.0, 0.0], abs=1e-3)


def test_load_balancing_evens_out_the_load():
    events = [{"kind": "stadium", "cell": 0, "radius_m": 250, "factor": 4.0}]
    scenario = Network5G(size="medium", load="low", hour=12, events=events)
    use = scenario.part_names.index("rb_use")
    spread = {}
    for name in ("default", "load_balancing"):
        env, rule = scenario.vector_env(24), scenario.baselines[name].make()
        observation, total = env.reset(seed=3)[0], 0.0
        rule.reset(env.num_envs, 0)
        for step in range(200):
            observation, _, _, _, infos = env.step(rule.act(observation))
            total = total + (infos["numerators"][:, use] if step >= 60 else 0.0)
        mean = total.reshape(24, 7).mean(axis=0)
        spread[name] = mean[0] - mean[1:].mean()
    assert 0 < spread["load_balancing"] < spread["default"]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 6), share=st.floats(0.15, 0.95))
def test_water_filling_keeps_the_budget_and_the_conditions_of_karush_kuhn_and_tucker(data, n, share):
    gain = np.array([data.draw(st.lists(st.floats(0.05, 500), min_size=n, max_size=n))])
    low, high, budget = 0.1, 1.0, share * n
    power = water_fill(gain, budget, low, high)[0]
    assert power.sum() == pytest.approx(budget, rel=1e-6)
    assert ((power >= low) & (power <= high)).all()
    # Between the bounds all marginal rates are equal; at the lower bound smaller, at the upper larger.
    slope = gain[0] / (1 + gain[0] * power)
    free = (power > low + 1e-9) & (power < high - 1e-9)
    if free.any():
        price = slope[free].mean()
        assert slope[free] == pytest.approx(price, rel=1e-5)
        assert (slope[power <= low + 1e-9] <= price * (1 + 1e-5)).all()
        assert (slope[power >= high - 1e-9] >= price * (1 - 1e-5)).all()


def test_water_filling_agrees_with_a_general_solver():
    gain, budget = np.array([0.4, 2.0, 30.0, 0.9]), 2.2
    found = minimize(
        lambda p: -np.log1p(gain * p).sum(),
        np.full(4, budget / 4),
        bounds=[(0.1, 1.0)] * 4,
        constraints={"type": "eq", "fun": lambda p: p.sum() - budget},
        tol=1e-12,
    )
    assert water_fill(gain[None], budget, 0.1, 1.0)[0] == pytest.approx(found.x, abs=1e-4)


def test_water_filling_gives_more_to_good_channels_and_shares_one_budget_per_network():
    base = Network5G().baselines["default"].make().action
    rule = WaterFilling(base, 3, budget=0.5)
    observation = quiet(6, own_power_db=1.0)
    observation[:, SEEN["efficiency_embb"]] = (0.02, 0.05, 0.9, 0.3, 0.3, 0.3)
    for _ in range(300):
        actions = rule.act(observation)
    linear = 10 ** (actions[:, POWER] / 10)
    assert linear.reshape(2, 3).sum(axis=1) == pytest.approx(1.5)
    assert linear[0] < linear[1] < linear[2]
    assert linear[3:] == pytest.approx(0.5)


def test_whole_networks_are_cells_behind_one_another():
    rule = WholeNetwork(LoadBalancing(np.zeros(len(ACTION_NAMES))), 3)
    rule.reset(2, 0)
    observation = np.random.default_rng(0).random((2, 3 * len(OBSERVATION_NAMES)))
    cells = LoadBalancing(np.zeros(len(ACTION_NAMES))).act(observation.reshape(6, -1))
    np.testing.assert_array_equal(rule.act(observation).reshape(6, -1), cells)
