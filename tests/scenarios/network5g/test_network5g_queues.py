"""Queues of the kernels against event-by-event simulation, closed forms and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import HIGH
from rlaas.scenarios.network5g.engine.arrays import BINS, WINDOW
from rlaas.scenarios.network5g.engine.delays import DELAY_EDGES_MS, delay_statistics
from rlaas.scenarios.network5g.engine.queueing import LOAD_LIMIT, delay_bin, late_probability, mg1_wait, share_out

positive = st.floats(0.01, 50.0)


def share_by_events(backlog, rate, weight, time):
    """Processor sharing event by event: the oracle. Returns data served and the times at which users finished."""
    left, finished, now = backlog.copy(), np.full(len(backlog), np.nan), 0.0
    active = list(range(len(backlog)))
    while active and now < time:
        total = sum(weight[i] for i in active)
        pace = {i: rate[i] * weight[i] / total for i in active}
        stride = min(min(left[i] / pace[i] for i in active), time - now)
        now += stride
        for i in active:
            left[i] -= pace[i] * stride
        for i in [i for i in active if left[i] <= 1e-11 * backlog[i]]:
            active.remove(i)
            finished[i] = now
    return backlog - left, finished, now


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n=st.integers(0, 9), time=st.floats(0.01, 5.0))
def test_share_out_is_processor_sharing(data, n, time):
    backlog, rate, weight = (np.array(data.draw(st.lists(positive, min_size=n, max_size=n))) for _ in range(3))
    finish, weights, pick = backlog / (rate * weight), weight.copy(), np.arange(n, dtype=np.int32)
    spent = share_out(0, n, finish, weights, pick, time)
    wanted, at, until = share_by_events(backlog, rate, weight, time)
    assert sorted(pick.tolist()) == list(range(n))
    np.testing.assert_array_equal(weights, weight[pick])
    assert spent == pytest.approx(until, rel=1e-9)
    assert spent <= time + 1e-12
    for place, user in enumerate(pick):
        if np.isfinite(at[user]):
            # An end within rounding of the time's may fall on either side.
            ended = finish[place] if finish[place] >= 0 else time
            assert ended == pytest.approx(at[user], rel=1e-9)
        else:
            assert -finish[place] * backlog[user] == pytest.approx(wanted[user], rel=1e-8)
            assert 0 < -finish[place] <= 1


def test_equal_users_share_equally_and_an_early_end_helps_the_rest():
    finish, weight, pick = np.array([1.0, 1.0, 3.0]), np.ones(3), np.arange(3, dtype=np.int32)
    assert share_out(0, 3, finish, weight, pick, 10.0) == pytest.approx(5.0)
    assert finish == pytest.approx([3.0, 3.0, 5.0])
    finish = np.array([1.0, 1.0, 3.0])
    assert share_out(0, 3, finish, np.ones(3), pick, 4.0) == pytest.approx(4.0)
    assert finish == pytest.approx([3.0, 3.0, -2.0 / 3.0])


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
def test_mean_wait_of_known_queues(load):
    service = 2.0
    rate = load / service
    # M/M/1: E[S^2] = 2 s^2, W = rho s / (1 - rho); M/D/1: half of it.
    assert mg1_wait(load, 2 * rate * service**2) == pytest.approx(load * service / (1 - load))
    assert mg1_wait(load, rate * service**2) == pytest.approx(load * service / (2 * (1 - load)))


def test_mean_wait_ends_at_the_load_limit():
    assert mg1_wait(0.0, 0.0) == 0.0
    at_limit = mg1_wait(LOAD_LIMIT, LOAD_LIMIT)
    assert mg1_wait(5.0, 5.0) == pytest.approx(at_limit)


def simulated_waits(rng, load, services, count):
    """Waits in a queue with Poisson arrivals (Lindley's recursion)."""
    service = rng.choice(services, count)
    gaps = rng.exponential(service.mean() / load, count)
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    return walk - np.minimum.accumulate(walk), service


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_tail_of_the_wait_against_a_simulated_queue(load):
    rng = np.random.default_rng(5)
    # Users of one cell differ in rate: service times of four kinds, as URLLC packets have.
    waits, service = simulated_waits(rng, load, np.array([0.5, 0.8, 1.0, 1.7]), 2_000_000)
    rho = load
    rate = rho / service.mean()
    wait = mg1_wait(rho, rate * (service**2).mean())
    assert wait == pytest.approx(waits.mean(), rel=0.03)
    assert (waits > 0).mean() == pytest.approx(rho, abs=0.01)
    # The exponential with the right mean and mass at 0 is close in the body and errs to the safe side in the tail.
    for slack in (0.5, 1.0, 2.0, 4.0):
        assert late_probability(slack, rho, wait, 0.0, 0.0) == pytest.approx((waits > slack).mean(), abs=0.04)
    deep = 10.0 * wait / rho
    assert late_probability(deep, rho, wait, 0.0, 0.0) > (waits > deep).mean()


@pytest.mark.parametrize("slack", [0.0, 0.2, 0.6, 1.5])
@pytest.mark.parametrize(("load", "wait"), [(0.4, 0.3), (0.9, 2.0)])
def test_late_probability_matches_simulation(slack, load, wait):
    rng, n, pause, share = np.random.default_rng(3), 400_000, 0.5, 0.25
    waits = np.where(rng.random(n) < load, rng.exponential(wait / load, n), 0.0)
    rests = np.where(rng.random(n) < share, rng.uniform(0, pause, n), 0.0)
    ours = late_probability(slack, load, wait, pause, share)
    assert ours == pytest.approx((waits + rests > slack).mean(), abs=4e-3)


@given(
    slack=st.floats(0, 0.01),
    load=st.floats(0.0, 0.98),
    wait=st.floats(1e-7, 0.01),
    sleep=st.floats(0, 0.9),
    idle=st.floats(0, 1),
)
@settings(deadline=None)
def test_late_probability_is_a_falling_probability(slack, load, wait, sleep, idle):
    # As a transmitter sleeps: part of each cycle of a millisecond, met by packets while it is idle.
    here, later = (late_probability(s, load, wait, 1e-3 * sleep, sleep * idle) for s in (slack, 1.5 * slack + 1e-5))
    assert 0.0 <= later <= here + 3e-6
    assert here <= 1.0


def test_late_probability_at_its_ends():
    assert late_probability(-0.1, 0.5, 0.1, 0.0, 0.0) == 1.0
    assert late_probability(0.5, 0.0, 0.0, 0.0, 0.0) == 0.0
    assert late_probability(0.5, 0.0, 0.0, 1.0, 1.0) == pytest.approx(0.5)


@given(delay=st.floats(0, 1e4))
@settings(deadline=None)
def test_a_delay_lies_in_its_bin(delay):
    found = delay_bin(delay)
    low, high = DELAY_EDGES_MS[found] / 1e3, DELAY_EDGES_MS[found + 1] / 1e3
    assert found == 0 or low <= delay * (1 + 1e-9)
    assert found == BINS - 1 or delay <= high * (1 + 1e-9)


def test_statistics_of_a_histogram():
    histogram = np.zeros((3, BINS))
    histogram[0, 30:40] = 10.0
    histogram[2, 20] = 7.0
    found = delay_statistics(histogram, [DELAY_EDGES_MS[35], 1.0, 1e6])
    assert found["embb"]["late"] == pytest.approx(0.5)
    assert found["embb"]["p95_ms"] == pytest.approx(np.sqrt(DELAY_EDGES_MS[39] * DELAY_EDGES_MS[40]))
    assert all(np.isnan(value) for value in found["urllc"].values())
    assert found["mmtc"]["mean_ms"] == pytest.approx(np.sqrt(DELAY_EDGES_MS[20] * DELAY_EDGES_MS[21]))
    assert found["mmtc"]["late"] == 0.0


class Bench:
    """One network of which the settings are given by name, with a view of what its kernel worked out."""

    def __init__(self, seed=1, **options):
        usual = {"cells": 1, "users": 10, "episode_steps": 500, "interlock": False}
        self.scenario = Network5G(**{**usual, **options})
        self.env = self.scenario.vector_env(1, threads=1)
        self.env.reset(seed=seed)
        self.work = self.env.engine.scratch.users[0]
        self.state = self.env.engine.state
        embb, urllc, mmtc = self.scenario.users
        self.embb, self.urllc = slice(0, embb), slice(embb, embb + urllc)
        self.mmtc = slice(embb + urllc, embb + urllc + mmtc)
        self.constants = self.env.engine.constants

    def step(self, **named):
        action = self.scenario.baselines["default"].make().action.copy()
        for name, value in named.items():
            action[ACTION_NAMES.index(name)] = value
        infos = self.env.step(np.repeat(action[None], self.env.num_envs, axis=0))[4]
        return infos["numerators"].sum(axis=0), infos["denominators"].sum(axis=0)


def test_a_file_counts_its_time_in_the_buffer():
    bench = Bench(users=3, hour=12)
    packet, total, offered = bench.constants.packet_mbit_embb, 0.0, 0.0
    for _ in range(300):
        start = bench.state.embb["backlog"][0, 0]
        bench.step()
        work = bench.work[0]
        start += work["offered"]
        rest = bench.state.embb["backlog"][0, 0]
        # Little: packets in the buffer, summed over the time in which it empties.
        buffered = 0.5 * (start + rest + work["dropped"]) * work["active_s"] / packet
        own = work["packets"] * (0.5 * bench.constants.slot_s_embb + work["error"] * bench.constants.harq_s)
        assert work["delay_ms"] == pytest.approx(1e3 * (buffered + own), rel=1e-9)
        if rest == 0 and work["dropped"] == 0 and start > 0:
            assert work["carried"] == pytest.approx(start)
            assert work["active_s"] == pytest.approx(start / (work["rate"]), rel=1e-6)
        total, offered = total + work["delay_ms"], offered + work["packets"]
    assert offered > 0
    assert total / offered < 1e3 * 10 * 0.3


def dark(bench, steps, before=0):
    """Delay and packets by slice of ``steps`` steps with every cell off, then of the rest of the episode."""
    n = d = 0.0
    for _ in range(before):
        bench.step()
    for _ in range(steps):
        a, b = bench.step(sleep=1.0)
        n, d = n + a, d + b
    return n, d


def test_packets_that_are_never_served_count_the_cap():
    bench = Bench(episode_steps=70, hour=12)
    n, d = dark(bench, 70)
    caps_ms = [1e3 * 10 * budget for budget in bench.scenario.reference.traffic.budgets_s]
    extra = n[:3] / d[:3] - caps_ms
    # Files and packets spend their slot alignment and errors on top of the time in the buffer.
    assert extra[0] == pytest.approx(0.0, abs=5.0)
    assert extra[1] == pytest.approx(0.0, abs=1e-9)
    # Spread arrivals are half a step old when their first full step starts.
    assert extra[2] == pytest.approx(50.0, abs=5.0)
    assert bench.work["carried"].sum() == 0


def test_late_and_satisfied_users():
    bench = Bench(hour=12, load="low", episode_steps=300)
    n, d = dark(bench, 30)
    name = bench.scenario.part_names.index("satisfaction")
    assert n[name] < 0.35 * d[name]
    assert bench.work["happy_s"].sum() == 0
    for _ in range(100):
        bench.step()
    found = bench.work
    lost = bench.state.mmtc["late_ring"][0]
    assert found["happy_s"][bench.mmtc].sum() == pytest.approx(found["judged_s"][bench.mmtc].sum())
    assert np.ptp(lost, axis=1) == pytest.approx(0.0)
    assert lost.min() > 0


def test_satisfaction_of_files_is_the_rate_over_the_last_second():
    bench, history = Bench(users=20, seed=3, load="high", events=[{"kind": "demand", "at_s": 7, "factor": 20}]), []
    want = bench.scenario.reference.satisfaction.embb_mbit_s
    both = set()
    for step in range(150):
        bench.step(embb_share=1.0 if step < 70 else 0.0625)
        history.append(bench.work[bench.embb].copy())
        last = history[-WINDOW:]
        busy, carried = (sum(work[name] for work in last) for name in ("active_s", "carried"))
        judged = busy > 1e-9
        np.testing.assert_array_equal(bench.work["judged_s"][bench.embb] > 0, judged)
        margin = carried - want * busy
        clear = judged & (np.abs(margin) > 1e-6)
        happy = bench.work["happy_s"][bench.embb] > 0
        np.testing.assert_array_equal(happy[clear], margin[clear] > 0)
        both |= set(happy[clear].tolist())
    assert both == {True, False}


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 500),
    urllc=st.floats(0.0625, 1.0),
    sleep=st.floats(0.0, 0.89),
    load=st.sampled_from(["low", "high"]),
)
def test_urllc_is_an_mg1_queue_on_minislots(seed, urllc, sleep, load):
    bench = Bench(seed=seed, load=load, users=20)
    for _ in range(2):
        bench.step(urllc_share=urllc, sleep=sleep)
    c, work, cell = bench.constants, bench.work[bench.urllc], bench.env.engine.scratch.cells[0, 0]
    share = urllc / cell["settings"][4:7].sum()
    rate = work["efficiency"] * c.usable_mhz_urllc * share
    assert work["rate"] == pytest.approx(rate, rel=1e-6)
    service = np.divide(c.mbit_urllc, rate, out=np.full(len(rate), np.inf), where=rate > 0)
    usable = rate > 0
    rho = (work["arrival_rate"][usable] * service[usable]).sum()
    assert cell["busy"][1] == pytest.approx(min(rho, 1.0), rel=1e-6)
    # Beyond the limit of the load the rest is discarded at the cap.
    kept = min(LOAD_LIMIT / rho, 1.0) if rho > 0 else 1.0
    assert work["carried"] == pytest.approx(np.where(usable, kept, 0.0) * work["offered"], rel=1e-6)
    rho = min(rho, LOAD_LIMIT)
    wait = (
        rho
        * (work["arrival_rate"] * service**2)[usable].sum()
        / max((work["arrival_rate"] * service)[usable].sum(), 1e-30)
    )
    wait /= 2 * (1 - rho)
    # With vacations a queue waits longer by what a moment without service finds (Fuhrmann and Cooper 1985), until
    # beyond the limit of the load there are no such moments.
    unlimited = (work["arrival_rate"][usable] * service[usable]).sum()
    met = sleep * (1 - cell["busy"][0]) * (1 - cell["busy"][2]) * np.clip((1 - unlimited) / (1 - LOAD_LIMIT), 0, 1)
    # At least a mini-slot is sent.
    service = np.maximum(service, c.minislot_s)
    mean = c.processing_s + 0.5 * c.minislot_s + service + wait + 0.5 * met * sleep * cell["cycle_s"]
    mean = np.where(usable, np.minimum(mean + work["error"] * c.harq_s, c.urllc_cap_s), c.urllc_cap_s)
    mean = kept * mean + (1.0 - kept) * c.urllc_cap_s
    assert work["delay_ms"] == pytest.approx(1e3 * work["packets"] * mean, rel=1e-6)
    late = bench.state.users["late"][0, bench.urllc, 1]
    slack = c.urllc_budget_s - c.processing_s - c.minislot_s - service
    for i in np.flatnonzero(usable):
        p = late_probability(slack[i], rho, wait, sleep * cell["cycle_s"], met)
        p = p + (1 - p) * float(work["error"][i])
        assert late[i] == pytest.approx(1 - kept * (1 - p), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_files_are_shared_alpha_fairly(alpha):
    bench = Bench(users=10, load="high", hour=18, seed=4)
    exponent, c, checked = (1 - alpha) / alpha, bench.constants, 0
    for _ in range(120):
        before = bench.state.embb["backlog"][0].copy()
        bench.step(alpha=alpha)
        work, cell = bench.work[bench.embb], bench.env.engine.scratch.cells[0, 0]
        waiting = before + work["offered"] > 0
        gain = 1 + c.multi_user_gain * np.log(max(waiting.sum(), 1))
        whole = c.usable_mhz_embb * cell["share"][0] * gain
        rate = work["efficiency"].astype(float) * (1 - work["error"]) * whole
        assert work["rate"][work["event"] == 0] == pytest.approx(rate[work["event"] == 0], rel=1e-6)
        send = waiting & (work["rate"] > 0)
        served, _, spent = share_by_events(
            (before + work["offered"])[send], work["rate"][send], work["rate"][send] ** exponent, 0.1
        )
        assert work["carried"][send] == pytest.approx(served, rel=1e-4, abs=1e-9)
        assert cell["busy"][0] == pytest.approx(spent / 0.1, rel=1e-4, abs=1e-9)
        checked += int(send.sum() > 1)
    assert checked > 10


@pytest.mark.parametrize(("load", "share"), [("mid", 1.0), ("high", 0.0625)])
def test_machines_share_a_processor(load, share):
    bench = Bench(users=20, load=load, hour=12)
    c = bench.constants
    for _ in range(40):
        bench.step(mmtc_share=share)
        work, cell = bench.work[bench.mmtc], bench.env.engine.scratch.cells[0, 0]
        sure = (work["rate"] > 0).all() and (bench.state.mmtc["backlog"][0] == 0).all()
        assert sure
        service = c.packet_mbit_mmtc / work["rate"]
        rho = (work["arrival_rate"] * service).sum()
        # M/G/1 processor sharing: S / (1 - rho); at least a slot is sent, and it begins half a slot later.
        own = np.maximum(service / (1 - rho), c.slot_s_mmtc) + 0.5 * c.slot_s_mmtc + work["error"] * c.harq_s
        assert work["delay_ms"] == pytest.approx(1e3 * work["packets"] * own, rel=1e-6)
        assert cell["busy"][2] == pytest.approx((work["offered"] / work["rate"]).sum() / 0.1)


def test_sleep_between_transmissions_delays_packets():
    awake, asleep = Bench(load="low", hour=3), Bench(load="low", hour=3)
    totals = []
    for bench, sleep in ((awake, 0.0), (asleep, 0.85)):
        n = d = 0.0
        for _ in range(50):
            a, b = bench.step(sleep=sleep)
            n, d = n + a, d + b
        totals.append(n[:3] / d[:3])
    cycle_ms = awake.env.engine.scratch.cells["cycle_s"][0, 0] * 1e3
    more = totals[1] - totals[0]
    assert (more > 0).all()
    assert (more < 0.5 * 0.85**2 * cycle_ms + 1e-9).all()
    assert HIGH[ACTION_NAMES.index("sleep")] == 1.0
