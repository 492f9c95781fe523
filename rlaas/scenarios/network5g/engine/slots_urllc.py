"""Slot by slot: URLLC packets on mini-slots, first come, first served, one shot each."""

from __future__ import annotations

import math

from rlaas.scenarios.compiled import inner, uniforms
from rlaas.scenarios.network5g.engine.arrays import LinkTables, Scratch, State
from rlaas.scenarios.network5g.engine.queueing import delay_bin
from rlaas.scenarios.network5g.engine.slots_links import low_entry, low_error
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["finish_urllc", "next_urgent_packet", "serve_minislot", "urgent_waits"]

# Stream of random numbers; see ``world``.
URGENT = 20
MOST_PACKETS = 65536
NEVER = 1e9


@inner
def next_urgent_packet(e, i, k, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Draw when a user's next packet comes: a Poisson process; none from the end of the step on."""
    here, work, rate = s.environments[e], w.slot_users[k, i], w.users[k, i].arrival_rate
    if rate <= 0.0 or work.drawn >= MOST_PACKETS:
        work.arrival = NEVER
        return
    u, _, _, _ = uniforms(here.key, here.clock, URGENT, i * MOST_PACKETS + work.drawn)
    work.arrival -= math.log(1.0 - u) / rate
    work.drawn += 1
    if work.arrival >= STEP_S:
        work.arrival = NEVER
    else:
        work.packets += 1.0


@inner
def _book(e, work, delay, late, c, s) -> None:  # type: ignore[no-untyped-def]
    work.delay += delay
    work.late += late
    if c.histogram:
        s.histogram[e, 1, delay_bin(delay)] += 1.0


@inner
def urgent_waits(k, j, now, w: Scratch):  # type: ignore[no-untyped-def]
    """Whether a packet has come by ``now``."""
    mine, found = w.slot_cells[k, j], False
    for a in range(mine.begin[1], mine.begin[2]):
        found = found or w.slot_users[k, w.order[k, a]].arrival <= now
    return found


@inner(inline=False)
def serve_minislot(e, k, j, slot, now, on, c, r: LinkTables, s: State, w: Scratch):  # type: ignore[no-untyped-def]
    """Serve the packets that came before ``now`` with the blocks of one mini-slot; returns the blocks used.

    A packet takes whole resource blocks, of several mini-slots where one is not enough. Whoever waited for the cap is
    dropped. An error costs a round trip and is late for sure; for lateness its probability is counted, not a draw,
    since one in a thousand decides and some hundred packets come in a second.
    """
    cell, mine, order = w.cells[k, j], w.slot_cells[k, j], w.order[k]
    block = c.usable_mhz_urllc * cell.share[1] / mine.blocks[1] * c.minislot_s
    left = mine.blocks[1] if on else 0
    for a in range(mine.begin[1], mine.begin[2]):
        i = order[a]
        work = w.slot_users[k, i]
        while work.arrival < now - c.urllc_cap_s:
            _book(e, work, c.urllc_cap_s, 1.0, c, s)
            work.dropped += 1.0
            if mine.serving == i:
                mine.serving = -1
            next_urgent_packet(e, i, k, s, w)
    used = 0
    while left > 0:
        chosen = mine.serving
        if chosen < 0:
            first = now
            for a in range(mine.begin[1], mine.begin[2]):
                i = order[a]
                work = w.slot_users[k, i]
                if work.arrival <= first and slot >= work.blocked and low_entry(s.slot_users[e, i], c, r) > 0:
                    first, chosen = work.arrival, i
            if chosen < 0:
                return used
            entry = low_entry(s.slot_users[e, chosen], c, r)
            mine.entry = entry
            w.slot_users[k, chosen].left = math.ceil(c.mbit_urllc / (r.low_efficiency[entry] * block) - 1e-9)
            mine.serving = chosen
        work = w.slot_users[k, chosen]
        given = min(left, work.left)
        left -= given
        used += given
        work.left -= given
        if work.left > 0:
            return used
        mine.serving = -1
        error = low_error(e, chosen, k, slot, mine.entry, c, r, s, w)
        delay = now + c.minislot_s - work.arrival + c.processing_s
        late = 1.0 if delay > c.urllc_budget_s else error
        _book(e, work, min(delay + error * c.harq_s, c.urllc_cap_s), late, c, s)
        work.carried += c.mbit_urllc
        next_urgent_packet(e, chosen, k, s, w)
    return used


@inner
def finish_urllc(e, k, j, slot, on, c, r: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Send what came late in the step after its end: that time is taken from the next step."""
    mine, state = w.slot_cells[k, j], s.slot_cells[e, j]
    now, taken = STEP_S, 0.0
    while urgent_waits(k, j, STEP_S, w):
        if serve_minislot(e, k, j, slot, now, on, c, r, s, w) > 0:
            taken = now + c.minislot_s - STEP_S
        now += c.minislot_s
    mine.serving = -1
    state.taken_s = taken
