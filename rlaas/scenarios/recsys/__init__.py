"""The recommender: slates for users whose interests drift, clicks against orders against variety against cost."""

from rlaas.scenarios.recsys.baselines import COLD_START
from rlaas.scenarios.recsys.cold_start import ColdStart, cold_start_report
from rlaas.scenarios.recsys.environment import RecommenderVectorEnv
from rlaas.scenarios.recsys.scenario import Recommender

__all__ = [
    "COLD_START",
    "GYMNASIUM_ID",
    "ColdStart",
    "Recommender",
    "RecommenderVectorEnv",
    "cold_start_report",
]

GYMNASIUM_ID = "rlaas/Recommender-v0"
"""The environment's id for ``gymnasium.make`` and ``gymnasium.make_vec``; see :mod:`rlaas.environments`."""
