"""What the random numbers of a step are for: one number of the counter each, so that no two uses share a block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import circle, inner, log2, uniforms

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
    "normals",
]

PAGE, ARRIVAL, PERSON, SEGMENT, USER, TREND, SHOCK, BEGIN = range(8)
"""The world: choice and order, return and gap, patience, price and segment, tastes, trends, shocks, the first day."""

COIN, TICKET, TASTE, TASTE_AGAIN, ITEM, ITEM_AGAIN = range(8, 14)
"""The platform: exploration of positions, and samples from its posteriors."""

_ONE = np.float32(1.0)
_MINUS_TWO_LN2 = np.float32(-2.0 * math.log(2.0))


@inner(inline=False)
def draw(key: np.uint64, step: int, stream: int, index: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Four uniform numbers; compiled once rather than at every use."""
    numbers: tuple[np.float32, np.float32, np.float32, np.float32] = uniforms(key, step, stream, index)
    return numbers


@inner(inline=False)
def normals(key: np.uint64, step: int, stream: int, count: int, out: NDArray[Any]) -> None:
    """``count`` standard normal numbers (Box and Muller 1958); ``out`` holds up to three more than that."""
    blocks = (count + 3) // 4
    half = 2 * blocks
    for block in range(blocks):
        a, b, c, d = uniforms(key, step, stream, block)
        out[2 * block], out[2 * block + 1] = a, c
        out[half + 2 * block], out[half + 2 * block + 1] = b, d
    # Halves side by side rather than pairs: the loop is vectorised.
    for i in range(half):
        radius = np.float32(math.sqrt(_MINUS_TWO_LN2 * log2(np.float32(_ONE - out[i]))))
        cosine, sine = circle(out[half + i])
        out[i], out[half + i] = radius * cosine, radius * sine
