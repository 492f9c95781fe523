"""The numbers a kernel reads, drawn from the frozen reference and the scenario's options."""

from __future__ import annotations

from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

__all__ = ["GAUSS_MARKOV", "TRACE", "WAYPOINT", "Constants"]

WAYPOINT, GAUSS_MARKOV, TRACE = 0, 1, 2
"""Mobility models."""


class Constants(NamedTuple):
    """Scalars of one network; slices in the order eMBB, URLLC, mMTC.

    Attributes:
        embb, urllc, mmtc: users. cells: cells.
        mobility: see :data:`WAYPOINT`. radius_m: of the disc in which users move. wraps: 1 on a wrapped plane.
        slow, fast, mmtc_speed: m/s. leg_low, leg_high: m. memory: of the Gauss-Markov walk from step to step.
        indoor: share of users indoors. penetration_db, penetration_per_m, penetration_sigma_db, depth_m: their loss.
        origin_x, origin_y, inverse_*: position to grid. basis_*: grid to position. nf, ng: grid points.
        beams: antenna columns, whose codebook a user gets the best beam of.
        noise_mw: thermal noise. usable_mhz: bandwidth left for data, by slice.
        tilt_floor: lowest linear gain of the tilted array. target_error: block error rate aimed at.
        error_slope: of the block error curve, per dB. urllc_backoff_db: of its link adaptation.
        burst_sigmas, urllc_burst_sigmas: standard deviations of interference that rates allow for.
        report_age: age of a channel report in steps.
        offset_gain_db, offset_low_db, offset_high_db: outer loop. multi_user_gain: of choosing among users.
        best_efficiency: bit/s/Hz of the best modulation and coding.
        weak_db, outage_db: SINR below which a user counts as weak, or out of service.
        rate_*: arrivals per s and user. mbit_*: size of an arrival. packet_mbit_*: size of a packet.
        embb_constant: 1 where eMBB users ask for a constant rate. mmtc_burst_s: period of the Beta bursts, 0 without.
        slot_s_*: slot. minislot_s, processing_s, urllc_cap_s, urllc_budget_s. harq_s: round trip.
        embb_cap, embb_deadline, mmtc_cap, mmtc_deadline: steps.
        hysteresis_db, trigger_s, filter_share, interruption_s, failure_db, failure_s, ping_pong_s: handover.
        forecast_*: coefficients of the handover forecast.
        want_mbit_s, want_late, want_delivered: what satisfies.
        latency_*, packets_*, throughput, active_s, satisfaction, satisfaction_s: what the default reaches.
        *_low, *_high: ranges of the objectives. own_share: of a cell's own part in its reward.
        off_from: sleep setting from which a cell is off. interlock: 1 where that takes a neighbour that is on.
        episode_steps: until truncation. hours_per_step: how fast the clock runs. histogram: 1 to record delays.
        fidelity: 0 fluid, 1 slot by slot.
        carrier_ghz: carrier frequency. blocks_urllc, blocks_mmtc: resource blocks of the carrier in their numerology.
    """

    embb: int
    urllc: int
    mmtc: int
    cells: int
    mobility: int
    radius_m: float
    wraps: int
    slow: float
    fast: float
    mmtc_speed: float
    leg_low: float
    leg_high: float
    memory: float
    indoor: float
    penetration_db: float
    penetration_per_m: float
    penetration_sigma_db: float
    depth_m: float
    origin_x: float
    origin_y: float
    inverse_xx: float
    inverse_xy: float
    inverse_yx: float
    inverse_yy: float
    basis_xx: float
    basis_xy: float
    basis_yx: float
    basis_yy: float
    nf: int
    ng: int
    beams: int
    noise_mw: float
    usable_mhz_embb: float
    usable_mhz_urllc: float
    usable_mhz_mmtc: float
    tilt_floor: float
    target_error: float
    error_slope: float
    urllc_backoff_db: float
    burst_sigmas: float
    urllc_burst_sigmas: float
    report_age: float
    offset_gain_db: float
    offset_low_db: float
    offset_high_db: float
    multi_user_gain: float
    best_efficiency: float
    weak_db: float
    outage_db: float
    rate_embb: float
    rate_urllc: float
    rate_mmtc: float
    mbit_embb: float
    mbit_urllc: float
    mbit_mmtc: float
    packet_mbit_embb: float
    packet_mbit_mmtc: float
    embb_constant: int
    mmtc_burst_s: float
    slot_s_embb: float
    slot_s_mmtc: float
    minislot_s: float
    processing_s: float
    urllc_cap_s: float
    urllc_budget_s: float
    harq_s: float
    embb_cap: int
    embb_deadline: int
    mmtc_cap: int
    mmtc_deadline: int
    hysteresis_db: float
    trigger_s: float
    filter_share: float
    interruption_s: float
    failure_db: float
    failure_s: float
    ping_pong_s: float
    forecast_bias: float
    forecast_reach: float
    forecast_direction: float
    forecast_entered: float
    forecast_floor_db: float
    want_mbit_s: float
    want_late: float
    want_delivered: float
    latency_embb: float
    latency_urllc: float
    latency_mmtc: float
    packets_embb: float
    packets_urllc: float
    packets_mmtc: float
    throughput: float
    active_s: float
    satisfaction: float
    satisfaction_s: float
    latency_low: float
    latency_high: float
    throughput_low: float
    throughput_high: float
    energy_low: float
    energy_high: float
    satisfaction_low: float
    satisfaction_high: float
    own_share: float
    off_from: float
    interlock: int
    episode_steps: int
    hours_per_step: float
    histogram: int
    fidelity: int
    carrier_ghz: float
    blocks_urllc: int
    blocks_mmtc: int

    def as_record(self) -> NDArray[Any]:
        """The constants as an array [1] of one record: kernels take a pointer instead of a hundred arguments.

        It has the factors of :meth:`factors` besides.
        """
        factors = self.factors()
        kinds = [(name, "i8" if kind is int else "f8") for name, kind in get_type_hints(type(self)).items()]
        kinds += [(name, "f8") for name in factors]
        return np.array([(*self, *factors.values())], dtype=np.dtype(kinds, align=True))

    def factors(self) -> dict[str, float]:
        """What rewards and features are multiplied with: divisions in every step would show.

        ``per_third_delay_*``: a third over the delay that the default's packets have. The rest makes features of about
        1: by the default's share of packets and delay, a cell's share of users, and backlogs (0.25 s of a carrier at
        2 bit/s/Hz, ten packets of a machine).
        """
        users = (self.embb, self.urllc, self.mmtc)
        packets = (self.packets_embb, self.packets_urllc, self.packets_mmtc)
        latency = (self.latency_embb, self.latency_urllc, self.latency_mmtc)
        found = {}
        for name, n, many, late in zip(("embb", "urllc", "mmtc"), users, packets, latency, strict=True):
            found[f"per_packets_{name}"] = 1.0 / (3.0 * many)
            found[f"per_delay_{name}"] = 1.0 / (many * late)
            found[f"per_third_delay_{name}"] = 1.0 / (3.0 * many * late)
            found[f"per_users_{name}"] = self.cells / (3.0 * max(n, 1))
        return found | {
            "per_users": self.cells / sum(users),
            "per_buffer_embb": 1.0 / (0.25 * 2.0 * self.usable_mhz_embb),
            "per_buffer_mmtc": 1.0 / (10.0 * self.packet_mbit_mmtc),
            "per_active_s": 1.0 / self.active_s,
            "per_satisfaction_s": 1.0 / self.satisfaction_s,
            "per_latency": 1.0 / (self.latency_high - self.latency_low),
            "per_throughput": 1.0 / (self.throughput_high - self.throughput_low),
            "per_energy": 1.0 / (self.energy_high - self.energy_low),
            "per_satisfaction": 1.0 / (self.satisfaction_high - self.satisfaction_low),
        }
