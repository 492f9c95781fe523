"""How fronts are searched: problems, engines, indicators, and a pool of Ray actors that evaluates.

``import rlaas.optimization`` loads neither Ray nor the engines' compiler; naming ``ActorPool``, or ``minimize``, does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names
from rlaas.optimization.archive import (
    Archive,
    Comparison,
    Contender,
    EvidenceArchive,
    RaceResult,
    Standing,
    complete,
    race,
)
from rlaas.optimization.config import OptimizationConfig, load_optimization_config
from rlaas.optimization.directions import (
    DIRECTIONS,
    das_dennis,
    energy_directions,
    layered_directions,
    reference_directions,
)
from rlaas.optimization.history import Generation, SearchResult
from rlaas.optimization.indicators import expected_utility, front_hypervolume, hypervolume, igd, sparsity
from rlaas.optimization.population import Engine, Population
from rlaas.optimization.problems import Evaluator, FunctionProblem, Problem, PymooProblem, as_problem
from rlaas.optimization.termination import (
    DistanceStall,
    Evaluations,
    Generations,
    HypervolumeStall,
    Seconds,
    Stop,
    TargetHypervolume,
)

if TYPE_CHECKING:
    from rlaas.optimization.engines import ALGORITHMS, make_engine
    from rlaas.optimization.pool import ActorPool
    from rlaas.optimization.search import Search, minimize
    from rlaas.optimization.spread.planner import WAYS, Plan, plan
    from rlaas.optimization.spread.run import SpreadResult, spread_search
    from rlaas.optimization.spread.steady import replay

__all__ = [
    "ALGORITHMS",
    "DIRECTIONS",
    "WAYS",
    "ActorPool",
    "Archive",
    "Comparison",
    "Contender",
    "DistanceStall",
    "Engine",
    "Evaluations",
    "Evaluator",
    "EvidenceArchive",
    "FunctionProblem",
    "Generation",
    "Generations",
    "HypervolumeStall",
    "OptimizationConfig",
    "Plan",
    "Population",
    "Problem",
    "PymooProblem",
    "RaceResult",
    "Search",
    "SearchResult",
    "Seconds",
    "SpreadResult",
    "Standing",
    "Stop",
    "TargetHypervolume",
    "as_problem",
    "complete",
    "das_dennis",
    "energy_directions",
    "expected_utility",
    "front_hypervolume",
    "hypervolume",
    "igd",
    "layered_directions",
    "load_optimization_config",
    "make_engine",
    "minimize",
    "plan",
    "race",
    "reference_directions",
    "replay",
    "sparsity",
    "spread_search",
]

_LATER = {
    "WAYS": "spread.planner",
    "Plan": "spread.planner",
    "SpreadResult": "spread.run",
    "plan": "spread.planner",
    "replay": "spread.steady",
    "spread_search": "spread.run",
    "ALGORITHMS": "engines",
    "ActorPool": "pool",
    "Search": "search",
    "make_engine": "engines",
    "minimize": "search",
}
"""Names whose module is loaded when they are first asked for: Ray and Numba take a second or two each."""

__getattr__, __dir__ = lazy_names(__name__, _LATER)
