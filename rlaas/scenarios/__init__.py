"""What is controlled: scenarios, their environments, baselines and evaluation."""

from rlaas.scenarios.base import (
    Baseline,
    ConstantController,
    Controller,
    Scenario,
    Target,
    Tunable,
    VectorScenarioEnv,
)
from rlaas.scenarios.evaluation import Evaluation, evaluate
from rlaas.scenarios.registry import available, load

__all__ = [
    "Baseline",
    "ConstantController",
    "Controller",
    "Evaluation",
    "Scenario",
    "Target",
    "Tunable",
    "VectorScenarioEnv",
    "available",
    "evaluate",
    "load",
]
