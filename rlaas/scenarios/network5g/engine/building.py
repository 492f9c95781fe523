"""Builds what the kernels read from the frozen reference and a network's description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.objectives import Objective
from rlaas.scenarios.network5g.control import default_action
from rlaas.scenarios.network5g.engine.arrays import LinkTables, MapTables, WorldTables
from rlaas.scenarios.network5g.engine.constants import GAUSS_MARKOV, TRACE, WAYPOINT, Constants
from rlaas.scenarios.network5g.engine.events import compile_events
from rlaas.scenarios.network5g.geography import Layout, Maps, build_maps, fitting_resolution
from rlaas.scenarios.network5g.measured import HOURLY_DEMAND
from rlaas.scenarios.network5g.objectives import OWN_SHARE
from rlaas.scenarios.network5g.power import POWER_MODELS
from rlaas.scenarios.network5g.propagation import (
    BLOCK_ERROR_SLOPE,
    CQI_64QAM,
    CQI_256QAM,
    CQI_LOW_RATE,
    rate_table,
    resource_blocks,
    slot_ms,
    thresholds_db,
)
from rlaas.scenarios.network5g.propagation.links import RESOURCE_BLOCKS
from rlaas.scenarios.network5g.reference import STEP_S, Radio, Reference, Regime

__all__ = ["MOBILITY", "MODULATIONS", "Network", "build"]

MOBILITY = {"waypoint": WAYPOINT, "gauss_markov": GAUSS_MARKOV, "trace": TRACE}
MODULATIONS = {"64qam": CQI_64QAM, "256qam": CQI_256QAM}
WEAK_CQI = 4
ARRAY_ELEMENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network, described.

    Attributes:
        layout: its cells.
        users: eMBB, URLLC and mMTC users.
        regime: offered load, default and ranges.
        objectives: with their ranges.
        reference: the frozen constants.
        radio: those of the reference, with the scenario's changes.
        urllc_subcarrier_khz: numerology of the URLLC bandwidth part; None for the carrier's.
        hour: of the day, or None to draw it.
        hours_per_s: how fast the clock runs.
        episode_steps: until truncation.
        mobility: key of :data:`MOBILITY`. traces: positions [n, 2] every 100 ms, for ``trace``.
        power_models: name of each cell's power model.
        events: schedule; see :func:`~rlaas.scenarios.network5g.engine.events.compile_events`.
        embb_traffic: ``files`` or ``constant``. mmtc_traffic: ``poisson`` or ``beta``.
        interlock: a cell goes off only while a neighbour is on.
        histogram: record delays. slots: simulate slot by slot.
    """

    layout: Layout
    users: tuple[int, int, int]
    regime: Regime
    objectives: tuple[Objective, ...]
    reference: Reference
    radio: Radio
    urllc_subcarrier_khz: int | None = None
    hour: float | None = None
    hours_per_s: float = 0.0
    episode_steps: int = 700
    mobility: str = "waypoint"
    traces: tuple[NDArray[np.float32], ...] = ()
    power_models: tuple[str, ...] = ()
    events: Sequence[Mapping[str, Any]] = field(default=())
    embb_traffic: str = "files"
    mmtc_traffic: str = "poisson"
    interlock: bool = True
    histogram: bool = False
    slots: bool = False

    def maps(self) -> Maps:
        """The precomputed maps, shared by all networks of this description."""
        r = self.radio
        spacing_m, realisations = fitting_resolution(
            self.layout, spacing_m=r.map_spacing_m, realisations=r.map_realisations
        )
        return build_maps(
            self.layout,
            carrier_ghz=r.carrier_ghz,
            site_height_m=r.site_height_m,
            user_height_m=r.user_height_m,
            propagation=r.propagation,
            minimum_distance_m=r.minimum_distance_m,
            los_correlation_m=r.los_correlation_m,
            columns=r.columns,
            spacing_m=spacing_m,
            realisations=realisations,
            seed=r.map_seed,
        )


def usable_mhz(radio: Radio, subcarrier_khz: int) -> float:
    """Million symbols per second that carry data: resource blocks (TS 38.101-1 table 5.3.2-1) less the overhead.

    14 symbols of a slot take the time of 15 with their cyclic prefixes, as in the rates of TS 38.306 section 4.1.2.
    """
    blocks = resource_blocks(radio.bandwidth_mhz, subcarrier_khz)
    return blocks * 12 * subcarrier_khz / 1e3 * (14 / 15) * (1 - radio.overhead)


def noise_mw(radio: Radio) -> float:
    """Thermal noise at the receiver over the whole carrier: -174 dBm/Hz + 10 log10 B + NF."""
    hertz = resource_blocks(radio.bandwidth_mhz, radio.subcarrier_khz) * 12e3 * radio.subcarrier_khz
    return float(10 ** ((-174 + 10 * math.log10(hertz) + radio.noise_figure_db) / 10))


def build(network: Network) -> tuple[Constants, MapTables, LinkTables, WorldTables]:
    """Constants and tables of a network.

    Raises:
        ConfigurationError: an event, a trace or a numerology that does not exist, by name.
    """
    ref, radio, layout = network.reference, network.radio, network.layout
    t, h, want = ref.traffic, ref.handover, ref.satisfaction
    maps = network.maps()
    urllc_khz = radio.subcarrier_khz if network.urllc_subcarrier_khz is None else network.urllc_subcarrier_khz
    if network.urllc_subcarrier_khz is not None and urllc_khz not in RESOURCE_BLOCKS:
        raise ConfigurationError(
            f"urllc_subcarrier_khz must be one of {tuple(RESOURCE_BLOCKS)}, got {urllc_khz!r}",
            field="urllc_subcarrier_khz",
        )
    slot, urllc_slot = slot_ms(radio.subcarrier_khz) / 1e3, slot_ms(urllc_khz) / 1e3
    thresholds = thresholds_db(MODULATIONS[radio.modulation])
    ranges = {o.name: (o.low, o.high) for o in network.objectives}
    regime, scale = network.regime, network.regime.scale
    megabits = [b / 1e6 for b in t.bits]
    packets = [b / 1e6 for b in t.packet_bits]
    caps = [round(t.cap_budgets * b / STEP_S) for b in t.budgets_s]
    basis, inverse = maps.basis, maps.inverse
    penetration = maps.penetration
    constants = Constants(
        embb=network.users[0],
        urllc=network.users[1],
        mmtc=network.users[2],
        cells=layout.cells,
        mobility=MOBILITY[network.mobility],
        radius_m=float(layout.radius_m),
        wraps=int(layout.wraps),
        slow=t.speed_m_s[0],
        fast=t.speed_m_s[1],
        mmtc_speed=t.mmtc_speed_m_s,
        leg_low=t.leg_m[0],
        leg_high=t.leg_m[1],
        memory=math.exp(-STEP_S / t.gauss_markov_memory_s),
        indoor=radio.indoor_share,
        penetration_db=penetration[0],
        penetration_per_m=penetration[1],
        penetration_sigma_db=penetration[2],
        depth_m=radio.indoor_depth_m,
        origin_x=float(maps.origin[0]),
        origin_y=float(maps.origin[1]),
        inverse_xx=float(inverse[0, 0]),
        inverse_xy=float(inverse[0, 1]),
        inverse_yx=float(inverse[1, 0]),
        inverse_yy=float(inverse[1, 1]),
        basis_xx=float(basis[0, 0]),
        basis_xy=float(basis[0, 1]),
        basis_yx=float(basis[1, 0]),
        basis_yy=float(basis[1, 1]),
        nf=maps.shape[0],
        ng=maps.shape[1],
        beams=radio.columns,
        noise_mw=noise_mw(radio),
        usable_mhz_embb=usable_mhz(radio, radio.subcarrier_khz),
        usable_mhz_urllc=usable_mhz(radio, urllc_khz),
        usable_mhz_mmtc=usable_mhz(radio, radio.subcarrier_khz),
        tilt_floor=10 ** (radio.array_floor_db / 10),
        target_error=radio.target_error,
        error_slope=BLOCK_ERROR_SLOPE,
        urllc_backoff_db=radio.urllc_backoff_db,
        burst_sigmas=radio.burst_sigmas,
        urllc_burst_sigmas=radio.urllc_burst_sigmas,
        report_age=radio.report_delay_s / STEP_S,
        offset_gain_db=radio.offset_gain_db,
        offset_low_db=radio.offset_range_db[0],
        offset_high_db=radio.offset_range_db[1],
        multi_user_gain=radio.multi_user_gain,
        best_efficiency=float(MODULATIONS[radio.modulation][-1] * radio.layers),
        weak_db=float(thresholds[WEAK_CQI - 1]),
        outage_db=float(thresholds[0]),
        rate_embb=t.rates_per_s[0] * scale,
        rate_urllc=t.rates_per_s[1] * scale,
        rate_mmtc=t.rates_per_s[2] * scale,
        mbit_embb=megabits[0],
        mbit_urllc=megabits[1],
        mbit_mmtc=megabits[2],
        packet_mbit_embb=packets[0],
        packet_mbit_mmtc=packets[2],
        embb_constant=int(network.embb_traffic == "constant"),
        mmtc_burst_s=t.mmtc_burst_s if network.mmtc_traffic == "beta" else 0.0,
        slot_s_embb=slot,
        slot_s_mmtc=slot,
        minislot_s=urllc_slot * t.minislot_symbols / 14,
        processing_s=t.urllc_processing_ms / 1e3,
        urllc_cap_s=t.cap_budgets * t.budgets_s[1],
        urllc_budget_s=t.budgets_s[1],
        harq_s=t.harq_round_trip_ms / 1e3,
        # Files come at the start of a step: they are one step older at its end than what comes during it.
        embb_cap=caps[0] - 1,
        embb_deadline=round(t.budgets_s[0] / STEP_S) - 1,
        mmtc_cap=caps[2],
        mmtc_deadline=round(want.mmtc_deadline_s / STEP_S),
        hysteresis_db=h.hysteresis_db,
        trigger_s=h.time_to_trigger_s,
        filter_share=h.filter_share,
        interruption_s=h.interruption_s,
        failure_db=h.failure_db,
        failure_s=h.failure_s,
        ping_pong_s=h.ping_pong_s,
        forecast_bias=ref.forecast.bias,
        forecast_reach=ref.forecast.reach,
        forecast_direction=ref.forecast.direction,
        forecast_entered=ref.forecast.entered,
        forecast_floor_db=ref.forecast.floor_db,
        want_mbit_s=want.embb_mbit_s,
        want_late=want.urllc_late,
        want_delivered=want.mmtc_delivered,
        latency_embb=regime.latency_ms[0],
        latency_urllc=regime.latency_ms[1],
        latency_mmtc=regime.latency_ms[2],
        packets_embb=regime.packets[0],
        packets_urllc=regime.packets[1],
        packets_mmtc=regime.packets[2],
        throughput=regime.throughput,
        active_s=regime.active_s,
        satisfaction=regime.satisfaction,
        satisfaction_s=regime.satisfaction_s,
        latency_low=ranges["latency"][0],
        latency_high=ranges["latency"][1],
        throughput_low=ranges["throughput"][0],
        throughput_high=ranges["throughput"][1],
        energy_low=ranges["energy"][0],
        energy_high=ranges["energy"][1],
        satisfaction_low=ranges["satisfaction"][0],
        satisfaction_high=ranges["satisfaction"][1],
        own_share=OWN_SHARE,
        off_from=ref.energy.off_from,
        interlock=int(network.interlock),
        episode_steps=network.episode_steps,
        hours_per_step=network.hours_per_s * STEP_S,
        histogram=int(network.histogram),
        fidelity=int(network.slots),
        carrier_ghz=radio.carrier_ghz,
        blocks_urllc=resource_blocks(radio.bandwidth_mhz, urllc_khz),
        blocks_mmtc=resource_blocks(radio.bandwidth_mhz, radio.subcarrier_khz),
    )
    grids = MapTables(link_db=maps.link_db, sine_below=maps.sine_below, beam_db=maps.beam_db)
    return constants, grids, _links(radio), _world(network)


def _links(radio: Radio) -> LinkTables:
    normal = rate_table(MODULATIONS[radio.modulation], layers=radio.layers)
    low = rate_table(CQI_LOW_RATE, layers=1, shannon_share=radio.urllc_efficiency_share)
    return LinkTables(
        entry=normal.index,
        efficiency=normal.efficiency,
        threshold_db=normal.threshold_db,
        low_entry=low.index,
        low_efficiency=low.efficiency,
        low_threshold_db=low.threshold_db,
    )


def _world(network: Network) -> WorldTables:
    ref, radio, layout = network.reference, network.radio, network.layout
    hours = np.array(ref.traffic.demand_hours if network.hour is None else (network.hour,), dtype=np.float64)
    demand = np.array([*HOURLY_DEMAND, HOURLY_DEMAND[0]])
    weights = np.interp(hours, np.arange(25), demand)
    names = list(POWER_MODELS)
    model = np.array([names.index(name) for name in network.power_models], dtype=np.int32)
    first, length, positions = _traces(network)
    return WorldTables(
        hours=hours,
        hour_cdf=np.cumsum(weights / weights.sum()),
        demand=demand,
        neighbours=layout.neighbours.astype(np.int32),
        power_dbm=np.asarray(layout.powers_dbm(radio.power_dbm), dtype=np.float32),
        power_rows=np.stack([m.as_row() for m in POWER_MODELS.values()]),
        power_model=model,
        events=compile_events(network.events, centres=layout.centres, power_models=names, power_model=model),
        trace_xy=positions,
        trace_first=first,
        trace_length=length,
        default=np.repeat(default_action(ref)[None], layout.cells, axis=0),
    )


def _traces(network: Network) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    if network.mobility != "trace":
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros((1, 2), dtype=np.float32)
    if not network.traces:
        raise ConfigurationError(
            "mobility 'trace' needs traces: a file, or positions [n, 2] every 100 ms", field="traces"
        )
    for i, trace in enumerate(network.traces):
        if trace.ndim != 2 or trace.shape[1] != 2 or len(trace) < 2 or not np.isfinite(trace).all():
            raise ConfigurationError(
                f"traces[{i}] must be finite positions [n, 2] with n >= 2, got shape {trace.shape}",
                field=f"traces[{i}]",
            )
    length = np.array([len(trace) for trace in network.traces], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
    return first, length, np.concatenate(network.traces).astype(np.float32)
