"""A scenario small enough to reason about: spend effort, and quality follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from rlaas.objectives import Mode, Objective, Preference, Rule
from rlaas.scenarios import Baseline, ConstantController, Scenario, Target, Tunable, VectorScenarioEnv, seed_list

HORIZON = 25


class ToyEnv(VectorScenarioEnv):
    """The state is a demand in [0, 1]; quality suffers where effort falls short of it, cost grows with effort."""

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.rngs = [np.random.default_rng(s) for s in seed_list(seed, self.num_envs)]
        self.demand = np.array([rng.random() for rng in self.rngs])
        self.clock = np.zeros(self.num_envs, dtype=int)
        self.ended = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        effort = np.asarray(actions, dtype=np.float64)[:, 0]
        assert np.isfinite(effort).all()
        counted = (~self.ended).astype(float)[:, None]
        quality = 10.0 * (1.0 - np.abs(self.demand - effort))
        parts = np.stack([4.0 * effort, quality], axis=1)
        reward = np.stack([1.0 - effort, quality / 10.0], axis=1)
        self.demand = np.array([rng.random() for rng in self.rngs])
        self.clock = np.where(self.ended, 0, self.clock + 1)
        self.ended = self.clock >= HORIZON
        infos = {"numerators": parts * counted, "denominators": np.repeat(counted, 2, axis=1)}
        return self._observe(), reward * counted, np.zeros(self.num_envs, bool), self.ended.copy(), infos

    def _observe(self) -> np.ndarray:
        return np.stack([self.demand, np.ones(self.num_envs)], axis=1).astype(np.float32)


class ToyScenario(Scenario):
    """Cost against quality."""

    name = "toy"
    algorithm = "sac"
    experiment_design = "user"

    def __init__(self) -> None:
        self.objectives = (
            Objective(name="cost", unit="EUR", direction="minimize", low=0.0, high=4.0),
            Objective(name="quality", unit="", direction="maximize", low=0.0, high=10.0),
        )
        self.modes = {
            "balanced": Mode(name="balanced", preference=Preference.uniform(self.objectives)),
            "cheap": Mode(
                name="cheap",
                preference=Preference.of(self.objectives, [0.9, 0.1]),
                rules=(Rule(objective="quality", at_least=3.0),),
            ),
        }
        self.baselines = {
            "half": Baseline(name="half", description="half effort", make=lambda: ConstantController(np.array([0.5]))),
            "full": Baseline(name="full", description="full effort", make=lambda: ConstantController(np.array([1.0]))),
        }
        self.tunables = {
            "static": Tunable(
                name="static",
                parameters=("effort",),
                low=(0.0,),
                high=(1.0,),
                integer=(False,),
                make=ConstantController,
            )
        }
        self.default_baseline = "half"
        self.primary_mode = "balanced"
        self.part_names = ("cost", "quality")
        self.observation_names = ("demand", "bias")
        self.single_observation_space = spaces.Box(-1.0, 2.0, (2,), np.float32)
        self.single_action_space = spaces.Box(0.0, 1.0, (1,), np.float64)
        self.targets = {
            "cost": Target(objective="cost", relative=-0.2),
            "quality": Target(objective="quality", absolute=9.0),
        }
        self.guard_shares = {"quality": 0.99}
        self.reference_hash = "toy"
        self.options: dict[str, Any] = {}

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> ToyEnv:
        env = ToyEnv(self, num_envs)
        env.reset(seed=seed)
        return env

    def objective_values(self, numerators: Any, denominators: Any) -> np.ndarray:
        numerators, denominators = np.asarray(numerators, float), np.asarray(denominators, float)
        return np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators > 0)

    def guards(self, numerators: Any, denominators: Any) -> dict[str, Any]:
        return {"quality": np.asarray(numerators)[..., 1]}


class WishfulToy(ToyScenario):
    """The toy with an option that changes nothing."""

    def __init__(self, wish: str = "") -> None:
        super().__init__()
        self.options = {"wish": wish}
