"""The A3 event of the kernel on made-up signals: entering, timer, leaving, ping-pong, failure, eviction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numba import njit

from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.engine.arrays import FILTERED, HELD, MARGIN, OFFSET, RISE
from rlaas.scenarios.network5g.engine.engine import Engine
from rlaas.scenarios.network5g.engine.links import FAILURE, HANDOVER, PING_PONG, attach, hand_over

OFFSET_OF = ACTION_NAMES.index("handover_offset_db")


@njit
def drive(signals, off, weak, constants, s, w, serving, event):
    """Feed filtered powers [steps, cells] to one user; what happened goes to ``serving`` and ``event`` [steps]."""
    c = constants[0]
    for t in range(signals.shape[0]):
        for j in range(signals.shape[1]):
            s.links[0, 0, FILTERED, j] = signals[t, j]
            s.cells[0, j].off = off[t, j]
            if off[t, j]:
                w.pads[0, OFFSET, j] = np.float32(-1e6)
        if weak[t] >= 0.0:
            s.users[0, 0].weak = weak[t]
        hand_over(0, 0, c, s, w, OFFSET_OF)
        serving[t] = s.users[0, 0].serving
        event[t] = w.users[0, 0].event


@njit
def begin(signals, constants, s, w):
    for j in range(signals.shape[1]):
        s.links[0, 0, FILTERED, j] = signals[0, j]
    attach(0, 0, constants[0], s, w)


class Road:
    """One user between cells whose signals are given, without the filter in between."""

    def __init__(self, start=(-80.0, -95.0), **rule):
        network = replace(Network5G(cells=len(start), users=3).network, users=(1, 0, 0))
        self.engine = Engine(network, 1, threads=1)
        self.constants = self.engine.constants._replace(**rule).as_record()
        self.state, self.work = self.engine.state, self.engine.scratch
        # Padding is out of everybody's hearing, as the maps have it.
        self.state.links[:, :, FILTERED] = -300.0
        begin(np.array([start], dtype=np.float32), self.constants, self.state, self.work)

    def run(self, signals, *, offset=3.0, cell_offset=None, off=None, weak=None):
        signals = np.asarray(signals, dtype=np.float32)
        steps, cells = signals.shape
        self.work.cells["settings"][0, :, OFFSET_OF] = offset
        self.work.pads[0, OFFSET, :cells] = 0.0 if cell_offset is None else cell_offset
        off = np.broadcast_to(np.zeros(cells) if off is None else off, (steps, cells)).astype(np.uint8)
        weak = np.full(steps, -1.0, dtype=np.float32) if weak is None else np.asarray(weak, dtype=np.float32)
        self.serving, self.event = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
        drive(signals, off, weak, self.constants, self.state, self.work, self.serving, self.event)
        return np.flatnonzero(self.event & HANDOVER).tolist()


def test_a_user_begins_at_its_strongest_cell_without_history():
    road = Road((-90.0, -70.0, -80.0))
    user = road.state.users[0, 0]
    assert (user["serving"], user["previous"]) == (1, 1)
    assert (road.state.links[0, 0, HELD] == 0).all()
    assert (road.state.links[0, 0, MARGIN] < -100).all()


def test_handover_after_the_time_to_trigger():
    # The margin jumps at step 1: the condition holds from between steps 0 and 1, so 256 ms are over at step 4.
    road = Road()
    assert road.run([(-80, -95)] + [(-80, -75)] * 6) == [4]
    assert road.serving.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert road.state.users["previous"][0, 0] == 0


@pytest.mark.parametrize(("trigger", "step"), [(0.0, 1), (0.04, 2), (0.1, 2), (0.256, 4), (0.48, 6)])
def test_other_times_to_trigger(trigger, step):
    # From -18 dB to +2 dB: crossed nine tenths into the step, 10 ms before the sample.
    road = Road(trigger_s=max(trigger, 1e-6))
    assert road.run([(-80, -95)] + [(-80, -75)] * 8) == [step]


def test_no_handover_below_the_offset_or_before_the_timer():
    assert Road().run([(-80, -77.5)] * 20) == []
    assert Road().run([(-80, -95), (-80, -75), (-80, -75), (-80, -95)] * 5) == []


def test_the_crossing_is_interpolated():
    # -1 dB to +9 dB: crossed a tenth into the interval, so 290 ms have passed two steps later; 9 to 1: only 210 ms.
    assert Road().run([(-80, -78.0), (-80, -68.0), (-80, -68.0), (-80, -68.0)]) == [3]
    assert Road().run([(-80, -86.0), (-80, -76.0), (-80, -76.0), (-80, -76.0)]) == []


def test_hysteresis_delays_entering_and_leaving():
    assert Road(hysteresis_db=2.0).run([(-80, -95)] + [(-80, -76)] * 10) == []
    # Entered at +6 dB, it stays entered while it dips to +2 dB: leaving needs less than +1 dB.
    dips = [(-80, -95), (-80, -74), (-80, -78), (-80, -78), (-80, -78), (-80, -78)]
    assert Road(hysteresis_db=2.0).run(dips) == [4]
    left = [(-80, -95), (-80, -74), (-80, -79.5), (-80, -78), (-80, -78), (-80, -78)]
    assert Road(hysteresis_db=2.0).run(left) == []


def test_offsets_move_the_border():
    assert Road().run([(-80, -95)] + [(-80, -79)] * 6, cell_offset=(0.0, 4.1)) == [4]
    assert Road().run([(-80, -95)] + [(-80, -75)] * 6, cell_offset=(4.0, 0.0)) == []
    assert Road().run([(-80, -95)] + [(-80, -79)] * 6, offset=0.0) == [4]


def test_of_two_ripe_cells_the_better_one_wins():
    road = Road((-80.0, -95.0, -95.0))
    assert road.run([(-80, -95, -95)] + [(-80, -75, -74)] * 6) == [4]
    assert road.serving[-1] == 2
    # The one that is ripe wins over the one that is better but new.
    road = Road((-80.0, -95.0, -95.0))
    assert road.run([(-80, -95, -95)] + [(-80, -75, -95)] * 3 + [(-80, -75, -60)] * 2) == [4]
    assert road.serving.tolist() == [0, 0, 0, 0, 1, 1]


def test_ping_pong_is_a_return_within_a_second():
    road = Road()
    moments = road.run([(-80, -95)] + [(-80, -70)] * 4 + [(-70, -80)] * 5)
    # What held before the handover is not known: the return counts from the first sample after it.
    assert moments == [4, 8]
    assert (road.event[moments] & PING_PONG).tolist() == [0, PING_PONG]
    road = Road()
    moments = road.run([(-80, -95)] + [(-80, -70)] * 14 + [(-70, -80)] * 5)
    assert len(moments) == 2
    assert not (road.event & PING_PONG).any()
    # On to a third cell is no return.
    road = Road((-80.0, -95.0, -95.0))
    moments = road.run([(-80, -95, -95)] + [(-80, -70, -95)] * 4 + [(-80, -80, -60)] * 5)
    assert len(moments) == 2
    assert not (road.event & PING_PONG).any()


def test_the_timer_starts_anew_after_a_handover():
    # Handed over at step 4; the old cell is better at once, and needs the whole time to trigger again.
    road = Road()
    assert road.run([(-80, -95)] + [(-80, -70)] * 4 + [(-70, -80)] * 2) == [4]
    assert road.state.links[0, 0, HELD, 0] == pytest.approx(0.1, abs=2e-3)


@pytest.mark.parametrize("others", [(-95.0,), (-95.0, -90.0)])
def test_a_cell_that_goes_off_sends_its_users_away_at_once(others):
    road = Road((-80.0, *others))
    assert road.run([(-80.0, *others)] * 2, off=(True, *(False,) * len(others))) == [0]
    assert road.serving[-1] == len(others)


def test_nobody_is_sent_to_a_cell_that_is_off():
    road = Road((-80.0, -60.0, -95.0))
    assert road.state.users["serving"][0, 0] == 1
    assert road.run([(-80.0, -60.0, -95.0)] * 9, off=(False, True, False)) == [0]
    assert set(road.serving.tolist()) == {0}
    road = Road()
    assert road.run([(-80.0, -60.0)] * 9, off=(False, True)) == []


def test_with_every_cell_off_nothing_moves():
    road = Road()
    assert road.run([(-80, -60)] * 5, off=(True, True)) == []
    assert 0.0 <= road.work.leaving[0, 0] <= 1.0


def test_link_failure_reestablishes_on_the_strongest_cell():
    road = Road()
    weak = np.arange(14) * 0.1
    weak[11:] = 0.0
    assert road.run([(-80, -78.5)] * 14, weak=weak) == [10]
    assert np.flatnonzero(road.event & FAILURE).tolist() == [10]
    assert road.serving[-1] == 1
    # Where its own cell is still the strongest it fails and stays.
    road = Road()
    assert road.run([(-80, -95)] * 12, weak=weak[:12]) == []
    assert np.flatnonzero(road.event & FAILURE).tolist() == [10]
    assert road.state.users["weak"][0, 0] == 0.0


def test_a_second_of_bad_signal_fails_the_link_and_one_good_sample_saves_it():
    scenario = Network5G(cells=1, users=4, episode_steps=100)
    env = scenario.vector_env(1, threads=1)
    env.reset(seed=1)
    low = scenario.baselines["default"].make().action.copy()
    fail = env.engine.constants.failure_db
    counted = np.zeros(4)
    state, work = env.engine.state.users[0], env.engine.scratch.users[0]
    state["loss_db"] = 200.0  # a wall that nothing comes through
    for _ in range(25):
        env.step(low[None])
        counted += (work["event"] & FAILURE) != 0
        assert (work["sinr_db"] < fail).all()
    assert (counted == 2).all()
    state["loss_db"] = 0.0
    env.step(low[None])
    assert (state["weak"][work["sinr_db"] >= fail] == 0).all()


def test_rises_are_the_change_of_a_margin_since_the_last_step():
    road = Road()
    road.run([(-80, -95), (-80, -90), (-80, -84)])
    assert road.work.pads[0, RISE, 1] == pytest.approx(6.0)
    assert road.state.links[0, 0, MARGIN, 1] == pytest.approx(-7.0)


def test_the_forecast_grows_with_margin_and_rise():
    def leaving(last, margin):
        road = Road()
        road.run([(-80, -95), (-80, last), (-80, margin)])
        return float(road.work.leaving[0, 0]), int(road.work.users["next_cell"][0, 0])

    far, near, rising = leaving(-95, -95), leaving(-79, -79), leaving(-81, -79)
    assert 0.0 <= far[0] < near[0] < rising[0] <= 1.0
    assert {far[1], near[1], rising[1]} == {1}
