"""What is made of a step: power drawn, additive parts, rewards, observations."""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import circle, inner, log2
from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW
from rlaas.scenarios.network5g.engine.arrays import MARGIN, POWER_SHARE, LinkTables, Out, Scratch, State, WorldTables
from rlaas.scenarios.network5g.engine.links import FAILURE, HANDOVER, PING_PONG
from rlaas.scenarios.network5g.engine.queueing import waiting_to_cap
from rlaas.scenarios.network5g.engine.service import SLEEP
from rlaas.scenarios.network5g.engine.world import hour_of_day
from rlaas.scenarios.network5g.observation import NEIGHBOUR_NAMES, OBSERVATION_NAMES, OWN_NAMES, TIME_NAMES
from rlaas.scenarios.network5g.power import ROW_COLUMNS
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["account", "add_up", "draw_power", "finish_episode", "observe"]

(
    _IDLE_W,
    _FULL_W,
    _MICRO_W,
    _LIGHT_W,
    _DEEP_W,
    _CYCLE_MS,
    _RAMP_MS,
    _LIGHT_J,
    _DEEP_J,
    _LIGHT_AFTER_MS,
    _DEEP_AFTER_MS,
    _SLOPE_W,
    _RAMP_SHARE,
) = range(len(ROW_COLUMNS))

_COMPONENTS = len(ACTION_NAMES)
_LOW, _PER_SPAN = LOW.copy(), 1.0 / (HIGH - LOW)
_F_OWN, _F_AROUND, _F_CLOCK = len(OWN_NAMES), len(NEIGHBOUR_NAMES), len(TIME_NAMES)
_FEATURES = len(OBSERVATION_NAMES)
_STEP_MS = 1e3 * STEP_S
_THIRD = np.float32(1.0 / 3.0)
_LOG10_2 = math.log10(2.0)
EDGE_DB = np.float32(-3.0)
"""A user whose best neighbour is within 3 dB of the handover condition stands at the edge of its cell."""
TREND = 0.05
"""Weight of the newest use in the slow average."""


@inner
def _before(threshold_ms, start_ms):  # type: ignore[no-untyped-def]
    """Share of the step before a depth of sleep is reached."""
    return min(max((threshold_ms - start_ms) / _STEP_MS, 0.0), 1.0)


@inner
def _power_off(row, start_ms):  # type: ignore[no-untyped-def]
    """Mean power in the step of a cell that had been off for ``start_ms``; see ``power.sleep_shares``, ``switch_j``."""
    awake, not_deep = _before(row[_LIGHT_AFTER_MS], start_ms), _before(row[_DEEP_AFTER_MS], start_ms)
    watts = row[_IDLE_W] * awake + row[_LIGHT_W] * (not_deep - awake) + row[_DEEP_W] * (1.0 - not_deep)
    if start_ms <= row[_LIGHT_AFTER_MS] < start_ms + _STEP_MS:
        watts += row[_LIGHT_J] / STEP_S
    if start_ms <= row[_DEEP_AFTER_MS] < start_ms + _STEP_MS:
        watts += (row[_DEEP_J] - row[_LIGHT_J]) / STEP_S
    return watts


@inner
def draw_power(e, k, c, t: WorldTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Mean power of every cell in this step, transitions included, and its use of resource blocks.

    The arithmetic of ``power.energy_j``, which says where it comes from. A cell out of order draws nothing.
    """
    for j in range(c.cells):
        cell, work = s.cells[e, j], w.cells[k, j]
        row = t.power_rows[work.model]
        use = work.share[0] * work.busy[0] + work.share[1] * work.busy[1] + work.share[2] * work.busy[2]
        cell.use = use
        cell.trend += TREND * (use - cell.trend)
        work.asleep = 1.0
        if cell.off:
            watts = _power_off(row, cell.off_steps * _STEP_MS)
            cell.off_steps += 1
        else:
            cell.off_steps = 0
            work.asleep = work.idle * max(0.0, work.settings[SLEEP] - row[_RAMP_SHARE])
            watts = row[_IDLE_W] + row[_SLOPE_W] * w.pads[k, POWER_SHARE, j] * use
            watts -= (row[_IDLE_W] - row[_MICRO_W]) * work.asleep
        work.power_w = 0.0 if work.failed else watts


@inner
def _clear_sums(cell):  # type: ignore[no-untyped-def]
    for a in range(3):
        cell.packets[a] = cell.delay_ms[a] = cell.users[a] = cell.efficiency[a] = cell.offered[a] = 0.0
    cell.carried_embb = cell.carried = cell.active_s = cell.happy_s = cell.judged_s = 0.0
    cell.weak = cell.outage_s = cell.handovers = cell.ping_pongs = cell.failures = cell.noise_rise = 0.0
    cell.backlog_embb = cell.backlog_mmtc = cell.with_data = cell.errors = 0.0
    cell.leaving = cell.arriving = cell.edge = 0.0


@inner
def add_up(e, k, c, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Sums over the users of each cell."""
    for j in range(c.cells):
        _clear_sums(w.cells[k, j])
    for i in range(s.users.shape[1]):
        own, work = s.users[e, i].serving, w.users[k, i]
        cell = w.cells[k, own]
        a = 0 if i < c.embb else (1 if i < c.embb + c.urllc else 2)
        cell.packets[a] += work.packets
        cell.delay_ms[a] += work.delay_ms
        cell.users[a] += 1.0
        cell.efficiency[a] += work.efficiency
        cell.offered[a] += work.offered
        cell.carried += work.carried
        if a == 0:
            cell.carried_embb += work.carried
            cell.active_s += work.active_s
            cell.backlog_embb += s.embb[e, i].backlog
            cell.errors += work.error
            if work.active_s > 0.0:
                cell.with_data += 1.0
        elif a == 2:
            cell.backlog_mmtc += s.mmtc[e, i - c.embb - c.urllc].backlog
        cell.happy_s += work.happy_s
        cell.judged_s += work.judged_s
        if work.sinr_db < c.weak_db:
            cell.weak += 1.0
            if work.sinr_db < c.outage_db:
                cell.outage_s += STEP_S
        if work.event:
            cell.handovers += (work.event & HANDOVER) != 0
            cell.ping_pongs += (work.event & PING_PONG) != 0
            cell.failures += (work.event & FAILURE) != 0
        cell.noise_rise += _LOG10_2 * log2(np.float32(1.0) + work.interference)
        if work.next_cell != own:
            cell.leaving += w.leaving[k, i]
            w.cells[k, work.next_cell].arriving += w.leaving[k, i]
            if s.links[e, i, MARGIN, work.next_cell] > EDGE_DB:
                cell.edge += 1.0


@inner
def account(e, k, c, w: Scratch, out: Out, s: State) -> None:  # type: ignore[no-untyped-def]
    """Parts and rewards of every cell.

    A ratio of sums has no per-step value where its denominator is 0, and the mean of per-step ratios is another
    quantity. So each step contributes the ratio's first-order expansion around the frozen default:
    ``default + (numerator - default * denominator) / (default's mean denominator)``. It adds up over steps and cells,
    is exact where the denominator does not depend on the actions (latency, energy), and is the default's value where
    nothing was asked for. A cell's reward is part its own contribution, part the mean over the network.
    """
    up, down, reward = out.numerators[e], out.denominators[e], out.reward[e]
    mean0 = mean1 = mean2 = mean3 = 0.0
    for j in range(c.cells):
        cell = w.cells[k, j]
        for a in range(3):
            up[j, a], down[j, a] = cell.delay_ms[a], cell.packets[a]
        up[j, 3], down[j, 3] = cell.carried_embb, cell.active_s
        up[j, 4], down[j, 4] = cell.power_w * STEP_S, STEP_S
        up[j, 5], down[j, 5] = cell.happy_s, cell.judged_s
        up[j, 6], down[j, 6] = cell.carried, cell.offered[0] + cell.offered[1] + cell.offered[2]
        up[j, 7], down[j, 7] = s.cells[e, j].use, 1.0
        up[j, 8], down[j, 8] = cell.asleep, 1.0
        up[j, 9], up[j, 10], up[j, 11], up[j, 12] = cell.outage_s, cell.handovers, cell.ping_pongs, cell.failures
        seconds = (cell.users[0] + cell.users[1] + cell.users[2]) * STEP_S
        for a in range(9, 13):
            down[j, a] = seconds
        delay = cell.delay_ms[0] * c.per_third_delay_embb + cell.delay_ms[1] * c.per_third_delay_urllc
        delay += cell.delay_ms[2] * c.per_third_delay_mmtc
        carried = c.throughput + (cell.carried_embb - c.throughput * cell.active_s) * c.per_active_s
        happy = c.satisfaction + (cell.happy_s - c.satisfaction * cell.judged_s) * c.per_satisfaction_s
        latency = 1.0 - (delay - c.latency_low) * c.per_latency
        energy = 1.0 - (cell.power_w - c.energy_low) * c.per_energy
        throughput, satisfaction = (
            (carried - c.throughput_low) * c.per_throughput,
            (happy - c.satisfaction_low) * c.per_satisfaction,
        )
        reward[j, 0], reward[j, 1], reward[j, 2], reward[j, 3] = latency, throughput, energy, satisfaction
        mean0 += latency
        mean1 += throughput
        mean2 += energy
        mean3 += satisfaction
    rest = (1.0 - c.own_share) / c.cells
    for j in range(c.cells):
        reward[j, 0] = c.own_share * reward[j, 0] + rest * mean0
        reward[j, 1] = c.own_share * reward[j, 1] + rest * mean1
        reward[j, 2] = c.own_share * reward[j, 2] + rest * mean2
        reward[j, 3] = c.own_share * reward[j, 3] + rest * mean3


@inner
def finish_episode(e, c, s: State, out: Out) -> None:  # type: ignore[no-untyped-def]
    """What still waits at the end counts the cap: added to the parts, not to the reward (it belongs to no action)."""
    step, skip = s.environments[e].step, c.embb + c.urllc
    for i in range(c.embb):
        missing = waiting_to_cap(s.embb[e, i], s.embb_ring[e, i], step, c.embb_cap) / c.packet_mbit_embb
        out.numerators[e, s.users[e, i].serving, 0] += 1e3 * missing
    for n in range(c.mmtc):
        missing = waiting_to_cap(s.mmtc[e, n], s.mmtc_ring[e, n], step, c.mmtc_cap) / c.packet_mbit_mmtc
        out.numerators[e, s.users[e, skip + n].serving, 2] += 1e3 * missing


@inner
def _inverse(count):  # type: ignore[no-untyped-def]
    return 1.0 / count if count > 0.0 else 0.0


@inner
def observe(e, k, c, t: WorldTables, r: LinkTables, s: State, w: Scratch, out: Out) -> None:  # type: ignore[no-untyped-def]
    """Features of every cell, in the order of ``OBSERVATION_NAMES``, clipped to [0, 1] but for the clock."""
    seen = out.observation[e]
    per_best, per_low = 1.0 / r.efficiency[-1], 1.0 / r.low_efficiency[-1]
    hour = hour_of_day(s.environments[e], c)
    cosine, sine = circle(np.float32(hour / 24.0))
    # A user takes along half of a mean user's load: who moves is not who downloads most.
    per_user = 0.0
    for j in range(c.cells):
        per_user += s.cells[e, j].trend
    per_user *= 0.5 / s.users.shape[1]
    for j in range(c.cells):
        cell, state, f = w.cells[k, j], s.cells[e, j], seen[j]
        users = cell.users[0] + cell.users[1] + cell.users[2]
        f[0] = state.use
        f[1], f[2], f[3] = cell.busy[0], cell.busy[1], cell.busy[2]
        f[4] = cell.packets[0] * c.per_packets_embb
        f[5] = cell.packets[1] * c.per_packets_urllc
        f[6] = cell.packets[2] * c.per_packets_mmtc
        backlog = cell.backlog_embb * c.per_buffer_embb
        f[7] = backlog / (1.0 + backlog)
        backlog = cell.backlog_mmtc * c.per_buffer_mmtc
        f[8] = backlog / (1.0 + backlog)
        f[9] = cell.users[0] * c.per_users_embb
        f[10] = cell.users[1] * c.per_users_urllc
        f[11] = cell.users[2] * c.per_users_mmtc
        one_e, one_u, one_m = _inverse(cell.users[0]), _inverse(cell.users[1]), _inverse(cell.users[2])
        one = _inverse(users)
        f[12] = cell.with_data * one_e
        f[13] = cell.efficiency[0] * one_e * per_best
        f[14] = cell.efficiency[1] * one_u * per_low
        f[15] = cell.efficiency[2] * one_m * per_best
        f[16] = cell.weak * one
        f[17] = cell.edge * one
        f[18] = 0.2 * cell.noise_rise * one
        f[19] = cell.errors * one_e
        ratio = cell.delay_ms[0] * c.per_delay_embb
        f[20] = ratio / (1.0 + ratio)
        ratio = cell.delay_ms[1] * c.per_delay_urllc
        f[21] = ratio / (1.0 + ratio)
        ratio = cell.delay_ms[2] * c.per_delay_mmtc
        f[22] = ratio / (1.0 + ratio)
        f[23] = cell.happy_s / cell.judged_s if cell.judged_s > 0.0 else 1.0
        f[24] = 1.0 if state.off else 0.0
        # Forecasts: who leaves and arrives within the horizon, and the load they take along.
        f[25] = cell.leaving * c.per_users
        f[26] = cell.arriving * c.per_users
        f[27] = state.trend + per_user * (cell.arriving - cell.leaving)
    count = t.neighbours.shape[1]
    near = np.float32(1.0 / count) if count > 0 else np.float32(0.0)
    for j in range(c.cells):
        f, cell = seen[j], w.cells[k, j]
        use = people = backlog = asleep = forecast = np.float32(0.0)
        for a in range(count):
            g = t.neighbours[j, a]
            use += seen[g, 0]
            people += seen[g, 9] + seen[g, 10] + seen[g, 11]
            backlog += seen[g, 7]
            asleep += seen[g, 24]
            forecast += seen[g, 27]
        f[_F_OWN], f[_F_OWN + 1], f[_F_OWN + 2] = use * near, people * (near * _THIRD), backlog * near
        f[_F_OWN + 3], f[_F_OWN + 4] = asleep * near, forecast * near
        first = _F_OWN + _F_AROUND
        for a in range(_COMPONENTS):
            f[first + a] = (cell.settings[a] - _LOW[a]) * _PER_SPAN[a]
        f[_FEATURES - 2], f[_FEATURES - 1] = sine, cosine
    # Neighbours read each other unclipped, so clipping comes last.
    for j in range(c.cells):
        for a in range(_FEATURES - _F_CLOCK):
            seen[j, a] = min(max(seen[j, a], np.float32(0.0)), np.float32(1.0))
