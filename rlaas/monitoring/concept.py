"""Does a decision still lead to the outcome that it led to, and do predicted outcomes still come true on average?

On the reference a model predicts each outcome from observation and action. Its errors on reference rows that it was not
fitted to (cross-fitting) are what is normal; the errors of the window are held against them:

* concept: Kolmogorov-Smirnov test of the errors' distributions;
* calibration: in bins of equal share of the prediction the mean error of the window against that of the reference;
  ``sum (difference / standard error)^2`` is chi-square with as many degrees of freedom as bins. The expected
  calibration error is the mean absolute difference, weighted by the window's rows (Naeini et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.monitoring.basis import Basis, ridge

__all__ = ["CalibrationTest", "ConceptTest", "OutcomeModel"]

FloatArray = NDArray[np.float64]
_LEAST = 40


@dataclass(frozen=True, slots=True)
class ConceptTest:
    """Errors of the window against those of the reference.

    Attributes:
        statistic, p_value: of the Kolmogorov-Smirnov test.
        shift: of the mean error, in the unit of the outcome.
        explained: share of the outcome's variance that the model explains on the reference.
    """

    statistic: float
    p_value: float
    shift: float
    explained: float


@dataclass(frozen=True, slots=True)
class CalibrationTest:
    """Predicted against observed outcomes.

    Attributes:
        statistic, p_value: chi-square over the bins.
        error: expected calibration error, in the unit of the outcome.
    """

    statistic: float
    p_value: float
    error: float


class OutcomeModel:
    """Predicts one outcome from observation and action.

    Args:
        inputs: [n, columns] of the reference: observations and actions.
        outcome: [n].
        rng: draws folds and frequencies.
        folds: of the cross-fitting.
        most_rows: that are used.

    Raises:
        InvalidInputError: fewer than 40 rows.
    """

    def __init__(
        self,
        inputs: FloatArray,
        outcome: FloatArray,
        rng: np.random.Generator,
        *,
        folds: int = 5,
        most_rows: int = 20_000,
    ) -> None:
        if len(inputs) < _LEAST:
            raise InvalidInputError(
                f"a model of the outcome needs {_LEAST} decisions with it, got {len(inputs)}", field="reference"
            )
        chosen = rng.permutation(len(inputs))[:most_rows]
        inputs, outcome = inputs[chosen], outcome[chosen]
        self._basis = Basis(inputs, rng)
        rows, self._mean = self._basis.rows(inputs), float(outcome.mean())
        target = outcome - self._mean
        self.predicted = np.empty(len(rows))
        for test in np.array_split(np.arange(len(rows)), folds):
            train = np.ones(len(rows), np.bool_)
            train[test] = False
            self.predicted[test] = self._mean + rows[test] @ (ridge(rows[train]) @ target[train])
        self.errors = outcome - self.predicted
        self._weights = ridge(rows) @ target
        spread = float(outcome.var())
        self.explained = 1 - float(self.errors.var()) / spread if spread > 0 else 0.0

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Outcomes [n] that the reference lets one expect."""
        return np.asarray(self._mean + self._basis.rows(inputs) @ self._weights)

    def concept(self, inputs: FloatArray, outcome: FloatArray) -> ConceptTest:
        """Compare the errors on a window [m, columns] with outcomes [m]."""
        errors = outcome - self.predict(inputs)
        found = stats.ks_2samp(self.errors, errors, method="asymp")
        shift = float(errors.mean() - self.errors.mean())
        return ConceptTest(float(found.statistic), float(found.pvalue), shift, self.explained)

    def calibration(self, inputs: FloatArray, outcome: FloatArray, *, bins: int = 10) -> CalibrationTest:
        """Compare predicted with observed outcomes of a window, bin by bin of the prediction."""
        predicted = self.predict(inputs)
        edges = np.unique(np.quantile(self.predicted, np.arange(1, bins) / bins))
        here = [np.searchsorted(edges, p, side="right") for p in (self.predicted, predicted)]
        errors = [self.errors, outcome - predicted]
        statistic, used, weighted = 0.0, 0, 0.0
        for index in range(len(edges) + 1):
            mine = [e[place == index] for e, place in zip(errors, here, strict=True)]
            if min(map(len, mine)) < 2:
                continue
            difference = float(mine[1].mean() - mine[0].mean())
            variance = sum(float(e.var(ddof=1)) / len(e) for e in mine)
            weighted += abs(difference) * len(mine[1])
            if variance > 0:
                statistic, used = statistic + difference**2 / variance, used + 1
        p_value = float(stats.chi2.sf(statistic, used)) if used else 1.0
        return CalibrationTest(statistic, p_value, weighted / max(len(predicted), 1))
