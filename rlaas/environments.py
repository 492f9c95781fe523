"""Ids of the scenarios for ``gymnasium.make`` and ``gymnasium.make_vec``.

Only names are registered: what they stand for is imported by the first ``make``.
"""

from __future__ import annotations

__all__ = ["ENVIRONMENTS", "register_environments"]

ENVIRONMENTS = {
    "rlaas/Network5G-v0": ("rlaas.scenarios.network5g.single:SingleNetwork5G", "make_vector"),
    "rlaas/Recommender-v0": ("rlaas.scenarios.recsys.single:RecommenderEnv", "recommender_vector_env"),
}
"""Entry point of the single environment by id, and the function beside it that makes many."""


def register_environments() -> None:
    """Register the ids with Gymnasium, each once."""
    import gymnasium

    for name, (single, many) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            module = single.partition(":")[0]
            gymnasium.register(id=name, entry_point=single, vector_entry_point=f"{module}:{many}")
