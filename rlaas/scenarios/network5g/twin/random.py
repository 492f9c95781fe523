"""The engine's counter-based random numbers on tensors: the same counters give the same bits.

See :mod:`rlaas.scenarios.compiled.rng`. torch has no unsigned 64-bit arithmetic, so a 32-bit word stands in an int64:
the product of two of them wraps modulo 2^64, and a mask behind the shift takes off the sign that the wrap may leave.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["normal_pair", "philox", "uniforms"]

_MASK = 0xFFFFFFFF
_MULTIPLY_0, _MULTIPLY_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_TO_UNIT = 2.0**-24

Word = Tensor | int
"""A word may still be a plain number in the first round, where all environments count alike."""


def philox(key: Tensor, c0: Word, c1: Word, c2: Word, c3: Word) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words of the blocks with 64-bit keys and counters of four 32-bit words; shapes are broadcast.

    Args:
        key: int64 with the bits of the key.
        c0, c1, c2, c3: words of the counter, int64 tensors or whole numbers.
    """
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY_0, c2 * _MULTIPLY_1
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return torch.as_tensor(c0), torch.as_tensor(c1), torch.as_tensor(c2), torch.as_tensor(c3)


def uniforms(key: Tensor, clock: int, streams: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four float32 numbers in [0, 1) [E, N] with 24 bits each, for every environment and every pair of counters.

    Args:
        key: of the environments [E], int64.
        clock: running number of the step.
        streams, indices: what the numbers are for [N], int64.
    """
    words = philox(key[:, None], clock & _MASK, clock >> 32, streams, indices)
    a, b, c, d = ((word >> 8).to(torch.float32) * _TO_UNIT for word in words)
    return a, b, c, d


def normal_pair(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal numbers from two uniform ones in [0, 1) (Box and Muller 1958)."""
    radius = torch.sqrt(-2.0 * math.log(2.0) * torch.log2(1.0 - u))
    angle = (2.0 * math.pi) * v
    return radius * torch.cos(angle), radius * torch.sin(angle)
