"""The columns of an off-policy estimate: checked, weighed, and refused where no sound log could look like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError
from rlaas.experiments.comparison import column, identities, numeric
from rlaas.experiments.reward_model import actions

__all__ = ["LARGEST", "REFUSAL", "Rows", "checked_rows"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGEST = 1e60
"""Largest weight, reward and prediction: squares of their products stay within floating point."""

REFUSAL = 1e-6
"""Most that the chance of refusing a log with right propensities may be, for each of the two tests of its weights."""

_BETS = 2.0 ** -np.arange(20)


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked columns: reward, weight, v(x) and q of the logged action [n], and each row's unit."""

    reward: FloatArray
    weight: FloatArray
    direct: FloatArray
    predicted: FloatArray
    unit: IntArray | None


def checked_rows(
    reward: ArrayLike,
    propensity: ArrayLike,
    evaluation_probability: ArrayLike,
    *,
    action: ArrayLike | None,
    prediction: ArrayLike | None,
    logging_probability: ArrayLike | None,
    unit: ArrayLike | None,
    estimator: str,
    needs_model: bool,
    otherwise: Sequence[str],
) -> Rows:
    """The columns of :func:`~rlaas.experiments.off_policy.estimate`.

    Args:
        reward, propensity, evaluation_probability, action, prediction, logging_probability, unit: as there.
        estimator: name, for messages.
        needs_model: whether it needs ``prediction``.
        otherwise: estimators that do not, for messages.

    Raises:
        InvalidInputError: rows that do not fit, or weights that no log with right propensities has.
    """
    target = np.atleast_1d(numeric(reward, "reward"))
    n = len(target)
    if n < 2:
        raise InvalidInputError(f"reward has {n} rows; off-policy evaluation needs at least 2", field="reward")
    target = column(target, "reward", n)
    _check_size(target, "reward")
    logged = _propensities(propensity, n)
    probability = numeric(evaluation_probability, "evaluation_probability")
    _check_probabilities(probability, "evaluation_probability", n)
    direct, predicted = np.zeros(n), np.zeros(n)
    largest = None
    if probability.ndim == 1:
        if needs_model or logging_probability is not None:
            raise InvalidInputError(
                f"evaluation_probability has shape {probability.shape}; {estimator!r} or a logging_probability needs "
                f"one column per action: ({n}, n_actions)",
                field="evaluation_probability",
            )
        of_logged = probability
    else:
        taken, of_logged = _of_logged(action, probability)
        if logging_probability is not None:
            logging = numeric(logging_probability, "logging_probability")
            _check_support(logging, probability, logged, taken)
            largest = float(np.divide(probability, logging, out=np.zeros(logging.shape), where=logging > 0).max())
        if needs_model:
            q = _prediction(prediction, probability.shape, estimator, otherwise)
            direct, predicted = np.einsum("na,na->n", probability, q), q[np.arange(n), taken]
    with np.errstate(over="ignore"):
        weight = of_logged / logged
    beyond = weight > LARGEST
    if beyond.any():
        row = int(beyond.argmax())
        raise InvalidInputError(
            f"propensity[{row}] is {logged[row]:.3g} where evaluation_probability is {of_logged[row]:.3g}; their ratio "
            f"must be at most {LARGEST:g}",
            field="propensity",
        )
    which = None if unit is None else identities(unit, "unit", n)
    if which is not None and which.max() < 1:
        raise InvalidInputError("off-policy evaluation needs at least 2 units", field="unit")
    _check_weights(weight, which, largest)
    return Rows(target, weight, direct, predicted, which)


def _check_size(values: FloatArray, name: str) -> None:
    if np.abs(values).max() > LARGEST:
        raise InvalidInputError(f"{name} must lie within +-{LARGEST:g}, got {np.abs(values).max():.3g}", field=name)


def _propensities(values: ArrayLike, n: int) -> FloatArray:
    logged = numeric(values, "propensity")
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


def _of_logged(action: ArrayLike | None, probability: FloatArray) -> tuple[IntArray, FloatArray]:
    if action is None:
        raise InvalidInputError("evaluation_probability of every action needs the logged action", field="action")
    taken = actions(action, probability.shape[1])
    if len(taken) != len(probability):
        raise InvalidInputError(f"action has {len(taken)} rows; expected {len(probability)}", field="action")
    return taken, probability[np.arange(len(taken)), taken]


def _check_support(logging: FloatArray, probability: FloatArray, logged: FloatArray, taken: IntArray) -> None:
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


def _prediction(
    prediction: ArrayLike | None, shape: tuple[int, ...], estimator: str, otherwise: Sequence[str]
) -> FloatArray:
    if prediction is None:
        raise InvalidInputError(
            f"{estimator!r} needs the expected reward of every action {shape}; "
            f"without a model use {' or '.join(otherwise)}",
            field="prediction",
        )
    q = numeric(prediction, "prediction")
    if q.shape != shape or not np.isfinite(q).all():
        raise InvalidInputError(f"prediction has shape {q.shape}; expected finite numbers {shape}", field="prediction")
    _check_size(q, "prediction")
    return q


def _check_weights(weight: FloatArray, unit: IntArray | None, largest: float | None) -> None:
    """Refuse weights whose mean a log with right propensities would hardly ever show.

    Whatever came before, a weight has expectation 1. So betting the share b of one's wealth on weights above 1
    multiplies it by 1 + b (w - 1), a martingale for every b in [0, 1] as w >= 0, and by Markov's inequality wealth
    reaches 1 / chance with at most that chance (Ville 1939; Waudby-Smith & Ramdas 2024), whatever the weights'
    spread. Betting on weights below 1 is fair up to b = 1 / (largest - 1), which needs the largest weight there can be:
    without it, no sample tells an action that is never logged from one that is logged rarely.

    Args:
        weight: of the rows [n].
        unit: of the rows: one unit's rows count as one weight, their mean.
        largest: weight that any action could have had, or None where that is unknown.

    Raises:
        InvalidInputError: no weight at all, or a mean too far below 1 (support) or above 1 (wrong probabilities).
    """
    mean = float(weight.mean())
    if not weight.any():
        raise InvalidInputError(
            f"none of the {len(weight)} logged actions is one that the evaluation policy takes: the log does not "
            "cover it, or is too short to say anything",
            field="evaluation_probability",
        )
    each = weight if unit is None else np.bincount(unit, weights=weight) / np.bincount(unit)
    if _log_wealth(each - 1, 1.0) > -math.log(REFUSAL):
        raise InvalidInputError(
            f"the weights average {mean:.3g} instead of 1: propensity or evaluation_probability is not a probability "
            "of the logged actions",
            field="propensity",
        )
    if largest is not None and largest > 1 and _log_wealth(1 - each, 1 / (largest - 1)) > -math.log(REFUSAL):
        raise InvalidInputError(
            f"the weights average {mean:.3g} instead of 1, although logging_probability covers all that the evaluation "
            "policy does: the logged actions were not drawn by these probabilities",
            field="logging_probability",
        )


def _log_wealth(gain: FloatArray, most: float) -> float:
    """Logarithm of the mean wealth over a grid of shares to bet, up to ``most``."""
    with np.errstate(divide="ignore"):
        logs = np.array([np.log1p(np.maximum(bet * gain, -1.0)).sum() for bet in most * _BETS])
    return float(np.logaddexp.reduce(logs) - math.log(len(_BETS)))
