"""Many metrics or many experiments at once: adjusted p-values, and e-values under any dependence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.experiments.inference.checks import checked_level, checked_values

__all__ = ["benjamini_hochberg", "e_benjamini_hochberg", "holm"]

FloatArray = NDArray[np.float64]


def holm(p_values: ArrayLike) -> FloatArray:
    """P-values [n] adjusted so that rejecting those <= alpha errs at all with probability alpha (Holm 1979).

    Holds under any dependence, and for always-valid p-values read at any time.

    Raises:
        InvalidInputError: a value outside [0, 1].
    """
    p = checked_values(p_values, "p_values", 0.0, 1.0)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _returned(stepped, order)


def benjamini_hochberg(p_values: ArrayLike) -> FloatArray:
    """P-values [n] adjusted so that of those rejected at <= q a share q is false in expectation.

    Benjamini & Hochberg 1995; for independent p-values or positively dependent ones.

    Raises:
        InvalidInputError: a value outside [0, 1].
    """
    p = checked_values(p_values, "p_values", 0.0, 1.0)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _returned(np.minimum.accumulate(scaled[::-1])[::-1], order)


def e_benjamini_hochberg(log_e: ArrayLike, q: float) -> NDArray[np.bool_]:
    """Which nulls to reject, from the logarithms of their e-values [n], so that a share q is false in expectation.

    The k largest, for the largest k whose k-th is at least n / (k q) (Wang & Ramdas 2022, "False discovery rate control
    with e-values"). Holds under any dependence, and at any time at which the e-values are read.

    Raises:
        InvalidInputError: a value that is no finite number, or a q outside (0, 1).
    """
    values, level = checked_values(log_e, "log_e"), checked_level(q, "q")
    n = len(values)
    largest = np.sort(values)[::-1]
    enough = np.flatnonzero(largest >= np.log(n) - np.log(np.arange(1, n + 1) * level)) if n else np.empty(0, np.int64)
    if not len(enough):
        return np.zeros(n, dtype=np.bool_)
    return np.asarray(values >= largest[enough[-1]])


def _returned(adjusted: FloatArray, order: NDArray[np.int64]) -> FloatArray:
    found = np.empty(len(adjusted))
    found[order] = np.minimum(adjusted, 1.0)
    return found
