"""Scalar rewards for tools that know one objective only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from rlaas.objectives import Preference
from rlaas.scenarios.base import VectorScenarioEnv

__all__ = ["ScalarisedVectorEnv"]


class ScalarisedVectorEnv(gymnasium.vector.VectorWrapper):
    """A scenario's vector environment whose reward [num_envs] is the preference-weighted sum of the objectives'.

    RLlib's stock environment runner takes it as any Gymnasium vector environment; the vector stays in
    ``infos["objectives"]`` [num_envs, n_objectives]. RLlib seeds each of its runners on the first reset where
    ``config.debugging(seed=...)`` says so; without it they all sample the worlds of the environment's own seed.

    Args:
        env: what ``Scenario.vector_env`` returned.
        preference: weights by objective name, or in the order of the objectives.

    Raises:
        InvalidInputError: weights that do not fit the objectives, by name.
    """

    def __init__(self, env: VectorScenarioEnv, preference: Preference | Mapping[str, float] | Sequence[float]) -> None:
        super().__init__(env)
        if not isinstance(preference, Preference):
            preference = Preference.of(env.scenario.objectives, preference)
        self._weights = preference.array()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the wrapped environment, with a scalar reward per row."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        # Summed by hand: BLAS rounds differently for different numbers of rows.
        scalar = (reward * self._weights).sum(axis=1)
        return observation, scalar, terminated, truncated, {**infos, "objectives": reward}
