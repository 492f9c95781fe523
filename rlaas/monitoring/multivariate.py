"""Can a classifier tell the window from the reference? If it can, they differ, in whatever columns together.

Lopez-Paz & Oquab, "Revisiting Classifier Two-Sample Tests" (2017). The classifier is a linear discriminant on the
functions of :mod:`rlaas.monitoring.basis` (least squares of the label, which is Fisher's discriminant). Its area under
the curve is cross-validated. Folds share training rows, so that their areas depend on each other and no formula gives
the null distribution; it is found by exchanging labels, which leaves everything but one product of matrices the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.monitoring.basis import Basis, ridge

__all__ = ["ClassifierTest", "area_under_curve", "classifier_test"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassifierTest:
    """What the classifier found.

    Attributes:
        auc: cross-validated; 0.5 for samples that it cannot tell apart.
        p_value: share of label permutations that reach it, itself among them; where none does, the tail of the normal
            distribution with their mean and standard deviation, if that is smaller: many tests together need p-values
            that no affordable number of permutations resolves.
        null_mean, null_sd: of the area under permuted labels.
        rows: of both samples together that were used.
    """

    auc: float
    p_value: float
    null_mean: float
    null_sd: float
    rows: int


def area_under_curve(scores: FloatArray, labels: NDArray[np.bool_]) -> FloatArray:
    """Area [k] for scores [n, k] under labels [n, k]: the Mann-Whitney statistic over the number of pairs."""
    ranks = stats.rankdata(scores, axis=0)
    ones = labels.sum(axis=0)
    zeros = len(labels) - ones
    return np.asarray((np.sum(ranks * labels, axis=0) - ones * (ones + 1) / 2) / (ones * zeros))


def classifier_test(
    reference: FloatArray,
    window: FloatArray,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    permutations: int = 199,
    most_rows: int = 4000,
) -> ClassifierTest:
    """Test whether two samples [n, columns] and [m, columns] come from one distribution.

    Args:
        reference, window: the samples; of each at most half of ``most_rows`` are drawn.
        rng: draws rows, folds, frequencies and permutations.
        folds: of the cross-validation.
        permutations: of the labels.
        most_rows: of both together.

    Raises:
        InvalidInputError: fewer than 2 * folds rows in a sample.
    """
    if min(len(reference), len(window)) < 2 * folds:
        raise InvalidInputError(
            f"a classifier needs {2 * folds} rows of each sample, got {len(reference)} and {len(window)}",
            field="window",
        )
    drawn = [one[rng.permutation(len(one))[: most_rows // 2]] for one in (reference, window)]
    values = np.concatenate(drawn)
    truth = np.concatenate([np.zeros(len(drawn[0]), np.bool_), np.ones(len(drawn[1]), np.bool_)])
    order = rng.permutation(len(values))
    values, truth = values[order], truth[order]
    labels = np.stack([truth, *(rng.permutation(truth) for _ in range(permutations))], axis=1)
    rows = Basis(values, rng).rows(values)
    areas = np.zeros(labels.shape[1])
    for test in np.array_split(np.arange(len(values)), folds):
        train = np.ones(len(values), np.bool_)
        train[test] = False
        weights = ridge(rows[train]) @ (labels[train] - labels[train].mean(axis=0))
        areas += area_under_curve(rows[test] @ weights, labels[test]) / folds
    null = areas[1:]
    p_value = float((1 + np.sum(null >= areas[0])) / len(areas))
    if areas[0] > null.max():
        p_value = min(p_value, float(stats.norm.sf(areas[0], null.mean(), max(float(null.std()), 1e-12))))
    return ClassifierTest(
        float(areas[0]),
        p_value,
        float(null.mean()),
        float(null.std()),
        len(values),
    )
