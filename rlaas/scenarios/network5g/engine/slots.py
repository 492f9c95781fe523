"""The slow mode: the same networks, each step of 100 ms simulated slot by slot.

Places, maps, traffic, handover, settings, the power model and everything made of a step's results are those of the
fluid mode; in between, :mod:`~rlaas.scenarios.network5g.engine.service` and ``links.adapt`` are replaced by what they
approximate: fading, delayed reports, an outer loop fed by acknowledgements, HARQ, a scheduler on average rates,
URLLC packets on mini-slots, interference from what neighbours really send, and micro sleep by the cycle.
"""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import claim, entry_point, inner, linear_to_db
from rlaas.scenarios.network5g.engine.arrays import (
    RHO,
    SETS,
    WINDOW,
    LinkTables,
    MapTables,
    Out,
    Scratch,
    State,
    WorldTables,
)
from rlaas.scenarios.network5g.engine.links import HANDOVER, signal_and_interference
from rlaas.scenarios.network5g.engine.queueing import advance, lags_of, record
from rlaas.scenarios.network5g.engine.service import SLEEP, judge
from rlaas.scenarios.network5g.engine.slots_arrays import BANDS, PROCESSES
from rlaas.scenarios.network5g.engine.slots_fluid import (
    next_machine_packet,
    serve_embb_slot,
    serve_mmtc_slot,
    take_back,
)
from rlaas.scenarios.network5g.engine.slots_links import fade, fresh_fading, low_entry, pick_entry, report, walk
from rlaas.scenarios.network5g.engine.slots_urllc import (
    finish_urllc,
    next_urgent_packet,
    serve_minislot,
)
from rlaas.scenarios.network5g.engine.stepping import begin, conclude, prepare
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["begin_slot_networks", "step_slot_networks"]

_TINY_S = 1e-9
_NOTHING_MBIT = 1e-9


@inner
def _period(c):  # type: ignore[no-untyped-def]
    """Slots between channel reports: one comes into use when the next is measured, so its age is 1.5 periods."""
    return max(round((2.0 * c.report_age * STEP_S / c.slot_s_embb + 1.0) / 3.0), 1)


@inner
def _processes(c):  # type: ignore[no-untyped-def]
    """Slots of a HARQ round trip."""
    return min(max(round(c.harq_s / c.slot_s_embb), 1), PROCESSES)


@inner
def _start_link(e, i, k, s, w) -> None:  # type: ignore[no-untyped-def]
    """A link to another cell: new fading, nothing in flight."""
    link, work = s.slot_users[e, i], w.slot_users[k, i]
    fresh_fading(e, i, s)
    take_back(link, work, PROCESSES)
    link.pace = 0.0


@inner
def _prepare_user(e, i, k, c, m: MapTables, s, w) -> None:  # type: ignore[no-untyped-def]
    """What a user brings into the step."""
    user, work, mine = s.users[e, i], w.users[k, i], w.slot_users[k, i]
    link = s.slot_users[e, i]
    signal, interference, _, _ = signal_and_interference(e, i, k, c, m, s, w, user.serving)
    noise = np.float32(c.noise_mw)
    work.sinr_db = linear_to_db(signal / (interference + noise))
    work.interference = interference / noise
    user.weak = user.weak + np.float32(STEP_S) if work.sinr_db < c.failure_db else np.float32(0.0)
    mine.signal = signal
    mine.seen = -1
    mine.flying = mine.carried = mine.delay = mine.active = mine.packets = mine.late = mine.dropped = 0.0
    mine.sent = mine.lost = mine.bands = mine.drawn = mine.left = 0
    mine.arrival = 0.0
    mine.blocked = 0
    walk(e, i, k, c, s, w)
    for p in range(PROCESSES):
        mine.flying += link.mbit[p]
    if i < c.embb:
        work.offered = work.demand * c.mbit_embb
        work.packets = work.offered / c.packet_mbit_embb
        mine.queue = s.embb[e, i].backlog + work.offered
    elif i < c.embb + c.urllc:
        next_urgent_packet(e, i, k, s, w)
    else:
        work.offered = work.demand * c.mbit_mmtc
        work.packets = work.offered / c.packet_mbit_mmtc
        mine.queue = s.mmtc[e, i - c.embb - c.urllc].backlog
        next_machine_packet(e, i, k, int(work.demand), s, w)


@inner
def _group(e, k, c, s, w):  # type: ignore[no-untyped-def]
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
def _prepare(e, k, c, m, s, w) -> None:  # type: ignore[no-untyped-def]
    """What users and cells bring into the step."""
    _group(e, k, c, s, w)
    order, first = w.order[k], w.first[k]
    for i in range(s.users.shape[1]):
        _prepare_user(e, i, k, c, m, s, w)
        if w.users[k, i].event & HANDOVER:
            _start_link(e, i, k, s, w)
            w.slot_users[k, i].blocked = math.ceil(c.interruption_s / c.slot_s_embb - 1e-6)
    for j in range(c.cells):
        cell, mine = w.cells[k, j], w.slot_cells[k, j]
        on = s.cells[e, j].off == 0
        w.pads[k, RHO, j] = s.slot_cells[e, j].rho if on else np.float32(0.0)
        a = first[j]
        mine.begin[0] = a
        while a < first[j + 1] and order[a] < c.embb:
            a += 1
        mine.begin[1] = a
        while a < first[j + 1] and order[a] < c.embb + c.urllc:
            a += 1
        mine.begin[2] = a
        mine.begin[3] = first[j + 1]
        mine.blocks[0] = BANDS
        mine.blocks[1] = max(round(c.blocks_urllc * cell.share[1]), 1)
        mine.blocks[2] = max(round(c.blocks_mmtc * cell.share[2]), 1)
        for a in range(3):
            mine.used[a] = mine.most[a] = mine.now[a] = 0
        mine.cycles = mine.idle = mine.minislots = mine.entry = 0
        mine.serving = -1
        mine.awake_s = 0.0


@inner
def _has_work(e, k, j, slot, now, c, r, s, w):  # type: ignore[no-untyped-def]
    """Whether anything waits in a cell that could be sent."""
    mine, order = w.slot_cells[k, j], w.order[k]
    for a in range(mine.begin[0], mine.begin[3]):
        i = order[a]
        link, work = s.slot_users[e, i], w.slot_users[k, i]
        if slot < work.blocked:
            continue
        if mine.begin[1] <= a < mine.begin[2]:
            if work.arrival <= now and low_entry(link, c, r) > 0:
                return True
        elif work.queue > 0.0 and pick_entry(link.wide_db - s.users[e, i].offset_db, r) > 0:
            return True
    return False


@inner
def _fall_asleep(e, k, j, slot, now, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """At the start of a cycle without work the transmitter sleeps for its share of the cycle, whatever comes."""
    cell, mine = w.cells[k, j], w.slot_cells[k, j]
    if now < mine.cycles * cell.cycle_s - _TINY_S:
        return
    mine.cycles += 1
    if not _has_work(e, k, j, slot, now, c, r, s, w):
        mine.idle += 1
        mine.awake_s = now + cell.settings[SLEEP] * cell.cycle_s


@inner
def _serve_slot(e, k, j, slot, process, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """One slot of one cell."""
    mine, on = w.slot_cells[k, j], s.cells[e, j].off == 0
    taken, start, end = s.slot_cells[e, j].taken_s, slot * c.slot_s_embb, (slot + 1) * c.slot_s_embb
    mine.now[1] = 0
    _fall_asleep(e, k, j, slot, start, c, r, s, w)
    awake = on and start >= mine.awake_s - _TINY_S
    serve_embb_slot(e, k, j, slot, process, awake, c, r, s, w)
    serve_mmtc_slot(e, k, j, slot, process, awake, c, r, s, w)
    now = mine.minislots * c.minislot_s
    while now < end - _TINY_S:
        _fall_asleep(e, k, j, slot, now, c, r, s, w)
        awake = on and now >= mine.awake_s - _TINY_S
        used = mine.blocks[1] if awake else 0
        if now >= taken - _TINY_S:
            used = serve_minislot(e, k, j, slot, now, awake, c, r, s, w)
        mine.now[1] += used
        mine.most[1] = max(mine.most[1], used)
        mine.minislots += 1
        now = mine.minislots * c.minislot_s
    for a in range(3):
        mine.used[a] += mine.now[a]
    mine.most[0] = max(mine.most[0], mine.now[0])
    mine.most[2] = max(mine.most[2], mine.now[2])


@inner
def _simulate(e, k, c, m, r: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """All slots of one step, then the books of users and cells."""
    _prepare(e, k, c, m, s, w)
    slots, period, processes = round(STEP_S / c.slot_s_embb), _period(c), _processes(c)
    clock = s.environments[e].clock
    per_slot = c.slot_s_embb / c.minislot_s
    for slot in range(slots):
        fade(e, k, slot, s, w)
        for i in range(s.users.shape[1]):
            blocked = w.slot_users[k, i].blocked
            new = slot == blocked and blocked > 0
            if new or (slot >= blocked and (clock * slots + slot + i) % period == 0):
                report(e, i, k, slot, new, c, r, s, w)
        process = (clock * slots + slot) % processes
        for j in range(c.cells):
            _serve_slot(e, k, j, slot, process, c, r, s, w)
        for j in range(c.cells):
            cell, mine = w.cells[k, j], w.slot_cells[k, j]
            use = cell.share[0] * mine.now[0] / mine.blocks[0] + cell.share[2] * mine.now[2] / mine.blocks[2]
            use += cell.share[1] * mine.now[1] / (mine.blocks[1] * per_slot)
            w.pads[k, RHO, j] = np.float32(min(use, 1.0))
    for j in range(c.cells):
        cell, mine, on = w.cells[k, j], w.slot_cells[k, j], s.cells[e, j].off == 0
        s.slot_cells[e, j].rho = w.pads[k, RHO, j]
        finish_urllc(e, k, j, slots - 1, on, c, r, s, w)
        cell.busy[0] = mine.used[0] / (mine.blocks[0] * slots)
        cell.busy[1] = mine.used[1] / (mine.blocks[1] * mine.minislots)
        cell.busy[2] = mine.used[2] / (mine.blocks[2] * slots)
        cell.idle = mine.idle / mine.cycles
    for i in range(s.users.shape[1]):
        if i < c.embb:
            _close_embb(e, i, k, c, r, s, w)
        elif i < c.embb + c.urllc:
            _close_urllc(e, i, k, c, r, s, w)
        else:
            _close_mmtc(e, i, k, c, r, s, w)
    judge(e, k, c, s, w)


@inner
def _close_link(e, i, k, a, usable, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """What a cell knows about a user's link at the end of the step."""
    user, work, mine = s.users[e, i], w.users[k, i], w.slot_users[k, i]
    entry = pick_entry(s.slot_users[e, i].wide_db - user.offset_db, r)
    work.efficiency = r.efficiency[entry]
    work.error = np.float32(mine.lost / mine.sent) if mine.sent > 0 else np.float32(c.target_error)
    work.rate = work.efficiency * (1.0 - work.error) * usable * w.cells[k, user.serving].share[a]
    work.active_s = min(mine.active, STEP_S)


@inner
def _carried(mine, available, waiting):  # type: ignore[no-untyped-def]
    """Mbit delivered: all there was where the queue is empty, so that rounding leaves nothing behind."""
    return available if mine.queue <= 0.0 and waiting == 0 else min(mine.carried, available)


@inner
def _close_embb(e, i, k, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """Book an eMBB user's step as the fluid mode does."""
    f, work, mine, step = s.embb[e, i], w.users[k, i], w.slot_users[k, i], s.environments[e].step
    _close_link(e, i, k, 0, c.usable_mhz_embb, c, r, s, w)
    work.carried = _carried(mine, f.backlog + work.offered, 0)
    work.delay_ms = 1e3 * (mine.delay / c.packet_mbit_embb + 0.5 * work.packets * c.slot_s_embb)
    ring = s.embb_ring[e, i]
    lags = lags_of(step, s.embb_ring.shape[2], c.embb_deadline, c.embb_cap)
    work.dropped = advance(f, ring, lags, step % (WINDOW + 1), work.offered, work.carried, work.active_s)
    if c.histogram:
        went = work.carried + work.dropped
        record(s.histogram[e, 0], f, ring, step, went, 0.5 * work.active_s, c.packet_mbit_embb, c.embb_cap)
    if mine.flying > f.backlog + _NOTHING_MBIT:
        take_back(s.slot_users[e, i], mine, PROCESSES)


@inner
def _close_mmtc(e, i, k, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """Book a machine's step as the fluid mode does."""
    n = i - c.embb - c.urllc
    f, work, mine, step = s.mmtc[e, n], w.users[k, i], w.slot_users[k, i], s.environments[e].step
    waiting = 0
    while mine.arrival < STEP_S:
        waiting += 1
        mine.delay += c.mbit_mmtc * (STEP_S - mine.arrival)
        next_machine_packet(e, i, k, int(work.demand), s, w)
    _close_link(e, i, k, 2, c.usable_mhz_mmtc, c, r, s, w)
    work.carried = _carried(mine, f.backlog + work.offered, waiting)
    work.delay_ms = 1e3 * mine.delay / c.packet_mbit_mmtc
    ring = s.mmtc_ring[e, n]
    lags = lags_of(step, s.mmtc_ring.shape[2], c.mmtc_deadline, c.mmtc_cap)
    work.dropped = advance(f, ring, lags, step % (WINDOW + 1), work.offered, work.carried, work.active_s)
    if c.histogram:
        went = work.carried + work.dropped
        own = min(mine.delay / max(went, c.packet_mbit_mmtc), STEP_S)
        record(s.histogram[e, 2], f, ring, step, went, own, c.packet_mbit_mmtc, c.mmtc_cap)
    if mine.flying > f.backlog + _NOTHING_MBIT:
        take_back(s.slot_users[e, i], mine, PROCESSES)


@inner
def _close_urllc(e, i, k, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """Book a URLLC user's step: its packets are counted, not expected."""
    user, work, mine = s.users[e, i], w.users[k, i], w.slot_users[k, i]
    work.efficiency = r.low_efficiency[low_entry(s.slot_users[e, i], c, r)]
    work.rate = work.efficiency * c.usable_mhz_urllc * w.cells[k, user.serving].share[1]
    work.packets = mine.packets
    work.offered = mine.packets * c.mbit_urllc
    work.carried = mine.carried
    work.dropped = mine.dropped * c.mbit_urllc
    work.active_s = STEP_S
    work.delay_ms = 1e3 * mine.delay
    share = mine.late / mine.packets if mine.packets > 0.0 else 0.0
    work.error = np.float32(share)
    user.late[s.environments[e].step % WINDOW] = share


@inner
def _begin_links(e, k, c, m, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """After a reset: new links, and a first report from a silent network."""
    for j in range(c.cells):
        state = s.slot_cells[e, j]
        state.rho = np.float32(0.0)
        state.taken_s = 0.0
        state.turn = 0
        w.pads[k, RHO, j] = np.float32(0.0)
    for i in range(s.users.shape[1]):
        user, link, work = s.users[e, i], s.slot_users[e, i], w.slot_users[k, i]
        link.x, link.y, link.speed = user.x, user.y, np.float32(0.0)
        work.seen = -1
        work.signal, _, _, _ = signal_and_interference(e, i, k, c, m, s, w, user.serving)
        _start_link(e, i, k, s, w)
        report(e, i, k, 0, True, c, r, s, w)


@inner(inline=False)
def _begin_slots(e, k, c, m, r, t, s, w, out) -> None:  # type: ignore[no-untyped-def]
    begin(e, k, c, m, r, t, s, w, out)
    _begin_links(e, k, c, m, r, s, w)


@entry_point
def begin_slot_networks(  # type: ignore[no-untyped-def]
    worker,
    tickets,
    constants,
    m: MapTables,
    r: LinkTables,
    t: WorldTables,
    s: State,
    w: Scratch,
    out: Out,
) -> None:
    """``stepping.begin_networks`` of the slot-by-slot mode."""
    k, c = worker * SETS, constants[0]
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            _begin_slots(e, k, c, m, r, t, s, w, out)
        first, last = claim(tickets)


@entry_point
def step_slot_networks(  # type: ignore[no-untyped-def]
    worker,
    tickets,
    constants,
    m: MapTables,
    r: LinkTables,
    t: WorldTables,
    s: State,
    w: Scratch,
    out: Out,
    actions,
) -> None:
    """``stepping.step_networks`` of the slot-by-slot mode."""
    k, c = worker * SETS, constants[0]
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            if s.environments[e].over:
                _begin_slots(e, k, c, m, r, t, s, w, out)
                continue
            prepare(e, k, c, m, t, s, w, actions)
            _simulate(e, k, c, m, r, s, w)
            conclude(e, k, c, t, r, s, w, out)
        first, last = claim(tickets)
