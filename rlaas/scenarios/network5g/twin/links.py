"""Received powers, handover, SINR and rates of all networks at once; see the engine's module of the same name."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from rlaas.scenarios.network5g.control import ACTION_NAMES, DEEPEST_ON
from rlaas.scenarios.network5g.engine.links import (
    GRID_LOW_DB,
    GRID_PER_DB,
    HOPELESS,
    LARGEST_RISE_DB,
    NEVER_S,
    NO_MARGIN_DB,
    NO_REPORT,
    NO_SIGNAL_MW,
)
from rlaas.scenarios.network5g.power import ROW_COLUMNS
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.twin.state import TwinState
from rlaas.scenarios.network5g.twin.tables import Scene, Tables

__all__ = ["Adapted", "Moves", "Settings", "adapt", "at", "attach", "configure", "hand_over", "measure"]

_DB_TO_LOG2 = math.log2(10.0) / 10.0
_LOG2_TO_DB = 10.0 * math.log10(2.0)
_TINY = 1.2e-38
_OFF_DB, _OFFSET_OFF_DB = -1e4, -1e6
_NO_SIGNAL_MW = float(NO_SIGNAL_MW)
_TILT, _POWER_DB, _OFFSET, _HANDOVER_OFFSET, _SLEEP = (
    ACTION_NAMES.index(name) for name in ("tilt_deg", "power_db", "cell_offset_db", "handover_offset_db", "sleep")
)
_SHARES = ACTION_NAMES.index("embb_share")
_CYCLE_MS = ROW_COLUMNS.index("cycle_ms")


class Settings(NamedTuple):
    """Settings in the form that the rest uses, by cell [E, C].

    Attributes:
        values: settings in force [E, C, 9]. share: of the slices [E, C, 3].
        power_dbm, sine_tilt, offset_db, rho: float32, of transmission and handover; rho is the use of the last step.
        off: asleep or out of order. sleep: setting of cells that are on, else 0.
        cycle_s: of micro sleep [C]. scene: what the schedule says.
    """

    values: Tensor
    share: Tensor
    power_dbm: Tensor
    sine_tilt: Tensor
    offset_db: Tensor
    rho: Tensor
    off: Tensor
    sleep: Tensor
    cycle_s: Tensor
    scene: Scene


class Received(NamedTuple):
    """Linear received power in mW [E, U, C], and the grid points [E, U, 4] around users with their weights."""

    power: Tensor
    corners: Tensor
    weights: Tensor


class Moves(NamedTuple):
    """What handover did to users [E, U]: events, and the forecast of the next one."""

    handed: Tensor
    ping_pong: Tensor
    failed: Tensor
    leaving: Tensor
    next_cell: Tensor


class Adapted(NamedTuple):
    """What link adaptation gives users [E, U], float32: dB, interference over noise, bit/s/Hz, block error rate."""

    sinr_db: Tensor
    interference: Tensor
    efficiency: Tensor
    error: Tensor


def at(values: Tensor, cell: Tensor) -> Tensor:
    """Values [E, C] of the cells [E, N]."""
    return values.gather(1, cell)


def _exp2(x: Tensor) -> Tensor:
    """2^x of float32. In double: torch's float32 one rounds differently at the end of a tensor than within it."""
    return torch.exp2(x.double().clamp(-126.0, 126.0)).float()


def _sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)) of float32, in double for the same reason."""
    return torch.sigmoid(x.double()).float()


def _linear(db: Tensor) -> Tensor:
    return _exp2(db * _DB_TO_LOG2)


def _decibels(linear: Tensor) -> Tensor:
    return torch.log2(linear.clamp(min=_TINY)) * _LOG2_TO_DB


def _held(t: Tables, use: Tensor, asks: Tensor, stays: Tensor) -> Tensor:
    """Cells [E, C] that ask to be off and have to stay on: see ``_interlock`` of the engine's stepping."""
    near = t.neighbours
    uncovered = asks & ~stays[:, near].any(dim=2)
    theirs, mine = use[:, near], use[:, :, None]
    first = near < torch.arange(len(near), device=near.device)[:, None]
    outranked = uncovered[:, near] & ((theirs > mine) | ((theirs == mine) & first))
    busiest = uncovered & ~outranked.any(dim=2)
    return busiest | (uncovered & ~busiest[:, near].any(dim=2))


def configure(t: Tables, s: TwinState, actions: Tensor, *, begin: bool = False) -> Settings:
    """Put settings [E, C, 9] into the form the rest uses, once the schedule of events has spoken."""
    c, scene = t.c, t.schedule.scene(s.clock)
    values = torch.minimum(torch.maximum(actions, t.low), t.high)
    off = scene.failed | (values[..., _SLEEP] >= c.off_from)
    if c.interlock:
        held = _held(t, s.cells.use, off & ~scene.failed, ~off)
        values[..., _SLEEP].masked_fill_(held, DEEPEST_ON)
        off = off & ~held
    s.cells.off = off
    share = values[..., _SHARES : _SHARES + 3]
    use = torch.zeros_like(s.cells.use) if begin else s.cells.use
    return Settings(
        values=values,
        share=share / share.sum(dim=-1, keepdim=True),
        power_dbm=scene.power_dbm + values[..., _POWER_DB].float(),
        sine_tilt=torch.sin(torch.deg2rad(values[..., _TILT].double())).float(),
        offset_db=torch.where(off, _OFFSET_OFF_DB, values[..., _OFFSET].float()),
        rho=torch.where(off, 0.0, use.float()),
        off=off,
        sleep=torch.where(off, 0.0, values[..., _SLEEP]),
        cycle_s=scene.rows[:, _CYCLE_MS] / 1e3,
        scene=scene,
    )


def _tilted(t: Tensor, floor: float) -> Tensor:
    """Linear gain of a unit-norm column of eight half-wavelength elements at ``t`` = sine of elevation - of tilt.

    |sin 8x / sin x|^2 / 8 with x = pi t / 2 is 8 (cos x cos 2x cos 4x)^2.
    """
    cosine = torch.cos(math.pi * t)
    square = cosine * cosine
    double = 2.0 * square - 1.0
    return (4.0 * (1.0 + cosine) * square * double * double).clamp(min=floor)


def _corners(t: Tables, s: TwinState) -> tuple[Tensor, Tensor]:
    """The four grid points around users [E, U, 4] and their weights; coordinates need float64 to be worth float32."""
    c = t.c
    dx, dy = s.users.x.double() - c.origin_x, s.users.y.double() - c.origin_y
    f, g = c.inverse_xx * dx + c.inverse_xy * dy, c.inverse_yx * dx + c.inverse_yy * dy
    f0, g0 = torch.floor(f), torch.floor(g)
    df, dg = (f - f0).float(), (g - g0).float()
    rows_f, rows_g = (c.nf, c.ng) if c.wraps else (c.nf - 1, c.ng - 1)
    a, b = torch.remainder(f0.long(), rows_f), torch.remainder(g0.long(), rows_g)
    a1, b1 = a + 1, b + 1
    if c.wraps:
        a1, b1 = torch.remainder(a1, rows_f), torch.remainder(b1, rows_g)
    a, a1 = a * c.ng, a1 * c.ng
    corners = torch.stack([a + b, a + b1, a1 + b, a1 + b1], dim=-1)
    ef, eg = 1.0 - df, 1.0 - dg
    return corners, torch.stack([ef * eg, ef * dg, df * eg, df * dg], dim=-1)


def _interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Rows [n, k] of a table at rows [E, U, 4], weighted: [E, U, k]."""
    mixed = embedding_bag(rows.reshape(-1, 4), table, mode="sum", per_sample_weights=weights.reshape(-1, 4))
    return mixed.reshape(*rows.shape[:2], table.shape[1])


def measure(t: Tables, s: TwinState, settings: Settings, *, first: bool = False) -> Received:
    """Received power of every cell at every user, linear and, filtered, in dBm; ``first`` fills the filter."""
    u = s.users
    corners, weights = _corners(t, s)
    landscape = (s.realisation[:, None] * 2 + u.indoor.long()) * t.nodes
    gain = _interpolate(t.link_db, landscape[..., None] + corners, weights)
    sine = _interpolate(t.sine_below, corners, weights)
    power_db = settings.power_dbm[:, None] + gain - u.loss_db[..., None]
    power = _linear(power_db) * _tilted(sine - settings.sine_tilt[:, None], t.c.tilt_floor)
    level = _decibels(power)
    s.links.filtered = level if first else torch.lerp(s.links.filtered, level, t.c.filter_share)
    return Received(power, corners, weights)


def attach(s: TwinState) -> Moves:
    """Begin an episode with every user at its strongest cell and no history."""
    u, links = s.users, s.links
    best = links.filtered.argmax(dim=-1)
    u.serving, u.previous = best, best.clone()
    u.since.fill_(float(NEVER_S))
    u.weak.zero_()
    u.offset_db.zero_()
    u.report_db.fill_(float(NO_REPORT))
    links.margin = torch.full_like(links.filtered, float(NO_MARGIN_DB))
    links.held = torch.zeros_like(links.filtered)
    nothing = torch.zeros_like(u.indoor)
    return Moves(nothing, nothing, nothing, torch.zeros_like(u.weak), best)


def hand_over(t: Tables, s: TwinState, settings: Settings) -> Moves:
    """Evaluate the A3 event, move users and forecast who leaves; the engine's module says by which rules."""
    c, u, links = t.c, s.users, s.links
    own = u.serving
    none, hysteresis = float(NO_MARGIN_DB), c.hysteresis_db
    own_off = at(settings.off, own)
    u.since = u.since + STEP_S
    failed = u.weak >= c.failure_s - 1e-6
    biased = links.filtered + settings.offset_db[:, None]
    leave_db = (hysteresis + settings.values[..., _HANDOVER_OFFSET]).float()
    threshold = biased.gather(2, own[..., None])[..., 0] + at(leave_db, own)
    threshold = torch.where(own_off, _OFF_DB, threshold)
    margin = biased - threshold[..., None]
    rise = margin - links.margin
    # The instant at which a margin crossed zero, interpolated between samples.
    crossing = STEP_S * (margin / rise.clamp(min=1e-6)).clamp(1e-3, 1.0)
    staying = torch.where(margin > -2.0 * hysteresis, links.held + STEP_S, 0.0)
    held = torch.where(links.held > 0.0, staying, torch.where(margin > 0.0, crossing, 0.0))
    # The serving cell is no neighbour of itself.
    held = held.scatter(2, own[..., None], 0.0)
    margin = margin.scatter(2, own[..., None], none)
    best_margin, best = margin.max(dim=-1)
    lonely = best_margin <= none
    best, best_margin = torch.where(lonely, own, best), best_margin.clamp(min=none)

    on = ~settings.off
    forced = failed | (on.any(dim=1, keepdim=True) & own_off)
    open_to = on[:, None] & (forced[..., None] | (held >= c.trigger_s))
    heard, strongest = torch.where(open_to, biased, _OFF_DB).max(dim=-1)
    target = torch.where(heard > _OFF_DB, strongest, own)
    moved = target != own
    ping_pong = moved & (target == u.previous) & (u.since <= c.ping_pong_s + 1e-4)

    # The first sample after a handover, or after a cell woke up, has no predecessor to rise from.
    best_rise = rise.gather(2, best[..., None])[..., 0]
    best_rise = torch.where((u.since > 0.15) & (best_rise < float(LARGEST_RISE_DB)), best_rise, 0.0)
    ahead = c.forecast_reach * best_margin.clamp(max=0.0) + c.forecast_direction * best_rise
    entered = torch.where(best_margin > 0.0, c.forecast_entered, 0.0)
    leaving = _sigmoid(c.forecast_bias + ahead / (best_rise.abs() + c.forecast_floor_db) + entered)
    u.previous = torch.where(moved, own, u.previous)
    u.serving = target
    u.since = torch.where(moved, 0.0, u.since)
    u.weak = torch.where(failed | moved, 0.0, u.weak)
    links.held = torch.where(moved[..., None], 0.0, held)
    links.margin = torch.where(moved[..., None], none, margin)
    return Moves(
        handed=moved,
        ping_pong=ping_pong,
        failed=failed,
        leaving=torch.where(moved, 0.0, leaving),
        next_cell=torch.where(moved, target, best),
    )


def adapt(t: Tables, s: TwinState, settings: Settings, received: Received) -> Adapted:
    """SINR, and what link adaptation makes of it; the engine's module says by which rules."""
    c, u = t.c, s.users
    own = u.serving
    signal = received.power.gather(2, own[..., None])[..., 0]
    # Every cell but the serving one interferes: leaving that out beats taking it off again.
    others = received.power.scatter(2, own[..., None], 0.0)
    rho = settings.rho[:, None]
    means = others * rho
    interference = means.sum(dim=-1)
    deviation = (means * (others - means)).sum(dim=-1).sqrt()
    most = torch.where(rho > 0.0, others, 0.0).sum(dim=-1)
    burst = torch.minimum(interference + t.burst_sigmas * deviation, most)
    if c.beams > 1:
        # Users of a cell get its best beam; as interference its beams average to the gain in the map.
        rows = received.corners * t.cells + own[..., None]
        signal = signal * _linear(_interpolate(t.beam_db.reshape(-1, 1), rows, received.weights)[..., 0])
    signal = torch.where(at(settings.off, own), _NO_SIGNAL_MW, signal)
    mean_db = _decibels(signal / (interference + c.noise_mw))
    sinr_db = _decibels(signal / (burst + c.noise_mw))
    # The SINR at the time of the report, had it changed evenly since the last step.
    last = torch.where(u.report_db == float(NO_REPORT), sinr_db, u.report_db)
    report = sinr_db + c.report_age * (last - sinr_db)
    u.report_db = torch.where(signal > _NO_SIGNAL_MW, sinr_db, float(NO_REPORT))
    believed = report - torch.where(t.normal, u.offset_db, c.urllc_backoff_db)
    grid = ((believed - float(GRID_LOW_DB)) * float(GRID_PER_DB)).clamp(0.0, t.grid_top).long()
    entry = t.entry[grid + t.grid_first]
    error = _sigmoid(c.error_slope * (t.threshold_db[entry] - sinr_db) - t.odds)
    # What fails nearly always does so until the next report brings a lower entry.
    hopeless = t.normal & (error >= float(HOPELESS))
    now = ((sinr_db - u.offset_db - float(GRID_LOW_DB)) * float(GRID_PER_DB)).clamp(0.0, t.grid_top).long()
    lower = t.entry[now + t.grid_first]
    late_error = _sigmoid(c.error_slope * (t.threshold_db[lower] - sinr_db) - t.odds)
    efficiency = torch.where(hopeless, t.efficiency[lower] * (1.0 - c.report_age), t.efficiency[entry])
    offset = (u.offset_db + c.offset_gain_db * (error - c.target_error)).clamp(c.offset_low_db, c.offset_high_db)
    u.offset_db = torch.where(t.normal & (entry > t.first_entry), offset, u.offset_db)
    u.weak = torch.where(mean_db < c.failure_db, u.weak + STEP_S, 0.0)
    return Adapted(mean_db, interference / c.noise_mw, efficiency, torch.where(hopeless, late_error, error))
