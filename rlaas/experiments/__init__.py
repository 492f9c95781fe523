"""Experiments: who gets which variant, and what may be concluded."""

from rlaas.experiments.analysis import compare_by_unit, compare_switchback, srm_check
from rlaas.experiments.assignment import Assignment, assign_switchback, assign_unit, block_of
from rlaas.experiments.comparison import Arm, Comparison
from rlaas.experiments.off_policy import ESTIMATORS, Estimate, estimate
from rlaas.experiments.reward_model import cross_fitted_prediction, fit_reward_model

__all__ = [
    "ESTIMATORS",
    "Arm",
    "Assignment",
    "Comparison",
    "Estimate",
    "assign_switchback",
    "assign_unit",
    "block_of",
    "compare_by_unit",
    "compare_switchback",
    "cross_fitted_prediction",
    "estimate",
    "fit_reward_model",
    "srm_check",
]
