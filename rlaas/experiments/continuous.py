"""Off-policy evaluation of continuous actions, whose logged propensities are log-densities.

A policy that is served as (1 - epsilon) squashed Gaussian + epsilon uniform logs densities of at least epsilon 2^-d in
the normalised box [-1, 1]^d, so weights exp(evaluation - logged) are bounded for every evaluation policy whose own
density is. A policy without a density (it always takes its mean) has no such weight: no log covers it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.experiments.comparison import column, identities, numeric
from rlaas.experiments.intervals import per_unit, skewed_interval, standard_error, unlogged_share
from rlaas.experiments.off_policy import Estimate
from rlaas.experiments.off_policy_rows import LARGEST, Rows, checked_rows
from rlaas.experiments.reward_model import feature_matrix

__all__ = ["CONTINUOUS_ESTIMATORS", "ContinuousEstimatorName", "cross_fitted_values", "estimate_continuous"]

ContinuousEstimatorName = Literal["ipw", "snipw", "dr", "sndr"]
FloatArray = NDArray[np.float64]

CONTINUOUS_ESTIMATORS: tuple[ContinuousEstimatorName, ...] = ("ipw", "snipw", "dr", "sndr")

LEAST_SHOWN = 0.01
"""Share of the evaluation policy's choices that a log must show for there to be any estimate."""


def estimate_continuous(
    reward: ArrayLike,
    log_density: ArrayLike,
    evaluation_log_density: ArrayLike,
    *,
    estimator: ContinuousEstimatorName = "snipw",
    predicted: ArrayLike | None = None,
    direct: ArrayLike | None = None,
    unit: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Mean reward that the evaluation policy would have had on the logged contexts, from log-densities.

    The estimators are those of :mod:`rlaas.experiments.off_policy` with w = exp(evaluation - logged log-density).

    Args:
        reward: observed [n].
        log_density: of the logged action under the policy that took it [n], as logged: in the normalised box, before
            the shield; a null (a deterministic policy) is refused.
        evaluation_log_density: of the logged action under the evaluation policy in the same box [n]; -inf where it
            never takes it (:meth:`rlaas.bundles.BundlePolicy.propensities`).
        estimator: one of :data:`CONTINUOUS_ESTIMATORS`.
        predicted: for ``dr`` and ``sndr``, expected reward of the logged action [n], of a model that has not seen it.
        direct: for ``dr`` and ``sndr``, the model's mean over the evaluation policy's actions [n]
            (both from :func:`cross_fitted_values`).
        unit: who each row belongs to [n]; rows of one unit count as one in the interval.
        confidence: level of the interval, in (0, 1).

    Raises:
        ConfigurationError: an unknown estimator or an impossible confidence.
        InvalidInputError: rows that do not fit, missing log-densities, weights that no log with right densities shows,
            or no overlap: less than 1 % of what the evaluation policy does is logged, or one row carries it all.
    """
    check_choice(estimator, CONTINUOUS_ESTIMATORS, field="estimator")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ConfigurationError(f"confidence is {shown(confidence)}; expected a number in (0, 1)", field="confidence")
    weight = _weights(log_density, evaluation_log_density)
    rows = checked_rows(
        reward,
        np.ones(len(weight)),
        weight,
        action=None,
        prediction=None,
        logging_probability=None,
        unit=unit,
        estimator=estimator,
        needs_model=False,
        otherwise=("ipw", "snipw"),
    )
    rows = _with_model(rows, estimator, predicted, direct)
    scaled = weight / weight.max()  # squares of tiny weights would vanish
    size = float(scaled.sum() ** 2 / (scaled @ scaled))
    unlogged = unlogged_share(weight, rows.unit)
    if 1 - unlogged < LEAST_SHOWN or size < 2:
        raise InvalidInputError(
            f"no overlap: the log shows {max(float(weight.mean()), 0.0):.2g} of what the evaluation policy does, with "
            f"{size:.3g} effective rows of {len(weight)}; serve the logging policy with exploration (epsilon > 0) or "
            "evaluate a policy nearer to it",
            field="evaluation_log_density",
        )
    value, influence = _evaluated(estimator, rows)
    sums = per_unit(influence, rows.unit)
    below, above = skewed_interval(sums, len(weight), confidence)
    # What the estimator takes the unlogged share's reward to be: nothing, the model's, or that of the rest.
    taken = {"ipw": 0.0, "dr": float(rows.direct.mean())}.get(estimator, value)
    worst, best = float(rows.reward.min()) - taken, float(rows.reward.max()) - taken
    return Estimate(
        estimator=estimator,
        value=value,
        standard_error=standard_error(sums, len(weight)),
        low=value + below + min(0.0, unlogged * worst),
        high=value + above + max(0.0, unlogged * best),
        confidence=float(confidence),
        effective_sample_size=size,
        n=len(weight),
        mean_weight=float(weight.mean()),
        largest_weight=float(weight.max()),
        unlogged=unlogged,
    )


def cross_fitted_values(
    features: ArrayLike | None,
    action: ArrayLike,
    reward: ArrayLike,
    evaluation_action: ArrayLike,
    *,
    folds: int = 3,
    ridge: float = 1.0,
    unit: ArrayLike | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """``predicted`` and ``direct`` of :func:`estimate_continuous`, each row by a model of the other folds.

    The model is ridge regression on the features, the actions, products of two actions, and products of an action and
    a feature, all standardised.

    Args:
        features: contexts [n, n_features], or None.
        action: logged actions [n, d], in the normalised box or their units.
        reward: observed [n].
        evaluation_action: actions that the evaluation policy drew in each row's context [n, m, d], or [n, d] for m = 1.
            Drawn independently of the log, so that their number adds noise but no bias.
        folds: at least 2.
        ridge: penalty on the standardised effects, > 0.
        unit: rows of one unit share a fold [n].
        seed: of the split into folds.

    Raises:
        ConfigurationError: an impossible option.
        InvalidInputError: rows that do not fit, or fewer units than folds.
    """
    for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigurationError(f"{name} is {shown(value)}; expected a whole number >= {least}", field=name)
    if isinstance(ridge, bool) or not isinstance(ridge, int | float | np.floating) or not 0 < ridge < np.inf:
        raise ConfigurationError(f"ridge is {shown(ridge)}; expected a finite number > 0", field="ridge")
    taken = numeric(action, "action")
    taken = taken[:, None] if taken.ndim == 1 else taken
    if taken.ndim != 2 or not np.isfinite(taken).all():
        raise InvalidInputError(f"action has shape {taken.shape}; expected finite numbers (n, d)", field="action")
    n, d = taken.shape
    x, target = feature_matrix(features, n), column(reward, "reward", n)
    drawn = numeric(evaluation_action, "evaluation_action")
    drawn = drawn.reshape(n, 1, d) if drawn.shape == (n, d) else drawn
    if drawn.ndim != 3 or drawn.shape[::2] != (n, d) or not drawn.size or not np.isfinite(drawn).all():
        raise InvalidInputError(
            f"evaluation_action has shape {drawn.shape}; expected finite numbers ({n}, m, {d})",
            field="evaluation_action",
        )
    codes = np.arange(n) if unit is None else identities(unit, "unit", n)
    n_units = int(codes.max()) + 1
    if n_units < folds:
        raise InvalidInputError(f"{n_units} units cannot be split into {folds} folds", field="folds")
    fold = (np.random.default_rng(seed).permutation(n_units) % folds)[codes]
    design = _design(x, taken)
    predicted, direct = np.empty(n), np.empty(n)
    for k in range(folds):
        inside = fold == k
        middle, scale = design[~inside].mean(axis=0), design[~inside].std(axis=0)
        scale[scale == 0] = 1.0
        z, level = (design[~inside] - middle) / scale, target[~inside].mean()
        effect = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ (target[~inside] - level)) / scale
        predicted[inside] = level + (design[inside] - middle) @ effect
        of_drawn = [level + (_design(x[inside], draw) - middle) @ effect for draw in drawn[inside].swapaxes(0, 1)]
        direct[inside] = np.mean(of_drawn, axis=0)
    return predicted, direct


def _design(x: FloatArray, action: FloatArray) -> FloatArray:
    n, d = action.shape
    upper = np.triu_indices(d)
    squares = (action[:, :, None] * action[:, None, :])[:, upper[0], upper[1]]
    return np.hstack([x, action, squares, (action[:, :, None] * x[:, None, :]).reshape(n, -1)])


def _weights(log_density: ArrayLike, evaluation_log_density: ArrayLike) -> FloatArray:
    logged = np.atleast_1d(numeric(log_density, "log_density"))
    asked = np.atleast_1d(numeric(evaluation_log_density, "evaluation_log_density"))
    if logged.ndim != 1 or asked.shape != logged.shape:
        raise InvalidInputError(
            f"log_density has shape {logged.shape} and evaluation_log_density {asked.shape}; expected (n,) for both",
            field="evaluation_log_density",
        )
    missing = np.isnan(logged)
    if missing.any():
        raise InvalidInputError(
            f"log_density is missing in {int(missing.sum())} of {len(logged)} rows, such as {int(missing.argmax())}; a "
            "deterministic policy logs none, and without it off-policy evaluation says nothing",
            field="log_density",
        )
    if not np.isfinite(logged).all():
        row = int((~np.isfinite(logged)).argmax())
        raise InvalidInputError(f"log_density[{row}] is {logged[row]}; expected finite numbers", field="log_density")
    wrong = np.isnan(asked) | (asked == np.inf)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(
            f"evaluation_log_density[{row}] is {asked[row]}; expected numbers, or -inf for never",
            field="evaluation_log_density",
        )
    ratio = asked - logged
    if ratio.max() > np.log(LARGEST):
        row = int(ratio.argmax())
        raise InvalidInputError(
            f"log_density[{row}] is {logged[row]:.4g} where the evaluation policy's is {asked[row]:.4g}; their ratio "
            f"must be at most {LARGEST:g}",
            field="log_density",
        )
    weight = np.exp(ratio)
    if not weight.any():
        raise InvalidInputError(
            f"no overlap: none of the {len(weight)} logged actions is one that the evaluation policy takes",
            field="evaluation_log_density",
        )
    return np.asarray(weight)


def _with_model(rows: Rows, estimator: str, predicted: ArrayLike | None, direct: ArrayLike | None) -> Rows:
    needs = estimator in ("dr", "sndr")
    for name, given in (("predicted", predicted), ("direct", direct)):
        if (given is None) == needs:
            raise InvalidInputError(
                f"{estimator!r} needs {name} [n]" if needs else f"{estimator!r} has no model; leave out {name}",
                field=name,
            )
    if predicted is None or direct is None:
        return rows
    n = len(rows.reward)
    return replace(rows, predicted=column(predicted, "predicted", n), direct=column(direct, "direct", n))


def _evaluated(estimator: str, rows: Rows) -> tuple[float, FloatArray]:
    """The value, and what each row's deviation adds to it [n]."""
    w, residual = rows.weight, rows.reward - rows.predicted
    if estimator in ("snipw", "sndr"):
        correction = float(w @ residual / w.sum())
        value = float(rows.direct.mean()) + correction
        return value, rows.direct - rows.direct.mean() + w * (residual - correction) / w.mean()
    each = rows.direct + w * residual
    value = float(each.mean())
    return value, each - value
