"""Figures that radio engineers ask about, each in the configuration that it belongs to: reachable or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.control import ACTION_NAMES, LOW, default_action
from rlaas.scenarios.network5g.engine.events import LARGEST_FACTOR
from rlaas.scenarios.network5g.env import VectorNetwork5G
from rlaas.scenarios.network5g.objectives import THROUGHPUT
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES
from rlaas.scenarios.network5g.reference import STEP_S
from rlaas.scenarios.network5g.scenario import Network5G
from rlaas.scenarios.reports import Section

__all__ = ["CapacityFigures", "DelayFigures", "capacity", "radio_figures", "urllc_delay"]

FloatArray = NDArray[np.float64]

RELIABLE = 1e-5
"""Share of URLLC packets that may be late: five nines."""
GIGABIT = 1000.0
WIDE: Mapping[str, Any] = {"bandwidth_mhz": 100.0, "subcarrier_khz": 30, "modulation": "256qam", "layers": 4}
CROWD = LARGEST_FACTOR
"""Factor on the high load's demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayFigures:
    """Delay of URLLC packets in ms, over all users and time.

    Attributes:
        mean_ms, p99_ms, p99999_ms: of all packets.
        late: share beyond 1 ms.
        reliable: share of user-seconds in which a packet is late with probability 1e-5 at most.
    """

    mean_ms: float
    p99_ms: float
    p99999_ms: float
    late: float
    reliable: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityFigures:
    """Mbit/s of the eMBB slice of crowded cells while it transmits.

    Attributes:
        peak: one user at the best modulation and coding, all of the slice's blocks.
        mean, best: served per second of transmission, over all cells, and by the best cell of a network, averaged over
            networks.
        busy: share of the time in which the slice transmits.
    """

    peak: float
    mean: float
    best: float
    busy: float


def urllc_delay(
    options: Mapping[str, Any], settings: Mapping[str, float], *, networks: int, steps: int
) -> DelayFigures:
    """What URLLC packets wait under fixed settings.

    Args:
        options: of the scenario.
        settings: components of the action that differ from the default's.
        networks: how many are simulated. steps: of 100 ms each, after a tenth more to settle.
    """
    scenario = Network5G(**options, delays=True, episode_steps=10 * steps)
    env = scenario.vector_env(networks, 0, copy=False)
    env.reset(seed=0)
    action = _action(scenario, env, settings)
    first, count, _ = scenario.users
    reliable = []
    for step in range(steps):
        env.step(action)
        if step % 10 == 9:
            reliable.append(float((env.engine.state.users["late"][:, first : first + count] <= RELIABLE).mean()))
    found = env.delays()["urllc"]
    env.close()
    return DelayFigures(
        mean_ms=found["mean_ms"],
        p99_ms=found["p99_ms"],
        p99999_ms=found["p99999_ms"],
        late=found["late"],
        reliable=float(np.mean(reliable)),
    )


def capacity(
    options: Mapping[str, Any], settings: Mapping[str, float], *, networks: int, steps: int
) -> CapacityFigures:
    """What cells serve to a crowd, by the time they transmit: a cell that a crowd does not fill counts like a full one.

    Args:
        options: of the scenario.
        settings: components of the action that differ from the default's.
        networks: how many are simulated. steps: of 100 ms each, after as many again to fill the queues.
    """
    crowd = {"kind": "demand", "factor": CROWD}
    scenario = Network5G(**options, load="high", hour=12.0, events=[crowd], episode_steps=4 * steps)
    env = scenario.vector_env(networks, 0, copy=False)
    env.reset(seed=0)
    action = _action(scenario, env, settings)
    served, busy_s = np.zeros(env.num_envs), np.zeros(env.num_envs)
    for step in range(2 * steps):
        observation, _, _, _, infos = env.step(action)
        if step >= steps:
            served += infos["numerators"][:, THROUGHPUT]
            busy_s += STEP_S * observation[:, OBSERVATION_NAMES.index("use_embb")]
    constants, links = env.engine.constants, env.engine.links
    shares = action[0, [ACTION_NAMES.index(f"{name}_share") for name in ("embb", "urllc", "mmtc")]]
    env.close()
    rates = np.divide(served, busy_s, out=np.zeros(len(served)), where=busy_s > 0).reshape(networks, scenario.cells)
    return CapacityFigures(
        peak=float(links.efficiency[-1]) * constants.usable_mhz_embb * float(shares[0] / shares.sum()),
        mean=float(served.sum() / busy_s.sum()),
        best=float(rates.max(axis=1).mean()),
        busy=float(busy_s.mean() / (STEP_S * steps)),
    )


def radio_figures(*, quick: bool = False) -> tuple[Section, ...]:
    """Whether 1 ms for URLLC and 1 Gbit/s per cell can be had.

    Args:
        quick: simulate less, for a first look.
    """
    networks, steps = (4, 100) if quick else (32, 600)
    return _urllc_section(networks, steps), _capacity_section(networks, steps // 2)


def _action(scenario: Network5G, env: VectorNetwork5G, settings: Mapping[str, float]) -> FloatArray:
    action = default_action(scenario.reference)
    for name, value in settings.items():
        action[ACTION_NAMES.index(name)] = value
    return np.repeat(action[None], env.num_envs, axis=0)


def _only(favoured: str) -> dict[str, float]:
    """Slice shares that leave the others the least there is."""
    names = [f"{name}_share" for name in ("embb", "urllc", "mmtc")]
    return {name: 1.0 if name == favoured else float(LOW[ACTION_NAMES.index(name)]) for name in names}


def _urllc_section(networks: int, steps: int) -> Section:
    """Delay of URLLC in the reference and in what a network planned for it would use."""
    half = {"embb_share": 0.5, "urllc_share": 0.5, "mmtc_share": 0.0625}
    dense = {"cells": 1, "inter_site_m": 200.0, "propagation": "umi"}
    wide = {"bandwidth_mhz": 100.0, "urllc_subcarrier_khz": 60}
    cases: Sequence[tuple[str, Mapping[str, Any], Mapping[str, float]]] = (
        ("reference (20 MHz, 30 kHz), default, low load", {"load": "low"}, {}),
        ("reference, default, high load", {"load": "high"}, {}),
        ("reference, half of the blocks for URLLC, high load", {"load": "high"}, half),
        ("60 kHz bandwidth part, half of the blocks, high load", {"load": "high", "urllc_subcarrier_khz": 60}, half),
        ("100 MHz, 60 kHz part, half of the blocks, high load", {"load": "high", **wide}, half),
        ("one UMi cell of a plant, 100 MHz, 60 kHz part, half of the blocks", {"load": "mid", **wide, **dense}, half),
        ("the same, cell asleep half of its idle time", {"load": "mid", **wide, **dense}, {**half, "sleep": 0.5}),
    )
    rows = []
    for title, options, settings in cases:
        found = urllc_delay(options, settings, networks=networks, steps=steps)
        rows.append(
            (
                title,
                found.mean_ms,
                found.p99_ms,
                found.p99999_ms,
                found.late,
                100 * found.reliable,
                "yes" if found.mean_ms < 1 else "no",
                "yes" if found.late <= RELIABLE else "no",
            )
        )
    reached = [row[0] for row in rows if row[-1] == "yes"]
    means = [row[0] for row in rows if row[-2] == "yes"]
    return Section(
        title="URLLC below 1 ms",
        text=(
            (
                "Delay over the air of 32-byte packets on mini-slots of two symbols: processing, alignment, "
                "transmission, waiting, and the rest of a sleeping transmitter's pause. *late* is the share of packets "
                "beyond 1 ms, *reliable* the share of user-seconds that keep 1 ms with probability 1 - 1e-5."
            ),
            f"A mean below 1 ms: {_listed(means)}. All packets but 1e-5 of all users within 1 ms: {_listed(reached)}.",
        ),
        header=(
            "configuration",
            "mean ms",
            "p99 ms",
            "p99.999 ms",
            "late",
            "reliable %",
            "mean < 1 ms",
            "1 ms at 1e-5",
        ),
        rows=rows,
        notes=(
            (
                "Users in outage count: their packets take the cap of 10 ms (quantiles come from bins 24 % wide, "
                "so the cap shows as up to 11.6 ms). Where the share of reliable user-seconds is "
                "high and 1e-5 over all users is not kept, it is coverage that fails, not the air interface. Core "
                "network and application come on top of what is shown."
            ),
        ),
    )


def _capacity_section(networks: int, steps: int) -> Section:
    """Mbit/s per cell at 100 MHz, 256QAM and four layers."""
    site = {"cells": 3, "sectors": 3}
    plane = {"cells": 21, "sectors": 3}
    cases: Sequence[tuple[str, Mapping[str, Any], Mapping[str, float]]] = (
        ("one cell in all directions", {"cells": 1}, {}),
        ("one UMi cell of 100 m in all directions", {"cells": 1, "propagation": "umi", "inter_site_m": 200.0}, {}),
        ("one site of 3 sectors, no beams", site, {}),
        ("one site of 3 sectors, 8 beams", {**site, "columns": 8}, {}),
        ("21 sectors, no beams", plane, {}),
        ("21 sectors, 8 beams", {**plane, "columns": 8}, {}),
        ("21 sectors, 8 beams, best channel first", {**plane, "columns": 8}, {"alpha": 0.5}),
    )
    rows = []
    for title, options, settings in cases:
        chosen = {**_only("embb_share"), **settings}
        found = capacity({**WIDE, **options}, chosen, networks=networks, steps=steps)
        rows.append(
            (
                title,
                found.peak,
                found.mean,
                found.best,
                100 * found.busy,
                "yes" if found.peak > GIGABIT else "no",
                "yes" if found.mean > GIGABIT else "no",
            )
        )
    return Section(
        title="1 Gbit/s per cell at 100 MHz, 256QAM, four layers",
        text=(
            (
                f"Users ask for {CROWD:g} times the high load; eMBB has all blocks but the least share of the other "
                "slices. *peak* is one user at the best modulation and coding, *served* what all of a cell's users get "
                "together per second that the cell transmits, *busy* how much of the time that is: interference is as "
                "strong as the neighbours are busy."
            ),
            f"On average over all cells: {_listed([row[0] for row in rows if row[-1] == 'yes'])}.",
        ),
        header=(
            "configuration",
            "peak",
            "served",
            "best cell",
            "busy %",
            "peak > 1 Gbit",
            "served > 1 Gbit/s",
        ),
        rows=rows,
        notes=(
            (
                "Rates are in Mbit/s. Four layers at every SINR that carries them is the rank of a rich channel: a "
                "real one gives that rank to a part of the users, so what is served here is an upper end."
            ),
        ),
    )


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names) if names else "in none of these"
