"""Toys that misbehave once, in whichever process they are stepped."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_toys import Toy, ToyEnv

from rlaas.scenarios import VectorScenarioEnv


class MortalEnv(ToyEnv):
    """Kills its process in step 90 unless the marker says that this has happened."""

    scenario: MortalToy

    def __init__(self, scenario: MortalToy, num_envs: int, seed: int | Sequence[int]) -> None:
        super().__init__(scenario, num_envs, seed)
        self.taken = 0

    def step(self, actions: Any) -> Any:
        self.taken += 1
        marker = Path(self.scenario.marker)
        if self.taken == 90 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(actions)


class MortalToy(Toy):
    name = "toy-mortal"

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return MortalEnv(self, num_envs, seed)
