"""Numbers as elements of Z_2^64, in which sums are exact whatever their order and masks can be uniform.

Two encodings. *Grid* numbers are many and small (changes of parameters): multiples of ``2**-bits``, one element each.
*Wide* numbers are few and of any size (sums of squares of observations): multiples of ``2**-40`` below ``2**86``, cut
into limbs of 32 bits, one element each, so that a sum of 2^20 of them does not carry out of its element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import TrainingError

__all__ = ["LIMBS", "MOST_TERMS", "bits_for", "from_grid", "from_limbs", "from_wide", "to_grid", "to_limbs", "to_wide"]

Elements = NDArray[np.uint64]

LIMBS = 4
LIMB_BITS = 32
WIDE_BITS = 40
WIDE_LIMIT = 2 ** (LIMBS * LIMB_BITS - 2)
MOST_TERMS = 2**20
MOST_BITS = 48


def bits_for(limit: float, terms: int) -> int:
    """The finest grid on which ``terms`` numbers of size ``limit`` sum to less than 2^62, at most :data:`MOST_BITS`.

    A double has 53 bits: a finer grid than 2^-48 would resolve nothing in numbers around 1.
    """
    return min(MOST_BITS, 62 - math.ceil(math.log2(limit * terms)))


def to_grid(values: ArrayLike, bits: int, limit: float, noise: NDArray[np.int64] | None = None) -> Elements:
    """``values`` [n] rounded to the grid, plus ``noise`` in grid units [n].

    Args:
        values: numbers.
        bits: the grid is ``2**-bits``.
        limit: largest size that the result may have; see :func:`bits_for`.
        noise: whole numbers, or None.

    Raises:
        TrainingError: a number is not finite or beyond ``limit``: wrapped around it would falsify the sum.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all() or (array.size and np.abs(array).max() > limit):
        largest = np.abs(array).max()
        raise TrainingError(
            f"a parameter has changed by {largest:.4g} (weighted), beyond secure.limit {limit:g}; "
            "lower the learning rate or raise the limit",
            field="secure.limit",
        )
    grid = np.rint(np.ldexp(array, bits)).astype(np.int64)
    if noise is not None:
        grid = grid + noise
        if grid.size and int(np.abs(grid).max()) > int(limit * 2**bits):
            raise TrainingError(
                f"an update and its noise are beyond secure.limit {limit:g}; raise it", field="secure.limit"
            )
    return grid.view(np.uint64)


def from_grid(elements: Elements, bits: int) -> NDArray[np.float64]:
    """The numbers [n] behind a sum of grid numbers."""
    return np.asarray(np.ldexp(elements.view(np.int64).astype(np.float64), -bits))


def to_wide(value: float | Fraction, what: str = "value") -> int:
    """A number as a multiple of 2^-40.

    Raises:
        TrainingError: it is not finite or not below 2^86; the message names ``what``.
    """
    if isinstance(value, float) and not np.isfinite(value):
        raise TrainingError(f"{what} is {value}; check the observations and rewards", field=what)
    wide: int = round(Fraction(value) * 2**WIDE_BITS)
    if abs(wide) >= WIDE_LIMIT:
        raise TrainingError(f"{what} is {float(value):.4g}, too large to be summed", field=what)
    return wide


def from_wide(value: int) -> Fraction:
    """The number behind a (sum of) wide numbers, exactly."""
    return Fraction(value, 2**WIDE_BITS)


def to_limbs(values: Sequence[int]) -> Elements:
    """Wide numbers [n] as elements [n * LIMBS]; the last limb of each carries the sign."""
    low = [(value >> (LIMB_BITS * i)) & (2**LIMB_BITS - 1) for value in values for i in range(LIMBS - 1)]
    high = [value >> (LIMB_BITS * (LIMBS - 1)) for value in values]
    limbs = np.empty((len(values), LIMBS), dtype=np.uint64)
    limbs[:, :-1] = np.array(low, dtype=np.uint64).reshape(len(values), LIMBS - 1)
    limbs[:, -1] = np.array(high, dtype=np.int64).view(np.uint64)
    return limbs.reshape(-1)


def from_limbs(elements: Elements) -> list[int]:
    """Wide numbers [n] behind a sum of elements [n * LIMBS]."""
    limbs = elements.reshape(-1, LIMBS)
    return [
        sum(int(part) << (LIMB_BITS * i) for i, part in enumerate(row[:-1]))
        + (int(row[-1:].view(np.int64)[0]) << (LIMB_BITS * (LIMBS - 1)))
        for row in limbs
    ]
