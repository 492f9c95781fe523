"""Experiments: who gets which variant, and what may be concluded."""

from rlaas.experiments.analysis import compare_by_unit, compare_switchback, srm_check
from rlaas.experiments.assignment import Assignment, assign_switchback, assign_unit, block_of
from rlaas.experiments.comparison import Arm, Comparison

__all__ = [
    "Arm",
    "Assignment",
    "Comparison",
    "assign_switchback",
    "assign_unit",
    "block_of",
    "compare_by_unit",
    "compare_switchback",
    "srm_check",
]
