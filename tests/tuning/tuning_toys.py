"""Toys that misbehave once, or wait, in whichever process they are stepped."""

from __future__ import annotations

import json
import os
import signal
import time
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


class HeldEnv(ToyEnv):
    """Stands still while there is a file ``hold`` and the book of the search has two finished trials."""

    scenario: HeldToy

    def step(self, actions: Any) -> Any:
        while Path(self.scenario.hold).exists() and _finished(Path(self.scenario.book)) >= 2:
            time.sleep(0.02)
        return super().step(actions)


def _finished(book: Path) -> int:
    return sum(row["status"] == "finished" for row in json.loads(book.read_text())["trials"]) if book.exists() else 0


class HeldToy(Toy):
    name = "toy-held"

    def __init__(self, hold: str, book: str) -> None:
        super().__init__()
        self.hold, self.book = hold, book

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return HeldEnv(self, num_envs, seed)
