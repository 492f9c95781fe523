"""The torch twin against the compiled engine: step by step from equal states, and on its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.compiled import environment_key, uniforms
from rlaas.scenarios.network5g import Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.engine import Engine
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES
from rlaas.scenarios.network5g.twin import TorchNetwork5G
from rlaas.scenarios.network5g.twin import random as twin_random
from rlaas.scenarios.network5g.twin.service import drain
from rlaas.scenarios.network5g.twin.world import poisson

RELATIVE, ABSOLUTE = 1e-4, 1e-4
NAMES = {
    "observation": OBSERVATION_NAMES,
    "reward": ("latency", "throughput", "energy", "satisfaction"),
    "numerators": PART_NAMES,
    "denominators": PART_NAMES,
}
WALKS = [
    np.cumsum(np.random.default_rng(n).normal(0.0, 12.0, (n, 2)), axis=0).astype(np.float32) for n in (12, 60, 300)
]
EVENTS = (
    {"kind": "outage", "cell": 1, "at_s": 0.5, "for_s": 0.7, "every_s": 2.0},
    {"kind": "hardware", "cell": 0, "power_db": -3.0, "unit": "earth_rrh", "at_s": 0.8},
    {"kind": "stadium", "cell": 2, "radius_m": 200.0, "factor": 8.0, "at_s": 1.0, "for_s": 0.8},
    {"kind": "demand", "factor": 1.5, "at_s": 1.5},
)
MODES = {
    "medium": {"size": "medium"},
    "high load": {"load": "high"},
    "gauss_markov in a disc": {"mobility": "gauss_markov"},
    "gauss_markov wrapped": {"size": "medium", "mobility": "gauss_markov"},
    "traces in a disc": {"mobility": "trace", "traces": WALKS},
    "traces wrapped": {"size": "medium", "mobility": "trace", "traces": WALKS},
    "events in a disc": {"events": EVENTS},
    "events wrapped": {"size": "medium", "events": EVENTS},
    "indoor": {"indoor": 0.6},
    "beams, large": {"size": "large", "columns": 4, "indoor": 0.3},
    "beta bursts": {"mmtc_traffic": "beta"},
    "constant rate": {"embb_traffic": "constant"},
    "clock": {"hours_per_s": 1.0, "hour": 22.5},
    "radio": {"propagation": "umi", "modulation": "256qam", "layers": 4, "urllc_subcarrier_khz": 60},
    "one cell": {"cells": 1, "users": 7},
    "interlock, large": {"size": "large", "events": EVENTS},
    "no interlock": {"interlock": False, "events": EVENTS},
    "few users": {"users": 3},
    "power models": {"power_model": ["earth_rrh", "type9", "tr38864_set1"]},
}


def random_actions(rng, rows):
    """Any settings, one cell in seven off and others asleep half of the time."""
    actions = LOW + (HIGH - LOW) * rng.random((rows, len(LOW)))
    actions[:, -1] = np.where(rng.random(rows) < 6 / 7, 0.85 * rng.random(rows), 1.0)
    return actions


def pair(environments, *, seed=3, dtype=torch.float64, **options):
    """Engine and twin of the same networks and seeds, reset."""
    network = Network5G(**options).network
    engine = Engine(network, environments, 1)
    seeds = list(range(seed, seed + environments))
    engine.seed(seeds)
    engine.begin()
    twin = TorchNetwork5G(network, environments, seed=seeds, dtype=dtype)
    twin.reset()
    return engine, twin


def engine_step(engine, actions):
    out = engine.step(actions.reshape(engine.environments, -1, len(LOW)))
    return {name: getattr(out, name).reshape(len(actions), -1) for name in NAMES}


def differences(theirs, mine):
    """Rows that differ by more than float32 arithmetic explains, with what differs in them."""
    found = {}
    for name, columns in NAMES.items():
        a, b = theirs[name], getattr(mine, name).double().numpy()
        assert np.isfinite(b).all()
        absolute = np.full(len(columns), ABSOLUTE)
        for row, column in np.argwhere(np.abs(a - b) > absolute + RELATIVE * np.abs(a)):
            found.setdefault(int(row), []).append(f"{name}.{columns[column]}")
    return found


def compare(engine, twin, steps, seed=0):
    """Step both from the engine's state; return rows compared and the flips, each as (step, row, what)."""
    rng, flips = np.random.default_rng(seed), []
    for step in range(steps):
        twin.load_state(engine.get_state())
        actions = random_actions(rng, twin.rows)
        theirs, mine = engine_step(engine, actions), twin.step(torch.from_numpy(actions))
        assert mine.truncated.tolist() == [bool(engine.state.environments["over"][0])] * twin.rows
        flips += [(step, row, what) for row, what in differences(theirs, mine).items()]
    return steps * twin.rows, flips


def test_two_hundred_steps_equal_the_engines():
    rows, flips = compare(*pair(16, episode_steps=120), steps=200)
    assert rows == 9600
    assert len(flips) <= 1e-3 * rows, flips


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_the_engine(mode):
    engine, twin = pair(4, episode_steps=14, **MODES[mode])
    _, flips = compare(engine, twin, steps=24)
    # One flipped decision may show in all cells of its network: its neighbours see it and share its reward.
    assert len(flips) <= twin.cells, flips


def test_float32_queues_equal_the_engine_too():
    rows, flips = compare(*pair(8, episode_steps=40, dtype=torch.float32, load="high"), steps=200)
    assert len(flips) <= 2e-3 * rows, flips


def test_states_equal_after_a_step():
    engine, twin = pair(8, size="medium")
    rng = np.random.default_rng(1)
    for _ in range(12):
        actions = random_actions(rng, twin.rows)
        engine_step(engine, actions)
        twin.step(torch.from_numpy(actions))
    twin.load_state(engine.get_state())
    engine_step(engine, actions)
    twin.step(torch.from_numpy(actions))
    mine, theirs = twin.get_state(), engine.get_state()
    mine["links"], theirs["links"] = (state["links"][..., : twin.cells] for state in (mine, theirs))
    for name, array in theirs.items():
        for field in array.dtype.names or [None]:
            a, b = (array, mine[name]) if field is None else (array[field], mine[name][field])
            wrong = ~np.isclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-3)
            assert wrong.sum() <= 1e-3 * wrong.size, (name, field)


def test_free_runs_have_the_engines_means():
    engine, twin = pair(96, seed=50)
    rng, theirs, mine = np.random.default_rng(2), [], []
    for _ in range(60):
        actions = random_actions(rng, twin.rows)
        out, result = engine_step(engine, actions), twin.step(torch.from_numpy(actions))
        theirs.append(np.concatenate([out[name] for name in NAMES], axis=1))
        mine.append(torch.cat([getattr(result, name).double() for name in NAMES], dim=1).numpy())
    a, b = (np.mean(runs, axis=0).reshape(96, twin.cells, -1).mean(axis=1) for runs in (theirs, mine))
    error = a.std(axis=0) / np.sqrt(len(a)) + 1e-6
    # Random numbers are common to both, so the difference is far below what independent runs would show.
    assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 0.2 * error)


def test_the_engine_goes_on_from_the_twins_state():
    engine, twin = pair(4, size="medium")
    rng = np.random.default_rng(4)
    for _ in range(25):
        engine_step(engine, random_actions(rng, twin.rows))
    state = engine.get_state()
    twin.load_state(state)
    actions = random_actions(rng, twin.rows)
    wanted = {name: values.copy() for name, values in engine_step(engine, actions).items()}
    engine.set_state(twin.get_state())
    for name, values in engine_step(engine, actions).items():
        np.testing.assert_array_equal(values, wanted[name])


def test_a_state_brings_back_the_same_bits():
    _, twin = pair(4)
    rng = np.random.default_rng(5)
    actions = [torch.from_numpy(random_actions(rng, twin.rows)) for _ in range(6)]
    twin.step(actions[0])
    state = twin.get_state()
    first = [twin.step(a) for a in actions]
    twin.load_state(state)
    for result, action in zip(first, actions, strict=True):
        for a, b in zip(result, twin.step(action), strict=True):
            assert torch.equal(a, b)


def test_networks_end_and_begin_together():
    engine, twin = pair(2, episode_steps=5)
    default = np.tile(engine.world.default, (2, 1))
    for step in range(13):
        theirs, mine = engine_step(engine, default), twin.step(torch.from_numpy(default))
        assert not differences(theirs, mine)
        assert bool(mine.truncated.all()) == bool(mine.truncated.any()) == (step % 6 == 4)
        if step % 6 == 5:
            assert not mine.reward.any()
            assert not mine.numerators.any()


def test_a_seed_decides_everything_and_neighbours_nothing():
    network = Network5G(size="medium").network
    many, one = TorchNetwork5G(network, 5, seed=[7, 8, 9, 10, 11]), TorchNetwork5G(network, 1, seed=9)
    rows = slice(2 * many.cells, 3 * many.cells)
    rng = np.random.default_rng(6)
    assert torch.equal(many.reset()[rows], one.reset())
    again = many.reset(seed=[7, 8, 9, 10, 11])
    assert torch.equal(again[rows], one.reset(seed=9))
    for _ in range(10):
        actions = torch.from_numpy(random_actions(rng, many.rows))
        # Products of matrices may add up in another order for another batch.
        torch.testing.assert_close(
            many.step(actions).reward[rows], one.step(actions[rows]).reward, rtol=1e-9, atol=1e-9
        )


def test_a_step_never_asks_the_device_for_a_number():
    # Tensors on this device have shapes but no values: whatever needs one, a transfer included, fails.
    crowd = {"kind": "stadium", "cell": 2, "radius_m": 200.0, "factor": 8.0, "at_s": 0.2}
    for mode in ({"size": "medium", "events": (*EVENTS, crowd)}, MODES["traces in a disc"], MODES["beams, large"]):
        twin = TorchNetwork5G(Network5G(episode_steps=3, **mode).network, 2, device="meta")
        twin.reset()
        actions = torch.empty(twin.rows, len(LOW), device="meta")
        for _ in range(6):
            result = twin.step(actions)
            assert {tensor.device.type for tensor in result} == {"meta"}
            assert result.observation.shape == (twin.rows, len(OBSERVATION_NAMES))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    network = Network5G(size="medium", indoor=0.3, events=EVENTS).network
    twins = [TorchNetwork5G(network, 8, device=device, seed=1) for device in ("cpu", "cuda")]
    rng, flips = np.random.default_rng(7), 0
    for twin in twins:
        twin.reset()
    for _ in range(40):
        twins[1].load_state(twins[0].get_state())
        actions = torch.from_numpy(random_actions(rng, twins[0].rows))
        first, second = twins[0].step(actions), twins[1].step(actions.cuda())
        for a, b in zip(first, second, strict=True):
            wrong = ~torch.isclose(a.double(), b.cpu().double(), rtol=1e-4, atol=1e-4)
            flips += int(wrong.any(dim=1).sum()) if wrong.ndim > 1 else int(wrong.sum())
    assert flips <= 1e-3 * 40 * twins[0].rows


def test_network5g_does_not_load_torch():
    code = "import sys; import rlaas.scenarios.network5g; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        # Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, -1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, wanted):
    for words in (counter, tuple(torch.tensor([c]) for c in counter)):
        assert tuple(int(w) for w in twin_random.philox(torch.tensor([key]), *words)) == wanted


@njit
def _engine_uniforms(keys, clock, streams, indices, out):
    for e in range(len(keys)):
        for n in range(len(streams)):
            four = uniforms(keys[e], clock, streams[n], indices[n])
            for a in range(4):
                out[a, e, n] = four[a]


def test_uniform_numbers_have_the_engines_bits():
    keys = np.array([environment_key(seed) for seed in range(40)])
    streams, indices = np.repeat([1, 2, 5], 30), np.tile(np.arange(30), 3)
    for clock in (0, 1, 2**31 + 5, 2**35 + 17):
        wanted = np.zeros((4, 40, 90), dtype=np.float32)
        _engine_uniforms(keys, clock, streams, indices, wanted)
        four = twin_random.uniforms(
            torch.from_numpy(keys.view(np.int64)), clock, torch.from_numpy(streams), torch.from_numpy(indices)
        )
        np.testing.assert_array_equal(torch.stack(four).numpy(), wanted)


def test_poisson_counts_are_the_quantiles():
    u = torch.rand(3, 4000, generator=torch.Generator().manual_seed(1))
    means = torch.tensor([[0.03], [1.7], [25.0]], dtype=torch.float64)
    wanted = stats.poisson.ppf(u.double().numpy(), means.numpy())
    np.testing.assert_array_equal(poisson(means, u, 25.0).numpy(), wanted)
    np.testing.assert_array_equal(poisson(means.expand(3, 4000), u, 80.0).numpy(), wanted)
    assert not poisson(torch.zeros(1, 1), u[:1], 5.0).any()


def shared_by_events(backlog, rate, weight, time):
    """Processor sharing by the book: from one departure to the next."""
    left, now, finish = list(backlog), 0.0, [None] * len(backlog)
    while now < time and any(x > 0 for x in left):
        total = sum(w for w, x in zip(weight, left, strict=True) if x > 0)
        speeds = [r * w / total if x > 0 else 0.0 for r, w, x in zip(rate, weight, left, strict=True)]
        step = min([time - now, *(x / v for x, v in zip(left, speeds, strict=True) if v > 0)])
        for i, speed in enumerate(speeds):
            gone = speed > 0 and left[i] - speed * step <= 1e-12 * backlog[i]
            left[i] = 0.0 if gone else left[i] - speed * step
            finish[i] = now + step if gone else finish[i]
        now += step
    return left, finish, now


users = st.tuples(st.integers(0, 2), st.floats(1e-3, 10.0), st.floats(0.5, 300.0), st.floats(0.1, 20.0), st.booleans())


@settings(max_examples=60)
@given(st.lists(users, max_size=12))
def test_sharing_in_closed_form_is_sharing_event_by_event(drawn):
    cell, backlog, rate, weight, ready = (
        torch.tensor([[user[i] for user in drawn]], dtype=kind)
        for i, kind in enumerate((torch.int64, torch.float64, torch.float64, torch.float64, torch.bool))
    )
    hot = torch.nn.functional.one_hot(cell, 3).double() if drawn else torch.zeros(1, 0, 3, dtype=torch.float64)
    done, finish, fraction, spent = (x[0].tolist() for x in drain(backlog, rate, weight, ready, cell, hot, 0.1))
    for j in range(3):
        here = [i for i, user in enumerate(drawn) if user[0] == j and user[4]]
        left, ends, busy = shared_by_events(*([drawn[i][k] for i in here] for k in (1, 2, 3)), 0.1)
        assert spent[j] == pytest.approx(busy, abs=1e-12)
        for i, rest, end in zip(here, left, ends, strict=True):
            assert fraction[i] == pytest.approx(1.0 - rest / drawn[i][1], abs=1e-9)
            if done[i]:
                assert finish[i] == pytest.approx(0.1 if end is None else end, abs=1e-9)
    assert all(fraction[i] == 0.0 and not done[i] for i, user in enumerate(drawn) if not user[4])


def test_actions_out_of_bounds_are_refused_and_change_nothing():
    _, twin = pair(2)
    good = torch.from_numpy(random_actions(np.random.default_rng(8), twin.rows))
    state = twin.get_state()
    for row, column, value, name in ((4, 1, 17.0, "tilt_deg"), (0, 0, float("nan"), "power_db")):
        bad = good.clone()
        bad[row, column] = value
        with pytest.raises(InvalidInputError, match=rf"action {name} of environment {row // 3}, cell {row % 3}"):
            twin.step(bad)
    with pytest.raises(InvalidInputError, match=r"expected \(6, 9\)"):
        twin.step(good[:5])
    with pytest.raises(InvalidInputError, match="expected cpu"):
        twin.step(good.to("meta"))
    for name, array in twin.get_state().items():
        np.testing.assert_array_equal(array, state[name])


def test_unchecked_actions_never_make_a_step_return_nan():
    network = Network5G().network
    first, second = (TorchNetwork5G(network, 2, seed=1, checked=False) for _ in range(2))
    for twin in (first, second):
        twin.reset()
    default = torch.tensor(Network5G().baselines["default"].make().action).expand(first.rows, -1).clone()
    bad, clipped = torch.full_like(default, float("nan")), default.clone()
    bad[:, 1], clipped[:, 1] = 99.0, HIGH[1]
    for a, b in zip(first.step(bad), second.step(clipped), strict=True):
        assert torch.isfinite(a.double()).all()
        assert torch.equal(a, b)


def test_what_the_twin_cannot_do_is_said_by_name():
    network = Network5G().network
    for changed, field in (({"histogram": True}, "delays"), ({"slots": True}, "fidelity")):
        with pytest.raises(ConfigurationError, match=field) as caught:
            TorchNetwork5G(replace(network, **changed), 1)
        assert caught.value.field == field
    with pytest.raises(ConfigurationError, match=r"torch\.float32 or torch\.float64"):
        TorchNetwork5G(network, 1, dtype=torch.float16)
    with pytest.raises(ConfigurationError, match="device 'nowhere' cannot be used"):
        TorchNetwork5G(network, 1, device="nowhere")
    with pytest.raises(InvalidInputError, match="environments must be a whole number >= 1"):
        TorchNetwork5G(network, 0)
    with pytest.raises(InvalidInputError, match="call reset first"):
        TorchNetwork5G(network, 1).step(torch.zeros(3, 9))


def test_states_of_other_networks_are_refused():
    engine, twin = pair(2)
    state = engine.get_state()
    with pytest.raises(InvalidInputError, match=r"state\.users has shape \(2, 14\)"):
        twin.load_state({**state, "users": state["users"][:, :14]})
    state["environments"]["clock"][1] += 1
    with pytest.raises(InvalidInputError, match="clock differs between environments"):
        twin.load_state(state)
