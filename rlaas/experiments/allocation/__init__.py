"""Allocation: which share of the next batch each arm gets, and what may be concluded when shares followed rewards."""

from rlaas.experiments.allocation.adaptive import AdaptiveEstimate, AdaptiveEstimates, adaptive_estimates
from rlaas.experiments.allocation.contextual import ContextualAllocation, LinearThompson
from rlaas.experiments.allocation.objectives import ModeVerdict, ObjectiveThompson
from rlaas.experiments.allocation.priors import BetaPrior, GaussianPrior
from rlaas.experiments.allocation.propensities import PropensityCheck, propensity_check
from rlaas.experiments.allocation.regret import lai_robbins, sequential_regret, simulated_regret
from rlaas.experiments.allocation.states import AnyAllocator, allocator_from_dict
from rlaas.experiments.allocation.thompson import Allocation, Fixed, Thompson

__all__ = [
    "AdaptiveEstimate",
    "AdaptiveEstimates",
    "Allocation",
    "AnyAllocator",
    "BetaPrior",
    "ContextualAllocation",
    "Fixed",
    "GaussianPrior",
    "LinearThompson",
    "ModeVerdict",
    "ObjectiveThompson",
    "PropensityCheck",
    "Thompson",
    "adaptive_estimates",
    "allocator_from_dict",
    "lai_robbins",
    "propensity_check",
    "sequential_regret",
    "simulated_regret",
]
