"""Schedulers and queues of all networks at once.

:mod:`rlaas.scenarios.network5g.engine.service` says by which rules.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlaas.scenarios.network5g.engine.arrays import WINDOW
from rlaas.scenarios.network5g.engine.constants import Constants
from rlaas.scenarios.network5g.engine.queueing import LOAD_LIMIT
from rlaas.scenarios.network5g.engine.service import ALPHA
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.twin.links import Adapted, Moves, Settings, at
from rlaas.scenarios.network5g.twin.state import Fluid, TwinState
from rlaas.scenarios.network5g.twin.tables import Tables
from rlaas.scenarios.network5g.twin.world import Demand

__all__ = ["Part", "Served", "by_cell", "drain", "late_probability", "serve", "waiting_to_cap"]

_TINY = 1e-30


class Part(NamedTuple):
    """What a slice's users [E, users] got in a step.

    Attributes:
        packets: offered. delay_ms: theirs, summed. offered, carried: Mbit.
        active_s: with data. happy_s, judged_s: satisfied, and in a satisfaction window.
    """

    packets: Tensor
    delay_ms: Tensor
    offered: Tensor
    carried: Tensor
    active_s: Tensor
    happy_s: Tensor
    judged_s: Tensor


class Served(NamedTuple):
    """The slices, and by cell the share of the step each transmits [E, C, 3] and in which nothing is sent [E, C]."""

    embb: Part
    urllc: Part
    mmtc: Part
    busy: Tensor
    idle: Tensor


class _Slice(NamedTuple):
    """One slice's users: its columns, their cells [E, users], and those one-hot [E, users, C]."""

    columns: slice
    cell: Tensor
    hot: Tensor


def by_cell(hot: Tensor, *values: Tensor) -> Tensor:
    """Sums of values [E, users] over the users of each cell [E, C, n_values].

    A product of matrices rather than scattered additions, whose order a GPU does not fix; always in float64, so that
    lower precisions a caller allows for its networks do not reach the accounts.
    """
    rows = torch.stack([v.expand(hot.shape[:2]).double() for v in values], dim=1)
    return torch.bmm(rows, hot).transpose(1, 2)


def drain(
    backlog: Tensor, rate: Tensor, weight: Tensor, ready: Tensor, cell: Tensor, hot: Tensor, time: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted processor sharing until the data is gone or the time is over, in closed form.

    With ``v = backlog / (rate * weight)``, user k finishes at ``sum_j weight_j min(v_j, v_k)``: users are sorted by v,
    and running sums are kept for each cell.

    Args:
        backlog, rate, weight: of users [E, N].
        ready: who can be served [E, N].
        cell, hot: who serves, as numbers [E, N] and one-hot [E, N, C].
        time: the time there is.

    Returns:
        Who finished [E, N] bool, when [E, N], the fraction served of everybody [E, N], and the time spent [E, C].
    """
    if cell.shape[1] == 0:
        return ready, backlog, backlog, backlog.new_zeros(hot.shape[0], hot.shape[2])
    shape = (*cell.shape, hot.shape[2])
    weight = torch.where(ready, weight, 0.0)
    v = torch.where(ready, backlog / (rate * weight).clamp(min=_TINY), 0.0)
    order = torch.where(ready, v, math.inf).argsort(dim=1)
    ranked_v, ranked_weight, ranked_cell = v.gather(1, order), weight.gather(1, order), cell.gather(1, order)
    ranked_work = ranked_v * ranked_weight
    ranked_hot = hot.gather(1, order[..., None].expand(shape)).to(v.dtype)
    sums = (torch.stack([ranked_weight, ranked_work], dim=-1)[..., None] * ranked_hot[:, :, None]).cumsum(dim=1)
    own = sums.gather(3, ranked_cell[..., None, None].expand(-1, -1, 2, 1))[..., 0]
    later = (at(sums[:, -1, 0], ranked_cell) - own[..., 0]).clamp(min=0.0)
    finish = torch.empty_like(v).scatter_(1, order, own[..., 1] + ranked_v * later)
    done = ready & (finish <= time)
    ended = by_cell(hot, torch.where(done, weight * v, 0.0), torch.where(done, 0.0, weight)).to(v.dtype)
    worked, waiting = ended.unbind(dim=-1)
    level = (time - worked).clamp(min=0.0) / waiting.clamp(min=_TINY)
    spent = torch.where(waiting > 0.0, time, worked.clamp(max=time))
    fraction = torch.where(done, 1.0, (at(level, cell) / v.clamp(min=_TINY)).clamp(max=1.0))
    return done, finish, torch.where(ready, fraction, 0.0), spent


def _mg1_wait(load: Tensor, square: Tensor) -> Tensor:
    """Mean wait of an M/G/1 queue, rate x E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine), rho at most the limit."""
    rho = load.clamp(max=LOAD_LIMIT)
    return torch.where(load > 0.0, rho * (square / load.clamp(min=_TINY)) / (2.0 * (1.0 - rho)), 0.0)


def late_probability(slack: Tensor, load: Tensor, wait: Tensor, pause: Tensor, share: Tensor) -> Tensor:
    """P(waiting + pause > slack) [...] for an M/G/1 queue behind a transmitter that sleeps part of each cycle.

    Args:
        slack: time left after the fixed parts of the delay; negative means surely late.
        load: rho < 1.
        wait: E[W].
        pause: length of the pause.
        share: share of packets that fall into it.
    """
    pace = torch.where(wait > 0.0, load / wait.clamp(min=_TINY), 1e30)
    tail = torch.exp(-(pace * slack.clamp(min=0.0)).clamp(max=80.0))
    rest = torch.exp(-(pace * (slack - pause).clamp(min=0.0)).clamp(max=80.0))
    # The integral of the tail over the rest of the pause; where the rest exceeds the slack it is 1.
    beyond = (pause - slack).clamp(min=0.0) + load / pace.clamp(min=_TINY) * (rest - tail)
    paused = torch.where(pause > 0.0, share * beyond / pause.clamp(min=_TINY), 0.0)
    late = (1.0 - share) * load * tail + paused
    return torch.where(slack < 0.0, 1.0, late.clamp(max=1.0))


def _advance(f: Fluid, step: int, deadline: int, cap: int, came: Tensor, went: Tensor, active: Tensor) -> None:
    """Book a step of a slice: totals, lateness, discards."""
    length, at_window = len(f.ring), step % (WINDOW + 1)
    f.arrived = f.arrived + came
    departed = f.departed + went
    f.served = f.served + went
    f.active = f.active + active
    f.ring[step % length] = f.arrived
    due, overdue, capped = (f.ring[(step - lag) % length] for lag in (deadline, deadline + 1, cap))
    f.late = f.late + (due - torch.maximum(overdue, departed)).clamp(min=0.0)
    rest = (f.backlog + came - went).clamp(min=0.0)
    discarded = torch.minimum((capped - departed).clamp(min=0.0), rest)
    f.departed = departed + discarded
    f.backlog = rest - discarded
    f.served_ring[at_window] = f.served
    f.active_ring[at_window] = f.active
    f.late_ring[at_window] = f.late


def waiting_to_cap(f: Fluid, step: int, cap: int) -> Tensor:
    """Mbit-seconds missing until everything that still waits at a user has counted the cap [E, users]."""
    ages = torch.arange(cap + 2, device=f.ring.device)
    ring = f.ring[(step - ages) % len(f.ring)]
    inside = (ring[:-1] - torch.maximum(f.departed, ring[1:])).clamp(min=0.0)
    return (inside * ((cap - ages[:-1]) * STEP_S)[:, None, None]).sum(dim=0)


def _fluid_rate(
    c: Constants, link: Adapted, moves: Moves, part: slice, whole: Tensor, gain: Tensor | None = None
) -> Tensor:
    """Mbit/s with all blocks of the slice; a handover interrupts, choosing among users gains."""
    efficiency, error = link.efficiency[:, part].to(whole.dtype), link.error[:, part].to(whole.dtype)
    if gain is not None:
        efficiency = (efficiency * gain).clamp(max=c.best_efficiency)
    rate = efficiency * (1.0 - error) * whole
    return torch.where(moves.handed[:, part], rate * (1.0 - c.interruption_s / STEP_S), rate)


def _serve_embb(
    t: Tables, s: TwinState, settings: Settings, demand: Demand, link: Adapted, moves: Moves, users: _Slice
) -> tuple[Part, Tensor]:
    """Alpha-fair sharing with a multi-user gain; returns also the time each cell transmits."""
    c, f = t.c, s.embb
    offered = demand.embb * c.mbit_embb
    start = f.backlog + offered
    has = start > 0.0
    waiting = by_cell(users.hot, has)[..., 0].to(t.dtype)
    gain = 1.0 + c.multi_user_gain * torch.log(waiting.clamp(min=1.0))
    whole = at(c.usable_mhz_embb * settings.share[..., 0], users.cell)
    rate = _fluid_rate(c, link, moves, users.columns, whole, at(gain, users.cell))
    alpha = settings.values[..., ALPHA]
    exponent = at((1.0 - alpha) / alpha, users.cell)
    weight = torch.exp2((exponent * torch.log2(rate.clamp(min=1e-3))).clamp(-126.0, 126.0))
    ready = has & (rate > 0.0) & ~at(settings.off, users.cell)
    done, finish, fraction, spent = drain(start, rate, weight, ready, users.cell, users.hot, STEP_S)
    carried = fraction * start
    active = torch.where(done, finish, has.to(t.dtype) * STEP_S)
    delay = 0.5 * (start + (start - carried).clamp(min=0.0)) * active / c.packet_mbit_embb
    _advance(f, s.step, c.embb_deadline, c.embb_cap, offered, carried, active)
    at_window, before = s.step % (WINDOW + 1), (s.step - WINDOW) % (WINDOW + 1)
    busy = f.active_ring[at_window] - f.active_ring[before]
    judged = busy > 1e-9
    happy = judged & (f.served_ring[at_window] - f.served_ring[before] >= c.want_mbit_s * busy)
    happy_s, judged_s = happy.to(t.dtype) * STEP_S, judged.to(t.dtype) * STEP_S
    part = Part(offered / c.packet_mbit_embb, 1e3 * delay, offered, carried, active, happy_s, judged_s)
    return part, spent


def _serve_mmtc(
    t: Tables, s: TwinState, settings: Settings, demand: Demand, link: Adapted, moves: Moves, users: _Slice
) -> tuple[Part, Tensor]:
    """Equal shares of what arrives spread over the step; returns also the time each cell transmits."""
    c, f = t.c, s.mmtc
    packet = c.packet_mbit_mmtc
    offered = demand.mmtc * c.mbit_mmtc
    packets = offered / packet
    whole = at(c.usable_mhz_mmtc * settings.share[..., 2], users.cell)
    rate = _fluid_rate(c, link, moves, users.columns, whole)
    served = rate > 0.0
    service = torch.where(served, packet / rate.clamp(min=_TINY), 0.0)
    load = at(by_cell(users.hot, demand.mmtc_rate * service)[..., 0].to(t.dtype), users.cell)
    before = f.backlog
    start = before + offered
    has = start > 0.0
    ready = has & served & ~at(settings.off, users.cell)
    done, finish, fraction, spent = drain(start, rate, torch.ones_like(rate), ready, users.cell, users.hot, STEP_S)
    carried = fraction * start
    active = torch.where(done, finish, has.to(t.dtype) * STEP_S)
    rest = (start - carried).clamp(min=0.0)
    delay = torch.where(rest <= 0.0, 0.5 * before * active, 0.5 * (before + rest) * STEP_S)
    # Machines take turns (processor sharing); a packet occupies a slot, however little of it it needs.
    turns = service / (1.0 - load.clamp(max=LOAD_LIMIT))
    own = torch.where(served, turns.clamp(min=c.slot_s_mmtc, max=STEP_S), 0.0)
    _advance(f, s.step, c.mmtc_deadline, c.mmtc_cap, offered, carried, active)
    at_window, earlier = s.step % (WINDOW + 1), (s.step - WINDOW) % (WINDOW + 1)
    length = len(f.ring)
    turned = f.ring[(s.step - c.mmtc_deadline) % length] - f.ring[(s.step - c.mmtc_deadline - WINDOW) % length]
    judged = turned > 1e-12
    late = f.late_ring[at_window] - f.late_ring[earlier]
    happy = judged & (late <= (1.0 - c.want_delivered) * turned + 1e-12)
    delay_ms = 1e3 * (delay / packet + packets * own)
    happy_s, judged_s = happy.to(t.dtype) * STEP_S, judged.to(t.dtype) * STEP_S
    return Part(packets, delay_ms, offered, carried, active, happy_s, judged_s), spent


def _serve_urllc(
    t: Tables, s: TwinState, settings: Settings, demand: Demand, link: Adapted, others_idle: Tensor, users: _Slice
) -> tuple[Part, Tensor]:
    """Delay and reliability of URLLC as an M/G/1 queue on mini-slots, one shot each; returns also the cells' load."""
    c, cell = t.c, users.cell
    whole = at(c.usable_mhz_urllc * settings.share[..., 1], cell)
    rate = link.efficiency[:, users.columns].to(t.dtype) * whole
    error = link.error[:, users.columns].to(t.dtype)
    served = (rate > 0.0) & ~at(settings.off, cell)
    service = torch.where(served, c.mbit_urllc / rate.clamp(min=_TINY), 0.0)
    work = demand.urllc_rate * service
    load, square = by_cell(users.hot, work, work * service).to(t.dtype).unbind(dim=-1)
    pause = settings.sleep * settings.cycle_s
    met = settings.sleep * others_idle * ((1.0 - load) / (1.0 - LOAD_LIMIT)).clamp(0.0, 1.0)
    wait, pauses, meets = (at(v, cell) for v in (_mg1_wait(load, square), pause, met))
    loads = at(load, cell)
    # A packet occupies a mini-slot, however little of it it needs.
    sending = service.clamp(min=c.minislot_s)
    mean = c.processing_s + 0.5 * c.minislot_s + sending + wait + 0.5 * meets * pauses
    slack = c.urllc_budget_s - c.processing_s - c.minislot_s - sending
    late = late_probability(slack, loads.clamp(max=LOAD_LIMIT), wait, pauses, meets)
    # A packet in error is sent again one round trip later, which is late for sure.
    late = late + (1.0 - late) * error
    kept = torch.where(served, LOAD_LIMIT / loads.clamp(min=LOAD_LIMIT), 0.0)
    late = 1.0 - kept * (1.0 - late)
    delay = c.urllc_cap_s - kept * (c.urllc_cap_s - mean - error * c.harq_s).clamp(min=0.0)
    offered = demand.urllc * c.mbit_urllc
    s.users.late[s.step % WINDOW] = late.float()
    happy = s.users.late.double().sum(dim=0) <= c.want_late * WINDOW
    always = torch.full_like(rate, STEP_S)
    part = Part(
        packets=demand.urllc,
        delay_ms=1e3 * demand.urllc * delay,
        offered=offered,
        carried=kept * offered,
        active_s=always,
        happy_s=happy.to(t.dtype) * STEP_S,
        judged_s=always,
    )
    return part, load.clamp(max=1.0)


def serve(
    t: Tables, s: TwinState, settings: Settings, demand: Demand, link: Adapted, moves: Moves, hot: Tensor
) -> Served:
    """Serve every cell's users for one step; ``hot`` [E, U, C] are the serving cells one-hot, in float64."""
    c = t.c
    slices = [_Slice(part, s.users.serving[:, part], hot[:, part]) for part in t.slices]
    embb, spent_embb = _serve_embb(t, s, settings, demand, link, moves, slices[0])
    mmtc, spent_mmtc = _serve_mmtc(t, s, settings, demand, link, moves, slices[2])
    # Slices transmit independently of one another, each on blocks of its own.
    busy_embb, busy_mmtc = spent_embb / STEP_S, spent_mmtc / STEP_S
    others_idle = (1.0 - busy_embb) * (1.0 - busy_mmtc)
    urllc, busy_urllc = _serve_urllc(t, s, settings, demand, link, others_idle, slices[1])
    idle = others_idle * (1.0 - busy_urllc)
    # A packet that meets the pause, which only a cycle without any work has, waits for half of it on average.
    pause = 0.5 * settings.sleep * settings.sleep * idle * settings.cycle_s

    def with_air(part: Part, users: _Slice, slot_s: float) -> Part:
        more = 0.5 * slot_s + link.error[:, users.columns].to(t.dtype) * c.harq_s + at(pause, users.cell)
        return part._replace(delay_ms=part.delay_ms + 1e3 * part.packets * more)

    return Served(
        embb=with_air(embb, slices[0], c.slot_s_embb),
        urllc=urllc,
        mmtc=with_air(mmtc, slices[2], c.slot_s_mmtc),
        busy=torch.stack([busy_embb, busy_urllc, busy_mmtc], dim=-1),
        idle=idle,
    )
