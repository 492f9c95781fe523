"""One decision interval of all networks: powers to SINR to rates to queues, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g import radio
from rlaas.scenarios.network5g.control import Settings
from rlaas.scenarios.network5g.energy import sleeping_share
from rlaas.scenarios.network5g.handover import Attachment, Events
from rlaas.scenarios.network5g.layout import Layout
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.queues import by_cell, mg1_wait
from rlaas.scenarios.network5g.reference import STEP_S, Reference, Regime
from rlaas.scenarios.network5g.slices import FluidSlice, Served, UrllcService, urllc_service
from rlaas.scenarios.network5g.world import World

__all__ = ["Interval", "Physics"]

Float64Array = NDArray[np.float64]
Arrivals = tuple[Float64Array, ...]

MBIT = 1e6
WEAK_CQI = 4


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
        delays: delay sums in packet-ms by slice [envs, users of the slice].
        packets: offered packets by slice [envs, users of the slice].
        satisfied, active: user-seconds by slice [envs, users of the slice].
        slice_use: share of each slice's own blocks in use [envs, cells, 3].
        use: share of all blocks in use [envs, cells].
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
    delays: Arrivals
    packets: Arrivals
    satisfied: Arrivals
    active: Arrivals
    slice_use: Float64Array
    use: Float64Array
    off: NDArray[np.bool_]


class Physics:
    """Radio link, scheduler and queues of ``envs`` networks.

    Args:
        cells: the layout.
        users: users per slice of one network.
        regime: the frozen default, for scaled features.
        ref: constants.
        envs: number of networks.
    """

    def __init__(self, cells: Layout, users: tuple[int, int, int], regime: Regime, ref: Reference, envs: int) -> None:
        self._layout, self._users, self._regime, self._ref, self._envs = cells, users, regime, ref, envs
        embb, urllc, _ = users
        self._slices = (slice(0, embb), slice(embb, embb + urllc), slice(embb + urllc, sum(users)))
        t = ref.traffic
        caps = [t.cap_budgets * budget for budget in t.budgets_s]
        self.embb = FluidSlice(
            envs, users[0], packet_mbit=t.packet_bits[0] / MBIT, cap_s=caps[0], deadline_s=t.budgets_s[0], batch=True
        )
        self.mmtc = FluidSlice(
            envs,
            users[2],
            packet_mbit=t.packet_bits[2] / MBIT,
            cap_s=caps[2],
            deadline_s=ref.satisfaction.mmtc_deadline_s,
            batch=False,
        )
        self._late = _Trailing(envs, users[1])
        self._use = np.zeros((envs, cells.cells))
        self._thresholds = radio.cqi_thresholds_db(radio.CQI_64QAM)
        self._low_thresholds = radio.cqi_thresholds_db(
            radio.CQI_LOW_RATE, shannon_share=ref.radio.urllc_efficiency_share
        )

    def clear(self) -> None:
        """Empty every queue."""
        self.embb.clear()
        self.mmtc.clear()
        self._late.clear()
        self._use = np.zeros_like(self._use)

    def get_state(self) -> dict[str, Any]:
        """Copies of all arrays."""
        return {
            "embb": self.embb.get_state(),
            "mmtc": self.mmtc.get_state(),
            "late": self._late.data.copy(),
            "use": self._use.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.embb.set_state(state["embb"])
        self.mmtc.set_state(state["mmtc"])
        self._late.data[...] = state["late"]
        self._use = state["use"].copy()

    def received_dbm(self, world: World, settings: Settings) -> NDArray[np.float32]:
        """Received power of every cell at full use [envs, users, cells]."""
        r = self._ref.radio
        gain = radio.array_gain_db(
            world.sine_below, settings.tilt_deg[:, None, :], elements=r.array_elements, floor_db=r.array_floor_db
        )
        power = np.float32(r.power_dbm) + settings.power_db
        return np.asarray(power[:, None, :] + world.link_db + gain, dtype=np.float32)

    def look(self, world: World, nothing: Arrivals, attachment: Attachment, settings: Settings) -> Interval:
        """An interval without arrivals, for the first observation of an episode; the queues stay empty."""
        calm = np.zeros(attachment.serving.shape, dtype=bool)
        found = self._serve(0, world, nothing, attachment, Events(calm, calm, calm), settings)
        self.clear()
        return found

    def interval(
        self, step: int, world: World, arrivals: Arrivals, attachment: Attachment, settings: Settings
    ) -> Interval:
        """Hand users over, then serve them for one interval; ``attachment`` is updated in place.

        Args:
            step: index of the interval since the reset.
            world: positions and channels, moved already.
            arrivals: files or packets by slice [envs, users of the slice].
            attachment: serving cells.
            settings: of every cell.
        """
        events = attachment.update(
            self.received_dbm(world, settings),
            settings.cell_offset_db,
            settings.handover_offset_db,
            settings.off,
            self._ref.handover,
        )
        found = self._serve(step, world, arrivals, attachment, events, settings)
        attachment.watch(found.sinr_db, self._ref.handover)
        return found

    def _serve(
        self, step: int, world: World, arrivals: Arrivals, attachment: Attachment, events: Events, settings: Settings
    ) -> Interval:
        ref, t = self._ref, self._ref.traffic
        cell = attachment.serving
        flat = cell + self._layout.cells * np.arange(self._envs)[:, None]
        sinr_db, interference = self._sinr(self.received_dbm(world, settings), cell, settings.off)
        of_embb, of_urllc, of_mmtc = self._slices
        efficiency = (
            radio.CQI_64QAM[radio.cqi(sinr_db[:, of_embb], self._thresholds)],
            radio.CQI_LOW_RATE[radio.cqi(sinr_db[:, of_urllc], self._low_thresholds)],
            radio.CQI_64QAM[radio.cqi(sinr_db[:, of_mmtc], self._thresholds)],
        )
        awake = np.where(settings.off, 0.0, 1.0 - settings.sleep)
        # A first transmission succeeds with 1 - BLER; a handover interrupts data, but URLLC keeps both links.
        goodput = ref.radio.usable_mhz * (1.0 - ref.radio.target_bler)
        paused = 1.0 - ref.handover.interruption_s / STEP_S * events.interrupted

        embb_in = arrivals[0] * (t.bits[0] / MBIT)
        embb = self._serve_embb(step, embb_in, efficiency[0] * goodput * paused[:, of_embb], cell, flat, awake, settings)
        mmtc_in = arrivals[2] * (t.bits[2] / MBIT)
        rate = _of(settings.shares[..., 2], cell[:, of_mmtc]) * efficiency[2] * goodput * paused[:, of_mmtc]
        mmtc = self.mmtc.step(step, mmtc_in, rate, np.ones_like(rate), cell[:, of_mmtc], awake)
        hour = world.state.hour
        urllc_rate = _of(settings.shares[..., 1], cell[:, of_urllc]) * efficiency[1] * ref.radio.usable_mhz
        urllc = urllc_service(
            world.rates[hour, 1][:, None],
            urllc_rate,
            cell[:, of_urllc],
            flat[:, of_urllc],
            settings.sleep,
            settings.off,
            t,
            ref.energy,
        )
        self._late.write(step, urllc.late)

        packets = (embb_in / self.embb.packet_mbit, arrivals[1], mmtc_in / self.mmtc.packet_mbit)
        fixed = (0.5 * t.slot_ms + ref.radio.target_bler * t.harq_round_trip_ms) / 1e3
        mmtc_own = self._mmtc_delay(world.rates[hour, 2][:, None], rate, cell[:, of_mmtc], flat[:, of_mmtc], awake)
        delays = (
            1e3 * (embb.delay + packets[0] * fixed),
            1e3 * packets[1] * urllc.delay_s,
            1e3 * (mmtc.delay + packets[2] * (fixed + mmtc_own)),
        )
        satisfied, active = self._satisfaction(step)
        slice_busy = np.stack([embb.busy / STEP_S, urllc.busy, mmtc.busy / STEP_S], axis=-1)
        busy = settings.shares * slice_busy
        self._use = busy[..., 0] + busy[..., 1] + busy[..., 2]
        return Interval(
            events=events,
            cell=cell,
            flat=flat,
            sinr_db=sinr_db,
            efficiency=efficiency,
            interference=interference,
            arrivals=(embb_in, arrivals[1] * (t.bits[1] / MBIT), mmtc_in),
            embb=embb,
            mmtc=mmtc,
            urllc=urllc,
            delays=delays,
            packets=packets,
            satisfied=satisfied,
            active=active,
            slice_use=slice_busy,
            use=self._use,
            off=settings.off,
        )

    def _sinr(
        self, received_dbm: NDArray[np.float32], cell: NDArray[np.int64], off: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Serving SINR in dB and interference over noise, [envs, users].

        SINR = P_s g_s / (sum_j rho_j P_j g_j + N), where rho_j is the share of cell j's blocks in use. The use of the
        last interval stands for this one's, which would otherwise depend on itself.
        """
        received = np.exp(received_dbm * np.float32(np.log(10) / 10))
        rho = np.where(off, 0.0, self._use).astype(np.float32)
        own = np.take_along_axis(received, cell[..., None], axis=-1)[..., 0]
        own = np.where(np.take_along_axis(off, cell, axis=1), np.float32(1e-30), own)
        others = received * rho[:, None, :]
        np.put_along_axis(others, cell[..., None], np.float32(0.0), axis=-1)
        noise = np.float32(self._ref.radio.noise_mw)
        interference = others.sum(axis=-1)
        return 10 * np.log10(own / (interference + noise)), interference / noise

    def _serve_embb(
        self,
        step: int,
        arrivals: Float64Array,
        rate: Float64Array,
        cell: NDArray[np.int64],
        flat: NDArray[np.int64],
        awake: Float64Array,
        settings: Settings,
    ) -> Served:
        """Alpha-fair sharing with a multi-user gain.

        Shares ``x ~ R^((1 - alpha) / alpha)`` maximise alpha-fair utility of rates ``x R``. Choosing among n fading
        users pays: the rate grows by ``1 + gain ln n``.
        """
        of_embb = self._slices[0]
        waiting = (self.embb.backlog + arrivals) > 0
        users = by_cell(waiting, flat[:, of_embb], self._envs, self._layout.cells)
        gain = 1.0 + self._ref.radio.multi_user_gain * np.log(np.maximum(users, 1.0))
        rate = rate * _of(settings.shares[..., 0] * gain, cell[:, of_embb])
        exponent = (1.0 - settings.alpha) / settings.alpha
        weight = np.maximum(rate, 1e-3) ** _of(exponent, cell[:, of_embb])
        return self.embb.step(step, arrivals, rate, weight, cell[:, of_embb], awake)

    def _mmtc_delay(
        self,
        packet_rate: Float64Array,
        rate: Float64Array,
        cell: NDArray[np.int64],
        flat: NDArray[np.int64],
        awake: Float64Array,
    ) -> Float64Array:
        """Transmission, M/G/1 wait and the transmitter's pause of an mMTC packet in s [envs, users].

        What a saturated cell cannot serve is carried as backlog and counted there.
        """
        size = (self._envs, self._layout.cells)
        reached = rate > 0
        service = np.divide(self.mmtc.packet_mbit, rate, out=np.zeros_like(rate), where=reached)
        offered = np.where(reached, packet_rate, 0.0)
        packets = np.maximum(by_cell(offered, flat, *size), 1e-12)
        work = by_cell(offered * service, flat, *size)
        square = by_cell(offered * service * service, flat, *size)
        on = np.maximum(awake, 1e-9)
        sleep = np.where(awake > 0, 1.0 - awake, 0.0)
        wait = mg1_wait(work / on, work / packets, square / packets)
        pause = 0.5 * sleep * sleep * self._ref.energy.cycle_ms / 1e3
        return service + _of(wait + pause, cell)

    def _satisfaction(self, step: int) -> tuple[Arrivals, Arrivals]:
        """Satisfied and active user-seconds by slice, judged on the second that ends with this interval."""
        want = self._ref.satisfaction
        busy = self.embb.window(step, "active")
        has_data = busy > 1e-9
        embb = has_data & (self.embb.window(step, "served") >= want.embb_mbit_s * busy)
        urllc = self._late.mean() <= want.urllc_late
        turned = self.mmtc.turned(step)
        due = turned > 1e-12
        mmtc = due & (self.mmtc.window(step, "late") <= (1.0 - want.mmtc_delivered) * turned + 1e-12)
        return (
            (STEP_S * embb, STEP_S * urllc, STEP_S * mmtc),
            (STEP_S * has_data, np.full(urllc.shape, STEP_S), STEP_S * due),
        )

    def _sum(self, values: Arrivals | list[Float64Array], interval: Interval) -> list[Float64Array]:
        """By-cell sums [envs, cells] of per-slice values."""
        size = (self._envs, self._layout.cells)
        return [by_cell(v, interval.flat[:, s], *size) for v, s in zip(values, self._slices, strict=True)]

    def parts(self, interval: Interval, energy_j: Float64Array, settings: Settings) -> tuple[Float64Array, Float64Array]:
        """Numerators and denominators [envs, cells, n_parts] of an interval, attributed to the serving cell."""
        urllc_in = interval.arrivals[1]
        served = self._sum(
            [interval.embb.served, np.where(interval.urllc.delivered, urllc_in, 0.0), interval.mmtc.served], interval
        )
        offered = self._sum(interval.arrivals, interval)
        satisfied, active = self._sum(interval.satisfied, interval), self._sum(interval.active, interval)
        size = (self._envs, self._layout.cells)
        events = interval.events
        per_user = [
            by_cell(values, interval.flat, *size)
            for values in (
                STEP_S * (interval.sinr_db < self._thresholds[0]),
                events.handover,
                events.ping_pong,
                events.failure,
                np.full(interval.cell.shape, STEP_S),
            )
        ]
        asleep = np.where(settings.off, 1.0, sleeping_share(settings.sleep, self._ref.energy))
        one, seconds = np.ones(size), np.full(size, STEP_S)
        delays, packets = self._sum(interval.delays, interval), self._sum(interval.packets, interval)
        embb_active = by_cell(interval.embb.active, interval.flat[:, self._slices[0]], *size)
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

    def final_delays(self, step: int, interval: Interval) -> Float64Array:
        """Numerators [envs, cells, n_parts] that let packets still waiting at the end count the cap."""
        none = np.zeros((self._envs, self._users[1]))
        missing = [1e3 * self.embb.waiting_to_cap(step), none, 1e3 * self.mmtc.waiting_to_cap(step)]
        extra = np.zeros((self._envs, self._layout.cells, len(PART_NAMES)))
        extra[..., :3] = np.stack(self._sum(missing, interval), axis=-1)
        return extra

    def features(self, interval: Interval) -> dict[str, Float64Array]:
        """What a cell sees of itself [envs, cells], by feature name; scaled, not yet clipped."""
        size, flat = (self._envs, self._layout.cells), interval.flat
        users = self._sum([np.ones((self._envs, n)) for n in self._users], interval)
        total = users[0] + users[1] + users[2]
        offered, delays = self._sum(interval.packets, interval), self._sum(interval.delays, interval)
        efficiency = self._sum(list(interval.efficiency), interval)
        satisfied, active = self._sum(interval.satisfied, interval), self._sum(interval.active, interval)
        capacity = self._ref.radio.usable_mhz * 2.0
        backlog = by_cell(self.embb.backlog, flat[:, self._slices[0]], *size) / (0.25 * capacity)
        waiting = by_cell(self.mmtc.backlog, flat[:, self._slices[2]], *size) / (10 * self.mmtc.packet_mbit)
        weak = by_cell(interval.sinr_db < self._thresholds[WEAK_CQI - 1], flat, *size)
        noise_rise = by_cell(np.log10(1.0 + interval.interference.astype(np.float64)), flat, *size)
        busy_users = by_cell(interval.embb.active > 0, flat[:, self._slices[0]], *size)
        judged, met = active[0] + active[1] + active[2], satisfied[0] + satisfied[1] + satisfied[2]
        regime, mean_users = self._regime, [n / self._layout.cells for n in self._users]
        own: dict[str, Float64Array] = {
            "use_total": interval.use,
            "backlog_embb": backlog / (1.0 + backlog),
            "backlog_mmtc": waiting / (1.0 + waiting),
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


class _Trailing:
    """The last second of a per-user quantity; zero before the first step."""

    def __init__(self, envs: int, users: int) -> None:
        self.data = np.zeros((round(1.0 / STEP_S), envs, users))

    def write(self, step: int, values: Float64Array) -> None:
        self.data[step % len(self.data)] = values

    def mean(self) -> Float64Array:
        return np.asarray(self.data.sum(axis=0) / len(self.data))

    def clear(self) -> None:
        self.data[...] = 0.0


def _of(values: Float64Array, cell: NDArray[np.int64]) -> Float64Array:
    """Each user's entry of a per-cell quantity: [envs, cells] to [envs, users]."""
    return np.take_along_axis(values, cell, axis=1)


def _share(part: Float64Array, whole: Float64Array) -> Float64Array:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
