"""What the model-based off-policy estimators need: the expected reward of every action, never fitted on its own row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.experiments.comparison import column, identities, numeric

__all__ = ["RewardModel", "cross_fitted_prediction", "fit_reward_model"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Link = Literal["logistic", "linear"]

_INTERCEPT_PRECISION = 1e-6
"""Holds the intercept where every reward is equal, and moves it by nothing that can be seen otherwise."""

_ITERATIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """Expected reward = link(intercept + effect of the action + features . effects).

    Attributes:
        link: ``logistic`` for rewards in [0, 1], ``linear`` for any.
        intercept: on the scale of the link.
        action_effect: [n_actions], shrunk towards 0, so an action that was never taken gets the common level.
        feature_effect: [n_features].
    """

    link: Link
    intercept: float
    action_effect: FloatArray
    feature_effect: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Expected reward [n, n_actions] of every action in the contexts ``features`` [n, n_features]."""
        level = (self.intercept + features @ self.feature_effect)[:, None] + self.action_effect
        return np.asarray(expit(level)) if self.link == "logistic" else level


def fit_reward_model(
    features: ArrayLike | None,
    action: ArrayLike,
    reward: ArrayLike,
    *,
    n_actions: int,
    ridge: float = 4.0,
    link: Link = "logistic",
) -> RewardModel:
    """Ridge (logistic) regression of the reward on the action and the features.

    Minimises the negative log-likelihood (half the squared error for ``linear``) + ridge / 2 x the squared effects,
    by Newton's method; the block of the actions is diagonal, so the cost is one solve of the size of the features.
    ``ridge`` is the precision of a normal prior: 4 says that effects of half a logit are usual. Features should be of
    comparable scale, such as one-hot; the intercept is free.

    Args:
        features: contexts [n, n_features], or None.
        action: taken action [n], whole numbers below ``n_actions``.
        reward: observed [n]; in [0, 1] for ``logistic``.
        n_actions: number of actions.
        ridge: penalty, > 0.
        link: ``logistic`` or ``linear``.

    Raises:
        ConfigurationError: an unknown link or ridge <= 0.
        InvalidInputError: rows that do not fit one another, or a reward outside [0, 1] under ``logistic``.
    """
    check_choice(link, ("logistic", "linear"), field="link")
    if (
        isinstance(ridge, bool)
        or not isinstance(ridge, int | float | np.integer | np.floating)
        or not 0 < ridge < np.inf
    ):
        raise ConfigurationError(f"ridge is {shown(ridge)}; expected a finite number > 0", field="ridge")
    taken = actions(action, n_actions)
    target = column(reward, "reward", len(taken))
    if link == "logistic" and ((target < 0) | (target > 1)).any():
        raise InvalidInputError("reward must lie in [0, 1] for the logistic link; use link='linear'", field="reward")
    x = feature_matrix(features, len(taken))
    with_intercept = np.column_stack([np.ones(len(taken)), x])
    penalty = np.full(with_intercept.shape[1], ridge)
    penalty[0] = _INTERCEPT_PRECISION
    level = target.mean() if link == "linear" else _logit((target.sum() + 0.5) / (len(target) + 1.0))
    centre = np.zeros(with_intercept.shape[1])
    centre[0] = level

    def objective(by_action: FloatArray, beta: FloatArray) -> float:
        eta = with_intercept @ beta + by_action[taken]
        loss = (
            float(np.logaddexp(0.0, eta).sum() - target @ eta)
            if link == "logistic"
            else float(((target - eta) ** 2).sum() / 2)
        )
        return loss + float(penalty @ (beta - centre) ** 2 + ridge * by_action @ by_action) / 2

    by_action, beta = np.zeros(n_actions), centre.copy()
    current = objective(by_action, beta)
    for _ in range(_ITERATIONS):
        eta = with_intercept @ beta + by_action[taken]
        mean = expit(eta) if link == "logistic" else eta
        weight = mean * (1 - mean) if link == "logistic" else np.ones(len(taken))
        step_action, step_beta = _newton_step(
            with_intercept, taken, weight, target - mean, by_action, beta - centre, penalty, ridge
        )
        size, following = 1.0, objective(by_action + step_action, beta + step_beta)
        while following > current and size > 1e-6:  # away from the optimum a full Newton step may overshoot
            size /= 2
            following = objective(by_action + size * step_action, beta + size * step_beta)
        if following > current:  # rounding: no descent is left
            break
        by_action, beta = by_action + size * step_action, beta + size * step_beta
        done = current - following <= 1e-12 * (1.0 + abs(current))
        current = following
        if done:
            break
    return RewardModel(link=link, intercept=float(beta[0]), action_effect=by_action, feature_effect=beta[1:])


def cross_fitted_prediction(
    features: ArrayLike | None,
    action: ArrayLike,
    reward: ArrayLike,
    *,
    n_actions: int,
    folds: int = 3,
    ridge: float = 4.0,
    link: Link = "logistic",
    row: ArrayLike | None = None,
    seed: int = 0,
) -> FloatArray:
    """Expected reward [n, n_actions], each row by a model fitted on the other folds.

    Cross-fitting keeps the doubly robust estimators free of the bias of a model that has seen the reward it corrects.

    Args:
        features, action, reward, n_actions, ridge, link: as of :func:`fit_reward_model`.
        folds: at least 2.
        row: identity of each row [n]: rows of one identity share a fold, which a bootstrap sample (identity = index
            drawn) or rows of one user need. Default: every row its own.
        seed: of the split into folds.

    Raises:
        ConfigurationError: fewer than 2 folds, no seed, or bad options of the model.
        InvalidInputError: rows that do not fit, or fewer identities than folds.
    """
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or folds < 2:
        raise ConfigurationError(f"folds is {shown(folds)}; expected a whole number, at least 2", field="folds")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigurationError(f"seed is {shown(seed)}; expected a whole number >= 0", field="seed")
    taken = actions(action, n_actions)
    target = column(reward, "reward", len(taken))
    x = feature_matrix(features, len(taken))
    where = np.arange(len(taken)) if row is None else identities(row, "row", len(taken))
    n_distinct = int(where.max()) + 1
    if n_distinct < folds:
        raise InvalidInputError(f"{n_distinct} distinct rows cannot be split into {folds} folds", field="folds")
    fold = (np.random.default_rng(seed).permutation(n_distinct) % folds)[where]
    prediction = np.empty((len(taken), n_actions))
    for k in range(folds):
        inside = fold == k
        model = fit_reward_model(
            x[~inside], taken[~inside], target[~inside], n_actions=n_actions, ridge=ridge, link=link
        )
        prediction[inside] = model.predict(x[inside])
    return prediction


def actions(values: ArrayLike, n_actions: int) -> IntArray:
    """Actions as whole numbers [n] in 0 .. n_actions - 1.

    Raises:
        InvalidInputError: no row, a wrong shape, or a value out of range.
    """
    if isinstance(n_actions, bool) or not isinstance(n_actions, int | np.integer) or n_actions < 1:
        raise ConfigurationError(f"n_actions is {shown(n_actions)}; expected a whole number >= 1", field="n_actions")
    try:
        array = np.asarray(values)
    except Exception as error:  # ragged, or an array of another library that does not convert
        raise InvalidInputError(
            f"action must hold one whole number per row, got {shown(values)}", field="action"
        ) from error
    if array.ndim != 1 or not len(array):
        raise InvalidInputError(f"action has shape {array.shape}; expected (n,), n >= 1", field="action")
    if array.dtype.kind not in "iu":
        raise InvalidInputError(f"action is of type {array.dtype}; expected whole numbers", field="action")
    wrong = (array < 0) | (array >= n_actions)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidInputError(f"action[{row}] is {array[row]}; expected 0 to {n_actions - 1}", field="action")
    return array.astype(np.int64)


def feature_matrix(features: ArrayLike | None, length: int) -> FloatArray:
    """Features as finite numbers [length, n_features]; None gives no column.

    Raises:
        InvalidInputError: a wrong shape or a value that is not finite.
    """
    x = np.zeros((length, 0)) if features is None else numeric(features, "features")
    if x.ndim != 2 or len(x) != length or not np.isfinite(x).all():
        raise InvalidInputError(
            f"features has shape {x.shape}; expected finite numbers ({length}, n_features)", field="features"
        )
    return x


def _newton_step(
    x: FloatArray,
    taken: IntArray,
    weight: FloatArray,
    residual: FloatArray,
    by_action: FloatArray,
    beta: FloatArray,
    penalty: FloatArray,
    ridge: float,
) -> tuple[FloatArray, FloatArray]:
    """Newton step of the effects of the actions [n_actions] and of the features [n_features + 1]."""
    n = len(by_action)
    diagonal = np.bincount(taken, weights=weight, minlength=n) + ridge
    weighted = weight[:, None] * x
    cross = np.column_stack([np.bincount(taken, weights=c, minlength=n) for c in weighted.T])  # [n_actions, p]
    gradient_action = np.bincount(taken, weights=residual, minlength=n) - ridge * by_action
    gradient = x.T @ residual - penalty * beta
    # Schur complement of the diagonal block.
    scaled = cross / diagonal[:, None]
    step = np.linalg.solve(x.T @ weighted + np.diag(penalty) - cross.T @ scaled, gradient - scaled.T @ gradient_action)
    return (gradient_action - cross @ step) / diagonal, np.asarray(step, dtype=np.float64)


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))
