"""What the random numbers of a step are for: one number of the counter each, so that no two uses share a block."""

from __future__ import annotations

import numpy as np
from numba import njit

from rlaas.scenarios.compiled import uniforms

__all__ = [
    "ARRIVAL",
    "BEGIN",
    "COIN",
    "ITEM",
    "ITEM_AGAIN",
    "PAGE",
    "PERSON",
    "SEGMENT",
    "SHOCK",
    "TASTE",
    "TASTE_AGAIN",
    "TICKET",
    "TREND",
    "USER",
    "draw",
]

PAGE, ARRIVAL, PERSON, SEGMENT, USER, TREND, SHOCK, BEGIN = range(8)
"""The world: choice and order, return and gap, patience, price and segment, tastes, trends, shocks, the first day."""

COIN, TICKET, TASTE, TASTE_AGAIN, ITEM, ITEM_AGAIN = range(8, 14)
"""The platform: exploration of positions, and samples from its posteriors."""


@njit(cache=True, _nrt=False)
def draw(key: np.uint64, step: int, stream: int, index: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Four uniform numbers; compiled once rather than at every use, which halves the time to compile the kernels."""
    numbers: tuple[np.float32, np.float32, np.float32, np.float32] = uniforms(key, step, stream, index)
    return numbers
