"""Value of a policy over whole sessions, from sessions that another policy logged.

The value is the expected discounted reward of the first ``horizon`` steps, sum over t of gamma^t r_t. With the weight
of a step w_t = evaluation probability / propensity and the weight so far W_t = w_0 ... w_t, a session adds

| name | per session | source |
|---|---|---|
| ``pdis`` | sum of gamma^t W_t r_t | Precup, Sutton & Singh 2000, per-decision importance sampling |
| ``wpdis`` | sum of gamma^t W_t r_t / mean(W_t) | the same, weighted |
| ``pddr`` | sum of gamma^t (W_{t-1} v(s_t) + W_t (r_t - q(s_t, a_t))) | Jiang & Li 2016, doubly robust |
| ``fqe`` | v(s_0) of fitted Q | Le, Voloshin & Yue 2019; :mod:`.fitted_q` |

A session that has ended stays where it ended: its weight no longer changes, its rewards are 0 (Thomas 2015).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.experiments.intervals import per_unit, skewed_interval, standard_error, unlogged_share
from rlaas.experiments.sequential_off_policy.rows import Grid, SessionLog, check_discount, grid_of

__all__ = [
    "SESSION_ESTIMATORS",
    "SessionEstimate",
    "SessionEstimatorName",
    "check_confidence",
    "estimate_logged",
    "estimate_sessions",
    "session_estimate",
]

SessionEstimatorName = Literal["pdis", "wpdis", "pddr", "fqe"]
FloatArray = NDArray[np.float64]

SESSION_ESTIMATORS: tuple[SessionEstimatorName, ...] = ("pdis", "wpdis", "pddr", "fqe")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEstimate:
    """An estimated value of a policy per session; the interval is approximate.

    Attributes:
        estimator: name.
        value: the estimate.
        standard_error: by the delta method, from each unit's deviations; a unit is a session where none are given.
        low, high: interval at ``confidence``, by units, for skewed sums; stretched by what the ``unlogged`` share
            could bring with the lowest and the highest return seen. That of ``fqe`` holds the spread of its fit; how
            wrong its features are it cannot know.
        confidence: level of the interval.
        effective_sample_size: in sessions, (sum of W)^2 / sum of W^2 at the step where it is smallest. For ``fqe``
            that of the weights that its rows have in the value, see :func:`~.fitted_q.fitted_q_evaluation`.
        n: sessions.
        mean_weight: of the last step (``fqe``: of single rows); 1 in expectation.
        largest_weight: among the same.
        unlogged: 1 - mean weight where that is significantly above 0, otherwise 0.
        horizon: steps counted.
        discount: gamma.
    """

    estimator: SessionEstimatorName
    value: float
    standard_error: float
    low: float
    high: float
    confidence: float
    effective_sample_size: float
    n: int
    mean_weight: float
    largest_weight: float
    unlogged: float
    horizon: int
    discount: float

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain JSON types."""
        return asdict(self)


def estimate_sessions(
    log: SessionLog,
    *,
    estimator: SessionEstimatorName = "wpdis",
    prediction: ArrayLike | None = None,
    discount: float = 1.0,
    horizon: int | None = None,
    confidence: float = 0.95,
) -> SessionEstimate:
    """Expected discounted reward of a session under the evaluation policy, by importance weights.

    Args:
        log: the logged sessions.
        estimator: ``pdis``, ``wpdis`` or ``pddr`` (``fqe`` has a function of its own).
        prediction: for ``pddr``: value of every action [n, n_actions] over the steps that are left at the row, of a
            model that has not seen the session (:func:`~.fitted_q.cross_fitted_action_values`).
        discount: gamma, in (0, 1].
        horizon: steps that are counted; default: those of the longest session.
        confidence: level of the interval, in (0, 1).

    Raises:
        ConfigurationError: an unknown estimator or an impossible option.
        InvalidInputError: columns that do not fit, sessions with gaps or a missing end, propensities that are missing
            or no probabilities, or a horizon that no logged session reaches as the evaluation policy would.
    """
    return session_estimate(
        log, estimator=estimator, prediction=prediction, discount=discount, horizon=horizon, confidence=confidence
    )[0]


def estimate_logged(
    log: SessionLog, *, discount: float = 1.0, horizon: int | None = None, confidence: float = 0.95
) -> tuple[SessionEstimate, FloatArray]:
    """Mean discounted reward of the sessions as they were logged, and what each unit's sessions add to it [n_units].

    Args:
        log, discount, horizon, confidence: as of :func:`estimate_sessions`; of the propensities nothing is asked.

    Raises:
        ConfigurationError, InvalidInputError: as there.
    """
    ones = np.ones(np.shape(log.reward))
    as_it_was = replace(log, propensity=ones, evaluation_probability=ones, action=None)
    return session_estimate(as_it_was, estimator="pdis", discount=discount, horizon=horizon, confidence=confidence)


def session_estimate(
    log: SessionLog,
    *,
    estimator: SessionEstimatorName,
    prediction: ArrayLike | None = None,
    discount: float = 1.0,
    horizon: int | None = None,
    confidence: float = 0.95,
) -> tuple[SessionEstimate, FloatArray]:
    """What :func:`estimate_sessions` gives, and what each unit's sessions add to it [n_units].

    The second, which sums to 0, says how the estimate moves with another one of the same sessions.
    """
    check_choice(estimator, SESSION_ESTIMATORS[:3], field="estimator")
    gamma, level = check_discount(discount), check_confidence(confidence)
    if (prediction is None) == (estimator == "pddr"):
        raise InvalidInputError(
            "'pddr' needs a prediction [n, n_actions]"
            if prediction is None
            else f"{estimator!r} has no model; only 'pddr' takes a prediction",
            field="prediction",
        )
    grid = grid_of(log, horizon=horizon, prediction=prediction, estimator=estimator)
    weight = grid.cumulative()
    value, influence, taken = _evaluated(estimator, grid, weight, gamma)
    final = weight[:, -1]
    unlogged = unlogged_share(final, grid.unit)
    sums = per_unit(influence, grid.unit)
    returns = grid.reward @ gamma ** np.arange(grid.horizon)
    low, high = stretched_interval(sums, grid.n_sessions, level, unlogged, returns, taken)
    found = SessionEstimate(
        estimator=estimator,
        value=value,
        standard_error=standard_error(sums, grid.n_sessions),
        low=value + low,
        high=value + high,
        confidence=level,
        effective_sample_size=float((weight.sum(axis=0) ** 2 / (weight**2).sum(axis=0)).min()),
        n=grid.n_sessions,
        mean_weight=float(final.mean()),
        largest_weight=float(final.max()),
        unlogged=unlogged,
        horizon=grid.horizon,
        discount=gamma,
    )
    return found, sums


def stretched_interval(
    sums: FloatArray, n: int, confidence: float, unlogged: float, returns: FloatArray, taken: float
) -> tuple[float, float]:
    """Ends relative to the value, from each unit's deviations [n_units], stretched by what is not logged.

    Args:
        sums: deviations of the units' sessions, which sum to 0.
        n: sessions.
        confidence: level.
        unlogged: share.
        returns: of the logged sessions [n]; their lowest and highest bound what the share could bring.
        taken: what the estimator takes the share to bring.
    """
    below, above = skewed_interval(sums, n, confidence)
    worst, best = float(returns.min()) - taken, float(returns.max()) - taken
    return below + min(0.0, unlogged * worst), above + max(0.0, unlogged * best)


def check_confidence(confidence: object) -> float:
    """A level.

    Raises:
        ConfigurationError: not in (0, 1).
    """
    known = isinstance(confidence, int | float | np.integer | np.floating) and not isinstance(confidence, bool)
    if not known or not 0 < float(confidence) < 1:  # type: ignore[arg-type]
        raise ConfigurationError(f"confidence is {shown(confidence)}; expected a number in (0, 1)", field="confidence")
    return float(confidence)  # type: ignore[arg-type]


def _evaluated(
    estimator: SessionEstimatorName, grid: Grid, weight: FloatArray, gamma: float
) -> tuple[float, FloatArray, float]:
    """The value, what each session's deviation adds to it [n_sessions], and what is taken of an unlogged session."""
    discounts = gamma ** np.arange(grid.horizon)
    if estimator == "wpdis":
        share = weight / weight.mean(axis=0)
        by_step = (share * grid.reward).mean(axis=0)
        # Delta method: every step is a ratio of means.
        influence = (share * (grid.reward - by_step)) @ discounts
        value = float(by_step @ discounts)
        return value, influence, value
    if estimator == "pdis":
        each, taken = (weight * grid.reward) @ discounts, 0.0
    else:
        before = np.hstack([np.ones((grid.n_sessions, 1)), weight[:, :-1]])
        each = (before * grid.direct + weight * (grid.reward - grid.predicted)) @ discounts
        taken = float(grid.direct[:, 0].mean())
    value = float(each.mean())
    return value, each - value, taken
