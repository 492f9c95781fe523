"""How well trained policies are, beside Stable-Baselines3, known fronts, MORL-Baselines' CAPQL and specialists.

    python -m benchmarks.quality [--part sb3|treasure|capql|specialists ...] [--seed N ...] [--cache FOLDER]
        [--quick] [--json]

Figures are interquartile means over training seeds with bootstrap intervals (95 %), evaluated on seeds that nobody
trains on. With ``--cache`` every training's result is kept in a file of its own, and a run that was interrupted goes on
from there: each file is named after what it depends on. It trains one policy at a time, so several cores are used by
several shells with the same cache and other parts or seeds; a last run without either prints all::

    python -m benchmarks.quality --cache q --part treasure --part sb3 --part capql &
    python -m benchmarks.quality --cache q --part specialists; wait
    python -m benchmarks.quality --cache q
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import parse_arguments, report
from benchmarks.quality_kit import Cache, Findings, one_ray

PARTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    # part: what it needs installed, module, function
    "treasure": (("mo_gymnasium",), "quality_front", "treasure"),
    "sb3": (("stable_baselines3",), "quality_sb3", "compare"),
    "capql": (("morl_baselines", "mujoco"), "quality_front", "capql"),
    "specialists": ((), "quality_specialists", "compare"),
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="only this training seed; may be repeated")
    parser.add_argument("--cache", type=Path, help="folder in which the trainings' results are kept")


def main() -> None:
    arguments = parse_arguments("quality", options)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="ray|gymnasium|mo_gymnasium|stable_baselines3|morl_baselines")
    started = time.perf_counter()
    cache = Cache(arguments.cache)
    rows, notes = [], []
    with one_ray():
        for part in arguments.part or list(PARTS):
            needed, module, function = PARTS[part]
            missing = [package for package in needed if importlib.util.find_spec(package) is None]
            if missing:
                names = ", ".join(missing)
                print(f"not installed (pip install -e '.[bench]'): {names}; {part} is left out", file=sys.stderr)
                continue
            study: Callable[..., Findings] = _function(module, function)
            found = study(cache, quick=arguments.quick, only=arguments.seed)
            rows += found.rows
            notes += found.notes
    report("quality", rows, arguments.json, notes)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


def _function(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)


if __name__ == "__main__":
    main()
