"""What is controlled: scenarios, their environments, baselines and evaluation."""

from rlaas.environments import register_environments
from rlaas.scenarios.base import (
    EvaluationProtocol,
    LoggedPair,
    Scenario,
    Target,
    VectorScenarioEnv,
    seed_list,
)
from rlaas.scenarios.configuration import ConfigurationProblem
from rlaas.scenarios.controllers import Baseline, ConstantController, Controller, Tunable
from rlaas.scenarios.evaluation import Evaluation, evaluate
from rlaas.scenarios.outcomes import outcome_document, outcome_parts
from rlaas.scenarios.registry import available, load
from rlaas.scenarios.reports import Report, Section
from rlaas.scenarios.scalarised import ScalarisedVectorEnv
from rlaas.scenarios.tensors import TensorEnv, TensorStep

__all__ = [
    "Baseline",
    "ConfigurationProblem",
    "ConstantController",
    "Controller",
    "Evaluation",
    "EvaluationProtocol",
    "LoggedPair",
    "Report",
    "ScalarisedVectorEnv",
    "Scenario",
    "Section",
    "Target",
    "TensorEnv",
    "TensorStep",
    "Tunable",
    "VectorScenarioEnv",
    "available",
    "evaluate",
    "load",
    "outcome_document",
    "outcome_parts",
    "seed_list",
]

# By name only: gymnasium.make("rlaas/Network5G-v0") imports the scenario itself.
register_environments()
