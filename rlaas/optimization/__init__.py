"""How fronts are searched: problems, NSGA-III, indicators, and a pool of Ray actors that evaluates.

``import rlaas.optimization`` loads no Ray; naming ``ActorPool`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlaas.optimization.config import OptimizationConfig, load_optimization_config
from rlaas.optimization.directions import reference_directions
from rlaas.optimization.indicators import expected_utility, front_hypervolume, hypervolume, igd, sparsity
from rlaas.optimization.problems import Evaluator, FunctionProblem, Problem, PymooProblem, as_problem
from rlaas.optimization.search import ALGORITHMS, Generation, SearchResult, minimize

if TYPE_CHECKING:
    from rlaas.optimization.pool import ActorPool

__all__ = [
    "ALGORITHMS",
    "ActorPool",
    "Evaluator",
    "FunctionProblem",
    "Generation",
    "OptimizationConfig",
    "Problem",
    "PymooProblem",
    "SearchResult",
    "as_problem",
    "expected_utility",
    "front_hypervolume",
    "hypervolume",
    "igd",
    "load_optimization_config",
    "minimize",
    "reference_directions",
    "sparsity",
]


def __getattr__(name: str) -> Any:
    if name == "ActorPool":
        from rlaas.optimization.pool import ActorPool

        return ActorPool
    raise AttributeError(f"module 'rlaas.optimization' has no attribute {name!r}")
