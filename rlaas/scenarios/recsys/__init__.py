"""The recommender: slates for users whose interests drift, clicks against orders against variety against cost."""

import gymnasium

from rlaas.scenarios.recsys.scenario import Recommender

__all__ = ["GYMNASIUM_ID", "Recommender"]

GYMNASIUM_ID = "rlaas/Recommender-v0"
"""The single environment's id; registered on import."""

if GYMNASIUM_ID not in gymnasium.registry:
    gymnasium.register(id=GYMNASIUM_ID, entry_point="rlaas.scenarios.recsys.single:RecommenderEnv")
