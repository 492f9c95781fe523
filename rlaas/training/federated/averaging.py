"""From the sites' updates to the next global model: FedAvg (McMahan et al. 2017, arXiv 1602.05629)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.fixed_point import LIMBS, bits_for, from_grid, from_limbs
from rlaas.training.federated.privacy import NoisePlan
from rlaas.training.federated.state import Layout, Sums

__all__ = ["Average", "average_masked", "average_noised", "average_plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """The outcome of a round.

    Attributes:
        parameters: the next global ones [Layout.size].
        sums: over the sites, or None with privacy.
        weights: each site's share, where it is known.
        rounding: largest error of a parameter that fixed-point numbers can have caused.
    """

    parameters: NDArray[np.float32]
    sums: Sums | None
    weights: Mapping[str, float]
    rounding: float


def average_plain(updates: Mapping[str, tuple[NDArray[np.float32], Sequence[int]]], layout: Layout) -> Average:
    """Mean of the sites' parameters, weighted by their decisions.

    A single site's parameters come back bit for bit: a product of 24 and 29 bits is exact in a double.
    """
    counts = {name: float(Sums.from_wide(wide, layout).decisions) for name, (_, wide) in updates.items()}
    total = sum(counts.values())
    parameters = sum(counts[name] * values.astype(np.float64) for name, (values, _) in updates.items()) / total
    sums = [sum(column) for column in zip(*(wide for _, wide in updates.values()), strict=True)]
    return Average(
        parameters=np.asarray(parameters, dtype=np.float32),
        sums=Sums.from_wide(sums, layout),
        weights={name: count / total for name, count in counts.items()},
        rounding=0.0,
    )


def average_masked(
    vector: NDArray[np.uint64], sites: int, before: NDArray[np.float32], layout: Layout, config: FederationConfig
) -> Average:
    """The same mean, up to the grid, from the sum of masked updates.

    Args:
        vector: sum of the sites' weighted changes and limbs.
        sites: how many are in it.
        before: the global parameters that they started from.
        layout: of the parameters.
        config: the federation.
    """
    assert config.secure is not None
    bits = bits_for(config.secure.limit, len(config.sites))
    sums = Sums.from_wide(from_limbs(vector[-LIMBS * Sums.count(layout) :]), layout)
    weight = float(sums.decisions / config.decisions)
    change = from_grid(vector[: layout.size], bits) / weight
    return Average(
        parameters=np.asarray(before + change, dtype=np.float32),
        sums=sums,
        weights={},
        rounding=sites * 2.0 ** -(bits + 1) / weight,
    )


def average_noised(vector: NDArray[np.uint64], sites: int, before: NDArray[np.float32], noise: NoisePlan) -> Average:
    """Mean of clipped changes under noise; every site weighs the same, for its decisions are its own."""
    return Average(
        parameters=np.asarray(before + from_grid(vector, noise.bits) / sites, dtype=np.float32),
        sums=None,
        weights={},
        rounding=2.0 ** -(noise.bits + 1),
    )
