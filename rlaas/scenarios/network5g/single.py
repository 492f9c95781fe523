"""One network as a single Gymnasium environment with a vector reward, in the MO-Gymnasium convention."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g.control import action_space
from rlaas.scenarios.network5g.observation import observation_space
from rlaas.scenarios.network5g.scenario import Network5G

__all__ = ["ENVIRONMENT_ID", "SingleNetwork5G", "register"]

ENVIRONMENT_ID = "rlaas/Network5G-v0"


class SingleNetwork5G(gymnasium.Env[NDArray[np.float32], NDArray[np.float64]]):
    """All cells of one network under one decision maker.

    Observation [cells * n_features] and action [cells * n_components] are the cells' in order; the reward [4] is the
    mean over cells, one entry per objective (larger is better). ``info`` holds the additive parts ``numerators`` and
    ``denominators`` [n_parts], summed over cells.

    Args:
        options: those of :class:`~rlaas.scenarios.network5g.Network5G`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium reads a plain dictionary

    def __init__(self, **options: Any) -> None:
        self.scenario = Network5G(**options)
        self._env = self.scenario.vector_env(1, seed=int(np.random.SeedSequence().generate_state(1)[0]))
        rows = self._env.num_envs
        seen, done = observation_space(), action_space()
        self.observation_space = spaces.Box(np.tile(seen.low, rows), np.tile(seen.high, rows))
        self.action_space = spaces.Box(np.tile(done.low, rows), np.tile(done.high, rows), dtype=np.float64)
        self.reward_space = self._env.reward_space
        self.reward_dim = len(self.scenario.objectives)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start anew; a seed fixes everything that follows."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed)
        return observation.ravel(), info

    def step(
        self, action: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], bool, bool, dict[str, Any]]:
        """Advance by 100 ms.

        Raises:
            InvalidInputError: a wrong shape, or a value that is not finite or out of bounds.
        """
        if np.shape(action) != self.action_space.shape:
            raise InvalidInputError(
                f"action has shape {np.shape(action)}; expected {self.action_space.shape}", field="action"
            )
        actions = np.asarray(action).reshape(self._env.num_envs, -1)
        observation, reward, _, truncated, infos = self._env.step(actions)
        info = {name: infos[name].sum(axis=0) for name in ("numerators", "denominators")}
        return observation.ravel(), reward.mean(axis=0), False, bool(truncated[0]), info


def register() -> None:
    """Register ``rlaas/Network5G-v0`` with Gymnasium, once."""
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(id=ENVIRONMENT_ID, entry_point=f"{__name__}:SingleNetwork5G")
