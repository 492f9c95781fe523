"""The Nash bargaining solution: objectives as players, a fallback that each of them has already as the threat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.methods.base import DecisionMatrix
from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.objectives import Objective, normalise

__all__ = ["Nash"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nash:
    """Asymmetric Nash bargaining (Nash 1950; Kalai 1977, International Journal of Game Theory 6).

    Players are the objectives with a positive weight, their utility is goodness, the weights are their bargaining
    powers. Among candidates better than the disagreement point for every player the one with the largest product of
    gains, each to the power of its weight, wins; its score is that product, the weighted geometric mean of gains.
    Whoever is not better for every player is outside the bargaining set and scores its least gain over the players
    (<= 0). So where the set is empty the egalitarian solution (Kalai 1977, Econometrica 45) decides, the one that
    lets the worst served player lose least, and :meth:`notes` says so.

    Attributes:
        disagreement: what stays in force without an agreement: value by objective, in its unit. None: the scenario's
            default where the front knows it, otherwise the worse end of every objective's range.

    Raises:
        InvalidInputError: a value that is not a finite number.
    """

    disagreement: Mapping[str, float] | None = None
    name = "nash"
    work = 2

    def __post_init__(self) -> None:
        for objective, value in (self.disagreement or {}).items():
            number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise InvalidInputError(
                    f"disagreement.{objective} must be a finite number, got {shown(value)}",
                    field=f"disagreement.{objective}",
                )

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """See the class; [k, n] in units of goodness."""
        gains = self._gains(matrix)
        least = _least(gains, weights)
        logarithms = np.log(np.where(gains > 0, gains, 1.0))
        return np.asarray(np.where(least > 0, np.exp(weights @ logarithms.T), least))

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``least_gain`` and ``mean_gain`` [n] over the disagreement point, in units of goodness."""
        gains = self._gains(matrix)
        return {"least_gain": _least(gains, weights[None])[0], "mean_gain": np.asarray(gains @ weights)}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """Which point stands for disagreement, how many candidates beat it, and what decided if none does."""
        agreed = int((_least(self._gains(matrix), weights[None])[0] > 0).sum())
        point = "the disagreement point"
        if self.disagreement is None:
            point = "the worse ends of the ranges" if matrix.default is None else "the scenario's default"
        if agreed:
            return (f"{agreed} of {len(matrix)} candidates are better than {point} for every objective with a weight",)
        nobody = f"no candidate is better than {point} for every objective with a weight"
        return (f"{nobody}, so there is no Nash solution: the least loss of the worst served objective decided",)

    def _gains(self, matrix: DecisionMatrix) -> FloatArray:
        """Goodness over the disagreement point [n, m]."""
        if self.disagreement is None:
            return matrix.goodness if matrix.default is None else np.asarray(matrix.goodness - matrix.default)
        return np.asarray(
            matrix.goodness - normalise(matrix.objectives, _ordered(matrix.objectives, self.disagreement))
        )


def _ordered(objectives: tuple[Objective, ...], point: Mapping[str, float]) -> list[float]:
    names = [objective.name for objective in objectives]
    for name in point:
        check_choice(name, names, field="disagreement objective", error=InvalidInputError)
    for name in names:
        if name not in point:
            raise InvalidInputError(
                f"disagreement lacks {name}; it needs a value for each of {', '.join(names)}",
                field=f"disagreement.{name}",
            )
    return [float(point[name]) for name in names]


def _least(gains: FloatArray, weights: FloatArray) -> FloatArray:
    """Least gain over the players [k, n]: objectives of weight 0 are none."""
    least = np.full((len(weights), len(gains)), np.inf)
    for j in range(gains.shape[1]):
        np.minimum(least, np.where(weights[:, j, None] > 0, gains[:, j], np.inf), out=least)
    return least
