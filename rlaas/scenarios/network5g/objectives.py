"""What is counted: the additive parts of every step, the objectives made from their sums, and the step's reward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.objectives import Objective, normalise
from rlaas.scenarios.network5g.reference import Regime

__all__ = ["PART_NAMES", "make_objectives", "objective_values", "step_rewards"]

FloatArray = NDArray[np.floating[Any]]

PART_NAMES = (
    "latency_embb",  # delay of packets in ms / offered packets
    "latency_urllc",
    "latency_mmtc",
    "throughput",  # eMBB Mbit served / user-seconds with a non-empty buffer
    "energy",  # J / cell-seconds
    "satisfaction",  # satisfied user-seconds / active user-seconds
    "served",  # Mbit served / Mbit offered, all slices
    "rb_use",  # resource blocks and time in use / available
    "asleep",  # share of the time at sleep power / cell-steps
    "outage",  # user-seconds below the lowest CQI / user-seconds
    "handovers",  # per user-second
    "ping_pongs",  # per user-second
    "link_failures",  # per user-second
)
LATENCY = slice(0, 3)
THROUGHPUT = PART_NAMES.index("throughput")
ENERGY = PART_NAMES.index("energy")
SATISFACTION = PART_NAMES.index("satisfaction")
SERVED = PART_NAMES.index("served")

OWN_SHARE = 0.5
"""Share of a cell's own part in its reward; the rest is the network's mean, since cells can pass on their users."""


def make_objectives(regime: Regime) -> tuple[Objective, ...]:
    """The four objectives with the frozen ranges of a regime."""
    described = (
        ("latency", "", "minimize", "mean over slices of the packet delay relative to the frozen default's"),
        ("throughput", "Mbit/s", "maximize", "eMBB bits served per user-second with data to send, outage included"),
        ("energy", "W", "minimize", "mean power of a cell, sleep transitions included"),
        ("satisfaction", "", "maximize", "share of active user-seconds whose service level is met"),
    )
    return tuple(
        Objective(
            name=name,
            unit=unit,
            direction=direction,  # type: ignore[arg-type]
            low=regime.ranges[name][0],
            high=regime.ranges[name][1],
            description=text,
        )
        for name, unit, direction, text in described
    )


def objective_values(numerators: FloatArray, denominators: FloatArray, regime: Regime) -> FloatArray:
    """Objectives [..., 4] from summed parts [..., n_parts]; NaN where a denominator is 0."""
    n, d = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    ratio = np.divide(n, d, out=np.full(n.shape, np.nan), where=d > 0)
    latency = (ratio[..., LATENCY] / np.array(regime.latency_ms)).mean(axis=-1)
    return np.stack([latency, ratio[..., THROUGHPUT], ratio[..., ENERGY], ratio[..., SATISFACTION]], axis=-1)


def step_rewards(
    numerators: FloatArray, denominators: FloatArray, regime: Regime, objectives: tuple[Objective, ...]
) -> NDArray[np.float64]:
    """Rewards [envs, cells, 4] of one step's parts [envs, cells, n_parts]: larger is better, in normalised units.

    A ratio of sums has no per-step value where its denominator is 0, and the mean of per-step ratios is another
    quantity. So each step contributes the ratio's first-order expansion around the frozen default:
    ``default + (numerator - default * denominator) / (default's mean denominator)``. It adds up over steps and cells,
    is exact where the denominator does not depend on the actions (latency, energy), and is the default's value where
    nothing was asked for. Half of a cell's reward is its own contribution, half the mean over the network.
    """
    delay = numerators[..., LATENCY] / (np.array(regime.packets) * np.array(regime.latency_ms))
    values = np.stack(
        [
            delay.mean(axis=-1),
            _expand(numerators, denominators, THROUGHPUT, regime.throughput, regime.active_s),
            numerators[..., ENERGY] / denominators[..., ENERGY],
            _expand(numerators, denominators, SATISFACTION, regime.satisfaction, regime.satisfaction_s),
        ],
        axis=-1,
    )
    own = normalise(objectives, values)
    return np.asarray(OWN_SHARE * own + (1.0 - OWN_SHARE) * own.mean(axis=1, keepdims=True))


def _expand(n: FloatArray, d: FloatArray, part: int, default: float, usual: float) -> FloatArray:
    return np.asarray(default + (n[..., part] - default * d[..., part]) / usual)
