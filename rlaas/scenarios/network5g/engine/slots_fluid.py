"""Slot by slot: eMBB and mMTC, that is scheduler, link adaptation with an outer loop, and HARQ.

A block that is lost is sent again one round trip later and collects the SINR of all its transmissions (chase
combining); after four its data go back to the queue. Data leave the queue when they are acknowledged.
"""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import db_to_linear, inner, linear_to_db, uniforms
from rlaas.scenarios.network5g.engine.arrays import LinkTables, Scratch, State
from rlaas.scenarios.network5g.engine.queueing import power
from rlaas.scenarios.network5g.engine.service import ALPHA
from rlaas.scenarios.network5g.engine.slots_arrays import BANDS, MOST_TRIES, OFFSET_UP_DB, PACE_S
from rlaas.scenarios.network5g.engine.slots_links import error_rate, look, pick_entry, to_db
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["next_machine_packet", "serve_embb_slot", "serve_mmtc_slot", "take_back"]

# Streams of random numbers; see ``world``.
ACKNOWLEDGED, MACHINES = 18, 19
MOST_PACKETS = 8192
_NOTHING = 1e-12


@inner
def take_back(user, work, processes) -> None:  # type: ignore[no-untyped-def]
    """Give up every block in flight: its data are to be sent anew."""
    for p in range(processes):
        user.mbit[p] = 0.0
    work.flying = 0.0


@inner
def _arrives(e, i, slot, error, s):  # type: ignore[no-untyped-def]
    """Whether a block gets through."""
    here = s.environments[e]
    u, _, _, _ = uniforms(here.key, here.clock, ACKNOWLEDGED, slot * s.users.shape[1] + i)
    return u >= error


@inner
def _whole_db(e, i, k, slot, c, s, w):  # type: ignore[no-untyped-def]
    """Effective SINR over all bands."""
    look(e, i, k, slot, c, s, w)
    total = np.float32(0.0)
    for b in range(BANDS):
        total += w.slot_users[k, i].present[b]
    return to_db(total * np.float32(1.0 / BANDS))


@inner
def _deliver(work, mbit) -> None:  # type: ignore[no-untyped-def]
    work.carried += mbit
    # What is left by rounding is nothing.
    work.queue = work.queue - mbit if work.queue - mbit > _NOTHING else 0.0


@inner(inline=False)
def _send(e, i, k, slot, process, entry, db, mbit, units, c, r, s, w) -> None:  # type: ignore[no-untyped-def]
    """Transmit new data, and steer the outer loop by what becomes of it."""
    place, user, work = s.users[e, i], s.slot_users[e, i], w.slot_users[k, i]
    error = error_rate(r.threshold_db[entry], db, c.target_error)
    work.sent += 1
    if _arrives(e, i, slot, error, s):
        _deliver(work, mbit)
        offset = place.offset_db - OFFSET_UP_DB * c.target_error / (1.0 - c.target_error)
    else:
        work.lost += 1
        work.flying += mbit
        user.mbit[process], user.units[process], user.tries[process] = mbit, units, 1
        user.entry[process], user.sinr[process] = entry, db_to_linear(np.float32(db))
        offset = place.offset_db + OFFSET_UP_DB
    place.offset_db = np.float32(min(max(offset, c.offset_low_db), c.offset_high_db))


@inner(inline=False)
def _send_again(e, i, k, slot, process, c, r, s, w):  # type: ignore[no-untyped-def]
    """Repeat a lost block; returns the units it takes."""
    user, work = s.slot_users[e, i], w.slot_users[k, i]
    user.sinr[process] += db_to_linear(_whole_db(e, i, k, slot, c, s, w))
    error = error_rate(r.threshold_db[user.entry[process]], linear_to_db(user.sinr[process]), c.target_error)
    mbit = user.mbit[process]
    user.tries[process] += 1
    arrived = _arrives(e, i, slot, error, s)
    if arrived or user.tries[process] >= MOST_TRIES:
        user.mbit[process] = 0.0
        work.flying = max(work.flying - mbit, 0.0)
    if arrived:
        _deliver(work, mbit)
    return user.units[process]


@inner
def _wait(work, seconds) -> None:  # type: ignore[no-untyped-def]
    """A slot passes for what waits at its beginning."""
    work.delay += work.queue * seconds
    work.active += seconds


@inner
def _able(e, i, k, slot, r, s, w):  # type: ignore[no-untyped-def]
    """Entry a user could get over all bands; 0 in outage or during a handover."""
    if slot < w.slot_users[k, i].blocked:
        return 0
    return int(pick_entry(s.slot_users[e, i].wide_db - s.users[e, i].offset_db, r))


@inner(inline=False)
def serve_embb_slot(e, k, j, slot, process, on, c, r: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Give the bands of this slot to users: repetitions first, then the largest promised rate / average^alpha."""
    cell, mine, order = w.cells[k, j], w.slot_cells[k, j], w.order[k]
    pick, weight = w.pick[k], w.weight[k]
    band = c.usable_mhz_embb * cell.share[0] / BANDS * c.slot_s_embb
    alpha, taken, count, waiting = cell.settings[ALPHA], 0, 0, 0
    for a in range(mine.begin[0], mine.begin[1]):
        i = order[a]
        user, work = s.slot_users[e, i], w.slot_users[k, i]
        work.bands = 0
        if work.queue <= 0.0:
            user.pace = 0.0
            continue
        _wait(work, c.slot_s_embb)
        waiting += 1
        if not on or slot < work.blocked:
            continue
        if user.mbit[process] > 0.0:
            units = min(int(user.units[process]), BANDS - taken)
            if units > 0:
                taken += _send_again(e, i, k, slot, process, c, r, s, w)
        elif work.queue - work.flying > _NOTHING and _able(e, i, k, slot, r, s, w) > 0:
            pick[count] = i
            count += 1
    taken = min(taken, BANDS)
    for a in range(count):
        user = s.slot_users[e, pick[a]]
        if user.pace <= 0.0:
            # Nothing known yet: as if everybody had had an equal part.
            entry = pick_entry(user.wide_db, r)
            user.pace = max(float(r.efficiency[entry]) * BANDS * band / c.slot_s_embb / waiting, 1e-3)
        weight[a] = 1.0 / power(max(user.pace, 1e-3), alpha)
    used = taken
    for x in range(taken, BANDS):
        b = (x + slot) % BANDS
        best, chosen = 0.0, -1
        for a in range(count):
            i = pick[a]
            work = w.slot_users[k, i]
            metric = weight[a] * s.slot_users[e, i].rate[b]
            if metric > best and (work.bands == 0 or work.covered < work.queue - work.flying):
                best, chosen = metric, i
        if chosen < 0:
            continue
        user, work = s.slot_users[e, chosen], w.slot_users[k, chosen]
        if work.bands == 0:
            look(e, chosen, k, slot, c, s, w)
            work.told = work.truth = work.covered = 0.0
        work.bands += 1
        work.told += user.report[b]
        work.truth += work.present[b]
        work.covered += user.rate[b] * band
        used += 1
    for a in range(count):
        i = pick[a]
        place, user, work = s.users[e, i], s.slot_users[e, i], w.slot_users[k, i]
        mbit = 0.0
        if work.bands > 0:
            entry = max(int(pick_entry(to_db(work.told / work.bands) - place.offset_db, r)), 1)
            mbit = min(r.efficiency[entry] * work.bands * band, work.queue - work.flying)
            _send(e, i, k, slot, process, entry, to_db(work.truth / work.bands), mbit, work.bands, c, r, s, w)
        user.pace += c.slot_s_embb / PACE_S * (mbit / c.slot_s_embb - user.pace)
    mine.now[0] = used


@inner
def next_machine_packet(e, i, k, count, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Draw when the next of ``count`` packets of a machine comes: ordered uniform times, one after another."""
    here, work = s.environments[e], w.slot_users[k, i]
    rest = count - work.drawn
    if rest <= 0:
        work.arrival = 1e9
        return
    u, _, _, _ = uniforms(here.key, here.clock, MACHINES, i * MOST_PACKETS + work.drawn)
    work.arrival = STEP_S - (STEP_S - work.arrival) * (1.0 - u) ** (1.0 / rest)
    work.drawn += 1


@inner(inline=False)
def serve_mmtc_slot(e, k, j, slot, process, on, c, r: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Give the blocks of this slot to machines in turn, as many to each as it needs."""
    cell, mine, state, order = w.cells[k, j], w.slot_cells[k, j], s.slot_cells[e, j], w.order[k]
    now = slot * c.slot_s_mmtc
    first, users, total = mine.begin[2], mine.begin[3] - mine.begin[2], mine.blocks[2]
    block = c.usable_mhz_mmtc * cell.share[2] / total * c.slot_s_mmtc
    left = total
    for a in range(first, first + users):
        i = order[a]
        user, work = s.slot_users[e, i], w.slot_users[k, i]
        while work.arrival <= now:
            work.queue += c.mbit_mmtc
            work.delay += c.mbit_mmtc * (now - work.arrival)
            next_machine_packet(e, i, k, int(w.users[k, i].demand), s, w)
        if work.queue <= 0.0:
            continue
        _wait(work, c.slot_s_mmtc)
        if on and slot >= work.blocked and user.mbit[process] > 0.0 and left > 0:
            left = max(left - _send_again(e, i, k, slot, process, c, r, s, w), 0)
            work.bands = -1
    turn = state.turn
    for n in range(users):
        i = order[first + (turn + n) % users]
        user, work = s.slot_users[e, i], w.slot_users[k, i]
        free = work.queue - work.flying
        repeated, work.bands = work.bands < 0, 0
        if not on or left <= 0 or repeated or user.mbit[process] > 0.0 or free <= _NOTHING:
            continue
        entry = _able(e, i, k, slot, r, s, w)
        if entry <= 0:
            continue
        units = min(math.ceil(free / (r.efficiency[entry] * block) - 1e-9), left)
        mbit = min(units * r.efficiency[entry] * block, free)
        _send(e, i, k, slot, process, entry, _whole_db(e, i, k, slot, c, s, w), mbit, units, c, r, s, w)
        left -= units
        state.turn = (turn + n + 1) % users
    mine.now[2] = total - left
