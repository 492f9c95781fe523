"""Offspring of real and whole numbers: simulated binary crossover and polynomial mutation, compiled.

Sources: Deb & Agrawal 1995 ("Simulated binary crossover for continuous search space"), in the bounded form of Deb &
Jain 2011, and Deb & Goyal 1996 (polynomial mutation). Each variable takes part in a crossover with probability 1/2, as
in the authors' code; whole numbers are bred as real ones and rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["SEEDS", "breed", "distinct_rows", "next_random", "row_hashes", "unseen"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SEEDS = 2**63
"""Kernels draw from their own stream, whose seed is a whole number below this."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 1.0 / 9007199254740992.0  # 2^-53
_TOO_CLOSE = 1e-14

_MUTATED_CHILDREN = 0.9
"""Share of children that mutation may touch, as in pymoo: pure crossovers settle on a front more finely."""


@njit(cache=True, nogil=True, inline="always")
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit(cache=True, nogil=True, inline="always")
def next_random(stream: Any) -> Any:
    """The next number in [0, 1) of a stream (splitmix64; Steele, Lea & Flood 2014), whose state is one uint64 [1]."""
    stream[0] += _GOLDEN
    return np.float64(_mixed(stream[0]) >> _S11) * _UNIT


@njit(cache=True, nogil=True)
def row_hashes(X: Any) -> Any:
    """A number [n] for each row of X [n, m]: equal rows have equal ones."""
    bits = (X + 0.0).view(np.uint64)  # -0 becomes 0
    n, m = X.shape
    hashes = np.empty(n, dtype=np.uint64)
    whole = n - n % 4
    for i in range(0, whole, 4):  # four rows side by side: the steps of one wait for each other
        a = b = c = d = _GOLDEN
        for j in range(m):
            a = _mixed(a ^ bits[i, j]) + _GOLDEN
            b = _mixed(b ^ bits[i + 1, j]) + _GOLDEN
            c = _mixed(c ^ bits[i + 2, j]) + _GOLDEN
            d = _mixed(d ^ bits[i + 3, j]) + _GOLDEN
        hashes[i], hashes[i + 1], hashes[i + 2], hashes[i + 3] = a, b, c, d
    for i in range(whole, n):
        h = _GOLDEN
        for j in range(m):
            h = _mixed(h ^ bits[i, j]) + _GOLDEN
        hashes[i] = h
    return hashes


@njit(cache=True, nogil=True)
def unseen(hashes: Any, known: Any) -> Any:
    """Mask of ``hashes`` [n] that are neither in ``known`` [k] nor earlier in ``hashes``."""
    seen = set(known)
    fresh = np.zeros(len(hashes), dtype=np.bool_)
    for i in range(len(hashes)):
        if hashes[i] not in seen:
            seen.add(hashes[i])
            fresh[i] = True
    return fresh


@njit(cache=True, nogil=True)
def distinct_rows(X: Any, rows: Any) -> Any:
    """Those of ``rows`` of X [n, m] that are not equal to an earlier one of them."""
    return rows[unseen(row_hashes(X[rows]), np.empty(0, dtype=np.uint64))]


@njit(cache=True, nogil=True, inline="always")
def _alpha(beta: float, eta: float, far: float) -> float:
    """Share of the unbounded distribution inside the bound; 2 to the last bit from ``far`` on."""
    return 2.0 if beta > far else 2.0 - beta ** -(eta + 1.0)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _spread(alpha: float, r: float, power: float) -> float:
    return float((r * alpha if r <= 1.0 / alpha else 1.0 / (2.0 - r * alpha)) ** power)


@njit(cache=True, nogil=True, error_model="numpy")
def breed(
    X: Any,
    mothers: Any,
    fathers: Any,
    xl: Any,
    xu: Any,
    integer: Any,
    eta_crossover: float,
    eta_mutation: float,
    seed: int,
) -> Any:
    """Two children [2 n, n_var] of n couples: crossover, then mutation.

    Nine in ten children may mutate, in each variable with probability 1/n_var.

    Args:
        X: the population [size, n_var].
        mothers, fathers: rows of it [n].
        xl, xu: bounds [n_var].
        integer: whole-number variables [n_var].
        eta_crossover, eta_mutation: distribution indices; larger stays closer to the parents.
        seed: of everything drawn, below :data:`SEEDS`.
    """
    stream = np.array([np.uint64(seed)])
    couples, n_var = len(mothers), X.shape[1]
    children = np.empty((2 * couples, n_var))
    mutated = 1.0 / n_var
    power = 1.0 / (eta_mutation + 1.0)
    crossed = 1.0 / (eta_crossover + 1.0)
    far = 2.0 ** (55.0 / (eta_crossover + 1.0))
    for i in range(couples):
        for j in range(n_var):
            a, b = X[mothers[i], j], X[fathers[i], j]
            low, high = xl[j], xu[j]
            if abs(a - b) > _TOO_CLOSE and low < high and next_random(stream) < 0.5:
                small, large = min(a, b), max(a, b)
                r = next_random(stream)
                gap = large - small
                below = _alpha(1.0 + 2.0 * (small - low) / gap, eta_crossover, far)
                above = _alpha(1.0 + 2.0 * (high - large) / gap, eta_crossover, far)
                spread = _spread(below, r, crossed)
                c = 0.5 * (small + large - spread * gap)
                if above != below:  # near parents far from their bounds, the rule late in a search, share one power
                    spread = _spread(above, r, crossed)
                d = 0.5 * (small + large + spread * gap)
                if next_random(stream) < 0.5:
                    c, d = d, c
                a, b = min(max(c, low), high), min(max(d, low), high)
            children[2 * i, j], children[2 * i + 1, j] = a, b
    for i in range(2 * couples):
        moves = next_random(stream) < _MUTATED_CHILDREN
        for j in range(n_var):
            low, high = xl[j], xu[j]
            x = children[i, j]
            if moves and low < high and next_random(stream) < mutated:
                r = next_random(stream)
                span = high - low
                if r <= 0.5:
                    value = 2.0 * r + (1.0 - 2.0 * r) * (1.0 - (x - low) / span) ** (eta_mutation + 1.0)
                    x += (value**power - 1.0) * span
                else:
                    value = 2.0 * (1.0 - r) + 2.0 * (r - 0.5) * (1.0 - (high - x) / span) ** (eta_mutation + 1.0)
                    x += (1.0 - value**power) * span
            if integer[j]:
                x = np.floor(x + 0.5)
            children[i, j] = min(max(x, low), high)
    return children
