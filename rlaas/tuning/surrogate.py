"""What trials have shown so far as a model of the objectives, and which candidates it would have tried next.

A training costs minutes and a prediction microseconds: many children are bred, and the one is tried of which the model
expects most (pre-selection by a metamodel: Emmerich, Giotis, Özdemir, Bäck & Giannakoglou 2002, PPSN VII).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import rankdata

from rlaas.optimization import hypervolume

__all__ = ["GaussianProcess", "levels", "volume_gains"]

FloatArray = NDArray[np.float64]

_LENGTHS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.8, 3.2)
"""Length scales tried, in units of the diagonal of the unit box."""
_NOISES = (1e-4, 1e-2, 1e-1)
"""Noise variances tried, as shares of the signal's."""
_REFERENCE = 1.1
"""Where hypervolume is measured from, in levels: a bit beyond the worst, so that the ends of a front count."""


class GaussianProcess:
    """Regression with a Matérn 5/2 kernel, one length scale and one noise level for each output.

    Both come from a small grid by the likelihood, maximised over the signal's variance in closed form: with some
    dozens of points a finer choice fits noise (Rasmussen & Williams 2006, sections 2.2, 4.2 and 5.4).

    Args:
        X: inputs [n, n_features], n >= 1.
        Y: outputs [n, n_outputs].
    """

    def __init__(self, X: FloatArray, Y: FloatArray) -> None:
        n, features = X.shape
        self._X, self._mean = X, Y.mean(axis=0)
        centred = Y - self._mean
        distances = _distances(X, X)
        best = np.full(Y.shape[1], math.inf)
        self._lengths = np.empty(Y.shape[1])
        self._weights = np.empty((n, Y.shape[1]))
        for length in np.array(_LENGTHS) * math.sqrt(features):
            kernel = _matern(distances, length)
            for noise in _NOISES:
                root = cholesky(kernel + noise * np.eye(n), lower=True)
                whitened = solve_triangular(root, centred, lower=True)
                # An output that never changes has no variance to take a logarithm of.
                variance = np.maximum((whitened**2).mean(axis=0), np.finfo(float).tiny)
                badness = 0.5 * n * np.log(variance) + np.log(np.diag(root)).sum()
                better = badness < best
                best[better], self._lengths[better] = badness[better], length
                self._weights[:, better] = solve_triangular(root, whitened[:, better], lower=True, trans="T")

    def predict(self, X: FloatArray) -> FloatArray:
        """Expected outputs [k, n_outputs] at X [k, n_features]."""
        distances = _distances(X, self._X)
        columns = [_matern(distances, length) @ w for length, w in zip(self._lengths, self._weights.T, strict=True)]
        return np.asarray(self._mean + np.stack(columns, axis=1))


def _distances(A: FloatArray, B: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(A[:, np.newaxis] - B[np.newaxis], axis=2))


def _matern(distances: FloatArray, length: float) -> FloatArray:
    r = math.sqrt(5.0) * distances / length
    return np.asarray((1.0 + r + r**2 / 3.0) * np.exp(-r))


def levels(F: FloatArray) -> FloatArray:
    """Objectives [n, n_obj] from 0 (the best of each) to 1 (the worst), half by range and half by rank.

    By range alone one diverged trial would press the others into a corner; by rank alone it would not matter how much
    better the best is.
    """
    size = np.abs(F).max(axis=0)
    scaled = F / np.where(size > 0, size, 1.0)  # the difference of huge numbers would be infinite
    span = np.ptp(scaled, axis=0)
    by_range = (scaled - scaled.min(axis=0)) / np.where(span > 0, span, 1.0)
    by_rank = (rankdata(F, axis=0) - 1.0) / max(len(F) - 1, 1)
    return np.asarray(0.5 * (by_range + by_rank))


def volume_gains(reached: FloatArray, candidates: FloatArray) -> FloatArray:
    """Hypervolume [k] that each of the candidates [k, n_obj] would add to what is reached [n, n_obj], in levels."""
    import moocore

    corner = np.full(reached.shape[1], _REFERENCE)
    front = reached[moocore.is_nondominated(reached)]
    base = hypervolume(front, corner)
    return np.array([hypervolume(np.vstack([front, one]), corner) - base for one in candidates])
