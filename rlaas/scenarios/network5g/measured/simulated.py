"""Drive tests in the simulator: phones follow measured traces through a network and report what they see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.engine.arrays import FILTERED
from rlaas.scenarios.network5g.geography import Layout
from rlaas.scenarios.network5g.propagation import resource_blocks
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.scenario import Network5G

__all__ = ["DriveLayout", "SimulatedDrive", "simulate_drive"]

FloatArray = NDArray[np.float64]

CELLS, SECTORS = 21, 3
STEPS_PER_SECOND = round(1 / STEP_S)
SETTLE_S = 5
"""Seconds before the first sample: queues and handovers forget how the episode began."""
LEAST_ACTIVE_S = 0.05
"""A rate is known in a second with at least this much of it spent with data to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveLayout:
    """A network to drive through: 21 three-sector cells that wrap around, users outdoors.

    Attributes:
        propagation: ``uma`` or ``umi``.
        inter_site_m: distance of neighbouring sites.
        load: offered load, ``low``, ``mid`` or ``high``.
    """

    propagation: str
    inter_site_m: float
    load: str

    def describe(self) -> str:
        """``UMa, sites 500 m apart, mid load``."""
        name = {"uma": "UMa", "umi": "UMi"}[self.propagation]
        return f"{name}, sites {self.inter_site_m:g} m apart, {self.load} load"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDrive:
    """What the phones reported once a second.

    Attributes:
        rsrp_dbm: received power per resource element of the serving cell [samples].
        sinr_db: of the serving cell [samples].
        rate_mbit_s: served per second with data to send [seconds with data].
        speed_m_s: along the way [samples].
        paths: way driven in m and RSRP in dBm [seconds] of each phone.
        handovers: changes of the serving cell from second to second. way_km: driven by all phones.
    """

    rsrp_dbm: FloatArray
    sinr_db: FloatArray
    rate_mbit_s: FloatArray
    speed_m_s: FloatArray
    paths: tuple[tuple[FloatArray, FloatArray], ...]
    handovers: int
    way_km: float


def simulate_drive(
    layout: DriveLayout, positions: Sequence[NDArray[np.float32]], *, networks: int, seconds: int, seed: int
) -> SimulatedDrive:
    """Drive along ``positions`` through ``networks`` networks under the frozen default's settings.

    Args:
        layout: the network.
        positions: one array [steps, 2] in m per trace, a position every 100 ms.
        networks: how many; each has its own users, shadowing and hour of the day.
        seconds: sampled, after a few to settle.
        seed: of the networks.
    """
    scenario = Network5G(
        cells=CELLS,
        sectors=SECTORS,
        propagation=layout.propagation,
        inter_site_m=layout.inter_site_m,
        load=layout.load,
        indoor=0.0,
        mobility="trace",
        traces=positions,
        episode_steps=STEPS_PER_SECOND * (SETTLE_S + seconds) + 1,
    )
    env = scenario.vector_env(networks, seed, copy=False)
    observation, _ = env.reset(seed=seed)
    controller = scenario.baselines[scenario.default_baseline].make()
    controller.reset(env.num_envs, seed)
    embb, urllc, _ = scenario.users
    samples: list[dict[str, NDArray[Any]]] = []
    for second in range(-SETTLE_S, seconds + 1):
        if second >= 0:
            samples.append(_look(env.engine.state, embb, embb + urllc))
        if second < seconds:
            for _ in range(STEPS_PER_SECOND):
                observation = env.step(controller.act(observation))[0]
    env.close()
    radio = scenario.network.radio
    # The engine's power is of the whole carrier; RSRP is of one resource element (TS 38.215 section 5.1.1).
    elements = 12 * resource_blocks(radio.bandwidth_mhz, radio.subcarrier_khz)
    return _summary(samples, scenario.network.layout, 10.0 * math.log10(elements))


def _look(state: Any, embb: int, moving: int) -> dict[str, NDArray[Any]]:
    """Copies of what is known of the phones that move [networks, phones]."""
    users = state.users[:, :moving]
    power = np.take_along_axis(state.links[:, :moving, FILTERED], users["serving"][..., None], axis=2)[..., 0]
    return {
        "place": np.stack([users["x"], users["y"]], axis=-1).astype(np.float64),
        "power_dbm": power.astype(np.float64),
        "sinr_db": users["report_db"].astype(np.float64),
        "serving": users["serving"].copy(),
        "served": state.embb["served"][:, :embb].copy(),
        "active": state.embb["active"][:, :embb].copy(),
    }


def _summary(samples: list[dict[str, NDArray[Any]]], layout: Layout, elements_db: float) -> SimulatedDrive:
    series = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    step = np.diff(series["place"], axis=0)
    # A phone that leaves the wrapped plane comes in on the other side: the way there is the shortest equivalent one.
    stride = np.hypot(*layout.nearest_image(step[..., 0], step[..., 1]))
    way = np.concatenate([np.zeros((1, *stride.shape[1:])), np.cumsum(stride, axis=0)])
    rsrp = series["power_dbm"] - elements_db
    served, active = np.diff(series["served"], axis=0), np.diff(series["active"], axis=0)
    known = active > LEAST_ACTIVE_S
    phones = [(n, i) for n in range(rsrp.shape[1]) for i in range(rsrp.shape[2])]
    return SimulatedDrive(
        rsrp_dbm=rsrp.ravel(),
        sinr_db=series["sinr_db"].ravel(),
        rate_mbit_s=served[known] / active[known],
        speed_m_s=stride.ravel(),
        paths=tuple((way[:, n, i], rsrp[:, n, i]) for n, i in phones),
        handovers=int(np.count_nonzero(np.diff(series["serving"], axis=0))),
        way_km=float(way[-1].sum() / 1e3),
    )
