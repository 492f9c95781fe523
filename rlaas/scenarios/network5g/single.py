"""One network as a Gymnasium environment with a vector reward, in the MO-Gymnasium convention; and many of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, shown
from rlaas.scenarios.checks import check_seed, numbers
from rlaas.scenarios.network5g.env import VectorNetwork5G
from rlaas.scenarios.network5g.rendering import draw_network
from rlaas.scenarios.network5g.scenario import Network5G
from rlaas.scenarios.registry import check_options

__all__ = ["ENVIRONMENT_ID", "SingleNetwork5G", "make_vector"]

ENVIRONMENT_ID = "rlaas/Network5G-v0"


class SingleNetwork5G(gymnasium.Env[NDArray[np.float32], NDArray[np.float64]]):
    """All cells of one network under one decision maker.

    Observation [cells * n_features] and action [cells * n_components] are the cells' in order; the reward [4] is the
    mean over cells, one entry per objective (larger is better). ``info`` holds the additive parts ``numerators`` and
    ``denominators`` [n_parts], summed over cells.

    Args:
        render_mode: ``rgb_array``: :meth:`render` returns a picture of the network.
        options: those of :class:`~rlaas.scenarios.network5g.Network5G`; ``control`` is ``central``.

    Raises:
        InvalidInputError: another render mode.
        ConfigurationError: an unknown or impossible option.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium reads a plain dictionary

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode is not None and not (isinstance(render_mode, str) and render_mode == "rgb_array"):
            raise InvalidInputError(
                f"render_mode must be None or 'rgb_array', got {shown(render_mode)}", field="render_mode"
            )
        self.render_mode = render_mode
        check_options(Network5G, options, Network5G.name)
        control = options.get("control", "central")
        if not isinstance(control, str) or control != "central":
            raise ConfigurationError(
                f"control must be 'central' where one decision maker sets all cells, got {shown(control)}; "
                "make_vec takes 'cell' too",
                field="control",
            )
        self.scenario = Network5G(**{**options, "control": "central"})
        self._env = self.scenario.vector_env(1, seed=int(np.random.SeedSequence().generate_state(1)[0]), threads=1)
        self.observation_space = self.scenario.single_observation_space
        self.action_space: Any = self.scenario.single_action_space
        self.reward_space = self._env.reward_space
        self.reward_dim = len(self.scenario.objectives)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start anew; a seed fixes everything that follows.

        Raises:
            InvalidInputError: a seed that is no whole number >= 0.
        """
        check_seed(seed)
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed)
        return observation[0], info

    def step(
        self, action: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], bool, bool, dict[str, Any]]:
        """Advance by 100 ms.

        Raises:
            InvalidInputError: a wrong shape, or a value that is not finite or out of bounds.
        """
        given = numbers(action, "action")
        if given.shape != self.action_space.shape:
            raise InvalidInputError(
                f"action has shape {given.shape}; expected {self.action_space.shape}", field="action"
            )
        observation, reward, _, truncated, infos = self._env.step(given[None])
        return observation[0], reward[0], False, bool(truncated[0]), {name: part[0] for name, part in infos.items()}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A picture [height, width, 3] of the network, or None without a render mode."""
        return draw_network(self._env) if self.render_mode == "rgb_array" else None


def make_vector(num_envs: int = 1, *, seed: int = 0, render_mode: str | None = None, **options: Any) -> VectorNetwork5G:
    """What ``gymnasium.make_vec(..., vectorization_mode="vector_entry_point")`` calls: whole networks as rows.

    Raises:
        ConfigurationError: a render mode, or an unknown or impossible option.
        InvalidInputError: an impossible number of networks or a seed.
    """
    if render_mode is not None:
        raise ConfigurationError(
            "render_mode must be None for many networks at once; one of them is drawn by scenario.picture(env, i)",
            field="render_mode",
        )
    check_options(Network5G, options, Network5G.name)
    return Network5G(**{"control": "central", **options}).vector_env(num_envs, seed=seed)
