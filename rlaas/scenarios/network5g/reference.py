"""The frozen reference: every constant of the physics, the default's settings and what the default reaches.

One file, ``reference.json``, whose hash stands in every result; ``calibration`` rewrites its ``regimes``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

__all__ = [
    "LOADS",
    "Energy",
    "Forecast",
    "HandoverRule",
    "Radio",
    "Reference",
    "Regime",
    "Satisfaction",
    "Traffic",
    "reference",
]

LOADS = ("low", "mid", "high")
STEP_S = 0.1
"""Decision interval in seconds."""
SLICES = ("embb", "urllc", "mmtc")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """Carrier, powers, heights, antennas and link adaptation; distances in m, powers in dBm.

    Attributes:
        propagation: ``uma`` or ``umi``.
        carrier_ghz, bandwidth_mhz, subcarrier_khz: the carrier and its numerology.
        overhead: share of the blocks that carries no data.
        power_dbm: of a cell. noise_figure_db: of a user.
        site_height_m, user_height_m, inter_site_m, minimum_distance_m: geometry.
        columns: of the antenna panel: beams of the horizontal codebook.
        array_floor_db: null filling of the tilted array.
        los_correlation_m, map_spacing_m, map_realisations, map_seed: of the precomputed maps.
        modulation: ``64qam`` or ``256qam``. layers: most spatial layers of a user.
        target_error: block error rate of eMBB and mMTC. offset_gain_db, offset_range_db: of the outer loop.
        multi_user_gain: rate gained per ln of the users to choose from.
        urllc_efficiency_share: of Shannon's capacity at an error rate of 1e-5. urllc_backoff_db: on the last report.
        burst_sigmas, urllc_burst_sigmas: standard deviations of interference, over its mean, that rates allow for.
            URLLC: one slot in a hundred has more. The others: the value at which throughput in the fluid mode is
            throughput slot by slot, over 16 settings and rules at low and at high load (``benchmarks/fidelity.py``).
        report_delay_s: age of a channel report when it is used.
        indoor_share: of users indoors. indoor_depth_m: largest depth behind the outer wall.
    """

    propagation: str
    carrier_ghz: float
    bandwidth_mhz: float
    subcarrier_khz: int
    overhead: float
    power_dbm: float
    noise_figure_db: float
    site_height_m: float
    user_height_m: float
    inter_site_m: float
    minimum_distance_m: float
    columns: int
    array_floor_db: float
    los_correlation_m: float
    map_spacing_m: float
    map_realisations: int
    map_seed: int
    modulation: str
    layers: int
    target_error: float
    offset_gain_db: float
    offset_range_db: tuple[float, float]
    multi_user_gain: float
    urllc_efficiency_share: float
    urllc_backoff_db: float
    burst_sigmas: float
    urllc_burst_sigmas: float
    report_delay_s: float
    indoor_share: float
    indoor_depth_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Power model of a cell by name, and the sleep setting from which it is off."""

    model: str
    off_from: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Logistic forecast of a handover within ``horizon_s``, from the A3 margin m (dB) and its rise r per step (dB).

    Its features, with ``pace = |r| + floor_db``: how far the border is at that pace, ``min(m, 0) / pace`` steps; which
    way the user goes, ``r / pace``; and whether it has met the entering condition already, ``m > 0``.
    """

    horizon_s: float
    bias: float
    reach: float
    direction: float
    entered: float
    floor_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverRule:
    """A3 event, L3 filter and radio-link failure (TS 38.331)."""

    hysteresis_db: float
    time_to_trigger_s: float
    filter_k: int
    filter_sample_s: float
    interruption_s: float
    failure_db: float
    failure_s: float
    ping_pong_s: float

    @property
    def filter_share(self) -> float:
        """Weight of a new sample on the 100 ms grid: a = 2^(-k/4) holds for 200 ms samples, so it is rescaled."""
        return float(1 - (1 - 2 ** (-self.filter_k / 4)) ** (STEP_S / self.filter_sample_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Who asks for what; per-slice entries in the order eMBB, URLLC, mMTC."""

    urllc_share: float
    mmtc_share: float
    rates_per_s: tuple[float, float, float]
    bits: tuple[float, float, float]
    packet_bits: tuple[float, float, float]
    budgets_s: tuple[float, float, float]
    cap_budgets: int
    minislot_symbols: int
    urllc_processing_ms: float
    harq_round_trip_ms: float
    speed_m_s: tuple[float, float]
    mmtc_speed_m_s: float
    leg_m: tuple[float, float]
    gauss_markov_memory_s: float
    mmtc_burst_s: float
    demand_hours: tuple[int, ...]

    def users(self, total: int) -> tuple[int, int, int]:
        """How many of ``total`` users belong to eMBB, URLLC and mMTC."""
        urllc, mmtc = round(total * self.urllc_share), round(total * self.mmtc_share)
        return total - urllc - mmtc, urllc, mmtc


@dataclass(frozen=True, slots=True, kw_only=True)
class Satisfaction:
    """What satisfies a user of each slice over a one-second window."""

    embb_mbit_s: float
    urllc_late: float
    mmtc_delivered: float
    mmtc_deadline_s: float
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """Offered load of one size and regime, and what the default reaches under it.

    Attributes:
        scale: factor on every slice's arrival rate.
        rb_use: resource-block use of the default.
        latency_ms: mean delay per slice of the default, D0_s.
        throughput, energy, satisfaction: objectives of the default in their units.
        packets: offered packets per cell and step, by slice.
        active_s, satisfaction_s: seconds of users with data, and of users in a satisfaction window, per cell and step.
        ranges: normalisation range [low, high] of each objective.
    """

    scale: float
    rb_use: float
    latency_ms: tuple[float, float, float]
    throughput: float
    energy: float
    satisfaction: float
    packets: tuple[float, float, float]
    active_s: float
    satisfaction_s: float
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The whole file, typed. ``hash`` is the first 16 hex digits of its sha256."""

    radio: Radio
    energy: Energy
    handover: HandoverRule
    traffic: Traffic
    satisfaction: Satisfaction
    forecast: Forecast
    default: Mapping[str, float]
    rb_use: Mapping[str, float]
    regimes: Mapping[str, Mapping[str, Regime]]
    hash: str


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """A frozen section from JSON values: lists become tuples, unknown or missing keys are a TypeError."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if names != set(values):
        raise TypeError(f"reference section {kind.__name__}: keys {sorted(names ^ set(values))} do not match")
    return kind(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return {key: _frozen(item) for key, item in value.items()} if isinstance(value, dict) else value


def parse(text: str) -> Reference:
    """The reference written in ``text``."""
    document = json.loads(text)
    return Reference(
        radio=build(Radio, document["radio"]),
        energy=build(Energy, document["energy"]),
        handover=build(HandoverRule, document["handover"]),
        traffic=build(Traffic, document["traffic"]),
        satisfaction=build(Satisfaction, document["satisfaction"]),
        forecast=build(Forecast, document["forecast"]),
        default=document["default"],
        rb_use=document["rb_use"],
        regimes={
            size: {load: build(Regime, regime) for load, regime in loads.items()}
            for size, loads in document["regimes"].items()
        },
        hash=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


@cache
def reference() -> Reference:
    """The shipped reference."""
    return parse(files(__package__).joinpath("reference.json").read_text(encoding="utf-8"))
