"""The problem behind a training run: a scenario, or any Gymnasium environment dressed as one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.objectives import Objective
from rlaas.scenarios import Scenario, VectorScenarioEnv, load
from rlaas.training.config import Algorithm, TrainingConfig

__all__ = ["GymnasiumScenario", "algorithm_of", "problem_of"]

FloatArray = NDArray[np.floating[Any]]


def problem_of(config: TrainingConfig) -> Scenario:
    """The scenario that ``config`` names, or its Gymnasium environment as a scenario.

    Raises:
        ConfigurationError: unknown name or option, or spaces that cannot be trained on.
    """
    if config.scenario is not None:
        return load(config.scenario, **config.options)
    return GymnasiumScenario(str(config.environment), **config.options)


def algorithm_of(config: TrainingConfig, scenario: Scenario) -> Algorithm:
    """The algorithm to train with, after refusing combinations that cannot work.

    Raises:
        ConfigurationError: naming the field and what to change.
    """
    discrete = isinstance(scenario.single_action_space, spaces.Discrete)
    name = config.algorithm or scenario.algorithm
    if name not in ("sac", "ppo"):
        raise ConfigurationError(f"unknown algorithm {name!r}; allowed: ppo, sac", field="algorithm")
    if name == "sac" and discrete:
        raise ConfigurationError(
            f"algorithm sac needs box actions, but those of {scenario.name!r} are discrete; use algorithm ppo",
            field="algorithm",
        )
    if not discrete:
        space = scenario.single_action_space
        if not (isinstance(space, spaces.Box) and space.is_bounded() and len(space.shape) == 1):
            raise ConfigurationError(
                f"the actions of {scenario.name!r} must be discrete or a flat, bounded box, not {space}",
                field="environment" if config.environment else "scenario",
            )
    if name == "sac" and config.resolved_learning_starts() >= config.steps:
        raise ConfigurationError(
            f"sac.learning_starts {config.resolved_learning_starts()} leaves nothing to learn of {config.steps} steps; "
            "lower it or raise steps",
            field="sac.learning_starts",
        )
    return "sac" if name == "sac" else "ppo"


class GymnasiumScenario(Scenario):
    """A Gymnasium environment with the single objective ``return``: the mean return of the episodes that ended.

    Args:
        environment: Gymnasium id.
        options: keyword arguments of ``gymnasium.make``.

    Raises:
        ConfigurationError: unknown id or option, or an observation that is not a flat box.
    """

    name = "gymnasium"
    algorithm = "sac"
    experiment_design = "user"

    def __init__(self, environment: str, **options: Any) -> None:
        try:
            probe = gymnasium.make(environment, **options)
        except (gymnasium.error.Error, TypeError, ValueError, ImportError) as problem:
            first = str(problem).splitlines()[0]
            raise ConfigurationError(f"environment {environment!r} cannot be made: {first}", field="environment") from (
                problem
            )
        observation, action = probe.observation_space, probe.action_space
        probe.close()  # type: ignore[no-untyped-call]
        if not (isinstance(observation, spaces.Box) and len(observation.shape) == 1):
            raise ConfigurationError(
                f"environment {environment!r} observes {observation}; only a flat box can be trained on",
                field="environment",
            )
        if not isinstance(action, spaces.Box | spaces.Discrete):
            raise ConfigurationError(
                f"environment {environment!r} acts in {action}; only Box and Discrete can be trained on",
                field="environment",
            )
        self.environment = environment
        self.options: Mapping[str, Any] = dict(options)
        self.name = environment  # type: ignore[misc]  # one class serves every id
        self.algorithm = "ppo" if isinstance(action, spaces.Discrete) else "sac"  # type: ignore[misc]
        self.objectives = (
            Objective(
                name="return",
                unit="",
                direction="maximize",
                low=0.0,
                high=1.0,
                description="sum of an episode's rewards",
            ),
        )
        self.modes = {}
        self.baselines = {}
        self.tunables = {}
        self.targets = {}
        self.default_baseline = ""
        self.primary_mode = ""
        self.part_names = ("return",)
        self.observation_names = tuple(f"x{i}" for i in range(observation.shape[0]))
        self.single_observation_space = observation
        self.single_action_space = action
        self.reference_hash = ""

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """``num_envs`` copies of the environment, stepped in this process."""
        return _GymnasiumVectorEnv(self, num_envs, seed)

    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        """Mean return of the episodes that ended [..., 1]; NaN where none did."""
        none = denominators == 0
        return np.where(none, np.nan, numerators / np.where(none, 1.0, denominators))


class _GymnasiumVectorEnv(VectorScenarioEnv):
    """Gymnasium's own vector environment with a reward column and the parts of the objective."""

    rows_per_env = 1

    def __init__(self, scenario: GymnasiumScenario, num_envs: int, seed: int | Sequence[int]) -> None:
        def make() -> gymnasium.Env[Any, Any]:
            return gymnasium.make(scenario.environment, **scenario.options)

        self._env: Any = SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._seed: int | list[int] | None = seed if isinstance(seed, int) else list(seed)
        self._returns = np.zeros(num_envs)
        self._start = int(getattr(scenario.single_action_space, "start", 0))
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = (
            self._env.single_observation_space,
            self._env.single_action_space,
        )
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space
        self.metadata = {**self._env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.reward_space = spaces.Box(-np.inf, np.inf, (1,), dtype=np.float64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start every environment anew; without a seed, with the one given at construction the first time."""
        chosen: Any = seed if seed is not None else self._seed
        self._seed = None
        observation, _ = self._env.reset(seed=chosen, options=options)
        self._returns[:] = 0.0
        return np.asarray(observation, dtype=np.float32), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step; an episode's return is counted in the step that ends it."""
        if self._start:
            actions = actions + self._start
        elif isinstance(self.single_action_space, spaces.Box):
            actions = np.asarray(actions, dtype=self.single_action_space.dtype)
        observation, reward, terminated, truncated, _ = self._env.step(actions)
        self._returns += reward
        done = terminated | truncated
        numerators = np.where(done, self._returns, 0.0)[:, None]
        self._returns[done] = 0.0
        infos = {"numerators": numerators, "denominators": done.astype(np.float64)[:, None]}
        return np.asarray(observation, dtype=np.float32), np.asarray(reward)[:, None], terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """A deep copy of the environments."""
        return {"env": copy.deepcopy(self._env), "returns": self._returns.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue with a copy of the stored environments."""
        self._env = copy.deepcopy(state["env"])
        self._returns = state["returns"].copy()

    def close(self, **kwargs: Any) -> None:
        """Close the environments."""
        self._env.close(**kwargs)
