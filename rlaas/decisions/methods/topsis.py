"""TOPSIS: the candidate nearest the ideal and farthest from the worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.decisions.methods.base import DecisionMatrix
from rlaas.errors import InvalidInputError, check_choice

__all__ = ["NORMALISATIONS", "Normalisation", "Topsis", "topsis"]

FloatArray = NDArray[np.float64]
Normalisation = Literal["range", "vector", "minmax"]

NORMALISATIONS = ("minmax", "range", "vector")
_OF_A_MATRIX = ("minmax", "vector")
"""Those that need nothing but the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topsis:
    """Technique for order preference by similarity to the ideal solution (Hwang & Yoon 1981).

    Ideal and worst are those of the candidates that compete, so one more or less of them can reverse the order of two
    others; a certificate checks that.

    Attributes:
        normalisation: ``range`` divides by the objectives' frozen ranges: what a unit of each is worth then depends
            neither on where its zero lies nor on who else competes, which takes most rank reversals away
            (García-Cascales & Lamata 2012). ``vector`` (classic) divides by the column's Euclidean norm, ``minmax`` by
            the spread of those that compete.

    Raises:
        InvalidInputError: an unknown normalisation.
    """

    normalisation: str = "range"
    name = "topsis"
    work = 1

    def __post_init__(self) -> None:
        check_choice(self.normalisation, NORMALISATIONS, field="normalisation", error=InvalidInputError)

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """Closeness [k, n] in [0, 1]; see :func:`topsis`."""
        return _closeness(*self._distances(matrix, weights))

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``to_ideal`` and ``to_worst`` [n], Euclidean over weighted normalised columns."""
        to_ideal, to_worst = self._distances(matrix, weights[None])
        return {"to_ideal": to_ideal[0], "to_worst": to_worst[0]}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """Nothing: the distances say it all."""
        return ()

    def _distances(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self.normalisation != "range":
            return _distances(matrix.values, weights, matrix.up, self.normalisation)
        # All by the largest first: squares of values near the float limits would overflow.
        largest = float(np.abs(matrix.goodness).max())
        largest = largest if largest > 1.0 else 1.0
        to_ideal, to_worst = _apart(matrix.goodness / largest, weights, np.ones(matrix.goodness.shape[1]))
        return to_ideal * largest, to_worst * largest


def topsis(
    values: ArrayLike,
    weights: ArrayLike,
    maximize: ArrayLike,
    normalisation: str = "vector",
) -> FloatArray:
    """Closeness [n] of each candidate to the ideal, in [0, 1]; larger is better (Hwang & Yoon 1981).

    Columns are normalised, weighted, and each candidate is scored ``d_worst / (d_ideal + d_worst)`` by its Euclidean
    distances to the best and the worst value present in every column. A column without spread adds nothing to either
    distance. Candidates that nothing separates (one alone, identical ones, ones that differ in objectives of weight 0
    only) are each the ideal themselves and score 1.

    Args:
        values: objective values [n, m] in any units.
        weights: non-negative, one per objective [m]; scaled to sum 1.
        maximize: true where larger is better [m].
        normalisation: ``vector`` (classic: divide by the column's Euclidean norm) or ``minmax``.

    Raises:
        InvalidInputError: no candidate, shapes that do not fit, a NaN or infinite value, or invalid weights.
    """
    check_choice(normalisation, _OF_A_MATRIX, field="normalisation", error=InvalidInputError)
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise InvalidInputError(f"values have shape {matrix.shape}; expected [n, m] with n, m >= 1", field="values")
    if not np.isfinite(matrix).all():
        row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(matrix)))
        raise InvalidInputError(
            f"values[{row}, {column}] is {matrix[row, column]}; candidates need finite objectives", field="values"
        )
    up = np.asarray(maximize, dtype=bool)
    weight = np.asarray(weights, dtype=np.float64)
    for name, vector in (("weights", weight), ("maximize", up)):
        if vector.shape != (matrix.shape[1],):
            raise InvalidInputError(
                f"{name} has shape {vector.shape}; expected one entry for each of {matrix.shape[1]} objectives",
                field=name,
            )
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise InvalidInputError(
            f"weights must be finite and >= 0 with a positive sum, got {weight.tolist()}", field="weights"
        )
    # By the largest first: the sum of weights near the float limits would overflow.
    scaled = weight / weight.max()
    scores: FloatArray = _closeness(*_distances(matrix, (scaled / scaled.sum())[None], up, normalisation))[0]
    return scores


def _distances(
    values: FloatArray, weights: FloatArray, up: NDArray[np.bool_], normalisation: str
) -> tuple[FloatArray, FloatArray]:
    """Distances [k, n] to the ideal and to the worst of checked values [n, m] under weights [k, m]."""
    better = np.where(up, values, -values)
    # By the largest magnitude first: squares of values near the float limits would overflow.
    largest = np.abs(better).max(axis=0)
    better = better / np.where(largest > 0, largest, 1.0)
    scale = np.sqrt((better**2).sum(axis=0)) if normalisation == "vector" else np.ptp(better, axis=0)
    return _apart(better, weights, np.where(scale > 0, scale, 1.0))


def _apart(better: FloatArray, weights: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distances [k, n] to the best and the worst of ``better`` [n, m] in units of ``scale`` [m]."""
    best, worst = better.max(axis=0), better.min(axis=0)
    squared = weights**2
    to_ideal = np.sqrt(squared @ (((better - best) / scale) ** 2).T)
    to_worst = np.sqrt(squared @ (((better - worst) / scale) ** 2).T)
    return np.asarray(to_ideal), np.asarray(to_worst)


def _closeness(to_ideal: FloatArray, to_worst: FloatArray) -> FloatArray:
    total = to_ideal + to_worst
    return np.asarray(np.divide(to_worst, total, out=np.ones_like(total), where=total > 0))
