"""The weighted sum of goodness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.methods.base import DecisionMatrix

__all__ = ["WeightedSum"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSum:
    """Mean goodness under the weights (simple additive weighting, Fishburn 1967), in the frozen ranges.

    The score of a candidate depends on no other candidate, so orders never reverse; candidates inside a dent of the
    front win under no weights.
    """

    name = "weighted_sum"
    work = 1

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """Weighted mean goodness [k, n]."""
        scores: FloatArray = weights @ matrix.goodness.T
        return scores

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``shortfall`` [n]: weighted goodness missing to the best value present in every objective."""
        best = matrix.goodness.max(axis=0)
        return {"shortfall": np.asarray((best - matrix.goodness) @ weights)}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """Nothing: the score says it all."""
        return ()
