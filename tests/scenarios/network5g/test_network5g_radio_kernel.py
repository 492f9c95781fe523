"""What users hear and get: the kernel against the readable formulas and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.engine.arrays import FILTERED
from rlaas.scenarios.network5g.engine.links import _tilted
from rlaas.scenarios.network5g.geography.maps import INDOOR, OUTDOOR
from rlaas.scenarios.network5g.propagation import block_error, tilt_gain_db

SETTING = {name: i for i, name in enumerate(ACTION_NAMES)}
OPTIONS = (
    {"size": "small"},
    {"size": "medium", "indoor": 0.5},
    {"size": "large", "columns": 8},
    {"cells": 5, "propagation": "umi"},
)


@settings(deadline=None, max_examples=200)
@given(offset=st.floats(-1.3, 1.3))
def test_the_polynomial_is_the_gain_of_the_tilted_array(offset):
    ours = 10 * np.log10(_tilted(np.float32(offset), np.float32(10 ** (-1.1))))
    assert ours == pytest.approx(float(tilt_gain_db(np.array(offset), floor_db=-11.0)), abs=2e-3)


class Look:
    """One network after a few random steps, with everything in reach that its kernel worked out."""

    def __init__(self, options, seed=0, steps=3):
        self.scenario = Network5G(**options, episode_steps=1000)
        self.env = self.scenario.vector_env(1, threads=1)
        self.env.reset(seed=seed)
        self.rng = np.random.default_rng(seed)
        self.engine = self.env.engine
        self.cells = self.scenario.cells
        self.user, self.work = self.engine.state.users[0], self.engine.scratch.users[0]
        for _ in range(steps):
            self.step()

    def step(self):
        self.use = self.engine.state.cells["use"][0].copy()
        self.reports = self.user["report_db"].copy()
        self.offsets = self.user["offset_db"].copy()
        self.filtered = self.engine.state.links[0, :, FILTERED, : self.cells].copy()
        self.actions = LOW + (HIGH - LOW) * self.rng.random((self.cells, len(LOW)))
        self.env.step(self.actions)

    def received_mw(self):
        """Received power [users, cells] from the maps, sampled as their own documentation says."""
        maps, realisation = self.engine.network.maps(), self.engine.state.environments["realisation"][0]
        place = np.stack([self.user["x"], self.user["y"]], axis=1).astype(float)
        links = np.empty((len(place), self.cells))
        for inside in (OUTDOOR, INDOOR):
            rows = self.user["indoor"] == inside
            links[rows] = maps.sample(maps.link_db[realisation, inside], place[rows])[:, : self.cells]
        sine = maps.sample(maps.sine_below, place)[:, : self.cells]
        tilt = tilt_gain_db(sine - np.sin(np.deg2rad(self.actions[:, SETTING["tilt_deg"]])), floor_db=-11.0)
        power = self.engine.world.power_dbm + self.actions[:, SETTING["power_db"]]
        return 10 ** (0.1 * (power + links + tilt - self.user["loss_db"][:, None])), place, maps

    def interference_mw(self):
        """Mean interference, its standard deviation where cells transmit in a share of the slots, and its most."""
        received, _, _ = self.received_mw()
        serving = np.arange(self.cells) == self.user["serving"][:, None]
        rho = np.where(self.engine.state.cells["off"][0], 0.0, self.use)
        others = np.where(serving, 0.0, received)
        deviation = np.sqrt((rho * (1 - rho) * others**2).sum(axis=1))
        return others @ rho, deviation, others @ (rho > 0), others, rho

    def burst_sinr_db(self, sigmas):
        """SINR [users] at ``sigmas`` standard deviations more interference than the mean."""
        received, _, _ = self.received_mw()
        mean, deviation, most, _, _ = self.interference_mw()
        signal, noise = received[np.arange(len(received)), self.user["serving"]], self.engine.constants.noise_mw
        return 10 * np.log10(signal / (np.minimum(mean + sigmas * deviation, most) + noise))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_received_power_is_the_map_sampled_bilinearly(options):
    look = Look(options)
    wanted, _, _ = look.received_mw()
    ours = look.engine.scratch.received[0]
    assert 10 * np.log10(ours[:, : look.cells]) == pytest.approx(10 * np.log10(wanted), abs=0.01)
    assert (ours[:, look.cells :] < 1e-20).all()
    # The filter takes its share of the newest sample.
    share = look.scenario.reference.handover.filter_share
    filtered = look.filtered + share * (10 * np.log10(wanted) - look.filtered)
    assert look.engine.state.links[0, :, FILTERED, : look.cells] == pytest.approx(filtered, abs=0.01)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sinr_is_signal_over_interference_and_noise(options):
    look = Look(options)
    received, place, maps = look.received_mw()
    off = look.engine.state.cells["off"][0].astype(bool)
    rho = np.where(off, 0.0, look.use)
    serving, rows = look.user["serving"], np.arange(len(place))
    radio = look.scenario.network.radio
    hertz = {20.0: 51}[radio.bandwidth_mhz] * 12 * 30e3
    noise = 10 ** (0.1 * (-174 + 10 * np.log10(hertz) + radio.noise_figure_db))
    interference = (received * rho).sum(axis=1) - received[rows, serving] * rho[serving]
    signal = received[rows, serving]
    if radio.columns > 1:
        signal = signal * 10 ** (0.1 * maps.sample(maps.beam_db, place)[rows, serving])
    sinr = 10 * np.log10(signal / (interference + noise))
    assert look.work["sinr_db"][~off[serving]] == pytest.approx(sinr[~off[serving]], abs=0.02)
    assert look.work["interference"] == pytest.approx(interference / noise, rel=5e-3, abs=1e-2)
    assert (~off[serving]).any()


@pytest.mark.parametrize("options", [{"size": "medium"}, {"modulation": "256qam", "layers": 4}], ids=str)
def test_link_adaptation_chooses_by_the_report_and_errs_by_the_truth(options):
    look = Look(options, steps=40)
    tables, c = look.engine.links, look.engine.constants
    embb, urllc, _ = look.scenario.users
    single = np.zeros(len(look.user), dtype=bool)
    single[embb : embb + urllc] = True
    sinr = look.burst_sinr_db(np.where(single, c.urllc_burst_sigmas, c.burst_sigmas))
    assert (sinr < look.work["sinr_db"] - 0.1).mean() > 0.5
    report = sinr + c.report_age * (look.reports - sinr) - np.where(single, c.urllc_backoff_db, look.offsets)
    bins = (report + 20) * 4
    # A report within rounding of a bin's edge may fall on either side.
    clear = np.abs(bins - np.rint(bins)) > 1e-3
    index = np.clip(np.floor(bins), 0, len(tables.entry) - 1).astype(int)
    entry = np.where(single, tables.low_entry[index], tables.entry[index])
    efficiency = np.where(single, tables.low_efficiency[np.minimum(entry, 15)], tables.efficiency[entry])
    threshold = np.where(single, tables.low_threshold_db[np.minimum(entry, 15)], tables.threshold_db[entry])
    error = block_error(sinr - threshold)
    low = 1 / (1 + (1 - 1e-5) / 1e-5 * np.exp(np.clip(2.4 * (sinr - threshold), -80, 80)))
    error = np.where(single, low, error)
    # What would fail nearly always waits for the next report, which brings a lower entry.
    hopeless = ~single & (error >= 0.9)
    newer = np.clip(np.floor((sinr - look.offsets + 20) * 4), 0, len(tables.entry) - 1).astype(int)
    lower = tables.entry[newer]
    error = np.where(hopeless, block_error(sinr - tables.threshold_db[lower]), error)
    efficiency = np.where(hopeless, tables.efficiency[lower] * (1 - c.report_age), efficiency)
    assert look.work["error"][clear] == pytest.approx(error[clear], rel=2e-3, abs=1e-7)
    edge = clear & (np.abs(error - 0.9) > 1e-3)
    assert look.work["efficiency"][edge] == pytest.approx(efficiency[edge])
    assert (look.work["efficiency"][edge] > 0).mean() > 0.5


@pytest.mark.parametrize("size", ["small", "medium"])
def test_few_slots_have_more_interference_than_urllc_allows_for(size):
    rng, seen = np.random.default_rng(0), []
    for seed in range(20):
        look = Look({"size": size}, seed=seed, steps=20)
        mean, deviation, most, others, rho = look.interference_mw()
        assert (rho > 0).any()
        slots = (rng.random((2000, len(rho))) < rho) @ others.T
        bound = np.minimum(mean + look.engine.constants.urllc_burst_sigmas * deviation, most)
        seen.append((slots > bound * (1 + 1e-9)).mean())
    assert 0.002 < np.mean(seen) < 0.03


def test_the_outer_loop_settles_at_ten_percent_of_errors():
    scenario = Network5G(size="medium", episode_steps=1000)
    env = scenario.vector_env(1, threads=1)
    env.reset(seed=6)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    embb, urllc, mmtc = scenario.users
    looped = np.r_[0:embb, embb + urllc : embb + urllc + mmtc]
    errors, single = [], []
    c, top = env.engine.constants, env.engine.links.efficiency.max()
    for step in range(400):
        env.step(actions)
        work, user = env.engine.scratch.users[0], env.engine.state.users[0]
        if step >= 100:
            # Who has the best entry without an error, or none at all, has nothing to steer.
            free = (work["efficiency"] > 0) & (work["efficiency"] < top)
            free &= (user["offset_db"] > c.offset_low_db) & (user["offset_db"] < c.offset_high_db)
            errors.append(work["error"][looped][free[looped]])
            single.append(work["error"][embb : embb + urllc][work["efficiency"][embb : embb + urllc] > 0])
    assert np.concatenate(errors).mean() == pytest.approx(0.1, abs=0.02)
    assert np.median(np.concatenate(single)) < 1e-5


def test_a_cell_that_is_off_is_not_heard_as_interference():
    scenario = Network5G(size="medium", load="high")
    env = scenario.vector_env(1, threads=1)
    env.reset(seed=2)
    actions = np.repeat(scenario.baselines["default"].make().action[None], 7, axis=0)
    for _ in range(20):
        env.step(actions)
    state = env.get_state()
    work = env.engine.scratch.users[0]
    env.step(actions)
    before, serving = work["interference"].copy(), env.measurements()["users"]["serving"][0]
    env.set_state(state)
    actions[3, SETTING["sleep"]] = 1.0
    env.step(actions)
    others = serving != 3
    assert (work["interference"][others] <= before[others] + 1e-6).all()
    assert work["interference"][others].sum() < 0.99 * before[others].sum()
    assert not (env.measurements()["users"]["serving"][0] == 3).any()
