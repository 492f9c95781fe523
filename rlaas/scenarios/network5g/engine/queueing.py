"""Queues in closed form: processor sharing, M/G/1 waiting, and the lags that make delays exact.

Fluid slices (eMBB, mMTC) have a backlog per user that is served by weighted processor sharing. A packet's delay is the
time it spends in the buffer, so the sum of all delays is the integral of the backlog (Little), and a packet that
reaches the discard timer leaves with exactly the cap counted. URLLC never waits from step to step: its cap lies far
below the step, so delay and reliability are analytic.
"""

from __future__ import annotations

import math

import numpy as np

from rlaas.scenarios.compiled import exp2, inner, log2
from rlaas.scenarios.network5g.engine.arrays import BINS, WINDOW
from rlaas.scenarios.network5g.reference import STEP_S

__all__ = [
    "BINS_PER_LOG2",
    "LOAD_LIMIT",
    "advance",
    "clear_fluid",
    "delay_bin",
    "lags_of",
    "late_probability",
    "mg1_wait",
    "power",
    "record",
    "share_out",
    "waiting_to_cap",
]

LOAD_LIMIT = 0.98
"""Beyond it the M/G/1 wait stays at the limit's: the backlog that builds up is carried from step to step."""

BINS_PER_LOG2 = BINS / math.log2(1e6)
"""Bins of a delay histogram per doubling of the delay."""
_LOG2_E = math.log2(math.e)


@inner
def delay_bin(delay_s: float) -> int:
    """Bin of a delay: logarithmic from 0.1 ms to 100 s."""
    if delay_s <= 1e-4:
        return 0
    return min(int(math.log2(delay_s * 1e4) * BINS_PER_LOG2), BINS - 1)


@inner
def power(base, exponent):  # type: ignore[no-untyped-def]
    """base^exponent for a positive base."""
    return float(exp2(np.float32(np.float32(exponent) * log2(np.float32(base)))))


@inner
def _exp(x):  # type: ignore[no-untyped-def]
    return float(exp2(np.float32(x * _LOG2_E)))


@inner
def share_out(begin, end, finish, weight, pick, time):  # type: ignore[no-untyped-def]
    """Weighted processor sharing until the data is gone or the time is over, in closed form.

    At every instant the time is split over the users with data in proportion to their weights; whoever finishes leaves
    a larger share to the rest (generalised processor sharing in virtual time, Parekh and Gallager 1993): with
    ``v = backlog / (rate * weight)``, user k finishes at ``sum_j weight_j min(v_j, v_k)``.

    Args:
        begin, end: where in the arrays the users stand.
        finish: v of each user; on return the time at which it finished, or -fraction served where it did not.
        weight: positive weight of each user, permuted with the others.
        pick: any number that belongs to each user, permuted with the others.
        time: the time there is.

    Returns:
        Time spent.
    """
    for a in range(begin + 1, end):
        v, g, p = finish[a], weight[a], pick[a]
        b = a - 1
        while b >= begin and finish[b] > v:
            finish[b + 1], weight[b + 1], pick[b + 1] = finish[b], weight[b], pick[b]
            b -= 1
        finish[b + 1], weight[b + 1], pick[b + 1] = v, g, p
    open_weight = 0.0
    for a in range(begin, end):
        open_weight += weight[a]
    spent = 0.0
    for a in range(begin, end):
        v = finish[a]
        # Those behind have at least as much left: each adds its weight times v.
        ends = spent + v * open_weight
        if ends > time:
            level = (time - spent) / open_weight
            for b in range(a, end):
                finish[b] = -level / finish[b]
            return time
        finish[a] = ends
        spent += weight[a] * v
        open_weight = max(open_weight - weight[a], 0.0)
    return spent


@inner
def late_probability(slack, load, wait, pause, share):  # type: ignore[no-untyped-def]
    """P(waiting + pause > slack) for an M/G/1 queue behind a transmitter that sleeps part of each cycle.

    Waiting has ``P(W > t) = rho exp(-rho t / E[W])``; a packet that falls into the pause waits for its rest, uniform
    on ``[0, pause]``, as well.

    Args:
        slack: time left after the fixed parts of the delay; negative means surely late.
        load: rho < 1.
        wait: E[W].
        pause: length of the pause.
        share: share of packets that fall into it.
    """
    if slack < 0.0:
        return 1.0
    pace = load / wait if wait > 0.0 else 1e30
    tail = _exp(-min(pace * slack, 80.0))
    late = (1.0 - share) * load * tail
    # A pause too short to divide by is none.
    if share > 0.0 and pause > 1e-12:
        rest = _exp(-min(pace * max(slack - pause, 0.0), 80.0))
        # The integral of the tail over the rest of the pause; where the rest exceeds the slack it is 1.
        late += share * (max(pause - slack, 0.0) + load / max(pace, 1e-30) * (rest - tail)) / pause
    return min(late, 1.0)


@inner
def mg1_wait(load, square):  # type: ignore[no-untyped-def]
    """Mean wait of an M/G/1 queue, rate x E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine), rho at most the limit."""
    if load <= LOAD_LIMIT:
        return square / (2.0 * (1.0 - load))
    return LOAD_LIMIT * (square / load) / (2.0 * (1.0 - LOAD_LIMIT))


@inner
def clear_fluid(e, fluid, ring) -> None:  # type: ignore[no-untyped-def]
    """Empty the buffers of an environment."""
    for n in range(fluid.shape[1]):
        f = fluid[e, n]
        f.backlog = f.arrived = f.departed = f.served = f.active = f.late = 0.0
        for a in range(WINDOW + 1):
            f.served_ring[a] = 0.0
            f.active_ring[a] = 0.0
            f.late_ring[a] = 0.0
        for a in range(ring.shape[2]):
            ring[e, n, a] = 0.0


@inner
def lags_of(step, length, deadline, cap):  # type: ignore[no-untyped-def]
    """Where in a ring of arrivals this step, the deadline, the step before it and the discard age stand."""
    return step % length, (step - deadline) % length, (step - deadline - 1) % length, (step - cap) % length


@inner
def advance(f, ring, lags, at, came, went, active):  # type: ignore[no-untyped-def]
    """Book a step of one user: totals, lateness, discards. Returns what was discarded."""
    now, due, overdue, capped = lags
    f.arrived += came
    f.departed += went
    f.served += went
    f.active += active
    ring[now] = f.arrived
    f.late += max(ring[due] - max(ring[overdue], f.departed), 0.0)
    rest = max(f.backlog + came - went, 0.0)
    discarded = min(max(ring[capped] - f.departed, 0.0), rest)
    f.departed += discarded
    f.backlog = rest - discarded
    f.served_ring[at] = f.served
    f.active_ring[at] = f.active
    f.late_ring[at] = f.late
    return discarded


@inner
def record(counts, f, ring, step, went, extra_s, packet, cap):  # type: ignore[no-untyped-def]
    """Add the packets that a user got rid of in this step to a histogram, by their age."""
    length, upto = len(ring), f.departed
    begin = upto - went
    for age in range(cap + 1):
        newest, oldest = ring[(step - age) % length], ring[(step - age - 1) % length]
        inside = min(newest, upto) - max(oldest, begin)
        if inside > 0.0:
            counts[delay_bin(max(age - 0.5, 0.0) * STEP_S + extra_s)] += inside / packet
        if oldest <= begin:
            return


@inner
def waiting_to_cap(f, ring, step, cap):  # type: ignore[no-untyped-def]
    """Mbit-seconds missing until everything that still waits at a user has counted the cap."""
    length, missing = len(ring), 0.0
    for age in range(cap + 1):
        inside = ring[(step - age) % length] - max(f.departed, ring[(step - age - 1) % length])
        missing += max(inside, 0.0) * (cap - age) * STEP_S
    return missing
