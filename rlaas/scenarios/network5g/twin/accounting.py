"""Power, parts, rewards and observations of all networks at once; see the engine's module of the same name."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlaas.scenarios.network5g.control import ACTION_NAMES
from rlaas.scenarios.network5g.engine.accounting import EDGE_DB, TREND
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.power import ROW_COLUMNS
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.twin.links import Adapted, Moves, Settings
from rlaas.scenarios.network5g.twin.service import Served, by_cell, waiting_to_cap
from rlaas.scenarios.network5g.twin.state import TwinState
from rlaas.scenarios.network5g.twin.tables import Tables

__all__ = ["Power", "Sums", "account", "add_up", "draw_power", "finish_episode", "observe"]

_POWER_DB = ACTION_NAMES.index("power_db")
_STEP_MS = 1e3 * STEP_S


class Power(NamedTuple):
    """Mean power in W and share of the step at sleep power [E, C]."""

    watts: Tensor
    asleep: Tensor


class Sums(NamedTuple):
    """Sums over the users of each cell [E, C], or [E, C, 3] by slice where there are three."""

    packets: Tensor
    delay_ms: Tensor
    users: Tensor
    efficiency: Tensor
    offered: Tensor
    carried_embb: Tensor
    carried: Tensor
    active_s: Tensor
    happy_s: Tensor
    judged_s: Tensor
    weak: Tensor
    outage_s: Tensor
    handovers: Tensor
    ping_pongs: Tensor
    failures: Tensor
    noise_rise: Tensor
    backlog_embb: Tensor
    backlog_mmtc: Tensor
    with_data: Tensor
    errors: Tensor
    leaving: Tensor
    arriving: Tensor
    edge: Tensor


def draw_power(s: TwinState, settings: Settings, served: Served) -> Power:
    """Mean power of every cell in this step, transitions included, and its use of resource blocks."""
    cells, row = s.cells, dict(zip(ROW_COLUMNS, settings.scene.rows.unbind(dim=1), strict=True))
    use = (settings.share * served.busy).sum(dim=-1)
    cells.use = use
    cells.trend = cells.trend + TREND * (use - cells.trend)
    start = (cells.off_steps * _STEP_MS).to(use.dtype)
    light, deep = row["light_after_ms"], row["deep_after_ms"]
    awake, not_deep = (((after - start) / _STEP_MS).clamp(0.0, 1.0) for after in (light, deep))
    off_w = row["idle_w"] * awake + row["light_w"] * (not_deep - awake) + row["deep_w"] * (1.0 - not_deep)
    enters_light = (start <= light) & (light < start + _STEP_MS)
    enters_deep = (start <= deep) & (deep < start + _STEP_MS)
    off_w = off_w + torch.where(enters_light, row["light_switch_j"] / STEP_S, 0.0)
    off_w = off_w + torch.where(enters_deep, (row["deep_switch_j"] - row["light_switch_j"]) / STEP_S, 0.0)
    napping = served.idle * (settings.sleep - row["ramp_ms"] / row["cycle_ms"]).clamp(min=0.0)
    share = torch.pow(10.0, 0.1 * settings.values[..., _POWER_DB])
    on_w = row["idle_w"] + row["slope_w"] * share * use - (row["idle_w"] - row["micro_w"]) * napping
    watts = torch.where(settings.off, off_w, on_w)
    cells.off_steps = torch.where(settings.off, cells.off_steps + 1, 0)
    return Power(torch.where(settings.scene.failed, 0.0, watts), torch.where(settings.off, 1.0, napping))


def add_up(t: Tables, s: TwinState, hot: Tensor, served: Served, link: Adapted, moves: Moves) -> Sums:
    """Sums over the users of each cell; ``hot`` [E, U, C] are the serving cells one-hot, in float64."""
    c, own = t.c, s.users.serving
    one = torch.ones_like(hot[:, :1, 0])
    by_slice = []
    for part, columns in zip((served.embb, served.urllc, served.mmtc), t.slices, strict=True):
        values = [part.packets, part.delay_ms, one, link.efficiency[:, columns], part.offered, part.carried]
        by_slice.append(by_cell(hot[:, columns], *values, part.happy_s, part.judged_s))
    packets, delay_ms, users, efficiency, offered, carried, happy, judged = torch.stack(by_slice, dim=-1).unbind(dim=2)
    embb, mmtc = t.slices[0], t.slices[2]
    active_s = served.embb.active_s
    data, with_data, backlog, errors = by_cell(
        hot[:, embb], active_s, active_s > 0.0, s.embb.backlog, link.error[:, embb]
    ).unbind(dim=-1)
    going = moves.next_cell != own
    leaving = torch.where(going, moves.leaving, 0.0)
    ahead = s.links.margin.gather(2, moves.next_cell[..., None])[..., 0]
    everybody = by_cell(
        hot,
        link.sinr_db < c.weak_db,
        link.sinr_db < min(c.outage_db, c.weak_db),
        moves.handed,
        moves.ping_pong,
        moves.failed,
        torch.log10(1.0 + link.interference),
        leaving,
        going & (ahead > float(EDGE_DB)),
    )
    weak, outage, handovers, ping_pongs, failures, noise_rise, left, edge = everybody.unbind(dim=-1)
    next_hot = (moves.next_cell[..., None] == torch.arange(c.cells, device=t.device)).double()
    return Sums(
        packets=packets,
        delay_ms=delay_ms,
        users=users,
        efficiency=efficiency,
        offered=offered,
        carried_embb=carried[..., 0],
        carried=carried.sum(dim=-1),
        active_s=data,
        happy_s=happy.sum(dim=-1),
        judged_s=judged.sum(dim=-1),
        weak=weak,
        outage_s=outage * STEP_S,
        handovers=handovers,
        ping_pongs=ping_pongs,
        failures=failures,
        noise_rise=noise_rise,
        backlog_embb=backlog,
        backlog_mmtc=by_cell(hot[:, mmtc], s.mmtc.backlog)[..., 0],
        with_data=with_data,
        errors=errors,
        leaving=left,
        arriving=by_cell(next_hot, leaving)[..., 0],
        edge=edge,
    )


def account(t: Tables, s: TwinState, sums: Sums, power: Power) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards [E, C, 4] and parts [E, C, n_parts], numerators and denominators, of every cell."""
    c, q = t.c, sums
    one = torch.ones_like(q.carried)
    seconds = q.users.sum(dim=-1) * STEP_S
    up = {"throughput": q.carried_embb, "energy": power.watts * STEP_S, "satisfaction": q.happy_s, "served": q.carried}
    up |= {"rb_use": s.cells.use, "asleep": power.asleep, "outage": q.outage_s, "handovers": q.handovers}
    up |= {"ping_pongs": q.ping_pongs, "link_failures": q.failures}
    down = {"throughput": q.active_s, "energy": one * STEP_S, "satisfaction": q.judged_s}
    down |= {"served": q.offered.sum(dim=-1), "rb_use": one, "asleep": one}
    for i, name in enumerate(("latency_embb", "latency_urllc", "latency_mmtc")):
        up[name], down[name] = q.delay_ms[..., i], q.packets[..., i]
    numerators = torch.stack([up[name].double() for name in PART_NAMES], dim=-1)
    denominators = torch.stack([down.get(name, seconds) for name in PART_NAMES], dim=-1)
    delays = _relative_delays(t, q).mean(dim=-1)
    carried = c.throughput + (q.carried_embb - c.throughput * q.active_s) / c.active_s
    happy = c.satisfaction + (q.happy_s - c.satisfaction * q.judged_s) / c.satisfaction_s
    own = torch.stack(
        [
            1.0 - (delays - c.latency_low) / (c.latency_high - c.latency_low),
            (carried - c.throughput_low) / (c.throughput_high - c.throughput_low),
            1.0 - (power.watts - c.energy_low) / (c.energy_high - c.energy_low),
            (happy - c.satisfaction_low) / (c.satisfaction_high - c.satisfaction_low),
        ],
        dim=-1,
    )
    reward = c.own_share * own + (1.0 - c.own_share) * own.mean(dim=1, keepdim=True)
    return reward.to(t.dtype), numerators.to(t.dtype), denominators.to(t.dtype)


def _relative_delays(t: Tables, sums: Sums) -> Tensor:
    """Delays by slice over the default's [E, C, 3]."""
    c = t.c
    usual = (c.packets_embb * c.latency_embb, c.packets_urllc * c.latency_urllc, c.packets_mmtc * c.latency_mmtc)
    return torch.stack([sums.delay_ms[..., i] / usual[i] for i in range(3)], dim=-1)


def finish_episode(t: Tables, s: TwinState, hot: Tensor, numerators: Tensor) -> None:
    """What still waits at the end counts the cap: added to the parts, not to the reward (it belongs to no action)."""
    c = t.c
    for i, fluid, cap, packet in (
        (0, s.embb, c.embb_cap, c.packet_mbit_embb),
        (2, s.mmtc, c.mmtc_cap, c.packet_mbit_mmtc),
    ):
        missing = by_cell(hot[:, t.slices[i]], waiting_to_cap(fluid, s.step, cap))[..., 0]
        numerators[..., i] += (1e3 / packet * missing).to(numerators.dtype)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0.0, part / whole.clamp(min=1e-30), 0.0)


def _squashed(ratio: Tensor) -> Tensor:
    return ratio / (1.0 + ratio)


def observe(t: Tables, s: TwinState, sums: Sums, settings: Settings, served: Served, hour: Tensor) -> Tensor:
    """Features of every cell [E, C, features], in the order of ``OBSERVATION_NAMES``."""
    c, q = t.c, sums
    users = q.users.sum(dim=-1)
    usual = [3.0 * p for p in (c.packets_embb, c.packets_urllc, c.packets_mmtc)]
    people = [3.0 * max(n, 1) / c.cells for n in (c.embb, c.urllc, c.mmtc)]
    tops = (t.best, t.best_low, t.best)
    mean_users = t.users / c.cells
    per_user = 0.5 * s.cells.trend.sum(dim=1, keepdim=True) / users.sum(dim=1, keepdim=True)
    own = [
        s.cells.use,
        *served.busy.unbind(dim=-1),
        *(q.packets[..., i] / usual[i] for i in range(3)),
        _squashed(q.backlog_embb / (0.25 * 2.0 * c.usable_mhz_embb)),
        _squashed(q.backlog_mmtc / (10.0 * c.packet_mbit_mmtc)),
        *(q.users[..., i] / people[i] for i in range(3)),
        _share(q.with_data, q.users[..., 0]),
        *(_share(q.efficiency[..., i], q.users[..., i]) / tops[i] for i in range(3)),
        _share(q.weak, users),
        _share(q.edge, users),
        _share(10.0 * q.noise_rise, users) / 50.0,
        _share(q.errors, q.users[..., 0]),
        *_squashed(_relative_delays(t, q)).unbind(dim=-1),
        torch.where(q.judged_s > 0.0, _share(q.happy_s, q.judged_s), 1.0),
        settings.off,
        q.leaving / mean_users,
        q.arriving / mean_users,
        s.cells.trend + per_user * (q.arriving - q.leaving),
    ]
    features = torch.stack([feature.float() for feature in own], dim=-1)
    changed = ((settings.values - t.low) / (t.high - t.low)).float()
    seen = torch.cat([features, _around(t, features), changed], dim=-1).clamp(0.0, 1.0)
    angle = (2.0 * math.pi / 24.0) * hour
    clock = torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).float()
    return torch.cat([seen, clock[:, None].expand(-1, c.cells, -1)], dim=-1)


def _around(t: Tables, own: Tensor) -> Tensor:
    """Means over the neighbours [E, C, 5] of their features before clipping: use, users, backlog, off, forecast."""
    people = own[..., 9:12].sum(dim=-1) / 3.0
    told = torch.stack([own[..., 0], people, own[..., 7], own[..., 24], own[..., 27]], dim=-1)
    if t.neighbours.shape[1] == 0:
        return torch.zeros_like(told)
    return told[:, t.neighbours].mean(dim=2)
