"""Off-policy evaluation: the value of one policy from what another one logged, and how far to trust it.

Every estimator starts from the weight of a row, w = evaluation probability / propensity of the logged action, and a
model q of the expected reward where it takes one; v(x) = sum over actions of evaluation probability x q.

| name | per row | source |
|---|---|---|
| ``dm`` | v(x) | Beygelzimer & Langford 2009, direct method |
| ``ipw`` | w r | Horvitz & Thompson 1952 |
| ``snipw`` | w r / mean(w) | Swaminathan & Joachims 2015 |
| ``dr`` | v(x) + w (r - q) | Dudik, Langford & Li 2011 |
| ``sndr`` | v(x) + w (r - q) / mean(w) | Thomas & Brunskill 2016 |
| ``switch_dr`` | v(x) + w 1[w <= tau] (r - q) | Wang, Agarwal & Dudik 2017 |
| ``dros`` | v(x) + lambda w / (w^2 + lambda) (r - q) | Su, Dimakopoulou, Krishnamurthy & Dudik 2020 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.experiments.comparison import column
from rlaas.experiments.reward_model import actions

__all__ = ["BIASED", "ESTIMATORS", "MODEL_FREE", "TUNED", "Estimate", "EstimatorName", "estimate"]

EstimatorName = Literal["dm", "ipw", "snipw", "dr", "sndr", "switch_dr", "dros"]
FloatArray = NDArray[np.float64]

ESTIMATORS: tuple[EstimatorName, ...] = ("dm", "ipw", "snipw", "dr", "sndr", "switch_dr", "dros")
MODEL_FREE: tuple[EstimatorName, ...] = ("ipw", "snipw")
"""Estimators that need no ``prediction``."""

TUNED: tuple[EstimatorName, ...] = ("switch_dr", "dros")
"""Estimators with a ``parameter``, chosen by SLOPE where none is given."""

BIASED: tuple[EstimatorName, ...] = ("dm", *TUNED)
"""Estimators that are as wrong as their model, in whole or in part."""

GRID: tuple[float, ...] = (math.inf, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.0)
"""Parameters tried, from least to most bias: infinity is ``dr``, 0 is ``dm``."""

_REFUSAL = 1e-6
"""Chance of refusing a log that is sound, per call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimated policy value (mean reward per row).

    Attributes:
        estimator: name.
        value: the estimate.
        standard_error: spread of the value, by the delta method where the estimator is a ratio. That of ``dm``,
            ``switch_dr`` and ``dros`` leaves out the error of the model, which can be most of it.
        low, high: Student interval at ``confidence``. Since the bias of ``dm``, ``switch_dr`` and ``dros`` is unknown,
            theirs is the interval of ``dr`` on the same rows, stretched to hold the value: it covers at its level even
            where the model is wrong, and never claims that leaning on a model has made the log longer.
        confidence: level of the interval.
        effective_sample_size: (sum of w)^2 / sum of w^2, in rows.
        n: rows.
        mean_weight: 1 in expectation; far from it means few effective rows.
        largest_weight: a value near ``n`` says that one row decides.
        parameter: tau or lambda used; None for the other estimators.
    """

    estimator: EstimatorName
    value: float
    standard_error: float
    low: float
    high: float
    confidence: float
    effective_sample_size: float
    n: int
    mean_weight: float
    largest_weight: float
    parameter: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain JSON types; an infinite parameter is the text ``inf``."""
        return {
            "estimator": self.estimator,
            "value": self.value,
            "standard_error": self.standard_error,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "effective_sample_size": self.effective_sample_size,
            "n": self.n,
            "mean_weight": self.mean_weight,
            "largest_weight": self.largest_weight,
            "parameter": "inf" if self.parameter == math.inf else self.parameter,
        }


@dataclass(frozen=True, slots=True)
class _Rows:
    """Checked columns: reward, weight, v(x) and q of the logged action [n], and each row's unit."""

    reward: FloatArray
    weight: FloatArray
    direct: FloatArray
    predicted: FloatArray
    unit: NDArray[np.int64] | None


def estimate(
    reward: ArrayLike,
    propensity: ArrayLike,
    evaluation_probability: ArrayLike,
    *,
    estimator: EstimatorName = "snipw",
    action: ArrayLike | None = None,
    prediction: ArrayLike | None = None,
    logging_probability: ArrayLike | None = None,
    unit: ArrayLike | None = None,
    parameter: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Mean reward that the evaluation policy would have had on the logged contexts.

    Args:
        reward: observed [n].
        propensity: probability (or density) with which the logged action was taken [n], > 0; a probability that was
            logged as null (a deterministic policy) is refused.
        evaluation_probability: of the evaluation policy, either of the logged action [n] or of every action
            [n, n_actions]; the latter, which every estimator with a model needs, also needs ``action``.
        estimator: one of :data:`ESTIMATORS`.
        action: logged action [n].
        prediction: expected reward of every action [n, n_actions], of a model that has not seen the row
            (:func:`~rlaas.experiments.reward_model.cross_fitted_prediction`).
        logging_probability: of every action [n, n_actions], if known: then an action that the evaluation policy takes
            and the logging policy cannot is refused exactly. Without it, only a mean weight that no sound log would
            have (chance 1e-6) reveals it.
        unit: who each row belongs to [n] (a user); rows of one unit count as one in the standard error.
        parameter: tau of ``switch_dr``, lambda of ``dros``, in [0, inf]; default: SLOPE (Su, Srinath & Krishnamurthy
            2020), the most biased member of :data:`GRID` whose interval still meets all less biased ones.
        confidence: level of the interval, in (0, 1).

    Raises:
        ConfigurationError: an unknown estimator or an impossible option.
        InvalidInputError: rows that do not fit, missing or impossible propensities, or a log that does not cover the
            evaluation policy.
    """
    check_choice(estimator, ESTIMATORS, field="estimator")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence is {confidence}; expected a number in (0, 1)", field="confidence")
    if parameter is not None and (estimator not in TUNED or not parameter >= 0):
        raise ConfigurationError(
            f"parameter {parameter} of {estimator!r}: a number >= 0, of {' or '.join(TUNED)} only", field="parameter"
        )
    rows = _checked(
        reward, propensity, evaluation_probability, action, prediction, logging_probability, unit, estimator
    )
    chosen = parameter
    if estimator in TUNED and parameter is None:
        chosen = _slope(estimator, rows, confidence)
    value, error, half = _evaluated(estimator, rows, chosen, confidence)
    low, high = value - half, value + half
    if estimator in BIASED:
        centre, _, half = _evaluated("dr", rows, None, confidence)
        low, high = min(value, centre - half), max(value, centre + half)
    weight = rows.weight
    return Estimate(
        estimator=estimator,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        confidence=confidence,
        effective_sample_size=float(weight.sum() ** 2 / (weight @ weight)),
        n=len(weight),
        mean_weight=float(weight.mean()),
        largest_weight=float(weight.max()),
        parameter=chosen,
    )


def _evaluated(
    estimator: EstimatorName, rows: _Rows, parameter: float | None, confidence: float
) -> tuple[float, float, float]:
    """Value, standard error and half width of the interval."""
    w, n = rows.weight, len(rows.weight)
    residual = rows.reward - rows.predicted
    if estimator in ("snipw", "sndr"):
        correction = float(w @ residual / w.sum())
        value = float(rows.direct.mean()) + correction
        # Delta method: the correction is a ratio of means, linearised; the direct part varies with the context.
        influence = rows.direct - rows.direct.mean() + w * (residual - correction) / w.mean()
    else:
        if estimator == "dm":
            weight = np.zeros(n)
        elif estimator == "switch_dr" and parameter is not None:
            weight = np.where(w <= parameter, w, 0.0)
        elif estimator == "dros" and parameter is not None and parameter < math.inf:
            weight = parameter * w / np.maximum(w * w + parameter, np.finfo(np.float64).tiny)
        else:  # ipw, dr, and dros at infinity
            weight = w
        each = rows.direct + weight * residual
        value = float(each.mean())
        influence = each - value
    sums = influence if rows.unit is None else np.bincount(rows.unit, weights=influence)
    units = len(sums)
    error = float(np.sqrt(sums @ sums * units / (units - 1)) / n)
    return value, error, float(stats.t.ppf(0.5 + confidence / 2, units - 1)) * error


def _slope(estimator: EstimatorName, rows: _Rows, confidence: float) -> float:
    """Lepski's rule: walk from least to most bias for as long as all intervals (doubled) have a point in common."""
    low, high, best = -math.inf, math.inf, GRID[0]
    for parameter in GRID:
        value, _, half = _evaluated(estimator, rows, parameter, confidence)
        low, high = max(low, value - 2 * half), min(high, value + 2 * half)
        if low > high:
            break
        best = parameter
    return best


def _checked(
    reward: ArrayLike,
    propensity: ArrayLike,
    evaluation_probability: ArrayLike,
    action: ArrayLike | None,
    prediction: ArrayLike | None,
    logging_probability: ArrayLike | None,
    unit: ArrayLike | None,
    estimator: EstimatorName,
) -> _Rows:
    n = len(np.atleast_1d(np.asarray(reward)))
    if n < 2:
        raise InvalidInputError(f"reward has {n} rows; off-policy evaluation needs at least 2", field="reward")
    target = column(reward, "reward", n)
    logged = _propensities(propensity, n)
    needs_model = estimator not in MODEL_FREE
    probability = np.asarray(evaluation_probability, dtype=np.float64)
    _check_probabilities(probability, "evaluation_probability", n)
    if probability.ndim == 1:
        if needs_model or logging_probability is not None:
            raise InvalidInputError(
                f"evaluation_probability has shape {probability.shape}; {estimator!r} or a logging_probability needs "
                f"one column per action: ({n}, n_actions)",
                field="evaluation_probability",
            )
        of_logged = probability
        direct, predicted = np.zeros(n), np.zeros(n)
    else:
        taken, of_logged = _of_logged(action, probability)
        if logging_probability is not None:
            _check_support(np.asarray(logging_probability, dtype=np.float64), probability, logged, taken)
        direct, predicted = np.zeros(n), np.zeros(n)
        if needs_model:
            q = _prediction(prediction, probability.shape, estimator)
            direct, predicted = np.einsum("na,na->n", probability, q), q[np.arange(n), taken]
    weight = of_logged / logged
    which = _units(unit, n)
    _check_weights(weight, which)
    return _Rows(target, weight, direct, predicted, which)


def _propensities(values: ArrayLike, n: int) -> FloatArray:
    try:
        logged = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError("propensity must hold numbers > 0", field="propensity") from error
    if logged.shape != (n,):
        raise InvalidInputError(
            f"propensity has shape {logged.shape}; expected ({n},), one per row", field="propensity"
        )
    missing = np.isnan(logged)
    if missing.any():
        raise InvalidInputError(
            f"propensity is missing in {int(missing.sum())} of {n} rows, such as {int(np.flatnonzero(missing)[0])}; a "
            "deterministic policy logs none, and without it off-policy evaluation says nothing",
            field="propensity",
        )
    wrong = ~((logged > 0) & np.isfinite(logged))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidInputError(f"propensity[{row}] is {logged[row]}; expected a finite number > 0", field="propensity")
    return logged


def _check_probabilities(probability: FloatArray, name: str, n: int) -> None:
    if probability.ndim not in (1, 2) or len(probability) != n:
        raise InvalidInputError(
            f"{name} has shape {probability.shape}; expected ({n},) or ({n}, n_actions)", field=name
        )
    if not (np.isfinite(probability).all() and (probability >= 0).all()):
        raise InvalidInputError(f"{name} must be finite and >= 0 everywhere", field=name)
    if probability.ndim == 2:
        total = probability.sum(axis=1)
        wrong = np.abs(total - 1) > 1e-6
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidInputError(f"{name}[{row}] sums to {total[row]:.6g}; expected 1", field=name)


def _of_logged(action: ArrayLike | None, probability: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    if action is None:
        raise InvalidInputError("evaluation_probability of every action needs the logged action", field="action")
    taken = actions(action, probability.shape[1])
    if len(taken) != len(probability):
        raise InvalidInputError(f"action has {len(taken)} rows; expected {len(probability)}", field="action")
    return taken, probability[np.arange(len(taken)), taken]


def _check_support(logging: FloatArray, probability: FloatArray, logged: FloatArray, taken: NDArray[np.int64]) -> None:
    if logging.shape != probability.shape:
        raise InvalidInputError(
            f"logging_probability has shape {logging.shape}; expected {probability.shape}", field="logging_probability"
        )
    _check_probabilities(logging, "logging_probability", len(probability))
    if not np.allclose(logging[np.arange(len(taken)), taken], logged, rtol=1e-6, atol=0.0):
        raise InvalidInputError(
            "propensity disagrees with logging_probability of the logged action", field="logging_probability"
        )
    outside = (probability > 0) & (logging == 0)
    if outside.any():
        row, which = (int(index[0]) for index in np.nonzero(outside))
        raise InvalidInputError(
            f"the log does not cover the evaluation policy: in row {row} it takes action {which} with probability "
            f"{probability[row, which]:.3g}, which the logging policy never takes",
            field="evaluation_probability",
        )


def _prediction(prediction: ArrayLike | None, shape: tuple[int, ...], estimator: str) -> FloatArray:
    if prediction is None:
        raise InvalidInputError(
            f"{estimator!r} needs the expected reward of every action {shape}; "
            f"without a model use {' or '.join(MODEL_FREE)}",
            field="prediction",
        )
    q = np.asarray(prediction, dtype=np.float64)
    if q.shape != shape or not np.isfinite(q).all():
        raise InvalidInputError(f"prediction has shape {q.shape}; expected finite numbers {shape}", field="prediction")
    return q


def _units(unit: ArrayLike | None, n: int) -> NDArray[np.int64] | None:
    if unit is None:
        return None
    names = np.asarray(unit)
    if names.shape != (n,):
        raise InvalidInputError(f"unit has shape {names.shape}; expected ({n},), one per row", field="unit")
    distinct, where = np.unique(names, return_inverse=True)
    if len(distinct) < 2:
        raise InvalidInputError("off-policy evaluation needs at least 2 units", field="unit")
    return np.asarray(where, dtype=np.int64)


def _check_weights(weight: FloatArray, unit: NDArray[np.int64] | None) -> None:
    """Refuse weights whose mean a covered log with right propensities would not show.

    The mean is 1 in expectation. From below, a mean of non-negative values obeys P(mean <= 1 - t) <=
    exp(-n t^2 / (2 E[w^2])) (Maurer 2003). From above, the t statistic of a right-skewed value is short-tailed.

    Raises:
        InvalidInputError: the mean weight is significantly below 1 (support) or above 1 (wrong probabilities).
    """
    mean = float(weight.mean())
    sums = weight if unit is None else np.bincount(unit, weights=weight)
    units, expected = len(sums), len(weight) / len(sums)
    second = float(sums @ sums) / units
    gap = expected - float(sums.mean())
    if second == 0 or (gap > 0 and units * gap**2 / (2 * second) > -math.log(_REFUSAL)):
        raise InvalidInputError(
            f"the log does not cover the evaluation policy: the weights average {mean:.3g} instead of 1, so about "
            f"{1 - mean:.0%} of what it would do is never or hardly ever logged",
            field="evaluation_probability",
        )
    spread = float(sums.std(ddof=1)) / math.sqrt(units)
    if gap < 0 and -gap > float(stats.norm.isf(_REFUSAL)) * spread + 1e-6 * expected:
        raise InvalidInputError(
            f"the weights average {mean:.3g} instead of 1: propensity or evaluation_probability is not a probability "
            "of the logged actions",
            field="propensity",
        )
