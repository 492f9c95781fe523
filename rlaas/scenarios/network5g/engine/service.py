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

__all__ = ["ALPHA", "SLEEP", "judge", "serve"]

_PER_STEP = 1.0 / STEP_S
_PER_REST = 1.0 / (1.0 - LOAD_LIMIT)
SLEEP, ALPHA = 8, 7
"""Columns of a cell's settings; see ``control.ACTION_NAMES``."""


@inner
def _open(k, j, w):  # type: ignore[no-untyped-def]
    cell = w.cells[k, j]
    cell.waiting = 0.0
    cell.gain = 1.0
    # Once for all its users: a division each would show.
    cell.exponent = (1.0 - cell.settings[ALPHA]) / cell.settings[ALPHA]
    cell.busy[0] = cell.busy[2] = 0.0
    cell.load_urllc = cell.square_urllc = cell.load_mmtc = 0.0


@inner
def _gain_by_choice(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """What choosing among n fading users pays: the rate grows by ``1 + gain ln n``."""
    for i in range(c.embb):
        if s.embb[e, i].backlog + w.users[k, i].demand * c.mbit_embb > 0.0:
            w.cells[k, s.users[e, i].serving].waiting += 1.0
    for j in range(c.cells):
        cell = w.cells[k, j]
        if cell.waiting > 1.0:
            cell.gain = 1.0 + c.multi_user_gain * math.log(cell.waiting)


@inner
def _ask_embb(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Rates of eMBB users, and the weights of those with data.

    Shares ``x ~ R^((1 - alpha) / alpha)`` maximise alpha-fair utility of rates ``x R``. What choice among users adds to
    a rate does not carry it beyond the best modulation and coding.
    """
    if c.multi_user_gain > 0.0:
        _gain_by_choice(e, k, c, s, w)
    for i in range(c.embb):
        work, own = w.users[k, i], s.users[e, i].serving
        cell = w.cells[k, own]
        work.offered = work.demand * c.mbit_embb
        work.packets = work.offered / c.packet_mbit_embb
        rate = min(work.efficiency * cell.gain, c.best_efficiency) * (1.0 - work.error)
        rate *= c.usable_mhz_embb * cell.share[0]
        if work.event & HANDOVER:
            rate *= 1.0 - c.interruption_s / STEP_S
        work.rate = rate
        backlog = s.embb[e, i].backlog + work.offered
        work.carried = work.weight = 0.0
        work.active_s = STEP_S if backlog > 0.0 else 0.0
        if backlog > 0.0 and rate > 0.0 and s.cells[e, own].off == 0:
            work.weight = power(max(rate, 1e-3), cell.exponent) if cell.exponent != 0.0 else 1.0
            work.finish = backlog / (rate * work.weight)


@inner
def _ask_mmtc(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Rates of machines, which share alike, and the load that they are to their cells."""
    skip = c.embb + c.urllc
    for n in range(c.mmtc):
        work, own = w.users[k, skip + n], s.users[e, skip + n].serving
        cell = w.cells[k, own]
        work.offered = work.demand * c.mbit_mmtc
        work.packets = work.offered / c.packet_mbit_mmtc
        rate = work.efficiency * (1.0 - work.error) * (c.usable_mhz_mmtc * cell.share[2])
        if work.event & HANDOVER:
            rate *= 1.0 - c.interruption_s / STEP_S
        work.rate = rate
        backlog = s.mmtc[e, n].backlog + work.offered
        work.carried = work.weight = 0.0
        work.active_s = STEP_S if backlog > 0.0 else 0.0
        if rate > 0.0:
            cell.load_mmtc += work.arrival_rate * c.packet_mbit_mmtc / rate
            if backlog > 0.0 and s.cells[e, own].off == 0:
                work.weight = 1.0
                work.finish = backlog / rate


@inner
def _ask_urllc(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Rates of URLLC users and the load that they are to their cells."""
    for i in range(c.embb, c.embb + c.urllc):
        work, own = w.users[k, i], s.users[e, i].serving
        cell = w.cells[k, own]
        work.rate = work.efficiency * (c.usable_mhz_urllc * cell.share[1])
        if work.rate > 0.0 and s.cells[e, own].off == 0:
            service = c.mbit_urllc / work.rate
            cell.load_urllc += work.arrival_rate * service
            cell.square_urllc += work.arrival_rate * service * service


@inner
def _share_cells(e, k, c, s, w, slice_, skip, users, fluid):  # type: ignore[no-untyped-def]
    """Let every cell share its time among a slice's users with data; says what each carried and when it was done."""
    first, pick, finish, weight = w.first[k], w.pick[k], w.finish[k], w.weight[k]
    for j in range(c.cells):
        first[j] = 0
    for i in range(skip, skip + users):
        first[s.users[e, i].serving] += w.users[k, i].weight > 0.0
    total = 0
    for j in range(c.cells):
        count = first[j]
        first[j] = total
        total += count
    for i in range(skip, skip + users):
        work, own = w.users[k, i], s.users[e, i].serving
        if work.weight > 0.0:
            at = first[own]
            pick[at], weight[at], finish[at] = i, work.weight, work.finish
            first[own] = at + 1
    # Now each entry says where its cell's users end; most cells may have none.
    begin = 0
    while begin < total:
        own = s.users[e, pick[begin]].serving
        end = first[own]
        w.cells[k, own].busy[slice_] = share_out(begin, end, finish, weight, pick, STEP_S) * _PER_STEP
        begin = end
    for a in range(total):
        work = w.users[k, pick[a]]
        backlog = fluid[e, pick[a] - skip].backlog + work.offered
        if finish[a] >= 0.0:
            work.carried = backlog
            work.active_s = finish[a]
        else:
            work.carried = -finish[a] * backlog


@inner
def _settle(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """What each cell's load means for waiting and sleeping."""
    for j in range(c.cells):
        cell = w.cells[k, j]
        cell.wait_s = mg1_wait(cell.load_urllc, cell.square_urllc)
        # Slices transmit independently of one another, each on blocks of its own.
        others_idle = (1.0 - cell.busy[0]) * (1.0 - cell.busy[2])
        cell.busy[1] = min(cell.load_urllc, 1.0)
        cell.idle = others_idle * (1.0 - cell.busy[1])
        sleep = cell.settings[SLEEP] if s.cells[e, j].off == 0 else 0.0
        # A packet that meets the pause, which only a cycle without any work has, waits for half of it on average.
        cell.pause_s = 0.5 * sleep * sleep * cell.idle * cell.cycle_s
        # Whoever comes while the queue of a pause is served waits for that pause as well: the delays of a server with
        # vacations are those of one without plus what a moment without service has (Fuhrmann and Cooper 1985).
        cell.met = sleep * others_idle * min(max(1.0 - cell.load_urllc, 0.0) * _PER_REST, 1.0)
        cell.kept = LOAD_LIMIT / cell.load_urllc if cell.load_urllc > LOAD_LIMIT else 1.0


@inner
def _book_embb(e, k, lags, at, c, s, w):  # type: ignore[no-untyped-def]
    """Delays of eMBB: the integral of the backlog (Little), and what a slot, errors and pauses add."""
    step = s.environments[e].step
    for i in range(c.embb):
        f, work, ring = s.embb[e, i], w.users[k, i], s.embb_ring[e, i]
        start = f.backlog + work.offered
        delay = 0.5 * (start + max(start - work.carried, 0.0)) * work.active_s / c.packet_mbit_embb
        extra = 0.5 * c.slot_s_embb + work.error * c.harq_s + w.cells[k, s.users[e, i].serving].pause_s
        work.delay_ms = 1e3 * (delay + work.packets * extra)
        work.dropped = advance(f, ring, lags, at, work.offered, work.carried, work.active_s)
        if c.histogram:
            went, counts = work.carried + work.dropped, s.histogram[e, 0]
            # Files come at the start of a step: half a step more than packets that come during it.
            record(counts, f, ring, step, went, 0.5 * work.active_s, c.packet_mbit_embb, c.embb_cap)


@inner
def _book_mmtc(e, k, lags, at, c, s, w):  # type: ignore[no-untyped-def]
    """Delays of machines, whose packets arrive spread over the step and wait for each other besides."""
    step, skip = s.environments[e].step, c.embb + c.urllc
    for n in range(c.mmtc):
        f, work, ring = s.mmtc[e, n], w.users[k, skip + n], s.mmtc_ring[e, n]
        cell = w.cells[k, s.users[e, skip + n].serving]
        before, rest = f.backlog, max(f.backlog + work.offered - work.carried, 0.0)
        delay = 0.5 * before * work.active_s if rest <= 0.0 else 0.5 * (before + rest) * STEP_S
        own = 0.0
        if work.rate > 0.0:
            # Machines take turns (processor sharing); a packet occupies a slot, however little of it it needs.
            service = c.packet_mbit_mmtc / work.rate
            own = min(max(service / (1.0 - min(cell.load_mmtc, LOAD_LIMIT)), c.slot_s_mmtc), STEP_S)
        extra = 0.5 * c.slot_s_mmtc + work.error * c.harq_s
        work.delay_ms = 1e3 * (delay / c.packet_mbit_mmtc + work.packets * (own + extra + cell.pause_s))
        work.dropped = advance(f, ring, lags, at, work.offered, work.carried, work.active_s)
        if c.histogram:
            went, counts = work.carried + work.dropped, s.histogram[e, 2]
            record(counts, f, ring, step, went, own + extra, c.packet_mbit_mmtc, c.mmtc_cap)


@inner
def _record_urllc(counts, work, kept, wait, load, pause, met, c):  # type: ignore[no-untyped-def]
    """Spread a user's URLLC packets over a histogram by the analytic distribution of their delay."""
    counts[delay_bin(c.urllc_cap_s)] += work.packets * (1.0 - kept)
    fixed = c.processing_s + c.minislot_s + max(c.mbit_urllc / work.rate, c.minislot_s)
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
def _book_urllc(e, k, c, s, w):  # type: ignore[no-untyped-def]
    """Delay and reliability of URLLC as an M/G/1 queue on mini-slots, one shot each.

    A handover does not interrupt it: URLLC users keep both links until the new one stands (TS 38.300 section 9.2.3.2).

    D = processing + mini-slot alignment + transmission + wait + rest of a sleeping transmitter's pause. Beyond the
    limit of the load a cell carries what the limit allows, and the rest is discarded at the cap.
    """
    at = s.environments[e].step % WINDOW
    for i in range(c.embb, c.embb + c.urllc):
        work, own = w.users[k, i], s.users[e, i].serving
        cell, on = w.cells[k, own], s.cells[e, own].off == 0
        work.packets = work.demand
        work.offered = work.demand * c.mbit_urllc
        work.active_s = STEP_S
        delay, late = c.urllc_cap_s, 1.0
        work.carried = 0.0
        if work.rate > 0.0 and on:
            load, pause = min(cell.load_urllc, LOAD_LIMIT), cell.settings[SLEEP] * cell.cycle_s
            # A packet occupies a mini-slot, however little of it it needs.
            service = max(c.mbit_urllc / work.rate, c.minislot_s)
            mean = c.processing_s + 0.5 * c.minislot_s + service + cell.wait_s + 0.5 * cell.met * pause
            slack = c.urllc_budget_s - c.processing_s - c.minislot_s - service
            late = late_probability(slack, load, cell.wait_s, pause, cell.met)
            # A packet in error is sent again one round trip later, which is late for sure.
            late += (1.0 - late) * work.error
            late = 1.0 - cell.kept * (1.0 - late)
            delay = c.urllc_cap_s - cell.kept * max(c.urllc_cap_s - mean - work.error * c.harq_s, 0.0)
            work.carried = cell.kept * work.offered
            if c.histogram:
                _record_urllc(s.histogram[e, 1], work, cell.kept, cell.wait_s, load, pause, cell.met, c)
        elif c.histogram:
            s.histogram[e, 1, delay_bin(c.urllc_cap_s)] += work.packets
        work.dropped = work.offered - work.carried
        work.delay_ms = 1e3 * work.packets * delay
        s.users[e, i].late[at] = late


@inner
def serve(e, k, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Serve every cell's users for one step.

    Users one after another, cells only where they have to be: a cell has few users of a slice, and the ends of many
    short loops are guessed wrongly.
    """
    for j in range(c.cells):
        _open(k, j, w)
    _ask_embb(e, k, c, s, w)
    _share_cells(e, k, c, s, w, 0, 0, c.embb, s.embb)
    _ask_mmtc(e, k, c, s, w)
    _share_cells(e, k, c, s, w, 2, c.embb + c.urllc, c.mmtc, s.mmtc)
    _ask_urllc(e, k, c, s, w)
    _settle(e, k, c, s, w)
    # Once for all users: remainders are slow.
    step = s.environments[e].step
    at = step % (WINDOW + 1)
    _book_embb(e, k, lags_of(step, s.embb_ring.shape[2], c.embb_deadline, c.embb_cap), at, c, s, w)
    _book_mmtc(e, k, lags_of(step, s.mmtc_ring.shape[2], c.mmtc_deadline, c.mmtc_cap), at, c, s, w)
    _book_urllc(e, k, c, s, w)
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
