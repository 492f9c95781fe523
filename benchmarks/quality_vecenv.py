"""A scenario's environments as Stable-Baselines3 wants them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from rlaas.scenarios import ScalarisedVectorEnv

__all__ = ["Alone", "Lockstep"]


class Lockstep(VecEnv):
    """Rows whose episodes all end in the same step: an end is followed by the step that resets, at once.

    Stable-Baselines3 wants the first observation of the next episode with an episode's last reward, and that episode's
    true last observation beside it; a scenario resets in the step after.

    Args:
        env: with scalar rewards.
        seed: of its first reset.
    """

    def __init__(self, env: ScalarisedVectorEnv, seed: int) -> None:
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._env, self._first_seed = env, seed
        self._actions: Any = None

    def reset(self) -> Any:
        """Begin, with the seed the first time."""
        observation, _ = self._env.reset(seed=self._first_seed)
        return np.array(observation, dtype=np.float32)

    def step_async(self, actions: Any) -> None:
        """Keep the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Take the step, and the reset where the episodes end."""
        observation, reward, terminated, truncated, _ = self._env.step(self._actions)
        done, reward = np.array(terminated | truncated), np.array(reward)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            if not done.all():
                raise RuntimeError("episodes end in different steps; this adapter is for those that end together")
            last = np.array(observation, dtype=np.float32)
            for row, info in enumerate(infos):
                info["terminal_observation"] = last[row]
                info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
            observation, *_ = self._env.step(self._actions)
        return np.array(observation, dtype=np.float32), reward, done, infos

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """What Stable-Baselines3 asks every environment for: its render mode, of which there is none."""
        return [getattr(self._env, attr_name, None)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Rows are no objects that could have attributes."""
        raise NotImplementedError("rows of a scenario have no attributes")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Rows are no objects that could have methods."""
        raise NotImplementedError("rows of a scenario have no methods")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """They are not."""
        return [False] * len(list(self._get_indices(indices)))


class Alone(gymnasium.Env[Any, Any]):
    """One row by itself, whose episodes end when they like.

    Args:
        env: of one row, with scalar rewards.
        seed: of its first reset; later episodes go on in the same world.
    """

    def __init__(self, env: ScalarisedVectorEnv, seed: int) -> None:
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self._env, self._first_seed = env, seed
        self._ended = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin, or let the step after an end reset the row."""
        if self._ended:
            observation, *_ = self._env.step(np.zeros((1, *self.action_space.shape), dtype=self.action_space.dtype))
        else:
            observation, _ = self._env.reset(seed=self._first_seed)
        self._ended = False
        return np.array(observation[0], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the step."""
        observation, reward, terminated, truncated, _ = self._env.step(np.asarray(action)[None])
        self._ended = bool(terminated[0] or truncated[0])
        return np.array(observation[0], dtype=np.float32), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
