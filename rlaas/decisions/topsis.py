"""Scoring candidates under weights: TOPSIS and the weighted sum."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, check_choice

__all__ = ["NORMALISATIONS", "Normalisation", "topsis", "topsis_scores", "weighted_sum_scores"]

FloatArray = NDArray[np.float64]
Normalisation = Literal["vector", "minmax"]

NORMALISATIONS = ("minmax", "vector")


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
    check_choice(normalisation, NORMALISATIONS, field="normalisation", error=InvalidInputError)
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
    scores: FloatArray = topsis_scores(matrix, (weight / weight.max())[None], up, normalisation)[0]
    return scores


def topsis_scores(matrix: FloatArray, weights: FloatArray, up: NDArray[np.bool_], normalisation: str) -> FloatArray:
    """:func:`topsis` [k, n] of checked values [n, m] under each of k weight vectors [k, m] at once."""
    better = np.where(up, matrix, -matrix)
    # By the largest magnitude first: squares of values near the float limits would overflow.
    largest = np.abs(better).max(axis=0)
    better = better / np.where(largest > 0, largest, 1.0)
    spread = better.max(axis=0) - better.min(axis=0)
    scale = np.sqrt((better**2).sum(axis=0)) if normalisation == "vector" else spread
    better = better / np.where(scale > 0, scale, 1.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    squared = weights**2
    to_ideal = np.sqrt(squared @ ((better - better.max(axis=0)) ** 2).T)
    to_worst = np.sqrt(squared @ ((better - better.min(axis=0)) ** 2).T)
    total = to_ideal + to_worst
    return np.asarray(np.divide(to_worst, total, out=np.ones_like(total), where=total > 0))


def weighted_sum_scores(goodness: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean goodness [k, n] of candidates [n, m] under each of k weight vectors [k, m]."""
    scores: FloatArray = (weights / weights.sum(axis=1, keepdims=True)) @ goodness.T
    return scores
