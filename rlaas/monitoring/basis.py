"""A fixed set of functions of many columns, on which models are linear: fits are exact, fast and repeatable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Basis", "ridge"]

FloatArray = NDArray[np.float64]
_CLIP = 6.0
_RIDGE = 1e-3
_MOST_PRODUCTS = 24


class Basis:
    """1, each column, its square, products of pairs where columns are few, and random Fourier features.

    The last approximate a Gaussian kernel (Rahimi & Recht 2007), so that dependence of any smooth form can be seen.

    Args:
        sample: [n, columns] that columns are standardised by.
        rng: draws the frequencies.
        waves: number of Fourier features.
    """

    def __init__(self, sample: FloatArray, rng: np.random.Generator, *, waves: int = 64) -> None:
        self._centre = np.median(sample, axis=0)
        spread = sample.std(axis=0)
        self._unit = np.where(spread > 0, spread, 1.0)
        columns = sample.shape[1]
        self._pairs = np.triu_indices(columns, 1) if columns <= _MOST_PRODUCTS else None
        # The median distance of standardised rows is about sqrt(2 columns).
        self._waves = rng.normal(size=(columns, waves)) / np.sqrt(2 * columns)
        self._phases = rng.uniform(0, 2 * np.pi, waves)

    def rows(self, values: FloatArray) -> FloatArray:
        """The functions [n, k] of rows [n, columns]; values far outside of the sample are cut."""
        x = np.clip((values - self._centre) / self._unit, -_CLIP, _CLIP)
        parts = [np.ones((len(x), 1)), x, x * x, np.cos(x @ self._waves + self._phases)]
        if self._pairs is not None:
            parts.append(x[:, self._pairs[0]] * x[:, self._pairs[1]])
        return np.concatenate(parts, axis=1)


def ridge(rows: FloatArray) -> FloatArray:
    """The matrix [k, n] that makes ridge weights of targets [n]: ``(X'X + c I)^-1 X'``."""
    gram = rows.T @ rows
    gram += _RIDGE * len(rows) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, rows.T))
