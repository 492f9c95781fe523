"""Toy scenarios with known answers, loaded by ``training_toys:Name`` like a user's own module."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlaas.objectives import Mode, Objective, Preference
from rlaas.scenarios import Baseline, ConstantController, Scenario, VectorScenarioEnv


class ToyEnv(VectorScenarioEnv):
    """Follow a target: one objective pays for being near it, the other for being near its mirror image.

    Observation: target t in [-1, 1] and step share. Action: in the box [-2, 2] (scaled to [-1, 1]), or one of 5 levels.
    """

    def __init__(self, scenario: Toy, num_envs: int, seed: int | Sequence[int]) -> None:
        self.scenario = scenario
        self.rows_per_env = scenario.rows
        self.environments = num_envs
        self.num_envs = num_envs * scenario.rows
        self.single_observation_space = scenario.single_observation_space
        self.single_action_space = scenario.single_action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.num_envs, 2), dtype=np.float32)
        self.action_space = spaces.Box(-np.inf, np.inf, (self.num_envs, 1), dtype=np.float32)
        self.reward_space = spaces.Box(-np.inf, np.inf, (2,))
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._seed = seed
        self._begin(seed)

    def _begin(self, seed: int | Sequence[int]) -> None:
        seeds = [seed] * self.environments if isinstance(seed, int) else list(seed)
        self.rngs = [np.random.default_rng([s, i if isinstance(seed, int) else 0]) for i, s in enumerate(seeds)]
        self.clock = np.zeros(self.environments, dtype=int)
        self.ended = np.zeros(self.environments, dtype=bool)
        self.target = np.concatenate([rng.uniform(-1, 1, self.rows_per_env) for rng in self.rngs])

    def observe(self) -> np.ndarray:
        share = np.repeat(self.clock / self.scenario.length, self.rows_per_env)
        # float64 and reused on purpose: trainers have to cope.
        return np.stack([self.target, share], axis=1)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._begin(self._seed if seed is None else seed)
        return self.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        fresh = np.repeat(self.ended, self.rows_per_env)
        chosen = np.asarray(actions)
        level = self.scenario.level(chosen)
        reward = np.stack([1 - (level - self.target) ** 2, 1 - (level + self.target) ** 2], axis=1)
        reward[fresh] = 0.0
        self.clock = np.where(self.ended, 0, self.clock + 1)
        self.target = np.concatenate([rng.uniform(-1, 1, self.rows_per_env) for rng in self.rngs])
        over = self.clock >= self.scenario.length
        self.ended = over
        rows = np.repeat(over, self.rows_per_env)
        none = np.zeros(self.num_envs, dtype=bool)
        terminated, truncated = (rows, none) if self.scenario.terminates else (none, rows)
        counted = np.where(fresh, 0.0, 1.0)[:, None] * np.ones((1, 2))
        return self.observe(), reward, terminated, truncated, {"numerators": reward, "denominators": counted}

    def get_state(self) -> dict[str, Any]:
        return copy.deepcopy({"rngs": self.rngs, "clock": self.clock, "ended": self.ended, "target": self.target})

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(copy.deepcopy(dict(state)))


class Toy(Scenario):
    name = "toy"
    algorithm = "sac"
    experiment_design = "user"
    discrete = False

    def __init__(self, length: int = 20, rows: int = 1, terminates: bool = False, default: float = 0.0) -> None:
        self.length, self.rows, self.terminates = length, rows, terminates
        self.objectives = (
            Objective(name="near", unit="", direction="maximize", low=0.0, high=1.0),
            Objective(name="mirror", unit="", direction="maximize", low=0.0, high=1.0),
        )
        self.modes = {"follow": Mode(name="follow", preference=Preference.of(self.objectives, [0.9, 0.1]))}
        action: Any = 2 if self.discrete else np.array([default])
        self.baselines = {
            "still": Baseline(name="still", description="does nothing", make=lambda: ConstantController(action))
        }
        self.tunables = {}
        self.targets = {}
        self.default_baseline, self.primary_mode = "still", "follow"
        self.part_names = ("near", "mirror")
        self.observation_names = ("target", "share")
        self.single_observation_space = spaces.Box(
            np.array([-1.0, 0.0], dtype=np.float32), np.array([1.0, np.inf], dtype=np.float32)
        )
        self.single_action_space = (
            spaces.Discrete(5) if self.discrete else spaces.Box(-2.0, 2.0, (1,), dtype=np.float32)
        )
        self.reference_hash = "0123456789abcdef"
        self.options = {"length": length, "rows": rows, "terminates": terminates}

    def level(self, chosen: np.ndarray) -> np.ndarray:
        return chosen / 2.0 - 1.0 if self.discrete else chosen[:, 0] / 2.0

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return ToyEnv(self, num_envs, seed)

    def objective_values(self, numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
        return numerators / denominators


class DiscreteToy(Toy):
    name = "toy-discrete"
    algorithm = "ppo"
    discrete = True


class BrokenEnv(ToyEnv):
    def step(self, actions: np.ndarray) -> Any:
        observation, reward, terminated, truncated, infos = super().step(actions)
        return observation, np.full_like(reward, np.nan), terminated, truncated, infos


class BrokenToy(Toy):
    """Pays NaN."""

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return BrokenEnv(self, num_envs, seed)


class SeveralToy(DiscreteToy):
    """The same levels, put together from two choices: a sign, and how far."""

    name = "toy-several"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.single_action_space = spaces.MultiDiscrete([2, 3])

    def level(self, chosen: np.ndarray) -> np.ndarray:
        return (2.0 * chosen[:, 0] - 1.0) * chosen[:, 1] / 2.0


class MaskedEnv(ToyEnv):
    """Levels beyond the middle are forbidden on every other step; whoever takes one is told off."""

    def observe(self) -> np.ndarray:
        allowed = np.ones((self.num_envs, 5))
        allowed[:, 3:] = np.repeat(self.clock % 2 == 0, self.rows_per_env)[:, None]
        self.allowed = allowed
        return np.concatenate((super().observe(), allowed), axis=1)

    def step(self, actions: np.ndarray) -> Any:
        forbidden = self.allowed[np.arange(self.num_envs), np.asarray(actions)] == 0
        assert not forbidden.any(), "a forbidden choice was taken"
        return super().step(actions)


class MaskedToy(DiscreteToy):
    name = "toy-masked"
    masked_actions = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.observation_names = ("target", "share", *(f"allowed_{i}" for i in range(5)))
        self.single_observation_space = spaces.Box(-1.0, 1.0, (7,), dtype=np.float32)

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return MaskedEnv(self, num_envs, seed)


class RecallEnv(ToyEnv):
    """The target, one end or the other, is shown in an episode's first observation only, and stays what it was."""

    def observe(self) -> np.ndarray:
        shown = np.repeat(self.clock == 0, self.rows_per_env)
        if not hasattr(self, "kept"):
            self.kept = np.sign(self.target)
        self.kept = np.where(shown, np.sign(self.target), self.kept)
        return np.stack([np.where(shown, self.kept, 0.0), shown * 1.0], axis=1)

    def step(self, actions: np.ndarray) -> Any:
        self.target = self.kept
        return super().step(actions)


class RecallToy(DiscreteToy):
    name = "toy-recall"

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return RecallEnv(self, num_envs, seed)


class LaterBrokenEnv(ToyEnv):
    """Pays NaN from its 200th step on."""

    def step(self, actions: np.ndarray) -> Any:
        self.paid = getattr(self, "paid", 0) + 1
        observation, reward, terminated, truncated, infos = super().step(actions)
        return observation, reward * (np.nan if self.paid > 200 else 1.0), terminated, truncated, infos


class LaterBrokenToy(Toy):
    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return LaterBrokenEnv(self, num_envs, seed)


class HollowEnv(ToyEnv):
    """Nothing to see: what one objective gains the other loses faster, so that weighted sums want either end."""

    def step(self, actions: np.ndarray) -> Any:
        observation, _, terminated, truncated, infos = super().step(actions)
        share = (np.asarray(actions)[:, 0] + 2.0) / 4.0
        reward = np.stack([share**2, (1.0 - share) ** 2], axis=1) * infos["denominators"]
        return observation, reward, terminated, truncated, {**infos, "numerators": reward}


class HollowToy(Toy):
    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return HollowEnv(self, num_envs, seed)
