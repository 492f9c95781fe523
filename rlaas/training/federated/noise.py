"""Discrete Gaussian noise from the operating system's randomness (Canonne, Kamath and Steinke 2020, algorithm 3).

The rejection sampler is theirs, its probabilities are computed in double precision: they are right to some 1e-15
relative, not exact. Values are whole numbers, so the low bits of doubles (Mironov 2012) give nothing away.
"""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

from rlaas.training.federated.masking import expand

__all__ = ["discrete_gaussian"]

LARGEST_DEVIATION = 2.0**24
"""Beyond it a uniform number of 53 bits would leave gaps in the tails."""


def discrete_gaussian(deviation: float, n: int) -> NDArray[np.int64]:
    """``n`` draws from the whole numbers, each in proportion to exp(-x^2 / (2 deviation^2)).

    Args:
        deviation: from 0.01 to :data:`LARGEST_DEVIATION`.
        n: how many.
    """
    if not 0.01 <= deviation <= LARGEST_DEVIATION:
        raise ValueError(f"deviation must be 0.01 to {LARGEST_DEVIATION:.0f}, not {deviation}")
    scale = math.floor(deviation) + 1
    found = np.empty(n, dtype=np.int64)
    have = 0
    while have < n:
        size = 2 * (n - have) + 64
        # A geometric number is the whole part of an exponential one; with a sign, zero counted once, it is Laplace's.
        uniform = _uniform(3 * size).reshape(3, size)
        size_of = np.floor(-scale * np.log(uniform[0])).astype(np.int64)
        negative = uniform[1] < 0.5
        excess = size_of - deviation**2 / scale
        keep = uniform[2] < np.exp(-(excess**2) / (2 * deviation**2))
        keep &= ~(negative & (size_of == 0))
        drawn = np.where(negative, -size_of, size_of)[keep][: n - have]
        found[have : have + len(drawn)] = drawn
        have += len(drawn)
    return found


def _uniform(n: int) -> NDArray[np.float64]:
    """Numbers in (0, 1], multiples of 2^-53."""
    return ((expand(os.urandom(32), n) >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
