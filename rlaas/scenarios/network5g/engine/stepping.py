"""One step of every network in a chunk: the only kernel that Python calls in a loop."""

from __future__ import annotations

import numpy as np

from rlaas.scenarios.compiled import circle, claim, db_to_linear, entry_point, fetch_ahead, inner
from rlaas.scenarios.network5g.control import ACTION_NAMES, DEEPEST_ON, HIGH, LOW
from rlaas.scenarios.network5g.engine.accounting import account, add_up, draw_power, finish_episode, observe
from rlaas.scenarios.network5g.engine.arrays import (
    BINS,
    OFFSET,
    POWER,
    POWER_SHARE,
    RHO,
    SETS,
    SINE,
    WINDOW,
    LinkTables,
    MapTables,
    Out,
    Scratch,
    State,
    WorldTables,
)
from rlaas.scenarios.network5g.engine.links import adapt, attach, hand_over, measure
from rlaas.scenarios.network5g.engine.queueing import clear_fluid
from rlaas.scenarios.network5g.engine.service import serve
from rlaas.scenarios.network5g.engine.world import arrive, happen, move, place
from rlaas.scenarios.network5g.geography.maps import LANES
from rlaas.scenarios.network5g.power import ROW_COLUMNS

__all__ = ["begin", "begin_networks", "conclude", "first_bad", "prepare", "step_networks"]

_LOW, _HIGH = LOW.copy(), HIGH.copy()
_PER_TURN = 1.0 / 360.0
_TOLERANCE = 1e-6 * (HIGH - LOW)
_COMPONENTS = len(ACTION_NAMES)
_TILT = ACTION_NAMES.index("tilt_deg")
_POWER_DB = ACTION_NAMES.index("power_db")
_OFFSET = ACTION_NAMES.index("cell_offset_db")
_HANDOVER_OFFSET = ACTION_NAMES.index("handover_offset_db")
_SHARES = ACTION_NAMES.index("embb_share")
_SLEEP = ACTION_NAMES.index("sleep")
_CYCLE_MS = ROW_COLUMNS.index("cycle_ms")
_ON, _OFF, _UNCOVERED, _BUSIEST, _ALONE = range(5)
"""States of a cell while the interlock decides; the first two are what remains."""


@entry_point
def first_bad(actions) -> int:  # type: ignore[no-untyped-def]
    """Flat index of the first component [rows, components] that is not finite or out of bounds, or -1."""
    for row in range(actions.shape[0]):
        for a in range(_COMPONENTS):
            value = actions[row, a]
            if not (_LOW[a] - _TOLERANCE[a] <= value <= _HIGH[a] + _TOLERANCE[a]):
                return row * _COMPONENTS + a
    return -1


@inner
def _has_neighbour(e, j, t, s, wanted):  # type: ignore[no-untyped-def]
    """Whether ``off`` of some neighbour is ``wanted``."""
    found = False
    for a in range(t.neighbours.shape[1]):
        found = found or s.cells[e, t.neighbours[j, a]].off == wanted
    return found


@inner
def _outranked(e, j, t, s):  # type: ignore[no-untyped-def]
    """Whether a neighbour that lacks cover as well was busier in the last step, or as busy and comes first."""
    mine = s.cells[e, j].use
    for a in range(t.neighbours.shape[1]):
        g = t.neighbours[j, a]
        theirs = s.cells[e, g]
        if theirs.off >= _UNCOVERED and (theirs.use > mine or (theirs.use == mine and g < j)):
            return True
    return False


@inner
def _interlock(e, k, c, t, s, w):  # type: ignore[no-untyped-def]
    """Keep on who asks to be off where nobody stays on: the busiest among neighbours, and whom none of those covers.

    Each pass looks at what the one before found, so that no cell goes before another.
    """
    cells = s.cells
    some = False
    for j in range(c.cells):
        if cells[e, j].off == _OFF and w.cells[k, j].failed == 0 and not _has_neighbour(e, j, t, s, _ON):
            cells[e, j].off = _UNCOVERED
            some = True
    if not some:
        return
    for j in range(c.cells):
        if cells[e, j].off == _UNCOVERED and not _outranked(e, j, t, s):
            cells[e, j].off = _BUSIEST
    for j in range(c.cells):
        if cells[e, j].off == _UNCOVERED and not _has_neighbour(e, j, t, s, _BUSIEST):
            cells[e, j].off = _ALONE
    for j in range(c.cells):
        if cells[e, j].off >= _BUSIEST:
            cells[e, j].off = _ON
            w.cells[k, j].settings[_SLEEP] = DEEPEST_ON
        elif cells[e, j].off == _UNCOVERED:
            cells[e, j].off = _OFF


@inner
def _configure(e, k, c, t, s, w, actions, begin):  # type: ignore[no-untyped-def]
    """Put settings into the form the kernels use, once the schedule of events has spoken."""
    happen(e, k, c, t, s, w)
    pads = w.pads
    for j in range(pads.shape[2]):
        pads[k, SINE, j] = pads[k, RHO, j] = pads[k, OFFSET, j] = np.float32(0.0)
        if j >= c.cells:
            pads[k, POWER, j] = pads[k, POWER_SHARE, j] = np.float32(0.0)
    for j in range(c.cells):
        cell, state = w.cells[k, j], s.cells[e, j]
        for a in range(_COMPONENTS):
            cell.settings[a] = min(max(actions[j, a], _LOW[a]), _HIGH[a])
        state.off = _OFF if cell.failed != 0 or cell.settings[_SLEEP] >= c.off_from else _ON
    if c.interlock:
        _interlock(e, k, c, t, s, w)
    for j in range(c.cells):
        cell, off = w.cells[k, j], s.cells[e, j].off != _ON
        cell.cycle_s = t.power_rows[cell.model, _CYCLE_MS] * 1e-3
        power_db = np.float32(cell.settings[_POWER_DB])
        pads[k, POWER, j] += power_db
        pads[k, POWER_SHARE, j] = power_db
        pads[k, SINE, j] = np.float32(cell.settings[_TILT] * _PER_TURN)
        pads[k, OFFSET, j] = np.float32(-1e6) if off else np.float32(cell.settings[_OFFSET])
        pads[k, RHO, j] = np.float32(0.0) if off or begin else np.float32(s.cells[e, j].use)
        per_total = 1.0 / (cell.settings[_SHARES] + cell.settings[_SHARES + 1] + cell.settings[_SHARES + 2])
        for a in range(3):
            cell.share[a] = cell.settings[_SHARES + a] * per_total
    # All cells at once, as vectors.
    for block in range(0, pads.shape[2], LANES):
        for j in range(block, block + LANES):
            pads[k, SINE, j] = circle(pads[k, SINE, j])[1]
            pads[k, POWER_SHARE, j] = db_to_linear(pads[k, POWER_SHARE, j])


@inner
def _forget(e, s):  # type: ignore[no-untyped-def]
    """Empty queues, windows and counters of an environment; places and links stay."""
    clear_fluid(e, s.embb, s.embb_ring)
    clear_fluid(e, s.mmtc, s.mmtc_ring)
    for i in range(s.users.shape[1]):
        user = s.users[e, i]
        user.weak = np.float32(0.0)
        user.offset_db = np.float32(0.0)
        for a in range(WINDOW):
            user.late[a] = np.float32(0.0)
    for a in range(3):
        for b in range(BINS):
            s.histogram[e, a, b] = 0.0
    for j in range(s.cells.shape[1]):
        cell = s.cells[e, j]
        cell.use = cell.trend = 0.0
        cell.off_steps = 0


@inner
def begin(e, k, c, m, r, t, s, w, out):  # type: ignore[no-untyped-def]
    """Start an episode: place everybody, then look without serving anybody."""
    here = s.environments[e]
    here.step = 0
    here.over = 0
    place(e, c, t, s, m.link_db.shape[0])
    _forget(e, s)
    _configure(e, k, c, t, s, w, t.default, True)
    measure(e, k, c, m, s, w, True)
    attach(e, k, c, s, w)
    adapt(e, k, c, m, r, s, w)
    for i in range(s.users.shape[1]):
        work = w.users[k, i]
        work.arrival_rate = work.demand = 0.0
    serve(e, k, c, s, w)
    draw_power(e, k, c, t, s, w)
    add_up(e, k, c, s, w)
    observe(e, k, c, t, r, s, w, out)
    # The look itself leaves no trace.
    _forget(e, s)
    out.reward[e, :, :] = 0.0
    out.numerators[e, :, :] = 0.0
    out.denominators[e, :, :] = 0.0
    here.clock += 1


@inner
def prepare(e, k, c, m, t, s, w, actions):  # type: ignore[no-untyped-def]
    """A step up to the point where every user has a place, data and a serving cell."""
    move(e, c, t, s)
    _configure(e, k, c, t, s, w, actions[e], False)
    arrive(e, k, c, t, s, w)
    measure(e, k, c, m, s, w, False)
    hand_over(e, k, c, s, w, _HANDOVER_OFFSET)


@inner
def conclude(e, k, c, t, r, s, w, out):  # type: ignore[no-untyped-def]
    """What follows from the service of a step: energy, rewards, observations, and the clock."""
    here = s.environments[e]
    draw_power(e, k, c, t, s, w)
    add_up(e, k, c, s, w)
    account(e, k, c, w, out, s)
    observe(e, k, c, t, r, s, w, out)
    here.clock += 1
    if here.step + 1 >= c.episode_steps:
        finish_episode(e, c, s, out)
        here.over = 1
    here.step += 1


@inner
def _fetch(e, s: State, out: Out) -> None:  # type: ignore[no-untyped-def]
    """Ask for the records of an environment while the one before it is stepped."""
    fetch_ahead(s.users, e)
    fetch_ahead(s.links, e)
    fetch_ahead(s.embb, e)
    fetch_ahead(s.embb_ring, e)
    fetch_ahead(s.mmtc, e)
    fetch_ahead(s.mmtc_ring, e)
    fetch_ahead(out.numerators, e)
    fetch_ahead(out.denominators, e)
    fetch_ahead(out.observation, e)


@entry_point
def begin_networks(  # type: ignore[no-untyped-def]
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
    """Reset environments as long as there are some to claim."""
    k, c = worker * SETS, constants[0]
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            begin(e, k, c, m, r, t, s, w, out)
        first, last = claim(tickets)


@entry_point
def step_networks(  # type: ignore[no-untyped-def]
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
    """Advance environments by one step as long as there are some to claim; those that ended begin anew.

    Args:
        worker, tickets: see :class:`~rlaas.scenarios.compiled.Workers`.
        constants: see ``Constants.as_record``.
        m, r, t, s, w, out: see :mod:`~rlaas.scenarios.network5g.engine.arrays`.
        actions: checked settings [E, C, components].
    """
    k, c = worker * SETS, constants[0]
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            if s.environments[e].over:
                begin(e, k, c, m, r, t, s, w, out)
                continue
            _fetch(e + 1, s, out)
            prepare(e, k, c, m, t, s, w, actions)
            adapt(e, k, c, m, r, s, w)
            serve(e, k, c, s, w)
            conclude(e, k, c, t, r, s, w, out)
        first, last = claim(tickets)
