"""A single environment with a vector reward, for Gymnasium and MO-Gymnasium tools."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.scenarios.checks import check_seed
from rlaas.scenarios.recsys.environment import RecommenderVectorEnv
from rlaas.scenarios.recsys.scenario import Recommender
from rlaas.scenarios.registry import check_options

__all__ = ["RecommenderEnv", "recommender_vector_env"]


def recommender_vector_env(num_envs: int, *, render_mode: str | None = None, **options: Any) -> RecommenderVectorEnv:
    """``gymnasium.make_vec("rlaas/Recommender-v0", num_envs)``: vector rewards [num_envs, 4] as MO-Gymnasium has them.

    Args:
        num_envs: number of streams.
        render_mode: None; streams are drawn one at a time, by ``scenario.picture(env, i)``.
        options: options of :class:`~rlaas.scenarios.recsys.Recommender`.

    Raises:
        ConfigurationError: a render mode, or an unknown or impossible option.
    """
    if render_mode is not None:
        raise ConfigurationError(
            "render_mode must be None for many streams at once; one of them is drawn by scenario.picture(env, i)",
            field="render_mode",
        )
    check_options(Recommender, options, Recommender.name)
    return Recommender(**options).vector_env(num_envs, seed=int(np.random.SeedSequence().generate_state(1)[0]))


class RecommenderEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """``rlaas/Recommender-v0``: one stream of sessions; rewards are vectors [4] as MO-Gymnasium has them.

    ``reset`` after the end of a session opens the next session of the same stream; with a seed, or in the middle of a
    session, it begins a new stream.

    Args:
        render_mode: ``rgb_array`` for pictures of the session, or None.
        options: options of :class:`~rlaas.scenarios.recsys.Recommender`.

    Raises:
        ConfigurationError: an unknown render mode or option.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012 - as Gymnasium types it

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode is not None:
            check_choice(render_mode, self.metadata["render_modes"], field="render_mode")
        self.render_mode = render_mode
        check_options(Recommender, options, Recommender.name)
        self.scenario = Recommender(**options)
        self.observation_space = self.scenario.single_observation_space
        self.action_space = self.scenario.single_action_space
        self._env = self.scenario.vector_env(1, seed=int(np.random.SeedSequence().generate_state(1)[0]))
        self.reward_space = self._env.reward_space
        self._ended = False
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first observation [n_features] of a session.

        Raises:
            InvalidInputError: a seed that is no whole number >= 0.
        """
        check_seed(seed)
        super().reset(seed=seed)
        if self._ended and seed is None:
            observation, _, _, _, infos = self._env.step(np.zeros(1, dtype=np.int64))
        else:
            observation, infos = self._env.reset(seed=seed)
        self._ended, self._begun = False, True
        return observation[0], {"user": int(infos["user"][0])}

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], bool, bool, dict[str, Any]]:
        """Show one page: observation [n_features], reward [4], terminated, truncated and the page's parts.

        Raises:
            InvalidInputError: an action that is no whole number, or out of range.
        """
        observation, reward, terminated, truncated, infos = self._env.step(np.asarray(action)[None])
        self._ended = bool(terminated[0] or truncated[0])
        own = {name: value[0] for name, value in infos.items()}
        return observation[0], reward[0], bool(terminated[0]), bool(truncated[0]), own

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A picture [540, 960, 3] of the session, or None where no render mode was asked for.

        It shows what is hidden from a policy too: the page's click probabilities, the interests and the patience.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self.render_mode is None:
            return None
        if not self._begun:
            raise gymnasium.error.ResetNeeded("call reset before render")
        return self.scenario.picture(self._env)
