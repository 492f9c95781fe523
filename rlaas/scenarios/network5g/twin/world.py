"""Places, movement and demand of all networks at once; see :mod:`rlaas.scenarios.network5g.engine.world`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from rlaas.scenarios.network5g.engine.constants import GAUSS_MARKOV, TRACE, WAYPOINT
from rlaas.scenarios.network5g.engine.events import LARGEST_FACTOR
from rlaas.scenarios.network5g.engine.world import EPISODE, INDOORS, LEGS, PLACES, TRAFFIC
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.twin.random import normal_pair, uniforms
from rlaas.scenarios.network5g.twin.state import TwinState, Users
from rlaas.scenarios.network5g.twin.tables import Surge, Tables

__all__ = ["Demand", "World", "poisson", "poisson_terms"]

_TWO_PI = 2.0 * math.pi
_STAYS_M = 1e9
BETA_PEAK = 60.0 * 0.4**2 * 0.6**3
"""Highest density of Beta(3, 4)."""


class Demand(NamedTuple):
    """What users ask for in a step.

    Attributes:
        embb_rate, urllc_rate, mmtc_rate: arrivals per s [E, 1], or [E, users] where a crowd makes users differ.
        embb, urllc, mmtc: arrivals [E, users].
    """

    embb_rate: Tensor
    urllc_rate: Tensor
    mmtc_rate: Tensor
    embb: Tensor
    urllc: Tensor
    mmtc: Tensor


class _Leg(NamedTuple):
    """Fields of a user that a fresh leg sets; those that the mobility model does not use are missing."""

    vx: Tensor | None = None
    vy: Tensor | None = None
    left: Tensor | None = None
    mean_x: Tensor | None = None
    mean_y: Tensor | None = None
    trace: Tensor | None = None


@lru_cache
def poisson_terms(mean: float) -> int:
    """How many terms of a Poisson distribution can be told from its end by a uniform number of 24 bits."""
    count, probability = 0, math.exp(-mean)
    while count < 1000:
        count += 1
        probability *= mean / count
        if probability < 1e-12 and count > mean:
            break
    return count


class World:
    """The part of the networks that no action changes."""

    def __init__(self, tables: Tables) -> None:
        self._t = t = tables
        c = t.c

        def counters(*parts: tuple[int, range]) -> tuple[Tensor, Tensor]:
            streams = [stream for stream, indices in parts for _ in indices]
            indices = [index for _, indices in parts for index in indices]
            return torch.tensor(streams, device=t.device), torch.tensor(indices, device=t.device)

        everybody, movers = range(t.users), range(t.movers)
        self._beginning = counters((EPISODE, range(1)), (PLACES, everybody), (INDOORS, everybody), (LEGS, everybody))
        # Legs and traffic of a step come from one call: ten rounds are a hundred small kernels.
        self._fluid = [*range(c.embb), *range(t.movers, t.users)]
        streams, indices = counters((LEGS, movers), (TRAFFIC, everybody))
        drawn = torch.tensor([*movers, *(t.movers + i for i in self._fluid)], device=t.device)
        self._step = streams[drawn], indices[drawn]

    def place(self, s: TwinState) -> None:
        """Begin an episode: the hour, which of the shadowing maps, every user's place and first leg."""
        t, c, users = self._t, self._t.c, self._t.users
        drawn = uniforms(s.key, s.clock, *self._beginning)
        blocks = (word.tensor_split([1, 1 + users, 1 + 2 * users], dim=1) for word in drawn)
        first, places, indoors, legs = zip(*blocks, strict=True)
        chosen = torch.searchsorted(t.hour_cdf, first[0][:, 0].to(torch.float64), right=True)
        s.hour = t.hours[chosen.clamp(max=len(t.hours) - 1)]
        s.realisation = (first[1][:, 0] * t.realisations).to(torch.int64).clamp(max=t.realisations - 1)
        indoor = places[3] < c.indoor
        spread, _ = normal_pair(indoors[2], indoors[3])
        depth = c.depth_m * torch.minimum(indoors[0], indoors[1])
        loss = c.penetration_db + c.penetration_per_m * depth + c.penetration_sigma_db * spread
        if c.wraps:
            fx, fy = (places[0] * c.nf).double(), (places[1] * c.ng).double()
            x = (c.origin_x + fx * c.basis_xx + fy * c.basis_xy).float()
            y = (c.origin_y + fx * c.basis_yx + fy * c.basis_yy).float()
        else:
            radius, angle = c.radius_m * torch.sqrt(places[0]), _TWO_PI * places[1]
            x, y = radius * torch.cos(angle), radius * torch.sin(angle)
        u = s.users
        u.indoor, u.loss_db = indoor, torch.where(indoor, loss.clamp(min=0.0), 0.0)
        u.x, u.y = x, y
        stays = indoor.clone()
        stays[:, t.movers :] = True
        self._set_out(u, ~stays, self._leg(x, y, legs[0], legs[1], legs[2], first=True), users)
        for values, still in ((u.vx, 0.0), (u.vy, 0.0), (u.left, _STAYS_M)):
            values.masked_fill_(stays, still)

    def _leg(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor, w: Tensor, *, first: bool = False) -> _Leg:
        """A fresh leg from three uniform numbers: direction or target, length, speed."""
        t, c = self._t, self._t.c
        if c.mobility == TRACE:
            count = len(t.trace_first)
            chosen = (u.double() * count).long().clamp(max=count - 1)
            start = (v.double() * t.trace_length[chosen] * 0.5).long()
            at = t.trace_xy[t.trace_first[chosen] + start]
            return _Leg(left=start.float(), mean_x=x - at[..., 0], mean_y=y - at[..., 1], trace=chosen)
        speed = c.slow + (c.fast - c.slow) * w
        if first and c.mobility == WAYPOINT:
            speed = c.slow * torch.exp2(w.double() * math.log2(c.fast / c.slow)).float()
        if c.mobility == GAUSS_MARKOV:
            vx, vy = speed * torch.cos(_TWO_PI * u), speed * torch.sin(_TWO_PI * u)
            return _Leg(vx=vx, vy=vy, mean_x=vx, mean_y=vy)
        if c.wraps:
            # A uniform direction and distance keep users uniformly spread on the wrapped plane.
            angle, length = _TWO_PI * u, c.leg_low + (c.leg_high - c.leg_low) * v
            dx, dy = torch.cos(angle), torch.sin(angle)
        else:
            radius, angle = c.radius_m * torch.sqrt(u), _TWO_PI * v
            dx, dy = radius * torch.cos(angle) - x, radius * torch.sin(angle) - y
            length = torch.sqrt(dx * dx + dy * dy)
            least = length.clamp(min=1e-6)
            dx, dy = dx / least, dy / least
        return _Leg(vx=speed * dx, vy=speed * dy, left=length)

    def _set_out(self, u: Users, who: Tensor, leg: _Leg, count: int) -> None:
        """Give the first ``count`` users a leg where ``who`` [E, count] says so."""
        for name, values in leg._asdict().items():
            if values is not None:
                old = getattr(u, name)[:, :count]
                old.copy_(torch.where(who, values, old))

    def _inside(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same place within the first period, or mirrored into the disc; and whether it was mirrored."""
        c = self._t.c
        x64, y64 = x.double(), y.double()
        if c.wraps:
            dx, dy = x64 - c.origin_x, y64 - c.origin_y
            f = torch.floor((c.inverse_xx * dx + c.inverse_xy * dy) / c.nf) * c.nf
            g = torch.floor((c.inverse_yx * dx + c.inverse_yy * dy) / c.ng) * c.ng
            x = (x64 - f * c.basis_xx - g * c.basis_xy).float()
            return x, (y64 - f * c.basis_yx - g * c.basis_yy).float(), None
        distance = torch.sqrt(x * x + y * y).double()
        # Traces may run far outside: fold the distance back and forth between the centre and the rim.
        folded = torch.remainder(distance, 2.0 * c.radius_m)
        folded = torch.where(folded > c.radius_m, 2.0 * c.radius_m - folded, folded)
        mirrored = distance > c.radius_m
        share = torch.where(mirrored, folded / distance.clamp(min=1e-30), 1.0)
        return (x64 * share).float(), (y64 * share).float(), mirrored

    def step(self, s: TwinState) -> Demand:
        """Move every user for one step and draw what they ask for there."""
        u, v, w, _ = uniforms(s.key, s.clock, *self._step)
        movers = self._t.movers
        self._move(s, u[:, :movers], v[:, :movers], w[:, :movers])
        return self._arrive(s, u[:, movers:])

    def _move(self, s: TwinState, u: Tensor, v: Tensor, w: Tensor) -> None:
        t, c, users, movers = self._t, self._t.c, s.users, self._t.movers
        x, y, vx, vy, left, mean_x, mean_y = (
            getattr(users, name)[:, :movers] for name in ("x", "y", "vx", "vy", "left", "mean_x", "mean_y")
        )
        walks = ~users.indoor[:, :movers]
        if c.mobility == WAYPOINT:
            stride = STEP_S * torch.sqrt(vx * vx + vy * vy)
            share = torch.where(stride < left, 1.0, left / stride.clamp(min=1e-9))
            new_x, new_y, _ = self._inside(x + share * STEP_S * vx, y + share * STEP_S * vy)
            # On arrival a user takes up its next leg; the rest of this stride is not walked.
            arrived = walks & (left <= stride)
            left.copy_(torch.where(walks, left - stride, left))
            self._set_out(users, arrived, self._leg(new_x, new_y, u, v, w), movers)
        elif c.mobility == GAUSS_MARKOV:
            a, b = normal_pair(u, v)
            speed = torch.sqrt(mean_x * mean_x + mean_y * mean_y)
            # The spread around the mean velocity is half the speed (Liang and Haas 1999 leave it free).
            noise = 0.5 * speed * (math.sqrt(1.0 - c.memory * c.memory) * math.sqrt(0.5))
            new_vx = c.memory * vx + (1.0 - c.memory) * mean_x + noise * a
            new_vy = c.memory * vy + (1.0 - c.memory) * mean_y + noise * b
            new_x, new_y, mirrored = self._inside(x + STEP_S * new_vx, y + STEP_S * new_vy)
            vx.copy_(torch.where(walks, new_vx, vx))
            vy.copy_(torch.where(walks, new_vy, vy))
            if mirrored is not None:
                distance = torch.sqrt(new_x * new_x + new_y * new_y).clamp(min=1e-6)
                back_x, back_y = -speed * new_x / distance, -speed * new_y / distance
                leg = _Leg(vx=back_x, vy=back_y, mean_x=back_x, mean_y=back_y)
                self._set_out(users, walks & mirrored, leg, movers)
        else:
            trace = users.trace[:, :movers]
            row = left.long() + 1
            ended = row >= t.trace_length[trace]
            at = t.trace_xy[(t.trace_first[trace] + row).clamp(max=len(t.trace_xy) - 1)]
            new_x, new_y, _ = self._inside(at[..., 0] + mean_x, at[..., 1] + mean_y)
            new_x, new_y = torch.where(ended, x, new_x), torch.where(ended, y, new_y)
            left.copy_(torch.where(walks & ~ended, row.float(), left))
            self._set_out(users, walks & ended, self._leg(x, y, u, v, w), movers)
        x.copy_(torch.where(walks, new_x, x))
        y.copy_(torch.where(walks, new_y, y))

    def hour(self, s: TwinState) -> Tensor:
        """The hour of the day in this step, 0 to 24 [E], float64."""
        return torch.remainder(s.hour + self._t.c.hours_per_step * s.step, 24.0)

    def _crowd(self, s: TwinState, surges: tuple[Surge, ...]) -> Tensor:
        """Factor on users' demand [E, U] from events near them."""
        c = self._t.c
        factor = torch.ones_like(s.users.x, dtype=self._t.dtype)
        for surge in surges:
            if surge.radius <= 0.0:
                factor = factor * surge.factor
                continue
            dx, dy = s.users.x.double() - surge.x, s.users.y.double() - surge.y
            nearest = dx * dx + dy * dy
            if c.wraps:
                for a, b in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                    px = dx + (a * c.nf * c.basis_xx + b * c.ng * c.basis_xy)
                    py = dy + (a * c.nf * c.basis_yx + b * c.ng * c.basis_yy)
                    nearest = torch.minimum(nearest, px * px + py * py)
            factor = torch.where(nearest > surge.radius**2, factor, factor * surge.factor)
        return factor.clamp(max=LARGEST_FACTOR)

    def _arrive(self, s: TwinState, u: Tensor) -> Demand:
        """Files and packets of this step: Poisson for eMBB and mMTC, the expected number for URLLC."""
        t, c = self._t, self._t.c
        hour = self.hour(s)
        whole = hour.long().clamp(max=23)
        low, high = t.demand[whole], t.demand[whole + 1]
        demand = (low + (hour - whole) * (high - low)).to(t.dtype)[:, None]
        surges = t.schedule.surges(s.clock)
        factor = self._crowd(s, surges) if surges else torch.ones_like(demand)
        parts = [factor[:, part] for part in t.slices] if surges else [factor] * 3
        burst, peak = 1.0, 1.0
        if c.mmtc_burst_s > 0.0:
            # Beta(3, 4) over the period (TR 37.868): density 60 x^2 (1 - x)^3, of mean 1.
            x = ((s.step * STEP_S) % c.mmtc_burst_s) / c.mmtc_burst_s
            burst, peak = 60.0 * x * x * (1.0 - x) ** 3, BETA_PEAK
        rates = (
            c.rate_embb * demand * parts[0],
            c.rate_urllc * demand * parts[1],
            c.rate_mmtc * burst * demand * parts[2],
        )
        most = STEP_S * t.most_demand * min(math.prod(max(surge.factor, 1.0) for surge in surges), LARGEST_FACTOR)
        if c.embb_constant:
            files = (rates[0] * STEP_S).expand(-1, c.embb)
        else:
            files = poisson(rates[0] * STEP_S, u[:, : c.embb], c.rate_embb * most).to(t.dtype)
        messages = poisson(rates[2] * STEP_S, u[:, c.embb :], c.rate_mmtc * peak * most).to(t.dtype)
        packets = (rates[1] * STEP_S).expand(-1, c.urllc)
        return Demand(*rates, files, packets, messages)


def poisson(mean: Tensor, u: Tensor, most: float) -> Tensor:
    """The Poisson counts [E, N] at which the distribution functions pass ``u`` [E, N].

    Args:
        mean: [E, 1] or [E, N], at most ``most``.
        u: uniform numbers.
        most: says how many terms are enough.
    """
    terms = poisson_terms(most)
    counts = torch.arange(1, terms + 1, device=u.device, dtype=torch.float64)
    mean = mean.double()
    # Means beyond 700 leave the range of float64: no probability, rather than 0 times infinity.
    growth = torch.cumprod(mean[..., None] / counts, dim=-1).clamp(max=1e300)
    start = torch.exp(-mean)[..., None]
    distribution = (start * torch.cat([torch.ones_like(start), growth], dim=-1)).cumsum(dim=-1)[..., :-1]
    if mean.shape[1] == 1:
        return torch.searchsorted(distribution[:, 0].contiguous(), u.double().contiguous(), right=True)
    return torch.searchsorted(distribution.contiguous(), u.double()[..., None].contiguous(), right=True)[..., 0]
