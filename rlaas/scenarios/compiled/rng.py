"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

A number is a function of a key and a counter, so that an environment's numbers depend neither on its neighbours in
the batch nor on the order in which they are asked for, need no state but the step, and can be computed anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled.kernels import inner

__all__ = ["environment_key", "philox", "uniforms"]

_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLY_0 = np.uint64(0xD2511F53)
_MULTIPLY_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_HALF = np.uint64(32)
_TO_UNIT = np.float32(2.0**-24)
_SHIFT = np.uint64(8)


def environment_key(seed: int) -> np.uint64:
    """The key of an environment: 64 bits spread from its seed, so that neighbouring seeds share nothing."""
    return np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


@inner
def philox(
    key: np.uint64, c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Four 32-bit words of the block with a 64-bit key and a counter of four 32-bit words."""
    k0, k1 = key & _MASK, key >> _HALF
    for _ in range(10):
        p0 = _MULTIPLY_0 * c0
        p1 = _MULTIPLY_1 * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _MASK, (p0 >> _HALF) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@inner
def uniforms(
    key: np.uint64, step: int, stream: int, index: int
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Four numbers in [0, 1) with 24 bits each.

    Args:
        key: of the environment.
        step: running number of the step (its low 64 bits count).
        stream: what the numbers are for, so that two uses never share a block.
        index: user, row or whatever else is enumerated.
    """
    s = np.uint64(step)
    a, b, c, d = philox(key, s & _MASK, s >> _HALF, np.uint64(stream), np.uint64(index))
    return (
        np.float32(a >> _SHIFT) * _TO_UNIT,
        np.float32(b >> _SHIFT) * _TO_UNIT,
        np.float32(c >> _SHIFT) * _TO_UNIT,
        np.float32(d >> _SHIFT) * _TO_UNIT,
    )


@inner
def philox_words(key: np.uint64, counters: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Words [n, 4] of the blocks with counters [n, 4], for comparison with other implementations."""
    for i in range(len(counters)):
        a, b, c, d = philox(key, counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3])
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = a, b, c, d
