"""The kernel's power against the readable power models, and what a whole day of sleep costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.engine.accounting import TREND, draw_power
from rlaas.scenarios.network5g.engine.arrays import POWER_SHARE
from rlaas.scenarios.network5g.engine.engine import Engine
from rlaas.scenarios.network5g.power import POWER_MODELS, energy_j
from rlaas.scenarios.network5g.reference import STEP_S

MODELS = tuple(POWER_MODELS)
SLEEP = ACTION_NAMES.index("sleep")
ENGINE = Engine(Network5G(cells=1, users=3).network, 1, threads=1)
share = st.floats(0.0, 1.0)


@njit
def draw(constants, t, s, w):
    draw_power(0, 0, constants[0], t, s, w)


def drawn(
    model, *, shares=(1.0, 0.0, 0.0), busy=(0.0, 0.0, 0.0), power_db=0.0, sleep=0.0, off_steps=None, failed=False
):
    """Power in W, use of blocks and share asleep of one cell's step; ``off_steps`` None is a cell that is on."""
    state, work = ENGINE.state.cells[0], ENGINE.scratch.cells[0]
    state["off"], state["off_steps"] = off_steps is not None, off_steps or 0
    work["model"], work["failed"] = MODELS.index(model), failed
    work["share"], work["busy"] = shares, busy
    work["idle"] = np.prod(1.0 - np.array(busy))
    work["settings"][:, SLEEP], ENGINE.scratch.pads[0, POWER_SHARE] = sleep, 10 ** (power_db / 10)
    draw(ENGINE.constants.as_record(), ENGINE.world, ENGINE.state, ENGINE.scratch)
    return float(work["power_w"][0]), float(state["use"][0]), float(work["asleep"][0])


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    busy=st.tuples(share, share, share),
    weights=st.tuples(*[st.floats(0.0625, 1.0)] * 3),
    power_db=st.floats(-10.0, 0.0),
    sleep=st.floats(0.0, 0.899),
)
def test_a_cell_that_is_on_draws_what_its_model_says(model, busy, weights, power_db, sleep):
    shares = np.array(weights) / sum(weights)
    watts, use, asleep = drawn(model, shares=shares, busy=busy, power_db=power_db, sleep=sleep)
    wanted = energy_j(
        POWER_MODELS[model],
        use=shares @ busy,
        idle=np.prod(1.0 - np.array(busy)),
        # The kernel has it as a float32.
        power_share=float(np.float32(10 ** (power_db / 10))),
        micro_share=sleep,
        off=False,
        off_ms=0.0,
        duration_s=STEP_S,
    )
    assert watts * STEP_S == pytest.approx(float(wanted), rel=1e-12)
    assert use == pytest.approx(float(shares @ busy))
    assert use + asleep <= 1.0 + 1e-12
    powers = POWER_MODELS[model]
    assert powers.micro_w - 1e-9 <= watts <= powers.full_w + 1e-9
    if asleep == 0.0:
        assert watts >= powers.idle_w - 1e-9
    if use == 0.0:
        assert watts <= powers.idle_w + 1e-9


@pytest.mark.parametrize("model", MODELS)
def test_a_cell_that_is_off_falls_asleep_as_its_model_says(model):
    total = 0.0
    for step in range(30):
        watts, use, asleep = drawn(model, off_steps=step)
        wanted = energy_j(
            POWER_MODELS[model],
            use=0.0,
            idle=1.0,
            power_share=1.0,
            micro_share=0.0,
            off=True,
            off_ms=1e3 * STEP_S * step,
            duration_s=STEP_S,
        )
        assert watts * STEP_S == pytest.approx(float(wanted), rel=1e-12)
        assert (use, asleep) == (0.0, 1.0)
        assert watts >= POWER_MODELS[model].deep_w - 1e-9
        total += watts * STEP_S
    powers = POWER_MODELS[model]
    light = max(min(powers.deep_after_ms, 3000.0) - powers.light_after_ms, 0.0) / 1e3
    awake, deep = powers.light_after_ms / 1e3, max(3000.0 - powers.deep_after_ms, 0.0) / 1e3
    switched = powers.deep_switch_j if deep > 0 else powers.light_switch_j
    assert total == pytest.approx(powers.idle_w * awake + powers.light_w * light + powers.deep_w * deep + switched)


def test_a_cell_out_of_order_draws_nothing():
    assert drawn("earth_macro", off_steps=0, failed=True)[0] == 0.0


def test_the_kernel_takes_the_power_share_from_the_action():
    env = Network5G(cells=1, users=3).vector_env(1, threads=1)
    env.reset(seed=0)
    for power_db in (0.0, -3.0, -10.0):
        action = Network5G(cells=1, users=3).baselines["default"].make().action.copy()
        action[ACTION_NAMES.index("power_db")] = power_db
        env.step(action[None])
        assert env.engine.scratch.pads[0, POWER_SHARE, 0] == pytest.approx(10 ** (power_db / 10), rel=1e-6)


def test_the_slow_average_follows_the_use():
    ENGINE.state.cells["trend"] = 0.25
    drawn("earth_macro", busy=(0.8, 0.0, 0.0))
    assert ENGINE.state.cells["trend"][0, 0] == pytest.approx(0.25 + TREND * (0.8 - 0.25))


def test_full_load_of_a_macro_site_is_earths():
    # EARTH (Auer et al. 2011, table 2): a macro site of six transceivers draws 1,344 W at full load, 780 W idle.
    full = 3 * drawn("earth_macro", shares=(0.5, 0.25, 0.25), busy=(1.0, 1.0, 1.0))[0]
    assert full == pytest.approx(1344.0)
    assert 3 * drawn("earth_macro")[0] == pytest.approx(780.0)
    assert 3 * drawn("earth_macro", off_steps=9)[0] == pytest.approx(450.0)


def test_every_cell_may_have_a_model_of_its_own():
    names = ["earth_macro", "earth_pico", "tr38864_set1"]
    scenario = Network5G(power_model=names, interlock=False)
    env = scenario.vector_env(1)
    env.reset(seed=1)
    dark = np.repeat(scenario.baselines["default"].make().action[None], 3, axis=0)
    dark[:, SLEEP] = 1.0
    for _ in range(20):
        infos = env.step(dark)[4]
    energy = infos["numerators"][:, scenario.part_names.index("energy")] / STEP_S
    assert energy == pytest.approx([POWER_MODELS[name].deep_w for name in names])


def test_going_off_and_on_pays_for_each_transition():
    scenario = Network5G(load="low", hour=3)
    env, energy = scenario.vector_env(1), scenario.part_names.index("energy")
    env.reset(seed=1)
    action = scenario.baselines["default"].make().action
    dark, awake = (np.repeat(action[None], 3, axis=0) for _ in range(2))
    dark[0, SLEEP] = 1.0
    powers = POWER_MODELS[scenario.reference.energy.model]
    first = env.step(dark)[4]["numerators"][0, energy]
    second = env.step(dark)[4]["numerators"][0, energy]
    assert first - second == pytest.approx(powers.deep_switch_j)
    env.step(awake)
    assert env.step(dark)[4]["numerators"][0, energy] == pytest.approx(first)
