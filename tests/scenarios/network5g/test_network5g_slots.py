"""The slot-by-slot mode: the world of the fluid mode, nothing created or lost, textbook figures where there are any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import j0

from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.engine.slots_arrays import BANDS

SLEEP = ACTION_NAMES.index("sleep")
SHARES = [ACTION_NAMES.index(f"{name}_share") for name in ("embb", "urllc", "mmtc")]
DEFAULT = Network5G().baselines["default"].make().action


def slotwise(**options):
    return Network5G(fidelity="slot", **options)


def started(scenario, envs=1, seed=0, threads=1):
    env = scenario.vector_env(envs, seed=seed, threads=threads)
    env.reset(seed=seed)
    return env


def settings_of(env, **changes):
    action = DEFAULT.copy()
    for name, value in changes.items():
        action[ACTION_NAMES.index(name)] = value
    return np.repeat(action[None], env.num_envs, axis=0)


def random_actions(rng, env):
    return LOW + (HIGH - LOW) * rng.random((env.num_envs, len(LOW)))


def run(env, actions, steps):
    """Summed parts by name."""
    up = down = 0.0
    for _ in range(steps):
        *_, infos = env.step(actions)
        up, down = up + infos["numerators"].sum(axis=0), down + infos["denominators"].sum(axis=0)
    names = Network5G().part_names
    return dict(zip(names, up, strict=True)), dict(zip(names, down, strict=True))


def test_the_world_is_that_of_the_fluid_mode():
    # Which cell an interlock keeps on depends on its load, and that on the mode.
    envs = [started(Network5G(fidelity=fidelity, interlock=False), envs=4, seed=5) for fidelity in ("fluid", "slot")]
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = random_actions(rng, envs[0])
        for env in envs:
            env.step(actions)
    fluid, slow = (env.measurements() for env in envs)
    for name in ("x", "y", "serving", "previous", "since"):
        np.testing.assert_array_equal(fluid["users"][name], slow["users"][name])
    np.testing.assert_array_equal(fluid["links"], slow["links"])
    np.testing.assert_array_equal(fluid["embb"]["arrived"], slow["embb"]["arrived"])
    np.testing.assert_array_equal(fluid["mmtc"]["arrived"], slow["mmtc"]["arrived"])
    assert fluid["slot_users"].size == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_an_environment_depends_on_its_seed_alone(threads):
    scenario, rng = slotwise(), np.random.default_rng(1)
    seeds = list(range(24))
    many = scenario.vector_env(24, seed=seeds, threads=threads)
    one = scenario.vector_env(1, seed=[17], threads=1)
    many.reset(seed=seeds)
    one.reset(seed=[17])
    cells = scenario.cells
    for _ in range(8):
        actions = random_actions(rng, one)
        all_of_them = many.step(np.tile(actions, (24, 1)))
        alone = one.step(actions)
        for a, b in zip(all_of_them[:2], alone[:2], strict=True):
            np.testing.assert_array_equal(a[17 * cells : 18 * cells], b)


def test_state_continues_exactly():
    scenario, rng = slotwise(load="high"), np.random.default_rng(2)
    env, other = started(scenario, envs=2, seed=3), started(scenario, envs=2, seed=99)
    for _ in range(7):
        env.step(random_actions(rng, env))
    other.set_state(env.get_state())
    for _ in range(5):
        actions = random_actions(rng, env)
        for a, b in zip(env.step(actions)[:2], other.step(actions)[:2], strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), load=st.sampled_from(["low", "high"]), fixed=st.booleans())
def test_nothing_is_created_or_lost(seed, load, fixed):
    scenario = slotwise(load=load)
    env = started(scenario, seed=seed)
    rng, work = np.random.default_rng(seed), env.engine.scratch
    urgent = slice(scenario.users[0], scenario.users[0] + scenario.users[1])
    constants, actions = env.engine.constants, random_actions(rng, env)
    for _ in range(12):
        before = env.measurements()
        actions = actions if fixed else random_actions(rng, env)
        observation, reward, _, _, infos = env.step(actions)
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward).all()
        assert np.isfinite(infos["numerators"]).all()
        after = env.measurements()
        for name, users in (("embb", slice(0, scenario.users[0])), ("mmtc", slice(urgent.stop, None))):
            was, now, one = before[name][0], after[name][0], work.users[0, users]
            came, went = now["arrived"] - was["arrived"], now["departed"] - was["departed"]
            np.testing.assert_allclose(came, one["offered"], atol=1e-9)
            np.testing.assert_allclose(went, one["carried"] + one["dropped"], atol=1e-9)
            np.testing.assert_allclose(was["backlog"] + came, now["backlog"] + went, atol=1e-9)
            assert (one["carried"] >= 0).all()
            # What is in the air is still in the queue.
            flying = after["slot_users"][0, users]["mbit"].sum(axis=1)
            assert (flying <= now["backlog"] + 1e-6).all()
        one = work.users[0, urgent]
        np.testing.assert_allclose(one["offered"], one["carried"] + one["dropped"], atol=1e-12)
        assert (one["delay_ms"] <= 1e3 * constants.urllc_cap_s * one["packets"] + 1e-9).all()
        late = after["users"][0, urgent]["late"]
        assert ((late >= 0) & (late <= 1 + 1e-12)).all()
        cells = work.slot_cells[0]
        assert (cells["most"] <= cells["blocks"]).all()
        assert (cells["most"] >= 0).all()
        assert (cells["idle"] <= cells["cycles"]).all()
        busy = work.cells[0]["busy"]
        assert ((busy >= 0) & (busy <= 1 + 1e-12)).all()


def test_a_user_alone_gets_the_carrier():
    # One cell, one broadband user close to it that always asks for more: nobody interferes and the top entry holds.
    crowd = {"kind": "demand", "factor": 20}
    scenario = slotwise(cells=1, users=3, load="high", embb_traffic="constant", events=[crowd])
    found = []
    for seed in range(12):
        env = started(scenario, seed=seed)
        run(env, settings_of(env), 3)
        up, down = run(env, settings_of(env), 10)
        if env.engine.scratch.users[0, 0]["sinr_db"] > 35:
            found.append(up["throughput"] / down["throughput"])
    constants, links = env.engine.constants, env.engine.links
    peak = constants.usable_mhz_embb * 0.75 * links.efficiency[-1]
    assert found
    np.testing.assert_allclose(found, peak, rtol=0.02)


def test_the_outer_loop_settles_at_the_target():
    scenario = slotwise(load="high")
    sent = lost = 0
    for seed in range(4):
        env = started(scenario, seed=seed)
        for step in range(60):
            env.step(settings_of(env))
            if step >= 20:
                # Where the top entry is safe there are fewer errors than aimed at.
                steered = env.engine.state.users[0]["offset_db"] > env.engine.constants.offset_low_db
                work = env.engine.scratch.slot_users[0][steered]
                sent, lost = sent + work["sent"].sum(), lost + work["lost"].sum()
    assert sent > 10_000
    assert lost / sent == pytest.approx(0.1, abs=0.02)


def test_fading_has_unit_power_and_the_correlation_of_a_moving_user():
    env = started(slotwise(), envs=8, seed=2)
    actions = settings_of(env)
    powers, memories, speeds = [], [], []
    for _ in range(12):
        env.step(actions)
        users = env.engine.state.slot_users
        powers.append(users["re"] ** 2 + users["im"] ** 2)
        memories.append(env.engine.scratch.slot_users[0]["memory"].copy())
        speeds.append(users["speed"][-1].copy())
    powers = np.array(powers)
    assert powers.mean() == pytest.approx(1.0, abs=0.02)
    # The power of a complex normal number is exponential.
    assert powers.var() == pytest.approx(1.0, abs=0.06)
    memory, speed = np.concatenate(memories[1:]), np.concatenate(speeds[1:])
    constants = env.engine.constants
    doppler = np.maximum(speed, 0.8) * constants.carrier_ghz * 1e9 / 299_792_458
    half = np.log(0.5) / np.log(memory) * constants.slot_s_embb
    np.testing.assert_allclose(j0(2 * np.pi * doppler * half), 0.5, atol=0.01)


def test_an_idle_network_delays_urllc_by_alignment_and_transmission():
    scenario = slotwise(cells=1, users=5, load="low", hour=3.0)
    env = started(scenario, envs=8, seed=4)
    actions = settings_of(env, urllc_share=1.0, embb_share=0.25)
    run(env, actions, 5)
    up, down = run(env, actions, 30)
    c = env.engine.constants
    least = 1e3 * (c.processing_s + 1.5 * c.minislot_s)
    mean = up["latency_urllc"] / down["latency_urllc"]
    assert least * 0.99 < mean < least * 1.25


def test_micro_sleep_saves_power_and_delays_packets():
    scenario = slotwise(load="low")
    found = {}
    for sleep in (0.0, 0.4, 0.8):
        env = started(scenario, envs=6, seed=6)
        actions = settings_of(env, sleep=sleep)
        up, down = run(env, actions, 60)
        found[sleep] = (up["energy"] / down["energy"], up["latency_urllc"] / down["latency_urllc"])
        cells = env.engine.scratch.slot_cells[0]
        cell = env.engine.scratch.cells[0]
        np.testing.assert_allclose(
            cell["asleep"], cells["idle"] / cells["cycles"] * max(sleep - 0.0714, 0.0), atol=1e-9
        )
    assert found[0.0][0] > found[0.4][0] > found[0.8][0]
    assert found[0.0][1] < found[0.4][1] < found[0.8][1]


def test_fairness_moves_rate_from_the_best_to_the_worst():
    scenario = slotwise(load="high")
    spread = {}
    for alpha in (0.5, 2.5):
        env = started(scenario, envs=8, seed=1)
        actions = settings_of(env, alpha=alpha)
        run(env, actions, 80)
        served = env.measurements()["embb"]["served"]
        spread[alpha] = served.std() / served.mean(), served.sum()
    assert spread[2.5][0] < spread[0.5][0]
    assert spread[2.5][1] < spread[0.5][1]


def test_a_dead_cell_serves_nobody_and_uses_nothing():
    events = [{"kind": "outage", "cell": cell} for cell in range(3)]
    env = started(slotwise(events=events), envs=2, seed=0)
    up, down = run(env, settings_of(env), 15)
    assert up["served"] == 0
    assert up["rb_use"] == 0
    assert up["energy"] == 0
    assert up["latency_urllc"] / down["latency_urllc"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "options",
    [
        {"subcarrier_khz": 15},
        {"subcarrier_khz": 60},
        {"urllc_subcarrier_khz": 60},
        {"urllc_subcarrier_khz": 15},
        {"columns": 4, "layers": 2, "modulation": "256qam"},
        {"control": "central", "mmtc_traffic": "beta"},
    ],
)
def test_options_and_resets(options):
    scenario = slotwise(load="high", episode_steps=4, delays=True, **options)
    env, rng = started(scenario, envs=2, seed=8), np.random.default_rng(8)
    for step in range(9):
        cells = rng.uniform(LOW, HIGH, (2, scenario.cells, len(LOW)))
        observation, reward, _, truncated, _ = env.step(cells.reshape(env.num_envs, -1))
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward).all()
        assert truncated.all() == (step % 5 == 3)
        work = env.engine.scratch.slot_cells[0]
        assert (work["most"] <= work["blocks"]).all()
        assert (work["blocks"][:, 0] == BANDS).all()
    found = env.delays()
    assert found["urllc"]["mean_ms"] > 0
    assert found["mmtc"]["mean_ms"] > 0
