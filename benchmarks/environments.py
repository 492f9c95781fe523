"""Environment steps per second: network5g beside mobile-env on the same cells and users, and recsys.

    python benchmarks/environments.py [--quick] [--json]

One environment step advances one whole network by one decision. mobile-env 2.1 steps its medium central scenario
(7 cells, 15 users); network5g steps as many cells and users, but computes interference, shadowing, CQI, queues of
three slices, energy and handover besides. Both act at random, on one core. No package offers a comparable
recommendation environment in this project's environment, so recsys stands without a rival.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np

from benchmarks.harness import Row, parse_arguments, rate, report
from rlaas.scenarios.network5g import Network5G

USERS, CELLS = 15, 7
BATCH = 256


def vector_work(scenario: Any, envs: int, steps: int) -> Callable[[], float]:
    """Work that takes ``steps`` random actions in ``envs`` environments and returns environment steps."""
    env = scenario.vector_env(envs)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(8)]

    def work() -> float:
        for step in range(steps):
            env.step(actions[step % len(actions)])
        return float(envs * steps)

    return work


def mobile_env_work(steps: int) -> Callable[[], float]:
    """The same for mobile-env's medium central scenario, which has no vector form of its own."""
    importlib.import_module("mobile_env")
    env = gymnasium.make("mobile-medium-central-v0", disable_env_checker=True)
    env.reset(seed=0)
    env.action_space.seed(0)

    def work() -> float:
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        return float(steps)

    return work


def recsys_rows(seconds: float) -> list[Row]:
    """Recsys steps per second, or nothing where that scenario cannot be imported."""
    try:
        scenario = importlib.import_module("rlaas.scenarios.recsys").Recommender()
    except ImportError as problem:
        print(f"recsys left out: {problem}", file=sys.stderr)
        return []
    steps = rate(vector_work(scenario, BATCH, 4), seconds=seconds)
    return [Row(f"recsys, {BATCH} environments", "env steps/s", ours=steps)]


def main() -> None:
    arguments = parse_arguments("environments")
    seconds = 0.2 if arguments.quick else 3.0
    started = time.perf_counter()
    name = f"mobile-env {version('mobile-env')}"
    theirs = rate(mobile_env_work(5), seconds=seconds)
    matched = Network5G(size="medium", users=USERS)
    batched = rate(vector_work(matched, BATCH, 2), seconds=seconds)
    single = rate(vector_work(matched, 1, 20), seconds=seconds)
    what = f"network5g, {CELLS} cells, {USERS} users"
    rows = [
        Row(f"{what}, {BATCH} environments", "env steps/s", ours=batched, rival=name, rival_value=theirs),
        Row(f"{what}, {BATCH} environments", "user steps/s", batched * USERS, name, theirs * USERS),
        Row(f"{what}, 1 environment", "env steps/s", ours=single, rival=name, rival_value=theirs),
    ]
    for size, envs in (("small", BATCH), ("medium", 64), ("large", 16)):
        scenario = Network5G(size=size)
        steps = rate(vector_work(scenario, envs, 2), seconds=seconds)
        users = sum(scenario.users)
        rows.append(
            Row(f"network5g {size}, {scenario.cells} cells, {users} users, {envs} environments", "env steps/s", steps)
        )
    rows += recsys_rows(seconds)
    report("environments", rows, arguments.json)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    np.random.seed(0)
    main()
