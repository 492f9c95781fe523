"""Off-policy evaluation of whole sessions: per-decision weights, doubly robust, fitted Q."""

from rlaas.experiments.sequential_off_policy.estimators import (
    SESSION_ESTIMATORS,
    SessionEstimate,
    SessionEstimatorName,
    estimate_logged,
    estimate_sessions,
    session_estimate,
)
from rlaas.experiments.sequential_off_policy.fitted_q import (
    FittedQ,
    cross_fitted_action_values,
    fit_q,
    fitted_q_estimate,
    fitted_q_evaluation,
)
from rlaas.experiments.sequential_off_policy.rows import SessionLog

__all__ = [
    "SESSION_ESTIMATORS",
    "FittedQ",
    "SessionEstimate",
    "SessionEstimatorName",
    "SessionLog",
    "cross_fitted_action_values",
    "estimate_logged",
    "estimate_sessions",
    "fit_q",
    "fitted_q_estimate",
    "fitted_q_evaluation",
    "session_estimate",
]
