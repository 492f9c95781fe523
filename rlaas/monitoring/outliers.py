"""Inputs that no reference input resembles: far outside of it, made up to mislead, or broken.

Two measures, each compared with its own quantile among reference rows that were not used to define it, so that a share
``rate`` of normal rows is flagged by both together at most (Bonferroni):

* the Mahalanobis distance under a covariance shrunk towards its diagonal (Ledoit & Wolf 2004 give the amount), which
  sees combinations that do not occur, such as adversarial directions of little variance;
* the largest distance of a single feature beyond the range of the reference, in its standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError

__all__ = ["Flags", "OutlierModel"]

FloatArray = NDArray[np.float64]
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Flags:
    """Which rows are out of distribution.

    Attributes:
        flagged: [n].
        distance: [n] Mahalanobis distance; infinite where a feature is no finite number.
        feature: [n] the feature that lies furthest out.
    """

    flagged: NDArray[np.bool_]
    distance: FloatArray
    feature: NDArray[np.int64]


class OutlierModel:
    """Learns what is normal from reference rows [n, features].

    Args:
        reference: rows; the first half defines the measures, the second their quantiles, after shuffling.
        rng: shuffles.
        rate: share of normal rows that may be flagged.

    Raises:
        InvalidInputError: too few rows for that rate, or a rate outside (0, 1).
    """

    def __init__(self, reference: ArrayLike, rng: np.random.Generator, *, rate: float = 1e-3) -> None:
        rows = np.asarray(reference, dtype=np.float64)
        if not 0 < rate < 1:
            raise InvalidInputError(f"rate must be in (0, 1), got {rate!r}", field="rate")
        if rows.ndim != 2 or len(rows) < 4 / rate:
            raise InvalidInputError(
                f"a rate of {rate:g} needs {int(np.ceil(4 / rate))} reference rows [n, features], got {rows.shape}",
                field="reference",
            )
        if not np.isfinite(rows).all():
            raise InvalidInputError("the reference holds what is no finite number", field="reference")
        rows = rows[rng.permutation(len(rows))]
        fit, held = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        self.mean, spread = fit.mean(axis=0), fit.std(axis=0)
        self.unit = np.where(spread > 0, spread, 1e-6 * (1 + np.abs(self.mean)))
        x = (fit - self.mean) / self.unit
        self.shrinkage = _shrinkage(x)
        covariance = x.T @ x / len(x)
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * np.diag(np.diag(covariance).clip(1e-12))
        self._root = np.linalg.cholesky(np.linalg.inv(shrunk + 1e-9 * np.eye(len(shrunk))))
        self._low, self._high = x.min(axis=0), x.max(axis=0)
        distance, beyond, _ = self._measures(held)
        # The smallest value that at most so many of the held rows exceed, one more than that with a new row: conformal.
        place = min(len(held) - 1, int(np.ceil((len(held) + 1) * (1 - rate / 2))) - 1)
        self.bars = (float(np.sort(distance)[place]), float(np.sort(beyond)[place]))

    def flag(self, rows: ArrayLike) -> Flags:
        """Flag rows [n, features]; one with a value that is no finite number is always flagged.

        Raises:
            InvalidInputError: another number of features.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise InvalidInputError(f"rows must be [n, {len(self.mean)}], got shape {values.shape}", field="rows")
        distance, beyond, feature = self._measures(values)
        flagged = (distance > self.bars[0]) | (beyond > self.bars[1])
        return Flags(flagged, distance, feature)

    def _measures(self, rows: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
        distance, beyond = np.empty(len(rows)), np.empty(len(rows))
        feature = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            x = (rows[part] - self.mean) / self.unit
            sound = np.isfinite(x)
            x = np.where(sound, x, np.inf)
            out = np.maximum(x - self._high, self._low - x)
            feature[part], beyond[part] = out.argmax(axis=1), out.max(axis=1)
            whole = sound.all(axis=1)
            distance[part] = np.where(whole, np.linalg.norm(np.where(sound, x, 0.0) @ self._root, axis=1), np.inf)
        return distance, beyond, feature


def _shrinkage(x: FloatArray) -> float:
    """Best weight of the diagonal for standardised rows [n, d]: sum of var(s_ij) over sum of s_ij^2, off the diagonal.

    Schaefer & Strimmer (2005), target D, after Ledoit & Wolf.
    """
    n = len(x)
    moment, square = x.T @ x / n, (x * x).T @ (x * x) / n
    variance = np.maximum(square - moment**2, 0.0) / n
    off = ~np.eye(len(moment), dtype=np.bool_)
    total = float(np.sum(moment[off] ** 2))
    return float(np.clip(np.sum(variance[off]) / total, 0.0, 1.0)) if total > 0 else 1.0
