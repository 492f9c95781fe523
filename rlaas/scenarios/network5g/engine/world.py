"""The part of a network that no action changes: where users are and what they ask for.

Random numbers are functions of environment, step and user, so the world of an environment depends neither on the
actions (common random numbers) nor on the environments stepped beside it.
"""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import exp2, inner, normal_pair, uniforms
from rlaas.scenarios.network5g.engine.arrays import POWER, Scratch, State, WorldTables
from rlaas.scenarios.network5g.engine.constants import GAUSS_MARKOV, TRACE, WAYPOINT
from rlaas.scenarios.network5g.engine.events import (
    END,
    KIND,
    LARGEST_FACTOR,
    OUTAGE,
    RADIUS,
    REPEAT,
    START,
    SURGE,
    UNIT,
    VALUE,
    X,
    Y,
)
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = ["arrive", "happen", "hour_of_day", "move", "place"]

# Streams of random numbers.
TRAFFIC, LEGS, PLACES, INDOORS, EPISODE = 1, 2, 3, 4, 5

_TWO_PI = np.float32(2.0 * math.pi)
_STEP = np.float32(STEP_S)
_ONE = np.float32(1.0)
_MOST = 1000
_INVERSE = 1.0 / np.maximum(np.arange(_MOST + 1), 1)
"""1 / n: divisions one after another are most of the time of counting."""


@inner
def _leg(user, machine, x, y, u, v, w, c, t, first):  # type: ignore[no-untyped-def]
    """A fresh leg from three uniform numbers: direction or target, length, speed.

    At a random moment a user is likelier to be on a slow leg, which lasts longer: density 1 / v on the ``first`` leg
    (Navidi and Camp 2004). With uniform speeds from the start the mean speed would fall for minutes.
    """
    if machine or user.indoor:
        # Machines and people indoors stay where they are.
        user.vx = np.float32(0.0)
        user.vy = np.float32(0.0)
        user.left = np.float32(1e9)
        return
    if c.mobility == TRACE:
        chosen = min(int(u * len(t.trace_first)), len(t.trace_first) - 1)
        start = int(v * t.trace_length[chosen] * 0.5)
        user.trace = chosen
        user.left = np.float32(start)
        row = t.trace_first[chosen] + start
        user.mean_x = x - t.trace_xy[row, 0]
        user.mean_y = y - t.trace_xy[row, 1]
        return
    speed = np.float32(c.slow + (c.fast - c.slow) * w)
    if first and c.mobility == WAYPOINT:
        speed = np.float32(np.float32(c.slow) * exp2(np.float32(w * np.float32(math.log2(c.fast / c.slow)))))
    if c.mobility == GAUSS_MARKOV:
        user.mean_x = speed * math.cos(_TWO_PI * u)
        user.mean_y = speed * math.sin(_TWO_PI * u)
        user.vx = user.mean_x
        user.vy = user.mean_y
        return
    if c.wraps:
        # A uniform direction and distance keep users uniformly spread on the wrapped plane.
        angle, length = _TWO_PI * u, np.float32(c.leg_low + (c.leg_high - c.leg_low) * v)
        dx, dy = math.cos(angle), math.sin(angle)
    else:
        radius, angle = np.float32(c.radius_m) * math.sqrt(u), _TWO_PI * v
        dx, dy = radius * math.cos(angle) - x, radius * math.sin(angle) - y
        length = np.float32(math.sqrt(dx * dx + dy * dy))
        dx, dy = dx / max(length, np.float32(1e-6)), dy / max(length, np.float32(1e-6))
    user.vx = speed * dx
    user.vy = speed * dy
    user.left = length


@inner
def place(e, c, t: WorldTables, s: State, realisations: int) -> None:  # type: ignore[no-untyped-def]
    """Begin an episode: the hour, which of the shadowing maps, every user's place and first leg."""
    here = s.environments[e]
    key, clock = here.key, here.clock
    u, v, _, _ = uniforms(key, clock, EPISODE, 0)
    chosen = 0
    while chosen < len(t.hours) - 1 and u >= t.hour_cdf[chosen]:
        chosen += 1
    here.hour = t.hours[chosen]
    here.realisation = min(int(v * realisations), realisations - 1)
    for i in range(s.users.shape[1]):
        user = s.users[e, i]
        a, b, _, h = uniforms(key, clock, PLACES, i)
        user.indoor = 1 if h < c.indoor else 0
        user.loss_db = np.float32(0.0)
        if user.indoor:
            # TR 38.901 section 7.4.3: the depth is the smaller of two uniform numbers.
            d, f, p, q = uniforms(key, clock, INDOORS, i)
            spread, _ = normal_pair(p, q)
            loss = c.penetration_db + c.penetration_per_m * c.depth_m * min(d, f) + c.penetration_sigma_db * spread
            user.loss_db = np.float32(max(loss, 0.0))
        if c.wraps:
            fx, fy = np.float32(a * c.nf), np.float32(b * c.ng)
            x = np.float32(c.origin_x + fx * c.basis_xx + fy * c.basis_xy)
            y = np.float32(c.origin_y + fx * c.basis_yx + fy * c.basis_yy)
        else:
            radius, angle = np.float32(c.radius_m) * math.sqrt(a), _TWO_PI * b
            x, y = radius * math.cos(angle), radius * math.sin(angle)
        user.x = x
        user.y = y
        a, b, h, _ = uniforms(key, clock, LEGS, i)
        _leg(user, i >= c.embb + c.urllc, x, y, a, b, h, c, t, True)


@inner
def _inside(x, y, c):  # type: ignore[no-untyped-def]
    """The same place within the first period, or mirrored into the disc; and whether it was mirrored."""
    if c.wraps:
        f = (c.inverse_xx * (x - c.origin_x) + c.inverse_xy * (y - c.origin_y)) / c.nf
        g = (c.inverse_yx * (x - c.origin_x) + c.inverse_yy * (y - c.origin_y)) / c.ng
        nf, ng = np.floor(f) * c.nf, np.floor(g) * c.ng
        if nf != 0.0 or ng != 0.0:
            x = np.float32(x - nf * c.basis_xx - ng * c.basis_xy)
            y = np.float32(y - nf * c.basis_yx - ng * c.basis_yy)
        return x, y, False
    distance = math.sqrt(x * x + y * y)
    if distance <= c.radius_m:
        return x, y, False
    # Traces may run far outside: fold the distance back and forth between the centre and the rim.
    folded = distance % (2.0 * c.radius_m)
    if folded > c.radius_m:
        folded = 2.0 * c.radius_m - folded
    return np.float32(x * folded / distance), np.float32(y * folded / distance), True


@inner
def move(e, c, t: WorldTables, s: State) -> None:  # type: ignore[no-untyped-def]
    """Move every user for one step."""
    here = s.environments[e]
    key, clock = here.key, here.clock
    for i in range(c.embb + c.urllc):
        user = s.users[e, i]
        if user.indoor:
            continue
        x, y = user.x, user.y
        if c.mobility == WAYPOINT:
            vx, vy = user.vx, user.vy
            stride, left = _STEP * math.sqrt(vx * vx + vy * vy), user.left
            share = np.float32(1.0) if stride < left else left / max(stride, np.float32(1e-9))
            x, y, _ = _inside(np.float32(x + share * _STEP * vx), np.float32(y + share * _STEP * vy), c)
            user.left = left - stride
            if left <= stride:
                # On arrival a user takes up its next leg; the rest of this stride is not walked.
                u, v, w, _ = uniforms(key, clock, LEGS, i)
                _leg(user, False, x, y, u, v, w, c, t, False)
        elif c.mobility == GAUSS_MARKOV:
            u, v, _, _ = uniforms(key, clock, LEGS, i)
            a, b = normal_pair(u, v)
            memory = np.float32(c.memory)
            mean_x, mean_y = user.mean_x, user.mean_y
            # The spread around the mean velocity is half the speed (Liang and Haas 1999 leave it free).
            spread = np.float32(0.5) * math.sqrt(mean_x * mean_x + mean_y * mean_y)
            noise = spread * math.sqrt(_ONE - memory * memory) * np.float32(0.7071068)
            user.vx = memory * user.vx + (_ONE - memory) * mean_x + noise * a
            user.vy = memory * user.vy + (_ONE - memory) * mean_y + noise * b
            x, y, mirrored = _inside(np.float32(x + _STEP * user.vx), np.float32(y + _STEP * user.vy), c)
            if mirrored:
                speed = math.sqrt(mean_x * mean_x + mean_y * mean_y)
                distance = max(math.sqrt(x * x + y * y), 1e-6)
                user.mean_x, user.mean_y = -speed * x / distance, -speed * y / distance
                user.vx, user.vy = user.mean_x, user.mean_y
        else:
            trace = user.trace
            row = int(user.left) + 1
            if row >= t.trace_length[trace]:
                u, v, w, _ = uniforms(key, clock, LEGS, i)
                _leg(user, False, x, y, u, v, w, c, t, False)
            else:
                user.left = np.float32(row)
                at = t.trace_first[trace] + row
                x, y, _ = _inside(
                    np.float32(t.trace_xy[at, 0] + user.mean_x),
                    np.float32(t.trace_xy[at, 1] + user.mean_y),
                    c,
                )
        user.x = x
        user.y = y


@inner
def hour_of_day(here, c):  # type: ignore[no-untyped-def]
    """The hour, 0 to 24, in this step of an environment."""
    hour = here.hour + c.hours_per_step * here.step
    return hour - 24.0 * np.floor(hour / 24.0)


@inner
def _running(row, clock, t):  # type: ignore[no-untyped-def]
    """Whether a scheduled event is on."""
    # The first tick of a stream is its reset.
    now = clock - 1
    if t.events[row, REPEAT] > 0:
        now = now % int(t.events[row, REPEAT])
    return t.events[row, START] <= now < t.events[row, END]


@inner
def happen(e, k, c, t: WorldTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """What the schedule does to cells in this step: outages and changed hardware."""
    clock = s.environments[e].clock
    for j in range(c.cells):
        cell = w.cells[k, j]
        cell.failed = 0
        cell.model = t.power_model[j]
        w.pads[k, POWER, j] = t.power_dbm[j]
    for row in range(t.events.shape[0]):
        kind = int(t.events[row, KIND])
        if kind >= SURGE or not _running(row, clock, t):
            continue
        j = int(t.events[row, UNIT])
        if kind == OUTAGE:
            w.cells[k, j].failed = 1
        else:
            w.cells[k, j].model = int(t.events[row, X])
            w.pads[k, POWER, j] += np.float32(t.events[row, VALUE])


@inner
def _crowd(user, clock, c, t):  # type: ignore[no-untyped-def]
    """Factor on a user's demand from events near it."""
    factor = 1.0
    for row in range(t.events.shape[0]):
        if int(t.events[row, KIND]) < SURGE or not _running(row, clock, t):
            continue
        radius = t.events[row, RADIUS]
        if radius > 0.0:
            dx, dy = user.x - t.events[row, X], user.y - t.events[row, Y]
            nearest = dx * dx + dy * dy
            if c.wraps:
                for a in range(-1, 2):
                    for b in range(-1, 2):
                        px = dx + a * c.nf * c.basis_xx + b * c.ng * c.basis_xy
                        py = dy + a * c.nf * c.basis_yx + b * c.ng * c.basis_yy
                        nearest = min(nearest, px * px + py * py)
            if nearest > radius * radius:
                continue
        factor *= t.events[row, VALUE]
    return min(factor, LARGEST_FACTOR)


@inner
def _poisson(mean, start, u):  # type: ignore[no-untyped-def]
    """The Poisson count at which the distribution function passes ``u``; ``start`` is exp(-mean)."""
    count, probability, total = 0, start, start
    while u >= total and count < _MOST:
        count += 1
        probability *= mean * _INVERSE[count]
        total += probability
        if probability < 1e-12 and count > mean:
            break
    return count


@inner
def arrive(e, k, c, t: WorldTables, s: State, w: Scratch) -> None:  # type: ignore[no-untyped-def]
    """Files and packets of this step: Poisson for eMBB and mMTC, the expected number for URLLC.

    URLLC queues are analytic, so its packets are counted by their expectation: the same mean without the noise.
    """
    here = s.environments[e]
    key, clock = here.key, here.clock
    hour = hour_of_day(here, c)
    whole = int(hour)
    demand = t.demand[whole] + (hour - whole) * (t.demand[whole + 1] - t.demand[whole])
    machines = demand
    if c.mmtc_burst_s > 0.0:
        # Beta(3, 4) over the period (TR 37.868): density 60 x^2 (1 - x)^3, of mean 1.
        x = ((here.step * STEP_S) % c.mmtc_burst_s) / c.mmtc_burst_s
        machines = demand * 60.0 * x * x * (1.0 - x) ** 3
    crowded = False
    for row in range(t.events.shape[0]):
        crowded = crowded or (int(t.events[row, KIND]) >= SURGE and _running(row, clock, t))
    mean_embb, mean_mmtc = c.rate_embb * demand * STEP_S, c.rate_mmtc * machines * STEP_S
    start_embb, start_mmtc = math.exp(-mean_embb), math.exp(-mean_mmtc)
    for i in range(c.embb + c.urllc + c.mmtc):
        work = w.users[k, i]
        factor = _crowd(s.users[e, i], clock, c, t) if crowded else 1.0
        if i < c.embb:
            work.arrival_rate = c.rate_embb * demand * factor
            if c.embb_constant:
                work.demand = work.arrival_rate * STEP_S
            else:
                u, _, _, _ = uniforms(key, clock, TRAFFIC, i)
                start = start_embb if factor == 1.0 else math.exp(-mean_embb * factor)
                work.demand = _poisson(mean_embb * factor, start, u)
        elif i < c.embb + c.urllc:
            work.arrival_rate = c.rate_urllc * demand * factor
            work.demand = work.arrival_rate * STEP_S
        else:
            work.arrival_rate = c.rate_mmtc * machines * factor
            u, _, _, _ = uniforms(key, clock, TRAFFIC, i)
            start = start_mmtc if factor == 1.0 else math.exp(-mean_mmtc * factor)
            work.demand = _poisson(mean_mmtc * factor, start, u)
