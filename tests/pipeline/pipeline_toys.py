"""The toy under as many names as there are tests: pipelines of different names share nothing but the stores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from support.toy import ToyEnv, ToyScenario

from rlaas.pipeline import PipelineConfig

TRAINING = {
    "scenario": "pipeline_toys:Named",
    "algorithm": "sac",
    "steps": 300,
    "num_envs": 8,
    "hidden": [8],
    "batch_size": 32,
    "sac": {"learning_starts": 64, "buffer_size": 1000},
}


class Named(ToyScenario):
    """The toy, called what it is told; unguarded it may give up quality."""

    def __init__(self, called: str = "toy", guarded: bool = True) -> None:
        super().__init__()
        self.name = called
        self.options = {"called": called, "guarded": guarded}
        if not guarded:
            self.guard_shares = {}


class BrokenEnv(ToyEnv):
    def step(self, actions: Any) -> Any:
        observation, reward, terminated, truncated, infos = super().step(actions)
        return observation, reward * float("nan"), terminated, truncated, infos


class Broken(Named):
    """Pays NaN."""

    def vector_env(self, num_envs: int, seed: Any = 0) -> ToyEnv:
        env = BrokenEnv(self, num_envs)
        env.reset(seed=seed)
        return env


def pipeline_config(name: str, training: dict[str, Any] | None = None, **fields: Any) -> PipelineConfig:
    """A pipeline of the toy called ``name``: one short training run, no pause between attempts."""
    return PipelineConfig(
        training={**TRAINING, "options": {"called": name}, **(training or {})}, **{"retry_wait_s": 0, **fields}
    )


class HeldEnv(ToyEnv):
    def step(self, actions: Any) -> Any:
        hold = Path(self.scenario.options["hold"])
        if hold.exists():
            hold.with_suffix(".reached").touch()
        while hold.exists():
            time.sleep(0.02)
        return super().step(actions)


class Held(Named):
    """Stands still while a file is there, and says beside it that it has got so far."""

    def __init__(self, called: str = "toy", hold: str = "") -> None:
        super().__init__(called)
        self.options = {"called": called, "hold": hold}

    def vector_env(self, num_envs: int, seed: Any = 0) -> ToyEnv:
        env = HeldEnv(self, num_envs)
        env.reset(seed=seed)
        return env
