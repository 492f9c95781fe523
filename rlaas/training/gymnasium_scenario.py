"""Any Gymnasium environment dressed as a scenario, so that all that trains a scenario trains it too."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Objective
from rlaas.scenarios import Scenario, VectorScenarioEnv
from rlaas.training.actions import ActionSpec

__all__ = ["GymnasiumScenario"]

FloatArray = NDArray[np.floating[Any]]


class GymnasiumScenario(Scenario):
    """A Gymnasium environment as a scenario: any vector environment, one objective or several.

    Objectives are the mean returns of the episodes that ended: ``return``, or ``return_0``, ``return_1``, ... where
    rewards are vectors (an environment with a ``reward_space``, as MO-Gymnasium's). Observations are flattened.
    Choices that are forbidden at times are known by their mask, in the observation (a dictionary with
    ``action_mask``) or in the info; it then stands behind the other features.

    Args:
        environment: Gymnasium id; ``module:id`` imports the module that registers it.
        options: keyword arguments of ``gymnasium.make``.

    Raises:
        ConfigurationError: unknown id or option, or spaces that cannot be trained on.
    """

    name = "gymnasium"
    algorithm = "sac"
    experiment_design = "user"

    def __init__(self, environment: str, **options: Any) -> None:
        self.environment = environment
        self.options: Mapping[str, Any] = dict(options)
        try:
            probe = _GymnasiumVectorEnv(self, 1, 0)
            probe.reset()
        except (gymnasium.error.Error, TypeError, ValueError, ImportError) as problem:
            first = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise ConfigurationError(f"environment {environment!r} cannot be made: {first}", field="environment") from (
                problem
            )
        action: Any = probe.single_action_space
        try:
            actions = ActionSpec.of(action)
        except InvalidInputError as problem:
            raise ConfigurationError(f"environment {environment!r}: {problem.message}", field="environment") from None
        self.name = environment  # type: ignore[misc]  # one class serves every id
        self.algorithm = "ppo" if actions.sizes else "sac"  # type: ignore[misc]
        self.masked_actions = probe.masked
        names = ["return"] if probe.n_rewards == 1 else [f"return_{i}" for i in range(probe.n_rewards)]
        self.objectives = tuple(
            Objective(
                name=name,
                unit="",
                direction="maximize",
                low=0.0,
                high=1.0,
                description="sum of an episode's rewards",
            )
            for name in names
        )
        self.modes = {}
        self.baselines = {}
        self.tunables = {}
        self.targets = {}
        self.default_baseline = ""
        self.primary_mode = ""
        self.part_names = tuple(names)
        features = probe.features
        masks = sum(actions.sizes) if probe.masked else 0
        self.observation_names = (
            *(f"x{i}" for i in range(features.shape[0] - masks)),
            *(f"allowed_{i}" for i in range(masks)),
        )
        self.single_observation_space = features
        self.single_action_space = action
        self.reference_hash = ""
        probe.close()

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """``num_envs`` copies of the environment, stepped in this process: its own vector form where it has one."""
        return _GymnasiumVectorEnv(self, num_envs, seed)

    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        """Mean returns of the episodes that ended [..., n_objectives]; NaN where none did."""
        none = denominators == 0
        return np.where(none, np.nan, numerators / np.where(none, 1.0, denominators))


class _GymnasiumVectorEnv(VectorScenarioEnv):
    """Gymnasium's own vector environment with reward columns and the parts of the objectives."""

    rows_per_env = 1

    def __init__(self, scenario: GymnasiumScenario, num_envs: int, seed: int | Sequence[int]) -> None:
        self._env: Any = _make_vector(scenario.environment, num_envs, scenario.options)
        mode = self._env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise ConfigurationError(
                f"environment {scenario.environment!r} resets by {mode}; only next-step and same-step autoreset can be "
                "trained on",
                field="environment",
            )
        self._same_step = mode == AutoresetMode.SAME_STEP
        # A copied environment draws on from its copied generator, so that a state can be continued.
        self._seed: int | list[int] | None = seed if isinstance(seed, int) else list(seed)
        space, self._actions = self._env.single_observation_space, self._env.single_action_space
        self._inner, self._mask_in = _mask_of(self._env)
        self.masked = self._mask_in != ""
        if self._mask_in == "observation":
            space = space.spaces[self._inner]
        self._features = space
        self._start = np.asarray(getattr(self._actions, "start", 0))
        self.n_rewards = int(np.prod(getattr(_reward_space(self._env), "shape", None) or (1,)))
        self._returns = np.zeros((num_envs, self.n_rewards))
        self.num_envs = num_envs
        flat = spaces.flatten_space(space)
        if not isinstance(flat, spaces.Box):
            raise ConfigurationError(
                f"environment {scenario.environment!r} observes {space}, which cannot be flattened into numbers",
                field="environment",
            )
        masks = spaces.flatdim(self._actions) if self.masked else 0
        low, high = np.append(flat.low, np.zeros(masks)), np.append(flat.high, np.ones(masks))
        self.features = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.single_observation_space = self.features
        self.single_action_space = self._actions
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = self._env.action_space
        self.metadata = {**self._env.metadata, "autoreset_mode": mode}
        self.reward_space = spaces.Box(-np.inf, np.inf, (self.n_rewards,), dtype=np.float64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start every environment anew; without a seed, with the one given at construction the first time."""
        chosen: Any = seed if seed is not None else self._seed
        self._seed = None
        if chosen is not None and not isinstance(chosen, int) and not isinstance(self._env.unwrapped, SyncVectorEnv):
            # Vector environments of their own kind know one seed for all.
            chosen = int(np.random.SeedSequence([int(one or 0) for one in chosen]).generate_state(1)[0])
        observation, infos = self._env.reset(seed=chosen, options=options)
        self._returns[:] = 0.0
        return self._flat(observation, infos), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step; an episode's return is counted in the step that ends it."""
        if self._start.any():
            actions = actions + self._start
        elif isinstance(self._actions, spaces.Box):
            actions = np.asarray(actions, dtype=self._actions.dtype).reshape(self.num_envs, *self._actions.shape)
        observation, reward, terminated, truncated, infos = self._env.step(actions)
        reward = np.asarray(reward, dtype=np.float64).reshape(self.num_envs, self.n_rewards)
        self._returns += reward
        done = terminated | truncated
        numerators = np.where(done[:, None], self._returns, 0.0)
        self._returns[done] = 0.0
        parts = {"numerators": numerators, "denominators": np.repeat(done[:, None] * 1.0, self.n_rewards, axis=1)}
        flat = self._flat(observation, infos)
        if self._same_step and done.any():
            parts["final_obs"] = self._final(flat, infos, np.flatnonzero(done))
        return flat, reward, np.asarray(terminated), np.asarray(truncated), parts

    def _flat(self, observation: Any, infos: Mapping[str, Any]) -> NDArray[np.float32]:
        """Features [num_envs, n_features], the mask behind the others."""
        features = observation[self._inner] if self._mask_in == "observation" else observation
        if isinstance(self._features, spaces.Box):
            flat = np.asarray(features, dtype=np.float32).reshape(self.num_envs, -1)
        else:
            rows = iterate(batch_space(self._features, self.num_envs), features)
            flat = np.stack([np.asarray(spaces.flatten(self._features, row), dtype=np.float32) for row in rows])
        if not self.masked:
            return flat
        mask = observation["action_mask"] if self._mask_in == "observation" else infos["action_mask"]
        allowed = np.stack([np.asarray(row, dtype=np.float32).reshape(-1) for row in mask])
        return np.concatenate((flat, allowed), axis=1)

    def _final(self, flat: NDArray[np.float32], infos: Mapping[str, Any], ended: NDArray[np.int64]) -> FloatArray:
        """Last observations of the episodes that ended; other rows as they are [num_envs, n_features]."""
        final = flat.copy()
        for row in ended.tolist():
            last = infos["final_obs"][row]
            features = last[self._inner] if self._mask_in == "observation" else last
            values = np.asarray(spaces.flatten(self._features, features), dtype=np.float32)
            if self._mask_in == "observation":
                values = np.append(values, np.asarray(last["action_mask"]).reshape(-1))
            # Nothing is chosen in a last observation: any mask will do.
            final[row, : len(values)] = values
        return final

    def get_state(self) -> dict[str, Any]:
        """A deep copy of the environments."""
        return {"env": copy.deepcopy(self._env), "returns": self._returns.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue with a copy of the stored environments."""
        self._env = copy.deepcopy(state["env"])
        self._returns = state["returns"].copy()

    def close(self, **kwargs: Any) -> None:
        """Close the environments."""
        # Also called for an environment that could not be made.
        if "_env" in vars(self):
            self._env.close(**kwargs)


def _make_vector(environment: str, num_envs: int, options: Mapping[str, Any]) -> Any:
    """The environment's own vector form, or its copies side by side."""
    # An id may name the module that registers it; only make() imports that.
    probe = gymnasium.make(environment, disable_env_checker=True, **options)
    try:
        several = int(np.prod(getattr(_reward_space(probe), "shape", None) or (1,))) > 1
        compiled = probe.spec is not None and probe.spec.vector_entry_point is not None
    finally:
        probe.close()  # type: ignore[no-untyped-call]

    def make() -> gymnasium.Env[Any, Any]:
        # Gymnasium's checker complains about rewards that are vectors.
        return gymnasium.make(environment, disable_env_checker=True if several else None, **options)

    if several:
        # Whoever has such an environment has the library that defines them.
        from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

        return MOSyncVectorEnv([make] * num_envs)
    if compiled:
        mode = gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
        return gymnasium.make_vec(environment, num_envs=num_envs, vectorization_mode=mode, **options)
    return SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


def _reward_space(env: Any) -> Any:
    """The space of an environment's rewards, or None where it says nothing about them."""
    return getattr(env.unwrapped, "reward_space", None) or getattr(env, "reward_space", None)


def _mask_of(env: Any) -> tuple[str, str]:
    """Key of the features beside the mask, and where the mask is: ``observation``, ``info`` or nowhere."""
    space = env.single_observation_space
    if isinstance(space, spaces.Dict) and "action_mask" in space.spaces:
        others = [key for key in space.spaces if key != "action_mask"]
        if len(others) == 1:
            return others[0], "observation"
        raise ValueError(f"beside action_mask the observation must have one entry, not {', '.join(others) or 'none'}")
    # Reset with a seed, so that looking does not move the stream that training will see.
    _, infos = env.reset(seed=0)
    return "", "info" if "action_mask" in infos else ""
