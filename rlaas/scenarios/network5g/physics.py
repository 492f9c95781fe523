"""One decision interval of all networks: powers to SINR to rates to queues."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g import radio
from rlaas.scenarios.network5g.accounts import Arrivals, Interval, slices_of
from rlaas.scenarios.network5g.control import Settings
from rlaas.scenarios.network5g.handover import Attachment, Events
from rlaas.scenarios.network5g.layout import Layout
from rlaas.scenarios.network5g.queues import by_cell, mg1_wait
from rlaas.scenarios.network5g.reference import STEP_S, Reference
from rlaas.scenarios.network5g.slices import FluidSlice, Served, urllc_service
from rlaas.scenarios.network5g.world import World

__all__ = ["Physics"]

Float64Array = NDArray[np.float64]

MBIT = 1e6


class Physics:
    """Radio link, scheduler and queues of ``envs`` networks.

    Args:
        cells: the layout.
        users: users per slice of one network.
        ref: constants.
        envs: number of networks.
    """

    def __init__(self, cells: Layout, users: tuple[int, int, int], ref: Reference, envs: int) -> None:
        self._layout, self._users, self._ref, self._envs = cells, users, ref, envs
        self._slices = slices_of(users)
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
        received = self.received_dbm(world, settings)
        found = self._serve(0, world, received, nothing, attachment.serving, Events(calm, calm, calm), settings)
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
        received = self.received_dbm(world, settings)
        events = attachment.update(
            received,
            settings.cell_offset_db,
            settings.handover_offset_db,
            settings.off,
            self._ref.handover,
        )
        found = self._serve(step, world, received, arrivals, attachment.serving, events, settings)
        attachment.watch(found.sinr_db, self._ref.handover)
        return found

    def _serve(
        self,
        step: int,
        world: World,
        received_dbm: NDArray[np.float32],
        arrivals: Arrivals,
        cell: NDArray[np.int64],
        events: Events,
        settings: Settings,
    ) -> Interval:
        ref, t = self._ref, self._ref.traffic
        flat = cell + self._layout.cells * np.arange(self._envs)[:, None]
        sinr_db, interference = self._sinr(received_dbm, cell, settings.off)
        of_embb, of_urllc, of_mmtc = self._slices
        efficiency = (
            radio.CQI_64QAM[radio.cqi(sinr_db[:, of_embb], self._thresholds)],
            radio.CQI_LOW_RATE[radio.cqi(sinr_db[:, of_urllc], self._low_thresholds)],
            radio.CQI_64QAM[radio.cqi(sinr_db[:, of_mmtc], self._thresholds)],
        )
        on = ~settings.off
        # A first transmission succeeds with 1 - BLER; a handover interrupts data, but URLLC keeps both links.
        goodput = ref.radio.usable_mhz * (1.0 - ref.radio.target_bler)
        paused = 1.0 - ref.handover.interruption_s / STEP_S * events.interrupted

        embb_in = arrivals[0] * (t.bits[0] / MBIT)
        full_rate = efficiency[0] * goodput * paused[:, of_embb]
        embb = self._serve_embb(step, embb_in, full_rate, cell, flat, on, settings)
        mmtc_in = arrivals[2] * (t.bits[2] / MBIT)
        rate = _of(settings.shares[..., 2], cell[:, of_mmtc]) * efficiency[2] * goodput * paused[:, of_mmtc]
        mmtc = self.mmtc.step(step, mmtc_in, rate, np.ones_like(rate), cell[:, of_mmtc], on)
        # Slices transmit independently of one another, each on blocks of its own.
        others_idle = (1.0 - embb.busy / STEP_S) * (1.0 - mmtc.busy / STEP_S)
        hour = world.state.hour
        urllc_rate = _of(settings.shares[..., 1], cell[:, of_urllc]) * efficiency[1] * ref.radio.usable_mhz
        urllc = urllc_service(
            world.rates[hour, 1][:, None],
            urllc_rate,
            cell[:, of_urllc],
            flat[:, of_urllc],
            settings.sleep,
            others_idle,
            settings.off,
            t,
            ref.energy,
        )
        self._late.write(step, urllc.late)

        packets = (embb_in / self.embb.packet_mbit, arrivals[1], mmtc_in / self.mmtc.packet_mbit)
        fixed = (0.5 * t.slot_ms + ref.radio.target_bler * t.harq_round_trip_ms) / 1e3
        mmtc_own = self._mmtc_delay(world.rates[hour, 2][:, None], rate, cell[:, of_mmtc], flat[:, of_mmtc])
        pause = 0.5 * settings.sleep**2 * others_idle * (ref.energy.cycle_ms / 1e3)
        delays = (
            1e3 * (embb.delay + packets[0] * (fixed + _of(pause, cell[:, of_embb]))),
            1e3 * packets[1] * urllc.delay_s,
            1e3 * (mmtc.delay + packets[2] * (fixed + mmtc_own + _of(pause, cell[:, of_mmtc]))),
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
            backlog=(self.embb.backlog, self.mmtc.backlog),
            delays=delays,
            packets=packets,
            satisfied=satisfied,
            active=active,
            slice_use=slice_busy,
            use=self._use,
            idle=others_idle * (1.0 - urllc.busy),
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
        on: NDArray[np.bool_],
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
        return self.embb.step(step, arrivals, rate, weight, cell[:, of_embb], on)

    def _mmtc_delay(
        self,
        packet_rate: Float64Array,
        rate: Float64Array,
        cell: NDArray[np.int64],
        flat: NDArray[np.int64],
    ) -> Float64Array:
        """Transmission and M/G/1 wait of an mMTC packet in s [envs, users].

        What a saturated cell cannot serve is carried as backlog and counted there.
        """
        size = (self._envs, self._layout.cells)
        reached = rate > 0
        service = np.divide(self.mmtc.packet_mbit, rate, out=np.zeros_like(rate), where=reached)
        offered = np.where(reached, packet_rate, 0.0)
        packets = np.maximum(by_cell(offered, flat, *size), 1e-12)
        work = by_cell(offered * service, flat, *size)
        square = by_cell(offered * service * service, flat, *size)
        return service + _of(mg1_wait(work, work / packets, square / packets), cell)

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
            (_seconds(embb), _seconds(urllc), _seconds(mmtc)),
            (_seconds(has_data), _seconds(np.full(urllc.shape, True)), _seconds(due)),
        )

    def missing_delays(self, step: int) -> Arrivals:
        """Packet-ms by slice [envs, users of the slice] until every packet still waiting has counted the cap."""
        none = np.zeros((self._envs, self._users[1]))
        return 1e3 * self.embb.waiting_to_cap(step), none, 1e3 * self.mmtc.waiting_to_cap(step)


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


def _seconds(flags: NDArray[np.bool_]) -> Float64Array:
    return np.where(flags, STEP_S, 0.0)
