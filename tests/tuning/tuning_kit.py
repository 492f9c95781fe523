"""Searches over toys that cost next to nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from support.processes import assert_gone, start

from rlaas.tuning import TuningConfig

HERE = str(Path(__file__).parent)
TOYS = str(Path(__file__).parent.parent / "training")

TRAINING: dict[str, Any] = {
    "scenario": "training_toys:Toy",
    "steps": 3_000,
    "seed": 4,
    "num_envs": 16,
    "hidden": [16, 16],
    "gamma": 0.5,
    "sac": {"learning_starts": 200, "head_start": 20, "buffer_size": 4_000},
}
JUDGED: dict[str, Any] = {
    "evaluation_seeds": [1, 2],
    "evaluation_steps": 30,
    "evaluation_warmup": 0,
    "evaluation_preferences": 3,
}


def searched(*, training: dict[str, Any] | None = None, **changes: Any) -> TuningConfig:
    """A search over the toy; keywords replace its parts, ``training`` adds to the base."""
    document: dict[str, Any] = {
        "training": {**TRAINING, **(training or {})},
        "space": {"learning_rate": {"kind": "loguniform", "low": 1e-4, "high": 1e-2}},
        "objectives": ["training_reward"],
        "trials": 3,
        "report_every": 1_024,
        "confirmation": None,
    }
    return TuningConfig(**{**document, **changes})


def begin_tuning(arguments: list[str], home: Path, log: Path) -> Any:
    """``rlaas tune`` in a process of its own."""
    found = os.pathsep.join(filter(None, (TOYS, HERE, os.environ.get("PYTHONPATH"))))
    return start(["tune", *arguments], home, log, PYTHONPATH=found, RAY_worker_niceness="0")


def kill_everything(driver: int, home: str) -> None:
    """SIGKILL for the driver, and for the Ray that it started: as if the machine had lost power."""
    os.kill(driver, signal.SIGKILL)
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"RLAAS_HOME={home}\0" in (entry / "environ").read_text(errors="replace"):
                os.kill(int(entry.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    assert_gone(home)
