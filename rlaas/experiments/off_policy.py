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

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.experiments.intervals import (
    per_unit,
    skewed_interval,
    standard_error,
    t_quantile,
    unlogged_share,
    value_in_range,
)
from rlaas.experiments.off_policy_rows import LARGEST, Rows, checked_rows

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

_SLOPE_LEVEL = 0.95
"""Level of the intervals that SLOPE compares; not the caller's, since a value must not move with its confidence."""

_ENDLESS = 1e150
"""A lambda beyond it is infinity: no weight comes near its root, and lambda times a weight would overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimated policy value (mean reward per row).

    The intervals are approximate. How often one at 95 % held the value, on 15 simulated bandits that had no part in the
    choice of the method (20 actions, rewards 0 or 1, weights so heavy that 100 to 300 of 2,000 to 10,000 rows were
    effective; 200 logs each; mean and worst over the bandits), and how often Student's did on 15 others:

    | | ``ipw`` | ``snipw`` | ``dr`` | ``sndr`` | ``dm``, ``switch_dr``, ``dros`` | ``reward_range`` |
    |---|---|---|---|---|---|---|
    | mean | .95 | .96 | .97 | .96 | .98 | .99 |
    | worst | .91 | .92 | .95 | .91 | .95 | .98 |
    | Student's, mean | .79 | .90 | .93 | .91 | | |
    | Student's, worst | .59 | .77 | .86 | .79 | | |

    No sample can speak for weights that were never drawn: with heavier ones than these it may be lower. Where it must
    hold, give a ``reward_range``.

    Attributes:
        estimator: name.
        value: the estimate.
        standard_error: spread of the value, by the delta method where the estimator is a ratio. That of ``dm``,
            ``switch_dr`` and ``dros`` leaves out the error of the model, which can be most of it.
        low, high: interval at ``confidence``, by :func:`~rlaas.experiments.intervals.skewed_interval`, stretched by
            what the ``unlogged`` share could bring with the lowest and the highest reward seen; with a
            ``reward_range`` by :func:`~rlaas.experiments.intervals.value_in_range`, stretched to hold the value. Since
            the bias of ``dm``, ``switch_dr`` and ``dros`` is unknown, theirs is the interval of ``dr`` on the same
            rows, stretched to hold the value: a wrong model does not spoil it, and leaning on a model does not make
            the log longer.
        confidence: level of the interval.
        effective_sample_size: (sum of w)^2 / sum of w^2, in rows. It comes from the weights that were drawn, and is
            too large where the largest ones were not.
        n: rows.
        mean_weight: 1 in expectation; far from it means few effective rows.
        largest_weight: a value near ``n`` says that one row decides.
        unlogged: 1 - mean weight where that is significantly above 0, otherwise 0: share of the evaluation policy's
            choices that the log does not show.
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
    unlogged: float = 0.0
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
            "unlogged": self.unlogged,
            "parameter": "inf" if self.parameter == math.inf else self.parameter,
        }


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
    reward_range: tuple[float, float] | None = None,
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
            and the logging policy cannot is refused exactly. Without it, an action that is never logged looks like
            one that is logged rarely: the interval is stretched, see ``unlogged`` of :class:`Estimate`.
        unit: who each row belongs to [n] (a user), no null among them; rows of one unit count as one in the interval.
        parameter: tau of ``switch_dr``, lambda of ``dros``, in [0, inf]; default: SLOPE (Su, Srinath & Krishnamurthy
            2020), the most biased member of :data:`GRID` whose interval still meets all less biased ones.
        reward_range: lowest and highest reward there can be. Then the interval holds whatever weights were not drawn;
            it is wider than the default one where rewards are rare.
        confidence: level of the interval, in (0, 1).

    Raises:
        ConfigurationError: an unknown estimator or an impossible option.
        InvalidInputError: rows that do not fit, missing or impossible propensities or units, no row that the
            evaluation policy would have logged, or weights whose mean no log with right propensities shows but with a
            chance of 1e-6.
    """
    check_choice(estimator, ESTIMATORS, field="estimator")
    level = _number(confidence, "confidence")
    if not 0 < level < 1:
        raise ConfigurationError(f"confidence is {confidence}; expected a number in (0, 1)", field="confidence")
    chosen = None if parameter is None else _number(parameter, "parameter")
    if chosen is not None and (estimator not in TUNED or not chosen >= 0):
        raise ConfigurationError(
            f"parameter {parameter} of {estimator!r}: a number >= 0, of {' or '.join(TUNED)} only", field="parameter"
        )
    bounds = None if reward_range is None else _bounds(reward_range)
    rows = checked_rows(
        reward,
        propensity,
        evaluation_probability,
        action=action,
        prediction=prediction,
        logging_probability=logging_probability,
        unit=unit,
        estimator=estimator,
        needs_model=estimator not in MODEL_FREE,
        otherwise=MODEL_FREE,
    )
    if estimator in TUNED and chosen is None:
        chosen = _slope(estimator, rows)
    value, influence = _evaluated(estimator, rows, chosen)
    weight, unlogged = rows.weight, unlogged_share(rows.weight, rows.unit)
    if bounds is not None:
        low, high = _in_range(rows, bounds, level)
    elif estimator in BIASED:
        low, high = _interval("dr", rows, *_evaluated("dr", rows, None), unlogged, level)
    else:
        low, high = _interval(estimator, rows, value, influence, unlogged, level)
    return Estimate(
        estimator=estimator,
        value=value,
        standard_error=standard_error(per_unit(influence, rows.unit), len(weight)),
        low=min(low, value),
        high=max(high, value),
        confidence=level,
        effective_sample_size=float(weight.sum() ** 2 / (weight @ weight)),
        n=len(weight),
        mean_weight=float(weight.mean()),
        largest_weight=float(weight.max()),
        unlogged=unlogged,
        parameter=chosen,
    )


def _evaluated(estimator: EstimatorName, rows: Rows, parameter: float | None) -> tuple[float, FloatArray]:
    """The value, and what each row's deviation adds to it [n]."""
    w, n = rows.weight, len(rows.weight)
    residual = rows.reward - rows.predicted
    if estimator in ("snipw", "sndr"):
        correction = float(w @ residual / w.sum())
        value = float(rows.direct.mean()) + correction
        # Delta method: the correction is a ratio of means, linearised; the direct part varies with the context.
        return value, rows.direct - rows.direct.mean() + w * (residual - correction) / w.mean()
    if estimator == "dm":
        weight = np.zeros(n)
    elif estimator == "switch_dr" and parameter is not None:
        weight = np.where(w <= parameter, w, 0.0)
    elif estimator == "dros" and parameter is not None and parameter < _ENDLESS:
        weight = parameter * w / np.maximum(w * w + parameter, np.finfo(np.float64).tiny)
    else:  # ipw, dr, and dros at infinity
        weight = w
    each = rows.direct + weight * residual
    value = float(each.mean())
    return value, each - value


def _interval(
    estimator: EstimatorName, rows: Rows, value: float, influence: FloatArray, unlogged: float, confidence: float
) -> tuple[float, float]:
    """Interval of an estimator without a bias of its own, stretched by what is not logged."""
    below, above = skewed_interval(per_unit(influence, rows.unit), len(influence), confidence)
    # What the estimator takes the unlogged share's reward to be: nothing, the model's, or that of the rest.
    taken = {"ipw": 0.0, "dr": float(rows.direct.mean())}.get(estimator, value)
    worst, best = float(rows.reward.min()) - taken, float(rows.reward.max()) - taken
    return value + below + min(0.0, unlogged * worst), value + above + max(0.0, unlogged * best)


def _in_range(rows: Rows, bounds: tuple[float, float], confidence: float) -> tuple[float, float]:
    outside = (rows.reward < bounds[0]) | (rows.reward > bounds[1])
    if outside.any():
        row = int(outside.argmax())
        raise InvalidInputError(
            f"reward[{row}] is {rows.reward[row]}; expected {bounds[0]:g} to {bounds[1]:g}, the reward_range",
            field="reward",
        )
    return value_in_range(rows.reward, rows.weight, rows.unit, bounds, confidence)


def _slope(estimator: EstimatorName, rows: Rows) -> float:
    """Lepski's rule: walk from least to most bias for as long as all intervals (doubled) have a point in common."""
    low, high, best = -math.inf, math.inf, GRID[0]
    for parameter in GRID:
        value, influence = _evaluated(estimator, rows, parameter)
        sums = per_unit(influence, rows.unit)
        half = t_quantile(_SLOPE_LEVEL, len(sums) - 1) * standard_error(sums, len(influence))
        low, high = max(low, value - 2 * half), min(high, value + 2 * half)
        if low > high:
            break
        best = parameter
    return best


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigurationError(f"{field} is {shown(value)}; expected a number", field=field)
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigurationError(f"{field} is beyond what a float holds", field=field) from error


def _bounds(reward_range: Any) -> tuple[float, float]:
    try:
        low, high = (_number(end, "reward_range") for end in reward_range)
    except (TypeError, ValueError, OverflowError) as error:
        low = high = math.nan
        cause: Exception | None = error
    else:
        cause = None
    if not -LARGEST <= low < high <= LARGEST:
        raise ConfigurationError(
            f"reward_range is {shown(reward_range)}; expected the lowest and the highest reward, two finite numbers",
            field="reward_range",
        ) from cause
    return low, high
