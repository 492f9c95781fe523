"""Queues against brute force, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.scenarios.network5g.queues import drain, late_probability, mg1_wait
from rlaas.scenarios.network5g.slices import FluidSlice

users = st.integers(1, 7)


def share_by_events(backlog, rate, weight, server, time):
    """Processor sharing event by event: the oracle."""
    left, served, finished = backlog.copy(), np.zeros_like(backlog), np.zeros_like(backlog)
    for s, limit in enumerate(time):
        now = 0.0
        finished[server == s] = limit
        active = [i for i in np.flatnonzero(server == s) if left[i] > 0 and rate[i] > 0]
        while active and now < limit:
            total = sum(weight[i] for i in active)
            pace = {i: rate[i] * weight[i] / total for i in active}
            stride = min(min(left[i] / pace[i] for i in active), limit - now)
            now += stride
            for i in active:
                left[i] -= pace[i] * stride
                served[i] += pace[i] * stride
            for i in [i for i in active if left[i] <= 1e-12 * backlog[i]]:
                active.remove(i)
                finished[i] = now
    return served, finished


@settings(max_examples=60)
@given(data=st.data(), n=users)
def test_drain_is_processor_sharing(data, n):
    def array(low, high):
        return np.array(data.draw(st.lists(st.floats(low, high), min_size=n, max_size=n)))

    backlog, rate, weight = array(0, 10), array(0, 50), array(0.1, 5)
    backlog[backlog < 1e-6], rate[rate < 1e-3] = 0.0, 0.0
    server = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    time = np.array(data.draw(st.lists(st.floats(0, 0.5), min_size=3, max_size=3)))
    served, finished, busy = drain(backlog[None], rate[None], weight[None], server[None], time[None])
    wanted, at = share_by_events(backlog, rate, weight, server, time)
    assert served[0] == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    done = (served[0] > 0) & (served[0] == backlog)
    assert finished[0][done] == pytest.approx(at[done], rel=1e-6, abs=1e-9)
    assert (busy >= 0).all()
    assert (busy[0] <= time).all()
    assert (served[0] <= backlog).all()


def test_mg1_wait_of_known_queues():
    load, service = np.array([0.5, 0.8]), np.array([2.0, 2.0])
    # M/M/1: E[S^2] = 2 s^2, W = rho s / (1 - rho); M/D/1: half of it.
    assert mg1_wait(load, service, 2 * service**2) == pytest.approx(load * service / (1 - load))
    assert mg1_wait(load, service, service**2) == pytest.approx(load * service / (2 * (1 - load)))


@pytest.mark.parametrize("slack", [0.0, 0.2, 0.6, 1.5])
def test_late_probability_matches_simulation(slack):
    rng, n = np.random.default_rng(3), 400_000
    load, wait, pause, share = 0.4, 0.3, 0.5, 0.25
    waits = np.where(rng.random(n) < load, rng.exponential(wait / load, n), 0.0)
    rests = np.where(rng.random(n) < share, rng.uniform(0, pause, n), 0.0)
    ours = late_probability(*(np.array([v]) for v in (slack, load, wait, pause, share)))
    assert ours[0] == pytest.approx((waits + rests > slack).mean(), abs=4e-3)


def test_late_probability_at_its_ends():
    def late(slack, load, wait, pause, share):
        return late_probability(*(np.array([v]) for v in (slack, load, wait, pause, share)))[0]

    assert late(-0.1, 0.5, 0.1, 0.0, 0.0) == 1.0
    assert late(0.5, 0.0, 0.0, 0.0, 0.0) == 0.0
    assert late(0.5, 0.0, 0.0, 1.0, 1.0) == pytest.approx(0.5)


def make(batch, cap_s=0.5):
    return FluidSlice(1, 2, packet_mbit=0.1, cap_s=cap_s, deadline_s=0.2, batch=batch)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), batch=st.booleans())
def test_bits_in_are_bits_out_plus_queue_plus_drops(seed, batch):
    rng, queue = np.random.default_rng(seed), make(batch)
    arrived, gone = np.zeros(2), np.zeros(2)
    for step in range(40):
        arrivals = rng.poisson(0.7, (1, 2)) * 1.0
        rate = rng.choice([0.0, 3.0, 12.0], (1, 2))
        result = queue.step(step, arrivals, rate, np.ones((1, 2)), np.zeros((1, 2), dtype=int), np.array([[True]]))
        arrived += arrivals[0]
        gone += result.served[0] + result.dropped[0]
        assert queue.backlog[0] == pytest.approx(arrived - gone, abs=1e-9)
        assert (queue.backlog >= 0).all()
        assert (result.delay >= 0).all()
        assert (result.active <= 0.1 + 1e-12).all()
        assert result.busy[0, 0] <= 0.1 + 1e-12


def test_a_file_counts_exactly_its_time_in_the_buffer():
    queue, cell, on = make(batch=True), np.zeros((1, 2), dtype=int), np.array([[True]])
    # 1 Mbit at 4 Mbit/s: 250 ms over three intervals, drained linearly, so packets wait 125 ms on average.
    total = 0.0
    for step in range(4):
        arrivals = np.array([[1.0 if step == 0 else 0.0, 0.0]])
        total += queue.step(step, arrivals, np.array([[4.0, 4.0]]), np.ones((1, 2)), cell, on).delay[0, 0]
    assert total / 10 == pytest.approx(0.125)


@pytest.mark.parametrize("batch", [True, False])
def test_packets_that_are_never_served_count_the_cap(batch):
    queue, cell, on = make(batch), np.zeros((1, 2), dtype=int), np.array([[True]])
    nothing, delay, dropped = np.zeros((1, 2)), 0.0, 0.0
    for step in range(12):
        arrivals = np.array([[1.0 if step < 3 else 0.0, 0.0]])
        result = queue.step(step, arrivals, nothing, np.ones((1, 2)), cell, on)
        delay, dropped = delay + result.delay[0, 0], dropped + result.dropped[0, 0]
    assert dropped == pytest.approx(3.0)
    # Spread arrivals are half an interval old on average when their first full interval starts.
    assert delay / 30 == pytest.approx(0.5 if batch else 0.55)


def test_what_waits_at_the_end_counts_the_cap():
    queue, cell, on = make(batch=True), np.zeros((1, 2), dtype=int), np.array([[True]])
    delay = sum(
        queue.step(step, np.array([[1.0, 0.0]]), np.zeros((1, 2)), np.ones((1, 2)), cell, on).delay[0, 0]
        for step in range(3)
    )
    assert (delay + queue.waiting_to_cap(2)[0, 0]) / 30 == pytest.approx(0.5)


def test_late_counts_what_misses_its_deadline_and_nothing_else():
    queue, cell, on = make(batch=False), np.zeros((1, 2), dtype=int), np.array([[True]])
    for step in range(8):
        arrivals = np.array([[0.1, 0.1 if step == 0 else 0.0]])
        rate = np.array([[10.0, 0.0]])
        queue.step(step, arrivals, rate, np.ones((1, 2)), cell, on)
    assert queue.window(7, "late")[0] == pytest.approx([0.0, 0.1])
    assert queue.turned(7)[0] == pytest.approx([0.6, 0.1])
