"""The knee: where a small gain in one objective costs much in another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.methods.base import DecisionMatrix

__all__ = ["DIRECTIONS", "Knee"]

FloatArray = NDArray[np.float64]

DIRECTIONS = 128

# Utilities held at once, in numbers: keeps a block in the cache of one core.
BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """Expected marginal utility (Branke, Deb, Dierolf & Osswald 2004, PPSN VIII), with axes scaled by the weights.

    For a linear utility the best candidate earns what it is ahead of the second best; the measure is the mean of that
    over utilities spread evenly on the simplex (:data:`DIRECTIONS` fixed points of a Halton sequence). Chosen before
    the distance to the hyperplane through the extremes (Das 1999), because that distance, once weighted, is no more
    than a weighted sum over other ranges. The weights stretch the axes of goodness: an objective of weight 0 has no
    part in a knee, and equal weights give the measure of the paper up to a factor.

    A knee bends on both sides, so a candidate that is best in an objective with a weight is none, however far ahead
    it is under utilities that see that objective only. Candidates that are no knee score minus their weighted goodness
    short of the best (<= 0): where the front has no knee the weighted sum decides, and :meth:`notes` says so.
    """

    name = "knee"
    work = DIRECTIONS

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """Expected marginal utility [k, n] of knees in units of weighted goodness; see the class for the others."""
        marginal = self._measures(matrix, weights)[0]
        best = (matrix.goodness == matrix.goodness.max(axis=0)).astype(np.float64)
        inner = (weights > 0).astype(np.float64) @ best.T == 0
        total = weights @ matrix.goodness.T
        return np.where((marginal > 0) & inner, marginal, total - total.max(axis=1, keepdims=True))

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``marginal_utility`` and ``best_share`` [n]: the measure, and the share of utilities it is best under."""
        marginal, share = self._measures(matrix, weights[None])
        return {"marginal_utility": marginal[0], "best_share": share[0]}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """Says where there is no knee."""
        if (self.scores(matrix, weights[None]) > 0).any():
            return ()
        return ("the front has no knee between its extremes, so the weighted sum decided",)

    def _measures(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Expected marginal utility [k, n], and share of the utilities under which a candidate is the best [k, n]."""
        count, size = len(weights), len(matrix)
        marginal, share = np.zeros(count * size), np.zeros(count * size)
        directions = _directions(matrix.goodness.shape[1])
        block = max(1, BLOCK // (count * size))
        for start in range(0, DIRECTIONS, block):
            utility = (weights * directions[start : start + block, None]) @ matrix.goodness.T
            best = utility.argmax(axis=2, keepdims=True)
            ahead = np.take_along_axis(utility, best, axis=2)[..., 0]
            np.put_along_axis(utility, best, -np.inf, axis=2)
            # Nobody is second to a lone candidate: it is ahead of nothing.
            second = utility.max(axis=2) if size > 1 else ahead
            cells = (np.arange(count) * size + best[..., 0]).ravel()
            marginal += np.bincount(cells, weights=(ahead - second).ravel(), minlength=count * size)
            share += np.bincount(cells, minlength=count * size)
        return (marginal / DIRECTIONS).reshape(count, size), (share / DIRECTIONS).reshape(count, size)


@lru_cache(maxsize=16)
def _directions(size: int) -> FloatArray:
    """Utilities [DIRECTIONS, size] spread evenly on the simplex: spacings of exponentials are uniform there.

    The Halton points are shifted by the golden section (mod 1), which keeps them off 0, where the logarithm ends.
    """
    from scipy.stats import qmc  # half a second, which every process that decides would pay

    points = (qmc.Halton(d=size, scramble=False).random(DIRECTIONS) + (math.sqrt(5) - 1) / 2) % 1.0
    spacings = -np.log(points)
    return np.asarray(spacings / spacings.sum(axis=1, keepdims=True))
