"""The three slices: fluid queues for eMBB and mMTC, an analytic queue for URLLC, and who is satisfied.

Delays are exact for the fluid part: a packet's delay is the time it spends in the buffer, so the sum of all delays
is the integral of the backlog (Little), and a packet that reaches the cap is discarded with exactly the cap counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.queues import Ring, by_cell, drain, late_probability, mg1_wait
from rlaas.scenarios.network5g.reference import STEP_S, Energy, Traffic

__all__ = ["FluidSlice", "Served", "UrllcService", "urllc_service"]

Float64Array = NDArray[np.float64]
WINDOW_STEPS = round(1.0 / STEP_S)


@dataclass(frozen=True, slots=True)
class Served:
    """What one interval did for the users of a fluid slice, [envs, users] unless said otherwise.

    Attributes:
        served, dropped: Mbit.
        delay: packets in the buffer, integrated over the interval, in packet-seconds.
        active: seconds with a non-empty buffer.
        busy: seconds each cell transmitted for the slice [envs, cells].
    """

    served: Float64Array
    dropped: Float64Array
    delay: Float64Array
    active: Float64Array
    busy: Float64Array


class FluidSlice:
    """Buffers of one slice with first-in-first-out order per user, a discard timer and trailing one-second windows.

    Args:
        envs, users: sizes.
        packet_mbit: size of the packets whose delay counts.
        cap_s: age at which a packet is discarded.
        deadline_s: age from which a packet counts as late.
        batch: arrivals come together at the start of the interval (files) rather than spread over it.
    """

    def __init__(
        self, envs: int, users: int, *, packet_mbit: float, cap_s: float, deadline_s: float, batch: bool
    ) -> None:
        self.packet_mbit = packet_mbit
        self.batch = batch
        # What arrives at the start of an interval is one interval older at its end than what arrives during it.
        self._cap = round(cap_s / STEP_S) - int(batch)
        self._deadline = round(deadline_s / STEP_S) - int(batch)
        self.backlog = np.zeros((envs, users))
        self._totals = {name: np.zeros((envs, users)) for name in ("arrived", "departed", "served", "active", "late")}
        lengths = {
            "arrived": max(self._cap, self._deadline + WINDOW_STEPS) + 2,
            "served": WINDOW_STEPS + 1,
            "active": WINDOW_STEPS + 1,
            "late": WINDOW_STEPS + 1,
        }
        self._rings = {name: Ring(length, envs, users) for name, length in lengths.items()}

    def clear(self) -> None:
        """Empty buffers, forget the past."""
        self.backlog[...] = 0.0
        for total in self._totals.values():
            total[...] = 0.0
        for ring in self._rings.values():
            ring.clear()

    def get_state(self) -> dict[str, Any]:
        """Copies of all arrays."""
        return {
            "backlog": self.backlog.copy(),
            **{f"total_{k}": v.copy() for k, v in self._totals.items()},
            **{f"ring_{k}": v.data.copy() for k, v in self._rings.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.backlog[...] = state["backlog"]
        for name, total in self._totals.items():
            total[...] = state[f"total_{name}"]
        for name, ring in self._rings.items():
            ring.data[...] = state[f"ring_{name}"]

    def step(
        self,
        step: int,
        arrivals: Float64Array,
        rate: Float64Array,
        weight: Float64Array,
        cell: NDArray[np.int64],
        on: NDArray[np.bool_],
    ) -> Served:
        """Serve one interval.

        Args:
            step: index of the interval since the reset.
            arrivals: Mbit [envs, users].
            rate: Mbit/s with the whole slice [envs, users].
            weight: share weight [envs, users].
            cell: serving cell [envs, users].
            on: cells that transmit [envs, cells].
        """
        before = self.backlog
        backlog = before + arrivals
        served, finished, busy = drain(backlog, rate, weight, cell, np.where(on, STEP_S, 0.0))
        rest = backlog - served
        done = rest <= 0
        elapsed = np.where(done, np.minimum(finished, STEP_S), STEP_S)
        start = backlog if self.batch else before
        delay = np.where(done, 0.5 * start * elapsed, 0.5 * (start + rest) * STEP_S) / self.packet_mbit

        totals, rings = self._totals, self._rings
        totals["arrived"] += arrivals
        totals["departed"] += served
        totals["served"] += served
        active = np.where(backlog > 0, elapsed, 0.0)
        totals["active"] += active
        rings["arrived"].write(step, totals["arrived"])
        turned = rings["arrived"].lag(step, self._deadline)
        already = np.maximum(rings["arrived"].lag(step, self._deadline + 1), totals["departed"])
        totals["late"] += np.maximum(turned - already, 0.0)
        dropped = np.minimum(np.maximum(rings["arrived"].lag(step, self._cap) - totals["departed"], 0.0), rest)
        totals["departed"] += dropped
        self.backlog = rest - dropped
        for name in ("served", "active", "late"):
            rings[name].write(step, totals[name])
        return Served(served, dropped, delay, active, busy)

    def waiting_to_cap(self, step: int) -> Float64Array:
        """Packet-seconds [envs, users] missing until every packet still in the buffer has counted the cap."""
        ring, departed = self._rings["arrived"], self._totals["departed"]
        missing = np.zeros_like(self.backlog)
        for age in range(self._cap + 1):
            inside = np.maximum(ring.lag(step, age) - np.maximum(departed, ring.lag(step, age + 1)), 0.0)
            missing += inside * (self._cap - age) * STEP_S
        return missing / self.packet_mbit

    def window(self, step: int, name: str) -> Float64Array:
        """Growth over the trailing second of ``served`` or ``late`` in Mbit or ``active`` in s, [envs, users]."""
        return np.asarray(self._totals[name] - self._rings[name].lag(step, WINDOW_STEPS))

    def turned(self, step: int) -> Float64Array:
        """Mbit that reached the deadline's age within the trailing second, delivered or not [envs, users]."""
        ring = self._rings["arrived"]
        return ring.lag(step, self._deadline) - ring.lag(step, self._deadline + WINDOW_STEPS)


@dataclass(frozen=True, slots=True)
class UrllcService:
    """URLLC in one interval.

    Attributes:
        delay_s: mean delay of a packet of each user, the cap where it cannot be served [envs, users].
        late: P(delay > budget) of each user [envs, users].
        delivered: users whose packets get through [envs, users].
        busy: share of the interval each cell transmits for the slice [envs, cells].
    """

    delay_s: Float64Array
    late: Float64Array
    delivered: NDArray[np.bool_]
    busy: Float64Array


def urllc_service(
    packet_rate: Float64Array,
    rate: Float64Array,
    cell: NDArray[np.int64],
    flat_cell: NDArray[np.int64],
    sleep: Float64Array,
    others_idle: Float64Array,
    off: NDArray[np.bool_],
    traffic: Traffic,
    energy: Energy,
) -> UrllcService:
    """Delay and reliability of URLLC as an M/G/1 queue on mini-slots, single shot.

    D = processing + mini-slot alignment + transmission + wait + rest of a sleeping transmitter's pause. The cap of ten
    budgets is 10 ms, far below the interval, so nothing is carried over: a saturated cell counts the cap.

    Args:
        packet_rate: packets/s of each user [envs, 1].
        rate: Mbit/s with the whole slice [envs, users], 0 in outage.
        cell, flat_cell: serving cell, and ``env * cells + cell`` [envs, users].
        sleep: share of each idle cycle that the transmitter sleeps [envs, cells].
        others_idle: share of the interval without transmission of another slice [envs, cells].
        off: cells off for the whole interval [envs, cells].
        traffic, energy: constants.
    """
    envs, cells = sleep.shape
    reached = (rate > 0) & ~np.take_along_axis(off, cell, axis=1)
    service = np.divide(traffic.bits[1] / 1e6, rate, out=np.zeros_like(rate), where=reached)
    offered = np.where(reached, packet_rate, 0.0)
    packets = by_cell(offered, flat_cell, envs, cells)
    work = by_cell(offered * service, flat_cell, envs, cells)
    square = by_cell(offered * service * service, flat_cell, envs, cells)
    load = np.asarray(work)
    per_packet = np.maximum(packets, 1e-12)
    wait = mg1_wait(load, work / per_packet, square / per_packet)
    pause = sleep * (energy.cycle_ms / 1e3)
    met = sleep * others_idle * np.maximum(1.0 - load, 0.0)

    def of(values: Float64Array) -> Float64Array:
        return np.take_along_axis(values, cell, axis=1)

    delivered = reached & (of(load) < 1.0)
    cap = traffic.cap_budgets * traffic.budgets_s[1]
    processing, minislot = traffic.urllc_processing_ms / 1e3, traffic.minislot_ms / 1e3
    mean = processing + 0.5 * minislot + service + of(wait + 0.5 * met * pause)
    slack = traffic.budgets_s[1] - processing - minislot - service
    late = late_probability(slack, of(np.minimum(load, 0.98)), of(wait), of(pause), of(met))
    return UrllcService(
        delay_s=np.where(delivered, np.minimum(mean, cap), cap),
        late=np.where(delivered, late, 1.0),
        delivered=delivered,
        busy=np.minimum(work, 1.0),
    )
