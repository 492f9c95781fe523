"""What is made of an interval: the additive parts that are counted and the features that cells see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g import radio
from rlaas.scenarios.network5g.control import Settings
from rlaas.scenarios.network5g.energy import sleeping_share
from rlaas.scenarios.network5g.handover import Events
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.queues import by_cell
from rlaas.scenarios.network5g.reference import STEP_S, Reference, Regime
from rlaas.scenarios.network5g.slices import Served, UrllcService

__all__ = ["Accounts", "Arrivals", "Interval", "slices_of"]

Float64Array = NDArray[np.float64]
Arrivals = tuple[Float64Array, ...]
"""One array [envs, users of the slice] per slice."""

WEAK_CQI = 4


def slices_of(users: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """Where eMBB, URLLC and mMTC users stand in an array of all users."""
    embb, urllc, mmtc = users
    return slice(0, embb), slice(embb, embb + urllc), slice(embb + urllc, embb + urllc + mmtc)


@dataclass(frozen=True, slots=True)
class Interval:
    """What one interval brought; [envs, users of the slice] or [envs, cells].

    Attributes:
        events: handovers and failures, [envs, users].
        cell, flat: serving cell, and ``env * cells + cell`` [envs, users].
        sinr_db: [envs, users].
        efficiency: bit/s/Hz by slice.
        interference: interference over noise [envs, users], linear.
        arrivals: files or packets by slice.
        embb, mmtc, urllc: what each slice did.
        backlog: Mbit left waiting, eMBB and mMTC.
        delays: delay sums in packet-ms by slice [envs, users of the slice].
        packets: offered packets by slice [envs, users of the slice].
        satisfied, active: user-seconds by slice [envs, users of the slice].
        slice_use: share of each slice's own blocks in use [envs, cells, 3].
        use: share of all blocks in use [envs, cells].
        idle: share of the time without any transmission [envs, cells].
        off: cells asleep [envs, cells].
    """

    events: Events
    cell: NDArray[np.int64]
    flat: NDArray[np.int64]
    sinr_db: NDArray[np.float32]
    efficiency: tuple[Float64Array, Float64Array, Float64Array]
    interference: NDArray[np.float32]
    arrivals: Arrivals
    embb: Served
    mmtc: Served
    urllc: UrllcService
    backlog: tuple[Float64Array, Float64Array]
    delays: Arrivals
    packets: Arrivals
    satisfied: Arrivals
    active: Arrivals
    slice_use: Float64Array
    use: Float64Array
    idle: Float64Array
    off: NDArray[np.bool_]


class Accounts:
    """Adds users up by serving cell.

    Args:
        cells: number of cells of one network.
        users: users per slice of one network.
        regime: the frozen default, which scales features.
        ref: constants.
        envs: number of networks.
    """

    def __init__(self, cells: int, users: tuple[int, int, int], regime: Regime, ref: Reference, envs: int) -> None:
        self._size = (envs, cells)
        self._users, self._regime, self._ref = users, regime, ref
        self._slices = slices_of(users)
        self._lowest, self._weak = radio.cqi_thresholds_db(radio.CQI_64QAM)[[0, WEAK_CQI - 1]]

    def _sum(self, values: Sequence[Float64Array], interval: Interval) -> list[Float64Array]:
        """By-cell sums [envs, cells] of per-slice values."""
        return [by_cell(v, interval.flat[:, s], *self._size) for v, s in zip(values, self._slices, strict=True)]

    def parts(
        self, interval: Interval, energy_j: Float64Array, settings: Settings
    ) -> tuple[Float64Array, Float64Array]:
        """Numerators and denominators [envs, cells, n_parts] of an interval, attributed to the serving cell."""
        urllc_in = interval.arrivals[1]
        served = self._sum(
            [interval.embb.served, np.where(interval.urllc.delivered, urllc_in, 0.0), interval.mmtc.served], interval
        )
        offered = self._sum(interval.arrivals, interval)
        satisfied, active = self._sum(interval.satisfied, interval), self._sum(interval.active, interval)
        events = interval.events
        per_user = [
            by_cell(values, interval.flat, *self._size)
            for values in (
                STEP_S * (interval.sinr_db < self._lowest),
                events.handover,
                events.ping_pong,
                events.failure,
                np.full(interval.cell.shape, STEP_S),
            )
        ]
        asleep = np.where(settings.off, 1.0, interval.idle * sleeping_share(settings.sleep, self._ref.energy))
        one, seconds = np.ones(self._size), np.full(self._size, STEP_S)
        delays, packets = self._sum(interval.delays, interval), self._sum(interval.packets, interval)
        embb_active = by_cell(interval.embb.active, interval.flat[:, self._slices[0]], *self._size)
        numerators = {
            **dict(zip(PART_NAMES[:3], delays, strict=True)),
            "throughput": served[0],
            "energy": energy_j,
            "satisfaction": satisfied[0] + satisfied[1] + satisfied[2],
            "served": served[0] + served[1] + served[2],
            "rb_use": interval.use,
            "asleep": asleep,
            "outage": per_user[0],
            "handovers": per_user[1],
            "ping_pongs": per_user[2],
            "link_failures": per_user[3],
        }
        denominators = {
            **dict(zip(PART_NAMES[:3], packets, strict=True)),
            "throughput": embb_active,
            "energy": seconds,
            "satisfaction": active[0] + active[1] + active[2],
            "served": offered[0] + offered[1] + offered[2],
            "rb_use": one,
            "asleep": one,
            **dict.fromkeys(PART_NAMES[-4:], per_user[4]),
        }
        return (
            np.stack([numerators[name] for name in PART_NAMES], axis=-1),
            np.stack([denominators[name] for name in PART_NAMES], axis=-1),
        )

    def final(self, missing: Arrivals, interval: Interval) -> Float64Array:
        """Numerators [envs, cells, n_parts] of delays still ``missing`` (packet-ms by slice)."""
        extra = np.zeros((*self._size, len(PART_NAMES)))
        extra[..., :3] = np.stack(self._sum(missing, interval), axis=-1)
        return extra

    def features(self, interval: Interval) -> dict[str, Float64Array]:
        """What a cell sees of itself [envs, cells], by feature name; scaled, not yet clipped."""
        flat, waiting = interval.flat, interval.backlog
        users = self._sum([np.ones((self._size[0], n)) for n in self._users], interval)
        total = users[0] + users[1] + users[2]
        offered, delays = self._sum(interval.packets, interval), self._sum(interval.delays, interval)
        efficiency = self._sum(interval.efficiency, interval)
        satisfied, active = self._sum(interval.satisfied, interval), self._sum(interval.active, interval)
        capacity = self._ref.radio.usable_mhz * 2.0
        backlog = by_cell(waiting[0], flat[:, self._slices[0]], *self._size) / (0.25 * capacity)
        packets_mbit = 10 * self._ref.traffic.packet_bits[2] / 1e6
        backlog_mmtc = by_cell(waiting[1], flat[:, self._slices[2]], *self._size) / packets_mbit
        weak = by_cell(interval.sinr_db < self._weak, flat, *self._size)
        noise_rise = by_cell(np.log10(1.0 + interval.interference.astype(np.float64)), flat, *self._size)
        busy_users = by_cell(interval.embb.active > 0, flat[:, self._slices[0]], *self._size)
        judged, met = active[0] + active[1] + active[2], satisfied[0] + satisfied[1] + satisfied[2]
        regime, mean_users = self._regime, [n / self._size[1] for n in self._users]
        own: dict[str, Float64Array] = {
            "use_total": interval.use,
            "backlog_embb": backlog / (1.0 + backlog),
            "backlog_mmtc": backlog_mmtc / (1.0 + backlog_mmtc),
            "active_embb": _share(busy_users, users[0]),
            "weak_users": _share(weak, total),
            "interference": _share(10.0 * noise_rise, total) / 50.0,
            "satisfaction": np.where(judged > 0, _share(met, judged), 1.0),
            "own_off": interval.off.astype(np.float64),
        }
        best = (radio.CQI_64QAM[-1], radio.CQI_LOW_RATE[-1], radio.CQI_64QAM[-1])
        for i, name in enumerate(("embb", "urllc", "mmtc")):
            usual = regime.packets[i]
            ratio = delays[i] / (usual * regime.latency_ms[i])
            own[f"use_{name}"] = interval.slice_use[..., i]
            own[f"offered_{name}"] = offered[i] / (3.0 * usual)
            own[f"users_{name}"] = users[i] / (3.0 * max(mean_users[i], 1e-9))
            own[f"efficiency_{name}"] = _share(efficiency[i], users[i]) / best[i]
            own[f"latency_{name}"] = ratio / (1.0 + ratio)
        return own


def _share(part: Float64Array, whole: Float64Array) -> Float64Array:
    """Part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
