"""Heating houses: comfort against energy, a complete scenario in 60 lines."""

import numpy as np
from gymnasium import spaces

from rlaas.objectives import Mode, Objective, Preference
from rlaas.scenarios import Baseline, ConstantController, Scenario, Tunable, VectorScenarioEnv, seed_list


class HeatPumpEnv(VectorScenarioEnv):
    """Houses that cool towards the weather; an action is the heating power in kW."""

    def reset(self, *, seed=None, options=None):
        self.rngs = [np.random.default_rng(s) for s in seed_list(seed, self.num_envs)]
        self.indoor, self.hour = np.full(self.num_envs, 18.0), np.zeros(self.num_envs)
        self.ended = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), {}

    def step(self, actions):
        power = np.asarray(actions, dtype=float)[:, 0]
        noise = np.array([rng.normal() for rng in self.rngs])  # as many draws whatever the action
        outdoor = 5.0 + 5.0 * np.sin(self.hour / 24 * 2 * np.pi) + noise
        indoor = self.indoor + 0.1 * (outdoor - self.indoor) + 0.8 * power
        parts = np.stack([np.abs(indoor - 21.0), power / 3.0], axis=1)  # discomfort in K, energy in kWh
        reward = 1.0 - parts / [6.0, 1.5]  # 1 at the better end of each range, 0 at the worse
        # NEXT_STEP autoreset: a house that ended starts anew now, with no reward and nothing counted.
        counted = np.repeat(~self.ended[:, None], 2, axis=1).astype(float)
        self.indoor = np.where(self.ended, 18.0, indoor)
        self.hour = np.where(self.ended, 0.0, self.hour + 1)
        self.ended = self.hour >= 96
        infos = {"numerators": parts * counted, "denominators": counted}
        return self._observe(), reward * counted, np.zeros(self.num_envs, bool), self.ended.copy(), infos

    def _observe(self):
        angle = self.hour / 24 * 2 * np.pi
        return np.stack([self.indoor / 20, np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class HeatPump(Scenario):
    """Comfort against energy."""

    name, algorithm, experiment_design, env_class = "heatpump", "sac", "user", HeatPumpEnv

    def __init__(self):
        self.objectives = (
            Objective(name="discomfort", unit="K", direction="minimize", low=0.0, high=6.0),
            Objective(name="energy", unit="kWh", direction="minimize", low=0.0, high=1.5),
        )
        self.modes = {"balanced": Mode(name="balanced", preference=Preference.uniform(self.objectives))}
        half_power = Baseline(name="half", description="2 kW always", make=lambda: ConstantController([2.0]))
        self.baselines, self.default_baseline, self.primary_mode = {"half": half_power}, "half", "balanced"
        power = {"parameters": ("power",), "low": (0.0,), "high": (4.5,), "integer": (False,)}
        self.tunables = {"static": Tunable(name="static", make=ConstantController, **power)}
        self.part_names, self.observation_names = ("discomfort", "energy"), ("indoor", "sin_hour", "cos_hour")
        self.single_observation_space = spaces.Box(-10.0, 10.0, (3,), np.float32)
        self.single_action_space = spaces.Box(0.0, 4.5, (1,), np.float64)
