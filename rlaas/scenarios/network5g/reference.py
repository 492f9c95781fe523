"""The frozen reference: every constant of the physics, the default's settings and what the default reaches.

One file, ``reference.json``, whose hash stands in every result; ``calibration`` rewrites its ``regimes``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

__all__ = ["LOADS", "Energy", "HandoverRule", "Radio", "Reference", "Regime", "Satisfaction", "Traffic", "reference"]

LOADS = ("low", "mid", "high")
STEP_S = 0.1
"""Decision interval in seconds."""
SLICES = ("embb", "urllc", "mmtc")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """Carrier, powers, heights and antennas; distances in m, powers in dBm."""

    carrier_ghz: float
    resource_blocks: int
    block_khz: float
    overhead: float
    power_dbm: float
    noise_figure_db: float
    site_height_m: float
    user_height_m: float
    inter_site_m: float
    minimum_distance_m: float
    array_elements: int
    array_floor_db: float
    los_correlation_m: float
    target_bler: float
    multi_user_gain: float
    urllc_efficiency_share: float

    @property
    def bandwidth_mhz(self) -> float:
        """Transmission bandwidth: 51 blocks of 360 kHz in a 20 MHz channel (TS 38.101-1 table 5.3.2-1)."""
        return self.resource_blocks * self.block_khz / 1e3

    @property
    def noise_mw(self) -> float:
        """Thermal noise at the receiver: -174 dBm/Hz + 10 log10 B + NF."""
        return float(10 ** ((-174 + 10 * math.log10(self.bandwidth_mhz * 1e6) + self.noise_figure_db) / 10))

    @property
    def usable_mhz(self) -> float:
        """Bandwidth left for data after control overhead."""
        return self.bandwidth_mhz * (1 - self.overhead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """EARTH power model of one macro cell (two of a three-sector site's six transceivers) and its sleep."""

    transceivers: int
    maximum_w: float
    idle_w: float
    slope: float
    sleep_w: float
    cycle_ms: float
    ramp_ms: float
    switch_ms: float
    off_from: float


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
    slot_ms: float
    minislot_ms: float
    urllc_processing_ms: float
    harq_round_trip_ms: float
    speed_m_s: tuple[float, float]
    mmtc_speed_m_s: float
    leg_m: tuple[float, float]
    demand_hours: tuple[int, ...]
    demand_swing: float
    demand_trough_hour: float

    def demand(self, hour: float) -> float:
        """Demand at an hour of the day relative to the daily mean: a sinusoid with its trough before dawn."""
        return 1 - self.demand_swing * math.cos(2 * math.pi * (hour - self.demand_trough_hour) / 24)

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
