"""Schedulers of one step: who gets how much of a cell's blocks, and what its queues make of it."""

from __future__ import annotations

import math

from rlaas.scenarios.compiled import inner
from rlaas.scenarios.network5g.engine.arrays import BINS, WINDOW, Scratch, State
from rlaas.scenarios.network5g.engine.links import HANDOVER
from rlaas.scenarios.network5g.engine.queueing import (
    BINS_PER_LOG2,
    LOAD_LIMIT,
    advance,
    delay_bin,
    lags_of,
    late_probability,
    mg1_wait,
    power,
    record,
    share_out,
)
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["ALPHA", "SLEEP", "group", "judge", "serve"]

SLEEP, ALPHA = 8, 7
"""Columns of a cell's settings; see ``control.ACTION_NAMES``."""


@inner
def group(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Users by serving cell, each cell's in the order of the slices (a stable counting sort)."""
    first, order, users = w.first[k], w.order[k], s.users.shape[1]
    for j in range(c.cells + 1):
        first[j] = 0
    for i in range(users):
        first[s.users[e, i].serving + 1] += 1
    for j in range(c.cells):
        first[j + 1] += first[j]
    for i in range(users):
        j = s.users[e, i].serving
        order[first[j]] = i
        first[j] += 1
    for j in range(c.cells, 0, -1):
        first[j] = first[j - 1]
    first[0] = 0


@inner
def _take(k, count, finish, backlogs, skip, w):  # type: ignore[no-untyped-def]
    """Write what :func:`share_out` found back to the users: data carried, and seconds with data."""
    for a in range(count):
        i = w.pick[k, a]
        work = w.users[k, i]
        backlog = backlogs[i - skip].backlog + work.offered
        if finish[a] >= 0.0:
            work.carried = backlog
            work.active_s = finish[a]
        else:
            work.carried = -finish[a] * backlog


@inner
def _serve_embb(e, k, j, begin, end, lags, at, c, s, w):  # type: ignore[no-untyped-def]
    """Alpha-fair sharing with a multi-user gain; returns the seconds the cell transmitted.

    Shares ``x ~ R^((1 - alpha) / alpha)`` maximise alpha-fair utility of rates ``x R``. Choosing among n fading users
    pays: the rate grows by ``1 + gain ln n``, though not beyond the best modulation and coding.
    """
    step, on, cell = s.environments[e].step, s.cells[e, j].off == 0, w.cells[k, j]
    order, pick, finish, weight = w.order[k], w.pick[k], w.finish[k], w.weight[k]
    waiting = 0
    for a in range(begin, end):
        i = order[a]
        work = w.users[k, i]
        work.offered = work.demand * c.mbit_embb
        work.packets = work.offered / c.packet_mbit_embb
        if s.embb[e, i].backlog + work.offered > 0.0:
            waiting += 1
    gain = 1.0
    if waiting > 1 and c.multi_user_gain > 0.0:
        gain += c.multi_user_gain * math.log(waiting)
    whole = c.usable_mhz_embb * cell.share[0]
    alpha = cell.settings[ALPHA]
    exponent = (1.0 - alpha) / alpha
    count = 0
    for a in range(begin, end):
        i = order[a]
        work = w.users[k, i]
        rate = min(work.efficiency * gain, c.best_efficiency) * (1.0 - work.error) * whole
        if work.event & HANDOVER:
            rate *= 1.0 - c.interruption_s / STEP_S
        work.rate = rate
        work.carried = 0.0
        work.active_s = 0.0
        backlog = s.embb[e, i].backlog + work.offered
        if backlog > 0.0:
            work.active_s = STEP_S
            if on and rate > 0.0:
                share = power(max(rate, 1e-3), exponent) if exponent != 0.0 else 1.0
                pick[count], weight[count], finish[count] = i, share, backlog / (rate * share)
                count += 1
    spent = share_out(count, finish, weight, pick, STEP_S)
    _take(k, count, finish, s.embb[e], 0, w)
    for a in range(begin, end):
        i = order[a]
        f, work = s.embb[e, i], w.users[k, i]
        start = f.backlog + work.offered
        delay = 0.5 * (start + max(start - work.carried, 0.0)) * work.active_s / c.packet_mbit_embb
        work.delay_ms = 1e3 * delay
        ring = s.embb_ring[e, i]
        work.dropped = advance(f, ring, lags, at, work.offered, work.carried, work.active_s)
        if c.histogram:
            went, counts = work.carried + work.dropped, s.histogram[e, 0]
            # Files come at the start of a step: half a step more than packets that come during it.
            record(counts, f, ring, step, went, 0.5 * work.active_s, c.packet_mbit_embb, c.embb_cap)
    return spent


@inner
def _serve_mmtc(e, k, j, begin, end, lags, at, c, s, w):  # type: ignore[no-untyped-def]
    """Equal shares of what arrives spread over the step; returns the seconds the cell transmitted."""
    step, on, cell = s.environments[e].step, s.cells[e, j].off == 0, w.cells[k, j]
    order, pick, finish, weight = w.order[k], w.pick[k], w.finish[k], w.weight[k]
    whole, skip = c.usable_mhz_mmtc * cell.share[2], c.embb + c.urllc
    count = 0
    work_load = square = 0.0
    for a in range(begin, end):
        i = order[a]
        work = w.users[k, i]
        work.offered = work.demand * c.mbit_mmtc
        work.packets = work.offered / c.packet_mbit_mmtc
        rate = work.efficiency * (1.0 - work.error) * whole
        if work.event & HANDOVER:
            rate *= 1.0 - c.interruption_s / STEP_S
        work.rate = rate
        work.carried = 0.0
        backlog = s.mmtc[e, i - skip].backlog + work.offered
        work.active_s = STEP_S if backlog > 0.0 else 0.0
        if rate > 0.0:
            service = c.packet_mbit_mmtc / rate
            work_load += work.arrival_rate * service
            square += work.arrival_rate * service * service
            if backlog > 0.0 and on:
                pick[count], weight[count], finish[count] = i, 1.0, backlog / rate
                count += 1
    wait = mg1_wait(work_load, square)
    spent = share_out(count, finish, weight, pick, STEP_S)
    _take(k, count, finish, s.mmtc[e], skip, w)
    for a in range(begin, end):
        i = order[a]
        f, work = s.mmtc[e, i - skip], w.users[k, i]
        before, rest = f.backlog, max(f.backlog + work.offered - work.carried, 0.0)
        delay = 0.5 * before * work.active_s if rest <= 0.0 else 0.5 * (before + rest) * STEP_S
        own = min(wait + c.packet_mbit_mmtc / work.rate, STEP_S) if work.rate > 0.0 else 0.0
        work.delay_ms = 1e3 * (delay / c.packet_mbit_mmtc + work.packets * own)
        ring = s.mmtc_ring[e, i - skip]
        work.dropped = advance(f, ring, lags, at, work.offered, work.carried, work.active_s)
        if c.histogram:
            went, counts = work.carried + work.dropped, s.histogram[e, 2]
            extra = own + 0.5 * c.slot_s_mmtc + work.error * c.harq_s
            record(counts, f, ring, step, went, extra, c.packet_mbit_mmtc, c.mmtc_cap)
    return spent


@inner
def _serve_urllc(e, k, j, begin, end, others_idle, c, s, w):  # type: ignore[no-untyped-def]
    """Delay and reliability of URLLC as an M/G/1 queue on mini-slots, one shot each; returns the load.

    A handover does not interrupt it: URLLC users keep both links until the new one stands (TS 38.300 section 9.2.3.2).

    D = processing + mini-slot alignment + transmission + wait + rest of a sleeping transmitter's pause. Beyond the
    limit of the load a cell carries what the limit allows, and the rest is discarded at the cap.
    """
    order, cell, on = w.order[k], w.cells[k, j], s.cells[e, j].off == 0
    whole, at = c.usable_mhz_urllc * cell.share[1], s.environments[e].step % WINDOW
    work_load = square = 0.0
    for a in range(begin, end):
        work = w.users[k, order[a]]
        work.rate = work.efficiency * whole
        if work.rate > 0.0 and on:
            service = c.mbit_urllc / work.rate
            work_load += work.arrival_rate * service
            square += work.arrival_rate * service * service
    load, wait = min(work_load, LOAD_LIMIT), mg1_wait(work_load, square)
    kept = LOAD_LIMIT / max(work_load, LOAD_LIMIT)
    sleep = cell.settings[SLEEP] if on else 0.0
    pause, met = sleep * cell.cycle_s, sleep * others_idle * max(1.0 - work_load, 0.0)
    for a in range(begin, end):
        i = order[a]
        work = w.users[k, i]
        work.packets = work.demand
        work.offered = work.demand * c.mbit_urllc
        work.active_s = STEP_S
        delay, late = c.urllc_cap_s, 1.0
        work.carried = 0.0
        if work.rate > 0.0 and on:
            service = c.mbit_urllc / work.rate
            mean = c.processing_s + 0.5 * c.minislot_s + service + wait + 0.5 * met * pause
            slack = c.urllc_budget_s - c.processing_s - c.minislot_s - service
            late = late_probability(slack, load, wait, pause, met)
            # A packet in error is sent again one round trip later, which is late for sure.
            late += (1.0 - late) * work.error
            late = 1.0 - kept * (1.0 - late)
            delay = c.urllc_cap_s - kept * max(c.urllc_cap_s - mean - work.error * c.harq_s, 0.0)
            work.carried = kept * work.offered
        work.dropped = work.offered - work.carried
        work.delay_ms = 1e3 * work.packets * delay
        s.users[e, i].late[at] = late
        if c.histogram:
            _record_urllc(s.histogram[e, 1], work, kept, wait, load, pause, met, c)
    return min(work_load, 1.0)


@inner
def _record_urllc(counts, work, kept, wait, load, pause, met, c):  # type: ignore[no-untyped-def]
    """Spread a user's URLLC packets over a histogram by the analytic distribution of their delay."""
    if work.carried <= 0.0:
        counts[delay_bin(c.urllc_cap_s)] += work.packets
        return
    counts[delay_bin(c.urllc_cap_s)] += work.packets * (1.0 - kept)
    fixed = c.processing_s + c.minislot_s + c.mbit_urllc / work.rate
    beyond = 1.0
    for b in range(BINS):
        edge = 1e-4 * 2.0 ** ((b + 1) / BINS_PER_LOG2)
        tail = 0.0 if edge >= c.urllc_cap_s else late_probability(edge - fixed, load, wait, pause, met)
        if edge < fixed + c.harq_s:
            tail += (1.0 - tail) * work.error
        tail = min(tail, beyond)
        counts[b] += work.packets * kept * (beyond - tail)
        beyond = tail
        if beyond <= 0.0:
            return


@inner
def serve(e, k, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Serve every cell's users for one step."""
    group(e, k, c, s, w)
    order, first, step = w.order[k], w.first[k], s.environments[e].step
    # Once for all cells: remainders are slow.
    at = step % (WINDOW + 1)
    lags_embb = lags_of(step, s.embb_ring.shape[2], c.embb_deadline, c.embb_cap)
    lags_mmtc = lags_of(step, s.mmtc_ring.shape[2], c.mmtc_deadline, c.mmtc_cap)
    for j in range(c.cells):
        cell = w.cells[k, j]
        embb, end = first[j], first[j + 1]
        urllc = embb
        while urllc < end and order[urllc] < c.embb:
            urllc += 1
        mmtc = urllc
        while mmtc < end and order[mmtc] < c.embb + c.urllc:
            mmtc += 1
        cell.busy[0] = _serve_embb(e, k, j, embb, urllc, lags_embb, at, c, s, w) / STEP_S
        cell.busy[2] = _serve_mmtc(e, k, j, mmtc, end, lags_mmtc, at, c, s, w) / STEP_S
        # Slices transmit independently of one another, each on blocks of its own.
        others_idle = (1.0 - cell.busy[0]) * (1.0 - cell.busy[2])
        cell.busy[1] = _serve_urllc(e, k, j, urllc, mmtc, others_idle, c, s, w)
        cell.idle = others_idle * (1.0 - cell.busy[1])
        sleep = cell.settings[SLEEP] if s.cells[e, j].off == 0 else 0.0
        # A packet that meets the pause waits for half of it on average.
        pause = 0.5 * sleep * sleep * others_idle * cell.cycle_s
        for a in range(embb, urllc):
            work = w.users[k, order[a]]
            work.delay_ms += 1e3 * work.packets * (0.5 * c.slot_s_embb + work.error * c.harq_s + pause)
        for a in range(mmtc, end):
            work = w.users[k, order[a]]
            work.delay_ms += 1e3 * work.packets * (0.5 * c.slot_s_mmtc + work.error * c.harq_s + pause)
    judge(e, k, c, s, w)


@inner
def judge(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Satisfied and judged user-seconds, on the second that ends with this step."""
    step = s.environments[e].step
    at, before = step % (WINDOW + 1), (step - WINDOW) % (WINDOW + 1)
    for i in range(c.embb):
        f, work = s.embb[e, i], w.users[k, i]
        busy = f.active_ring[at] - f.active_ring[before]
        work.judged_s = work.happy_s = 0.0
        if busy > 1e-9:
            work.judged_s = STEP_S
            if f.served_ring[at] - f.served_ring[before] >= c.want_mbit_s * busy:
                work.happy_s = STEP_S
    for i in range(c.embb, c.embb + c.urllc):
        user, work, late = s.users[e, i], w.users[k, i], 0.0
        for a in range(WINDOW):
            late += user.late[a]
        work.judged_s = STEP_S
        work.happy_s = STEP_S if late <= c.want_late * WINDOW else 0.0
    length = s.mmtc_ring.shape[2]
    due, since = (step - c.mmtc_deadline) % length, (step - c.mmtc_deadline - WINDOW) % length
    for n in range(c.mmtc):
        f, work = s.mmtc[e, n], w.users[k, c.embb + c.urllc + n]
        turned = s.mmtc_ring[e, n, due] - s.mmtc_ring[e, n, since]
        work.judged_s = work.happy_s = 0.0
        if turned > 1e-12:
            work.judged_s = STEP_S
            if f.late_ring[at] - f.late_ring[before] <= (1.0 - c.want_delivered) * turned + 1e-12:
                work.happy_s = STEP_S
