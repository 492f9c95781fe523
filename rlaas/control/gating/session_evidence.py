"""What the estimators of sessions say of a version, given the sessions of the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BoxAction, BundlePolicy, DiscreteAction, Float32
from rlaas.control.gating.logged_sessions import LoggedSessions
from rlaas.experiments.gate import unit_correlation
from rlaas.experiments.sequential_off_policy import (
    SessionEstimate,
    SessionEstimatorName,
    SessionLog,
    cross_fitted_action_values,
    estimate_logged,
    fitted_q_estimate,
    session_estimate,
)

__all__ = ["SessionEvidence"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """Answers for the estimators of sessions.

    Attributes:
        log: the sessions as the library wants them.
        options: horizon (no more than the longest session), discount and confidence, as declared.
    """

    log: SessionLog
    options: Mapping[str, Any]
    _found: dict[str, tuple[SessionEstimate, FloatArray]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bundle: BundlePolicy,
        sessions: LoggedSessions,
        *,
        explore: bool,
        epsilon: float,
        confidence: float,
    ) -> SessionEvidence:
        """Work out how a version would have acted in the sessions.

        Args:
            bundle: the version.
            sessions: that were logged.
            explore, epsilon: how it would be served.
            confidence: level of the intervals.

        Raises:
            InvalidInputError: nobody can say how probable the logged actions were: of a version with a memory, or one
                that takes its mode in a box.
        """
        # Where every session has ended nothing comes any more, and a step more costs a regression.
        steps = min(sessions.horizon, int(sessions.step.max()) + 1)
        options = {"horizon": steps, "discount": sessions.discount, "confidence": confidence}
        return cls(_log(bundle, sessions, explore, epsilon), options)

    def estimate(self, name: str) -> SessionEstimate:
        """What an estimator finds.

        Raises:
            InvalidInputError: the log says nothing to it.
        """
        if name not in self._found:
            self._found[name] = self._estimate(cast("SessionEstimatorName", name))
        return self._found[name][0]

    def logged(self, estimator: str) -> tuple[SessionEstimate, float]:
        """Value of what was logged itself, and its correlation with what an estimator finds."""
        found, theirs = estimate_logged(self.log, **self.options)
        self.estimate(estimator)
        return found, unit_correlation(self._found[estimator][1], theirs)

    def _estimate(self, name: SessionEstimatorName) -> tuple[SessionEstimate, FloatArray]:
        if name == "fqe":
            return fitted_q_estimate(self.log, **self.options)
        prediction = None
        if name == "pddr":
            prediction = cross_fitted_action_values(
                self.log, horizon=self.options["horizon"], discount=self.options["discount"]
            )
        return session_estimate(self.log, estimator=name, prediction=prediction, **self.options)


def _log(bundle: BundlePolicy, sessions: LoggedSessions, explore: bool, epsilon: float) -> SessionLog:
    rows = sessions.rows
    propensity, features, following, ahead, action = rows.propensity, None, None, None, None
    if isinstance(bundle.manifest.action, DiscreteAction):
        action = rows.action[:, 0].astype(np.int64)
        observation = np.vstack([rows.observation, sessions.beyond.observation])
        preference = None
        if rows.preference is not None and sessions.beyond.preference is not None:
            preference = np.vstack([rows.preference, sessions.beyond.preference])
        probability = bundle.probabilities(observation, preference, epsilon, greedy=not explore)
        every = _features(observation, preference, len(rows.reward))
        known = sessions.following >= 0
        asked, features = probability[: len(rows.reward)], every[: len(rows.reward)]
        following = np.where(known[:, None], every[sessions.following], np.nan)
        ahead = probability[sessions.following]
    else:
        asked = bundle.propensities(rows.observation, rows.action, rows.preference, epsilon, greedy=not explore)
        if isinstance(bundle.manifest.action, BoxAction):
            with np.errstate(over="ignore"):
                asked, propensity = np.exp(asked - propensity), np.ones(len(propensity))
    return SessionLog(
        session=sessions.session,
        step=sessions.step,
        reward=rows.reward,
        terminated=sessions.terminated,
        propensity=propensity,
        evaluation_probability=asked,
        action=action,
        features=features,
        next_features=following,
        next_probability=ahead,
        unit=rows.unit,
    )


def _features(observation: Float32, preference: Float32 | None, n: int) -> FloatArray:
    """State of the model: 1, observation and preference, each of mean 0 and spread 1 over the first ``n`` rows."""
    columns = [observation] if preference is None else [observation, preference]
    x = np.hstack(columns).astype(np.float64)
    spread = x[:n].std(axis=0)
    scaled = (x - x[:n].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.hstack([np.ones((len(x), 1)), scaled])
