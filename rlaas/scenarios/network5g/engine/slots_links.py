"""Slot by slot: fading, channel reports and block errors.

A user's serving link fades in :data:`BANDS` sub-bands, on :data:`ANTENNAS` antennas each: complex AR(1) processes
whose correlation falls to one half when that of a Rayleigh channel does (Clarke: J0(2 pi f_D t) = 1/2 at
2 pi f_D t = 1.52). Neighbours interfere with what they really transmitted in the last slot.
"""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import exp2, inner, linear_to_db, log2, normal_pair, philox, sigmoid
from rlaas.scenarios.network5g.engine.arrays import RHO, LinkTables, Scratch, State
from rlaas.scenarios.network5g.engine.links import GRID_LOW_DB, GRID_PER_DB, LOW_ERROR
from rlaas.scenarios.network5g.engine.slots_arrays import ANTENNAS, BANDS, CODE_SLOPE, QUANTILE, QUANTILE_DB, WALKING
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["believed_low_db", "error_rate", "fade", "fresh_fading", "look", "pick_entry", "report", "to_db", "walk"]

# Streams of random numbers; see ``world``.
FADING, FRESH = 16, 17

_MASK = np.uint64(0xFFFFFFFF)
_LOW_BITS = np.uint64(0xFFFF)
_HALF_WORD, _WORD = np.uint64(16), np.uint64(32)
_TO_UNIT = np.float32(2.0**-16)
_ONE, _HALF, _ZERO = np.float32(1.0), np.float32(0.5), np.float32(0.0)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_UNIFORM_TO_HALF_VARIANCE = np.float32(math.sqrt(6.0))
_SLOPE = np.float32(CODE_SLOPE)
_LEAST = np.float32(1e-9)
_LIGHT_M_S = 299_792_458.0
_HALF_CORRELATION = 1.52
_FASTEST = 60.0


@inner
def to_db(capacity):  # type: ignore[no-untyped-def]
    """The SINR in dB at which ``log2(1 + SINR)`` is ``capacity``."""
    return linear_to_db(max(exp2(np.float32(capacity)) - _ONE, _LEAST))


@inner
def _grid(db, length):  # type: ignore[no-untyped-def]
    return int(min(max((db - GRID_LOW_DB) * GRID_PER_DB, _ZERO), np.float32(length - 1)))


@inner
def pick_entry(db, r: LinkTables):  # type: ignore[no-untyped-def]
    """Entry of the table for an SINR."""
    return r.entry[_grid(np.float32(db), r.entry.shape[0])]


@inner
def error_rate(threshold_db, db, aim):  # type: ignore[no-untyped-def]
    """Block error rate at ``db`` of an entry that has error rate ``aim`` at its threshold."""
    odds = np.float32(math.log((1.0 - aim) / aim))
    return float(sigmoid(np.float32(_SLOPE * (np.float32(threshold_db) - np.float32(db)) - odds)))


@inner
def fresh_fading(e, i, s: State) -> None:  # type: ignore[no-untyped-def]
    """Draw the fading of a new link."""
    here, user = s.environments[e], s.slot_users[e, i]
    clock = np.uint64(here.clock)
    for b in range(BANDS):
        words = philox(here.key, clock & _MASK, clock >> _WORD, np.uint64(FRESH), np.uint64(i * BANDS + b))
        for a in range(ANTENNAS):
            u = np.float32(words[a] >> _HALF_WORD) * _TO_UNIT
            v = np.float32(words[a] & _LOW_BITS) * _TO_UNIT
            x, y = normal_pair(u, v)
            user.re[b * ANTENNAS + a] = _ROOT_HALF * x
            user.im[b * ANTENNAS + a] = _ROOT_HALF * y


@inner
def walk(e, i, k, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """How fast a user's link fades in this step, from how far the user came in it."""
    user, link, work = s.users[e, i], s.slot_users[e, i], w.slot_users[k, i]
    dx, dy = user.x - link.x, user.y - link.y
    speed = math.sqrt(dx * dx + dy * dy) / STEP_S
    # Whoever leaves the plane on one side comes back on the other: a jump, not a speed.
    if speed < _FASTEST:
        link.speed = np.float32(speed)
    link.x = user.x
    link.y = user.y
    doppler = max(float(link.speed), WALKING) * c.carrier_ghz * 1e9 / _LIGHT_M_S
    memory = 2.0 ** (-c.slot_s_embb * 2.0 * math.pi * doppler / _HALF_CORRELATION)
    work.memory = np.float32(memory)
    # Uniform numbers do: the sum over the slots is nearly normal.
    work.shake = np.float32(math.sqrt(1.0 - memory * memory)) * _UNIFORM_TO_HALF_VARIANCE


@inner(inline=False)
def fade(e, k, slot, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Move the fading of every link on by one slot."""
    here, count = s.environments[e], s.users.shape[1]
    key, clock = here.key, np.uint64(here.clock)
    low, high, stream = clock & _MASK, clock >> _WORD, np.uint64(FADING)
    for i in range(count):
        user, work = s.slot_users[e, i], w.slot_users[k, i]
        memory, shake = work.memory, work.shake
        for b in range(BANDS):
            words = philox(key, low, high, stream, np.uint64((slot * count + i) * BANDS + b))
            for a in range(ANTENNAS):
                u = np.float32(words[a] >> _HALF_WORD) * _TO_UNIT - _HALF
                v = np.float32(words[a] & _LOW_BITS) * _TO_UNIT - _HALF
                at = b * ANTENNAS + a
                user.re[at] = memory * user.re[at] + shake * u
                user.im[at] = memory * user.im[at] + shake * v


@inner
def look(e, i, k, slot, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Bring ``present`` of a user up to this slot."""
    user, work, own = s.slot_users[e, i], w.slot_users[k, i], s.users[e, i].serving
    if work.seen == slot:
        return
    work.seen = slot
    other = _ZERO
    for j in range(c.cells):
        if j != own:
            other += w.pads[k, RHO, j] * w.received[k, i, j]
    ratio = work.signal / (other + np.float32(c.noise_mw)) * np.float32(1.0 / ANTENNAS)
    for b in range(BANDS):
        gain = _ZERO
        for a in range(b * ANTENNAS, (b + 1) * ANTENNAS):
            gain += user.re[a] * user.re[a] + user.im[a] * user.im[a]
        work.present[b] = log2(_ONE + ratio * gain)


@inner(inline=False)
def report(e, i, k, slot, new, c, r: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Measure the channel; what was measured a period ago comes into use. A new link has nothing older."""
    look(e, i, k, slot, c, s, w)
    user, work, total = s.slot_users[e, i], w.slot_users[k, i], _ZERO
    for b in range(BANDS):
        capacity = work.present[b] if new else user.pending[b]
        user.pending[b] = work.present[b]
        user.report[b] = capacity
        user.rate[b] = r.efficiency[pick_entry(to_db(capacity), r)]
        total += capacity
    user.wide_db = to_db(total * np.float32(1.0 / BANDS))
    if new:
        user.low_db = user.wide_db
    elif user.wide_db < user.low_db:
        user.low_db -= np.float32(QUANTILE_DB * (1.0 - QUANTILE))
    else:
        user.low_db += np.float32(QUANTILE_DB * QUANTILE)


@inner
def believed_low_db(user, c):  # type: ignore[no-untyped-def]
    """The SINR on which URLLC chooses its entry: few of its transmissions shall find less."""
    return user.low_db - np.float32(c.urllc_backoff_db)


@inner
def low_entry(user, c, r: LinkTables):  # type: ignore[no-untyped-def]
    """URLLC's entry of its table."""
    return r.low_entry[_grid(np.float32(believed_low_db(user, c)), r.low_entry.shape[0])]


@inner
def low_error(e, i, k, slot, entry, c, r: LinkTables, s: State, w: Scratch):  # type: ignore[no-untyped-def]
    """Error rate of a URLLC packet sent now with ``entry``."""
    look(e, i, k, slot, c, s, w)
    work, total = w.slot_users[k, i], _ZERO
    for b in range(BANDS):
        total += work.present[b]
    return error_rate(r.low_threshold_db[entry], to_db(total * np.float32(1.0 / BANDS)), LOW_ERROR)
