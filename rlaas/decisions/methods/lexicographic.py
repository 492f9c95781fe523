"""Lexicographic order: the most important objective first, the next one only among equals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.methods.base import DecisionMatrix
from rlaas.errors import InvalidInputError, shown

__all__ = ["TOLERANCE", "Lexicographic"]

FloatArray = NDArray[np.float64]

TOLERANCE = 0.01

# Weights this near are the same rank: a third written as a decimal is meant to equal another third.
SAME_WEIGHT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicographic:
    """Lexicographic elimination with a tolerance (lexicographic semiorder, Tversky 1969, Psychological Review 76).

    Objectives come in the order of their weights; those of equal weight form one level, judged by their mean
    goodness, and those of weight 0 have no say. At every level the candidates more than ``tolerance`` below the best
    that is left drop out. Whoever is left after the last level is ordered by weighted goodness. The score is
    ``(levels passed + closeness) / (levels + 1)``, in which closeness in (0, 1] falls with what was missing.

    Attributes:
        tolerance: in units of goodness, by default 1 % of an objective's range: less is rarely told apart by a
            confidence interval.

    Raises:
        InvalidInputError: a tolerance that is not a finite number >= 0.
    """

    tolerance: float = TOLERANCE
    name = "lexicographic"
    work = 2

    def __post_init__(self) -> None:
        number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not number or not math.isfinite(self.tolerance) or self.tolerance < 0:
            raise InvalidInputError(
                f"tolerance must be a finite number >= 0 in units of goodness, got {shown(self.tolerance)}",
                field="tolerance",
            )

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """See the class; [k, n] in (0, 1]."""
        passed, closeness, levels = self._eliminate(matrix, weights)
        return np.asarray((passed + closeness) / (levels[:, None] + 1))

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``levels_passed`` [n] before a candidate drops out."""
        return {"levels_passed": self._eliminate(matrix, weights[None])[0][0]}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """The order of the objectives."""
        level = _levels(weights[None])[0]
        order = [
            " = ".join(o.name for o, at in zip(matrix.objectives, level, strict=True) if at == rank)
            for rank in range(int(level.max()) + 1)
        ]
        return (f"order of objectives: {' > '.join(order)}, each within {self.tolerance:g} of its range",)

    def _eliminate(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Levels passed [k, n], closeness where it ended [k, n], and number of levels [k]."""
        level = _levels(weights)
        levels = (level.max(axis=1) + 1).astype(np.float64)
        shape = (len(weights), len(matrix))
        alive, passed, closeness = np.ones(shape, dtype=bool), np.zeros(shape), np.zeros(shape)
        for rank in range(int(levels.max())):
            here = level == rank
            judged = here.any(axis=1, keepdims=True)
            goodness = (here / np.maximum(here.sum(axis=1, keepdims=True), 1)) @ matrix.goodness.T
            missing = np.where(alive, goodness, -np.inf).max(axis=1, keepdims=True) - goodness
            out = alive & judged & (missing > self.tolerance)
            closeness[out] = 1.0 / (1.0 + missing[out])
            alive &= ~out
            passed += alive & judged
        total = weights @ matrix.goodness.T
        short = np.where(alive, total, -np.inf).max(axis=1, keepdims=True) - total
        return passed, np.where(alive, 1.0 / (1.0 + np.where(alive, short, 0.0)), closeness), levels


def _levels(weights: FloatArray) -> NDArray[np.intp]:
    """Rank of every objective by weight [k, m]: 0 for the heaviest, equal for equals, -1 for weight 0."""
    order = np.argsort(-weights, axis=1, kind="stable")
    falling = np.take_along_axis(weights, order, axis=1)
    steps = np.zeros(weights.shape, dtype=np.intp)
    steps[:, 1:] = np.cumsum(falling[:, :-1] - falling[:, 1:] > SAME_WEIGHT, axis=1)
    steps[falling <= SAME_WEIGHT] = -1
    level = np.empty_like(steps)
    np.put_along_axis(level, order, steps, axis=1)
    return level
