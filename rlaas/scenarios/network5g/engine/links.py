"""From places and settings to received powers, serving cells, SINR and rates."""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import db_to_linear, inner, linear_to_db, region, sigmoid
from rlaas.scenarios.network5g.engine.arrays import (
    FILTERED,
    HELD,
    MARGIN,
    OFFSET,
    POWER,
    RHO,
    RISE,
    SINE,
    LinkTables,
    MapTables,
    Scratch,
    State,
)
from rlaas.scenarios.network5g.geography.maps import LANES
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["adapt", "attach", "hand_over", "measure", "signal_and_interference"]

_STEP = np.float32(STEP_S)
_ZERO, _ONE, _TWO, _HALF = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
NEVER_S = np.float32(1e6)
NO_MARGIN_DB = np.float32(-1e3)
LARGEST_RISE_DB = np.float32(100.0)
"""A margin that rises more in one step was not measured before."""
NO_REPORT = np.float32(1e3)
"""No channel report yet: the first step takes the truth."""
NO_SIGNAL_MW = np.float32(1e-30)
"""What a cell that is off sends."""
HOPELESS = np.float32(0.9)
"""Block error rate that the next report is waited for, rather than the step lost."""
_OFF_DB = np.float32(-1e4)
HANDOVER, PING_PONG, FAILURE = 1, 2, 4
"""Flags of ``Scratch.event``."""

_map, _ = region(0)
_pad, _ = region(1)
_, _receive = region(2)
_filtered, _filter = region(3)
_margin, _set_margin = region(4)
_held, _hold = region(5)
_, _rise = region(6)
# Rows are padded to a multiple of LANES: loops of known length become vectors without a remainder.
LOW_ERROR = 1e-5
"""Block error rate for which the thresholds of the URLLC table are made."""
GRID_LOW_DB, GRID_PER_DB = np.float32(-20.0), np.float32(4.0)
"""The link-adaptation tables start at -20 dB and have four entries per dB."""

# cos(pi t) as a polynomial in t^2 on [0, 1/2]: Taylor, rest below 1e-8.
_C2, _C4, _C6, _C8, _C10, _C12 = (
    np.float32((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k)) for k in range(1, 7)
)


@inner
def _tilted(t, floor):  # type: ignore[no-untyped-def]
    """Linear gain of a unit-norm column of eight half-wavelength elements at ``t`` = sine of elevation - of tilt.

    |sin 8x / sin x|^2 / 8 with x = pi t / 2 is 8 (cos x cos 2x cos 4x)^2; cos x alone needs the cosine.
    """
    x = abs(t)
    # cos(pi t) for |t| <= 2, folded to where the polynomial holds.
    x = min(x, _TWO - x)
    sign = _ONE if x <= _HALF else -_ONE
    x = x if x <= _HALF else _ONE - x
    q = x * x
    c = sign * (_ONE + q * (_C2 + q * (_C4 + q * (_C6 + q * (_C8 + q * (_C10 + q * _C12))))))
    double = _TWO * c * c - _ONE
    return max(np.float32(4.0) * (_ONE + c) * c * c * double * double, floor)


@inner
def _within(index, count, wraps):  # type: ignore[no-untyped-def]
    """A grid index at most one period, or one point, beyond the grid; comparing costs a tenth of a division."""
    if index >= count:
        return index - count if wraps else count - 1
    if index < 0:
        return index + count if wraps else 0
    return index


@inner
def _corners(x, y, c):  # type: ignore[no-untyped-def]
    """The four grid points around a place and their weights."""
    x, y = x - c.origin_x, y - c.origin_y
    f = c.inverse_xx * x + c.inverse_xy * y
    g = c.inverse_yx * x + c.inverse_yy * y
    f0, g0 = np.floor(f), np.floor(g)
    df, dg = np.float32(f - f0), np.float32(g - g0)
    a, b = _within(int(f0), c.nf, c.wraps), _within(int(g0), c.ng, c.wraps)
    a1, b1 = _within(a + 1, c.nf, c.wraps), _within(b + 1, c.ng, c.wraps)
    p00, p01, p10, p11 = a * c.ng + b, a * c.ng + b1, a1 * c.ng + b, a1 * c.ng + b1
    w00, w01 = (_ONE - df) * (_ONE - dg), (_ONE - df) * dg
    w10, w11 = df * (_ONE - dg), df * dg
    return p00, p01, p10, p11, w00, w01, w10, w11


@inner
def measure(e, k, c, m: MapTables, s: State, w: Scratch, first: bool) -> None:  # type: ignore[no-untyped-def]
    """Received power of every cell at every user, linear and, filtered, in dBm.

    Maps are interpolated bilinearly between their grid points. The L3 filter of TS 38.331 takes the newest sample with
    ``filter_share``; ``first`` fills it instead.
    """
    padded = m.sine_below.shape[1]
    share = np.float32(c.filter_share)
    floor, realisation = np.float32(c.tilt_floor), s.environments[e].realisation
    sines, pads, all_received = m.sine_below, w.pads[k], w.received[k]
    for i in range(s.users.shape[1]):
        user = s.users[e, i]
        p00, p01, p10, p11, w00, w01, w10, w11 = _corners(user.x, user.y, c)
        links = m.link_db[realisation, user.indoor]
        loss, filtered = user.loss_db, s.links[e, i]
        for block in range(0, padded, LANES):
            for j in range(block, block + LANES):
                gain = w00 * _map(links, p00, j) + w01 * _map(links, p01, j)
                gain += w10 * _map(links, p10, j) + w11 * _map(links, p11, j)
                sine = w00 * _map(sines, p00, j) + w01 * _map(sines, p01, j)
                sine += w10 * _map(sines, p10, j) + w11 * _map(sines, p11, j)
                power = _pad(pads, POWER, j) + gain - loss
                received = db_to_linear(power) * _tilted(sine - _pad(pads, SINE, j), floor)
                _receive(all_received, i, j, received)
                level = linear_to_db(received)
                before = level if first else _filtered(filtered, FILTERED, j)
                _filter(filtered, FILTERED, j, before + share * (level - before))


@inner
def attach(e, k, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Begin an episode with every user at its strongest cell and no history."""
    for i in range(s.users.shape[1]):
        user, work = s.users[e, i], w.users[k, i]
        best = 0
        for j in range(1, c.cells):
            if s.links[e, i, FILTERED, j] > s.links[e, i, FILTERED, best]:
                best = j
        user.serving = best
        user.previous = best
        user.since = NEVER_S
        user.weak = _ZERO
        user.offset_db = _ZERO
        user.report_db = NO_REPORT
        work.event = 0
        w.leaving[k, i] = _ZERO
        work.next_cell = best
        for j in range(s.links.shape[3]):
            s.links[e, i, MARGIN, j] = NO_MARGIN_DB
            s.links[e, i, HELD, j] = _ZERO


@inner
def _strongest(e, i, c, s, offsets, least_held, otherwise):  # type: ignore[no-untyped-def]
    """The cell awake that a user hears best, offsets counted, of those whose condition has held long enough."""
    found, best = otherwise, _OFF_DB
    for j in range(c.cells):
        biased = s.links[e, i, FILTERED, j] + offsets[j]
        if s.cells[e, j].off == 0 and s.links[e, i, HELD, j] >= least_held and biased > best:
            best = biased
            found = j
    return found


@inner
def hand_over(e, k, c, s: State, w: Scratch, offset_of: int) -> None:  # type: ignore[no-untyped-def]
    """Evaluate the A3 event and move users, TS 38.331 section 5.5.4.4.

    Entering: ``M_n + O_n - Hys > M_p + O_p + Off``; leaving the same with ``+ Hys``; a handover follows when the
    condition has held for the time to trigger. The grid is 100 ms, so the instant at which a margin crossed zero is
    interpolated between samples, and a handover takes effect at the first sample after the timer ran out. A user whose
    link failed, or whose cell fell asleep, re-establishes on the cell it hears best.

    The same pass forecasts: how likely a user is to leave within the horizon, from the largest margin and its
    rise (see ``reference.Forecast``).
    """
    links, pads, leaving = s.links, w.pads[k], w.leaving[k]
    offsets, rises = pads[OFFSET], pads[RISE]
    padded = links.shape[3]
    hysteresis, trigger = np.float32(c.hysteresis_db), np.float32(c.trigger_s)
    awake = False
    for j in range(c.cells):
        awake = awake or s.cells[e, j].off == 0
    for i in range(s.users.shape[1]):
        user, work = s.users[e, i], w.users[k, i]
        own, mine = user.serving, links[e, i]
        own_off = s.cells[e, own].off != 0
        user.since += _STEP
        failed = user.weak >= c.failure_s - 1e-6
        threshold = links[e, i, FILTERED, own] + offsets[own] + hysteresis
        threshold += np.float32(w.cells[k, own].settings[offset_of])
        if own_off:
            threshold = _OFF_DB
        for block in range(0, padded, LANES):
            for j in range(block, block + LANES):
                margin = _filtered(mine, FILTERED, j) + _pad(pads, OFFSET, j) - threshold
                rise, was = margin - _margin(mine, MARGIN, j), _held(mine, HELD, j)
                crossing = _STEP * min(max(margin / max(rise, np.float32(1e-6)), np.float32(1e-3)), _ONE)
                staying = was + _STEP if margin > -_TWO * hysteresis else _ZERO
                _hold(mine, HELD, j, staying if was > _ZERO else (crossing if margin > _ZERO else _ZERO))
                _set_margin(mine, MARGIN, j, margin)
                _rise(pads, RISE, j, rise)
        # The serving cell is no neighbour of itself.
        links[e, i, MARGIN, own] = NO_MARGIN_DB
        links[e, i, HELD, own] = _ZERO
        ripe, best, best_margin = _ZERO, own, NO_MARGIN_DB
        for j in range(c.cells):
            ripe = max(ripe, links[e, i, HELD, j])
            if links[e, i, MARGIN, j] > best_margin:
                best_margin = links[e, i, MARGIN, j]
                best = j
        target = own
        if failed or (awake and own_off):
            target = _strongest(e, i, c, s, offsets, _ZERO, own)
        elif ripe >= trigger:
            target = _strongest(e, i, c, s, offsets, trigger, own)
        work.event = FAILURE if failed else 0
        if target != own:
            back = target == user.previous and user.since <= c.ping_pong_s + 1e-4
            work.event |= HANDOVER | (PING_PONG if back else 0)
            user.previous = own
            user.serving = target
            user.since = _ZERO
            for j in range(padded):
                links[e, i, HELD, j] = _ZERO
                links[e, i, MARGIN, j] = NO_MARGIN_DB
            work.next_cell = target
        else:
            # The first sample after a handover, or after a cell woke up, has no predecessor to rise from.
            known = user.since > np.float32(0.15) and rises[best] < LARGEST_RISE_DB
            rise = rises[best] if known else _ZERO
            work.next_cell = best
            pace = _ONE / (abs(rise) + np.float32(c.forecast_floor_db))
            entered = np.float32(c.forecast_entered) if best_margin > _ZERO else _ZERO
            ahead = np.float32(c.forecast_reach) * min(best_margin, _ZERO) + np.float32(c.forecast_direction) * rise
            leaving[i] = np.float32(c.forecast_bias) + ahead * pace + entered
        if failed or target != own:
            user.weak = _ZERO
    # All users at once, as vectors.
    for block in range(0, len(leaving), LANES):
        for i in range(block, block + LANES):
            leaving[i] = sigmoid(leaving[i])
    for i in range(s.users.shape[1]):
        if w.users[k, i].event & HANDOVER:
            leaving[i] = _ZERO


@inner
def signal_and_interference(e, i, k, c, m, s, w, own):  # type: ignore[no-untyped-def]
    """Received power in mW of the serving cell and of all others, weighted with their use.

    Returns also what describes the others slot by slot, where each transmits in a share of the slots rather than with
    a share of its power: the standard deviation of their sum, and the most it can be.
    """
    # Left out of the sum rather than taken off it again, which would leave its rounding error behind.
    signal, interference, variance, most = w.received[k, i, own], _ZERO, _ZERO, _ZERO
    for j in range(m.sine_below.shape[1]):
        share, power = w.pads[k, RHO, j], w.received[k, i, j] if j != own else _ZERO
        mean = share * power
        interference += mean
        variance += mean * (power - mean)
        most += power if share > _ZERO else _ZERO
    if c.beams > 1:
        # Users of a cell get its best beam; as interference its beams average to the gain in the map.
        user, beam = s.users[e, i], m.beam_db
        p00, p01, p10, p11, w00, w01, w10, w11 = _corners(user.x, user.y, c)
        signal *= db_to_linear(
            w00 * beam[p00, own] + w01 * beam[p01, own] + w10 * beam[p10, own] + w11 * beam[p11, own]
        )
    if s.cells[e, own].off != 0:
        signal = NO_SIGNAL_MW
    return signal, interference, math.sqrt(variance), most


@inner
def adapt(e, k, c, m: MapTables, t: LinkTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """SINR, and what link adaptation makes of it: efficiency and block error rate of every user.

    SINR = P_s g_s / (sum_j rho_j P_j g_j + N), where rho_j is the share of cell j's blocks in use. The use of the last
    step stands for this one's, which would otherwise depend on itself.

    Neighbours come and go by the slot, and whoever transmits at the mean SINR loses the slots in which they are there:
    rates go by the SINR at some standard deviations more of interference (``reference.Radio``). The entry is chosen by
    a report that is a little old, less the outer-loop offset; the error rate is that of the chosen entry at the present
    SINR. The offset rises with errors and falls without, so that eMBB and mMTC settle at the target error rate. URLLC
    takes its own table, made for one shot at an error rate of 1e-5, and a fixed backoff: too few errors come to steer
    by.
    """
    noise, top = np.float32(c.noise_mw), np.float32(t.entry.shape[0] - 1)
    odds = np.float32(math.log((1.0 - c.target_error) / c.target_error))
    low_odds = np.float32(math.log((1.0 - LOW_ERROR) / LOW_ERROR))
    slope, target = np.float32(c.error_slope), np.float32(c.target_error)
    sigmas, urgent_sigmas = np.float32(c.burst_sigmas), np.float32(c.urllc_burst_sigmas)
    for i in range(s.users.shape[1]):
        user, work = s.users[e, i], w.users[k, i]
        single_shot = c.embb <= i < c.embb + c.urllc
        signal, interference, deviation, most = signal_and_interference(e, i, k, c, m, s, w, user.serving)
        work.sinr_db = linear_to_db(signal / (interference + noise))
        work.interference = interference / noise
        burst = min(interference + (urgent_sigmas if single_shot else sigmas) * deviation, most)
        sinr_db = linear_to_db(signal / (burst + noise))
        # The SINR at the time of the report, had it changed evenly since the last step.
        last = sinr_db if user.report_db == NO_REPORT else user.report_db
        report = sinr_db + np.float32(c.report_age) * (last - sinr_db)
        user.report_db = sinr_db if signal > NO_SIGNAL_MW else NO_REPORT
        believed = report - (np.float32(c.urllc_backoff_db) if single_shot else user.offset_db)
        grid = int(min(max((believed - GRID_LOW_DB) * GRID_PER_DB, _ZERO), top))
        if single_shot:
            entry = t.low_entry[grid]
            work.efficiency = t.low_efficiency[entry]
            work.error = sigmoid(np.float32(slope * (t.low_threshold_db[entry] - sinr_db) - low_odds))
        else:
            entry = t.entry[grid]
            error = sigmoid(np.float32(slope * (t.threshold_db[entry] - sinr_db) - odds))
            work.efficiency = t.efficiency[entry]
            work.error = error
            if error >= HOPELESS:
                # What fails nearly always does so until the next report brings a lower entry.
                now = int(min(max((sinr_db - user.offset_db - GRID_LOW_DB) * GRID_PER_DB, _ZERO), top))
                lower = t.entry[now]
                work.efficiency = t.efficiency[lower] * (_ONE - np.float32(c.report_age))
                work.error = sigmoid(np.float32(slope * (t.threshold_db[lower] - sinr_db) - odds))
            if entry > 0:
                offset = user.offset_db + np.float32(c.offset_gain_db) * (error - target)
                user.offset_db = min(max(offset, np.float32(c.offset_low_db)), np.float32(c.offset_high_db))
        user.weak = user.weak + _STEP if work.sinr_db < c.failure_db else _ZERO
