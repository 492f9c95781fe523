"""Fitted Q evaluation: the value of a policy by regressing one step of it after another.

Q_k(s, a) = features(s) . theta_k[a] is the value of k steps that begin with a and follow the evaluation policy:
Q_0 = 0, and Q_k is the ridge regression of r + gamma sum over b of pi(b | s') Q_{k-1}(s', b) on every logged transition
(Le, Voloshin & Yue 2019, with a linear model). With one-hot states it is dynamic programming on the frequencies logged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, shown
from rlaas.experiments.comparison import column, numeric
from rlaas.experiments.intervals import per_unit, standard_error, unlogged_share
from rlaas.experiments.reward_model import actions, feature_matrix
from rlaas.experiments.sequential_off_policy.estimators import SessionEstimate, check_confidence, stretched_interval
from rlaas.experiments.sequential_off_policy.rows import SessionLog, check_discount, grid_of, session_codes

__all__ = ["FittedQ", "cross_fitted_action_values", "fit_q", "fitted_q_estimate", "fitted_q_evaluation"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedQ:
    """Values of actions by steps left.

    Attributes:
        coefficient: theta [horizon + 1, n_actions, n_features]; the first is 0, that of no step left.
    """

    coefficient: FloatArray

    @property
    def horizon(self) -> int:
        """Most steps it was fitted for."""
        return len(self.coefficient) - 1

    def predict(self, features: FloatArray, steps_left: IntArray) -> FloatArray:
        """Value [n, n_actions] of every action in the states ``features`` [n, n_features] with steps left [n]."""
        return np.asarray(np.einsum("np,nap->na", features, self.coefficient[steps_left]))


@dataclass(frozen=True, slots=True)
class _Transitions:
    """Checked columns of a log, [n, ...] each."""

    x: FloatArray
    taken: IntArray
    reward: FloatArray
    goes_on: FloatArray  # gamma, or 0 after a termination
    following: FloatArray
    probability: FloatArray
    known: NDArray[np.bool_]  # what followed

    def of(self, rows: NDArray[np.bool_]) -> _Transitions:
        return _Transitions(*(getattr(self, name)[rows] for name in self.__slots__))


def fit_q(log: SessionLog, *, horizon: int, discount: float = 1.0, ridge: float = 1e-3) -> FittedQ:
    """Fit the values of 1 to ``horizon`` steps.

    Args:
        log: with ``action``, ``features``, ``next_features`` and ``next_probability``; order and sessions do not
            matter.
        horizon: steps; where the task has no end, enough that discount^horizon is negligible.
        discount: gamma, in (0, 1].
        ridge: penalty on the coefficients, > 0: an action that was never logged is worth 0.

    Raises:
        ConfigurationError: an impossible option.
        InvalidInputError: columns that are missing or do not fit.
    """
    data = _transitions(log, check_discount(discount))
    return _fit(data.of(data.known), _whole(horizon, "horizon"), _penalty(ridge))[0]


def cross_fitted_action_values(
    log: SessionLog, *, horizon: int, discount: float = 1.0, ridge: float = 1e-3, folds: int = 3, seed: int = 0
) -> FloatArray:
    """Value of every action over the steps left [n, n_actions], each session by a fit to the other folds' sessions.

    What ``pddr`` needs as ``prediction``; steps at or beyond the horizon get 0.

    Args:
        log, horizon, discount, ridge: as of :func:`fit_q`.
        folds: at least 2.
        seed: of the split.

    Raises:
        ConfigurationError: an impossible option.
        InvalidInputError: columns that are missing or do not fit, or fewer sessions than folds.
    """
    data = _transitions(log, check_discount(discount))
    steps, penalty, parts = _whole(horizon, "horizon"), _penalty(ridge), _whole(folds, "folds", least=2)
    codes, step = session_codes(log, len(data.reward))
    n_sessions = int(codes.max()) + 1
    if n_sessions < parts:
        raise InvalidInputError(f"{n_sessions} sessions cannot be split into {parts} folds", field="folds")
    fold = (np.random.default_rng(_whole(seed, "seed", least=0)).permutation(n_sessions) % parts)[codes]
    values = np.empty(data.probability.shape)
    left = np.maximum(steps - step, 0)
    for k in range(parts):
        inside = fold == k
        fitted, _ = _fit(data.of(~inside & data.known), steps, penalty)
        values[inside] = fitted.predict(data.x[inside], left[inside])
    return values


def fitted_q_evaluation(
    log: SessionLog,
    *,
    horizon: int | None = None,
    discount: float = 1.0,
    ridge: float = 1e-3,
    confidence: float = 0.95,
) -> SessionEstimate:
    """Expected discounted reward of a session by fitted Q: mean over the first states of pi . Q_horizon.

    A linear fit is linear in the rewards, value = sum over rows of omega x reward, with the omega of the policy's state
    and action visits over the log's (Uehara, Huang & Jiang 2020 show that the two are one method). So

    - the effective sample size is (sum of omega)^2 / (sum of omega^2) rows, told in sessions of the mean number of rows
      that the fit has of each;
    - the spread is that of the omegas times the residuals of the fits, by sessions (the delta method; Duan & Wang
      2020). It holds no error of the features: a table of states has none.

    Sessions may be cut anywhere, since a transition stands for itself.

    Args:
        log: with ``action``, ``features``, ``next_features``, ``next_probability``, and an ``evaluation_probability``
            of every action. The propensities are not weighed with, but a log without them, of a policy that never
            tried anything else, is refused.
        horizon: steps; default: those of the longest session.
        discount: gamma, in (0, 1].
        ridge: penalty, > 0.
        confidence: level of the interval, in (0, 1).

    Raises:
        ConfigurationError: an impossible option.
        InvalidInputError: columns that are missing or do not fit, or missing propensities.
    """
    return fitted_q_estimate(log, horizon=horizon, discount=discount, ridge=ridge, confidence=confidence)[0]


def fitted_q_estimate(
    log: SessionLog,
    *,
    horizon: int | None = None,
    discount: float = 1.0,
    ridge: float = 1e-3,
    confidence: float = 0.95,
) -> tuple[SessionEstimate, FloatArray]:
    """What :func:`fitted_q_evaluation` gives, and what each unit's sessions add to it [n_units], summing to 0."""
    gamma, level, penalty = check_discount(discount), check_confidence(confidence), _penalty(ridge)
    grid = grid_of(log, horizon=horizon, prediction=None, estimator="fqe", complete=False)
    data = _transitions(log, gamma)
    pi = numeric(log.evaluation_probability, "evaluation_probability")
    if pi.shape != data.probability.shape:
        raise InvalidInputError(
            f"evaluation_probability has shape {pi.shape}; fitted Q needs {data.probability.shape}, every action's",
            field="evaluation_probability",
        )
    fitted, inverse = _fit(data.of(data.known), grid.horizon, penalty)
    first, n = grid.row[:, 0], grid.n_sessions
    values = (pi[first] * fitted.predict(data.x[first], np.full(n, grid.horizon))).sum(axis=1)
    value = float(values.mean())
    codes, _ = session_codes(log, len(data.reward))
    length = data.known.sum() / n
    start = np.einsum("na,np->ap", pi[first], data.x[first]) / n
    omega, influence = _adjoint(data.of(data.known), fitted, inverse, start, codes[data.known], n)
    influence = values - value + n * (influence - influence.mean())
    sums = per_unit(influence - influence.mean(), grid.unit)
    unlogged = unlogged_share(grid.row_weight, grid.row_unit)
    returns = grid.reward @ gamma ** np.arange(grid.horizon)
    low, high = stretched_interval(sums, n, level, unlogged, returns, value)
    square = float(omega @ omega)
    found = SessionEstimate(
        estimator="fqe",
        value=value,
        standard_error=standard_error(sums, n),
        low=value + low,
        high=value + high,
        confidence=level,
        effective_sample_size=float(omega.sum() ** 2 / square) / length if square > 0 else 0.0,
        n=n,
        mean_weight=float(grid.row_weight.mean()),
        largest_weight=float(grid.row_weight.max()),
        unlogged=unlogged,
        horizon=grid.horizon,
        discount=gamma,
    )
    return found, sums


def _fit(data: _Transitions, horizon: int, ridge: float) -> tuple[FittedQ, FloatArray]:
    """Coefficients, and the inverse of each action's penalised Gram matrix [n_actions, n_features, n_features]."""
    n_actions, width = data.probability.shape[1], data.x.shape[1]
    inverse = np.empty((n_actions, width, width))
    for action in range(n_actions):
        x = data.x[data.taken == action]
        inverse[action] = np.linalg.inv(x.T @ x + ridge * np.eye(width))
    theta = np.zeros((horizon + 1, n_actions, width))
    for k in range(1, horizon + 1):
        target = _target(data, theta[k - 1])
        moments = np.stack([_by_action(data, target * column_) for column_ in data.x.T], axis=1)  # [n_actions, p]
        theta[k] = np.einsum("apq,aq->ap", inverse, moments)
    return FittedQ(theta), inverse


def _adjoint(
    data: _Transitions, fitted: FittedQ, inverse: FloatArray, start: FloatArray, codes: IntArray, n_sessions: int
) -> tuple[FloatArray, FloatArray]:
    """Weight of each row's reward in the value [n], and what the sessions' residuals add to it [n_sessions].

    The value is start . theta_H with A theta_k = sum of x (r + gamma v_{k-1}(s')), so a change of the k-th regression
    reaches it through a_k, where a_H = A^-1 start and a_{k-1} = gamma A^-1 (sum over rows of (x . a_k) pi(. | s') x').
    """
    omega, added = np.zeros(len(data.reward)), np.zeros(n_sessions)
    dual = np.einsum("apq,aq->ap", inverse, start)
    for k in range(fitted.horizon, 0, -1):
        pull = (data.x * dual[data.taken]).sum(axis=1)
        residual = _target(data, fitted.coefficient[k - 1]) - (data.x * fitted.coefficient[k][data.taken]).sum(axis=1)
        omega += pull
        added += np.bincount(codes, weights=pull * residual, minlength=len(added))
        back = (data.probability * (pull * data.goes_on)[:, None]).T @ data.following
        dual = np.einsum("apq,aq->ap", inverse, back)
    return omega, added


def _target(data: _Transitions, theta: FloatArray) -> FloatArray:
    return np.asarray(data.reward + data.goes_on * (data.probability * (data.following @ theta.T)).sum(axis=1))


def _by_action(data: _Transitions, values: FloatArray) -> FloatArray:
    return np.bincount(data.taken, weights=values, minlength=data.probability.shape[1]).astype(np.float64)


def _transitions(log: SessionLog, gamma: float) -> _Transitions:
    for name in ("action", "features", "next_features", "next_probability"):
        if getattr(log, name) is None:
            raise InvalidInputError(f"fitted Q needs {name}", field=name)
    probability = numeric(log.next_probability, "next_probability")  # type: ignore[arg-type]
    if probability.ndim != 2 or not probability.shape[1]:
        raise InvalidInputError(
            f"next_probability has shape {probability.shape}; expected (n, n_actions)", field="next_probability"
        )
    n = len(probability)
    taken = actions(log.action, probability.shape[1])  # type: ignore[arg-type]
    terminated = column(log.terminated, "terminated", n) != 0
    sums = probability.sum(axis=1)
    following = numeric(log.next_features, "next_features")  # type: ignore[arg-type]
    known = np.ones(n, dtype=np.bool_)
    if following.ndim == 2 and len(following) == n:
        known = terminated | ~np.isnan(following).all(axis=1)
    wrong = known & ~terminated & ~((probability >= 0).all(axis=1) & (np.abs(sums - 1) <= 1e-6))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(
            f"next_probability[{row}] sums to {sums[row]:.6g}; expected probabilities that sum to 1",
            field="next_probability",
        )
    if len(taken) != n:
        raise InvalidInputError(f"action has {len(taken)} rows; expected {n}", field="action")
    x = feature_matrix(log.features, n)
    if following.shape != x.shape or not x.shape[1]:
        raise InvalidInputError(
            f"features has shape {x.shape} and next_features {following.shape}; expected one shape (n, n_features)",
            field="next_features",
        )
    if not terminated.all() and not (known & ~terminated).any():
        raise InvalidInputError(
            "next_features is NaN in every row that did not end its session: fitted Q needs to know what followed",
            field="next_features",
        )
    goes_on = (known & ~terminated)[:, None]
    following = np.where(goes_on, following, 0.0)
    if not np.isfinite(following).all():
        raise InvalidInputError(
            "next_features must be finite wherever the session went on (terminated is 0), or NaN throughout a row",
            field="next_features",
        )
    return _Transitions(
        x,
        taken,
        column(log.reward, "reward", n),
        np.where(terminated, 0.0, gamma),
        following,
        np.where(goes_on, probability, 0.0),
        known,
    )


def _whole(value: object, field: str, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"{field} is {shown(value)}; expected a whole number, at least {least}", field=field)
    return int(value)


def _penalty(ridge: object) -> float:
    known = isinstance(ridge, int | float | np.integer | np.floating) and not isinstance(ridge, bool)
    if not known or not 0 < float(ridge) < np.inf:  # type: ignore[arg-type]
        raise ConfigurationError(f"ridge is {shown(ridge)}; expected a finite number > 0", field="ridge")
    return float(ridge)  # type: ignore[arg-type]
