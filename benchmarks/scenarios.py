"""Steps per second of the two scenarios, beside mobile-env on the same cells and users.

    python -m benchmarks.scenarios [--quick] [--json]

One environment step advances one whole network by one decision. mobile-env 2.1 steps its medium central scenario
(7 cells, 15 users); network5g steps as many cells and users, but computes interference, shadowing, link adaptation,
queues of three slices, energy and handover besides. All act at random. mobile-env runs in one process and has no vector
form; network5g uses the threads named in the row. No package offers a comparable recommendation environment in this
project's environment, so recsys stands without a rival.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np

from benchmarks.harness import Row, interleaved_rates, parse_arguments, rate, report
from rlaas.scenarios import Scenario, load
from rlaas.scenarios.compiled import default_threads

USERS, CELLS = 15, 7
BATCH = 512
MANY = 10_000


def vector_work(scenario: Scenario, envs: int, steps: int, threads: int) -> Callable[[], float]:
    """Work that takes ``steps`` random actions in ``envs`` environments and returns environment steps."""
    env: Any = scenario.vector_env(envs, copy=False, threads=threads)  # type: ignore[call-arg]
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(4 if envs < MANY else 1)]

    def work() -> float:
        for step in range(steps):
            env.step(actions[step % len(actions)])
        return float(envs * steps)

    return work


def mobile_env_work(steps: int) -> Callable[[], float]:
    """The same for mobile-env's medium central scenario."""
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


def against_mobile_env(seconds: float) -> list[Row]:
    """network5g with mobile-env's cells and users, on one thread and on all."""
    name = f"mobile-env {version('mobile-env')}"
    theirs = rate(mobile_env_work(5), seconds=seconds)
    matched, rows = load("network5g", size="medium", users=USERS), []
    what = f"network5g, {CELLS} cells, {USERS} users"
    for threads in dict.fromkeys((1, default_threads())):
        ours = rate(vector_work(matched, BATCH, 20, threads), seconds=seconds)
        note = f"{what}, {BATCH} environments, {threads} thread{'s' * (threads > 1)}"
        rows.append(Row(note, "env steps/s", ours, name, theirs))
        rows.append(Row(note, "user steps/s", ours * USERS, name, theirs * USERS))
    single = rate(vector_work(matched, 1, 200, 1), seconds=seconds)
    rows.append(Row(f"{what}, 1 environment", "env steps/s", single, name, theirs))
    return rows


def by_users(seconds: float) -> list[Row]:
    """Cost of a user step at 7 cells, from 15 to 420 users; the ratio is against the cheapest."""
    counts = (15, 35, 70, 140, 420)
    works = []
    for users in counts:
        scenario = load("network5g", size="medium", users=users)
        works.append(vector_work(scenario, max(16, BATCH // 2 * USERS // users), 10, 1))
    rates = interleaved_rates(works, seconds=3.0 * seconds)
    cost = {users: 1e9 / (steps * users) for users, steps in zip(counts, rates, strict=True)}
    least = min(cost.values())
    return [
        Row(f"network5g, {CELLS} cells, {users} users, 1 thread", "ns/user step", ns, "cheapest row", least, "lower")
        for users, ns in cost.items()
    ]


def sizes(seconds: float, threads: int) -> list[Row]:
    """The frozen sizes, and ten thousand environments at once."""
    rows = []
    for size, envs in (("small", BATCH), ("medium", BATCH), ("large", 64), ("small", MANY)):
        scenario = load("network5g", size=size)
        steps = rate(vector_work(scenario, envs, 2, threads), seconds=seconds)
        rows.append(Row(f"network5g {size}, {envs} environments, {threads} threads", "env steps/s", steps))
    return rows


def memory() -> list[Row]:
    """Bytes of state and outputs per environment."""
    rows = []
    for name, options in (("network5g", {"size": "small"}), ("network5g", {"size": "medium"}), ("recsys", {})):
        env: Any = load(name, **options).vector_env(8)
        label = " ".join([name, *map(str, options.values())])
        rows.append(Row(f"{label}: memory per environment", "bytes", float(env.bytes_per_environment), better="lower"))
    return rows


def recsys_rows(seconds: float, threads: int) -> list[Row]:
    """Decisions per second: a pool of 1,000 items, slates of 10."""
    rows = []
    for retrieval in ("shortlist", "full"):
        scenario = load("recsys", retrieval=retrieval)
        for count in dict.fromkeys((1, threads)):
            ours = rate(vector_work(scenario, 512, 4, count), seconds=seconds)
            rows.append(Row(f"recsys, {retrieval} retrieval, 512 environments, {count} threads", "decisions/s", ours))
    ours = rate(vector_work(load("recsys", retrieval="shortlist"), MANY, 1, threads), seconds=seconds)
    rows.append(Row(f"recsys, shortlist retrieval, {MANY} environments, {threads} threads", "decisions/s", ours))
    return rows


def first_step_rows() -> list[Row]:
    """Seconds from a fresh interpreter to the first step, with an empty compilation cache and with a filled one."""
    rows = []
    for name in ("network5g", "recsys"):
        code = (
            "import time; started = time.perf_counter(); from rlaas.scenarios import load; "
            f"env = load({name!r}).vector_env(4); env.reset(); env.action_space.seed(0); "
            "env.step(env.action_space.sample()); print(time.perf_counter() - started)"
        )
        with tempfile.TemporaryDirectory() as cache:
            took = [
                float(
                    subprocess.run(
                        [sys.executable, "-c", code],
                        env={**os.environ, "NUMBA_CACHE_DIR": cache},
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
                for _ in range(2)
            ]
        rows.append(Row(f"{name}: first step, compilation cached", "s", took[1], "uncached", took[0], "lower"))
    return rows


def twin_rows(seconds: float) -> list[Row]:
    """The torch twin beside the compiled engine, on the CPU and on a GPU where there is one."""
    torch = importlib.import_module("torch")
    twin = importlib.import_module("rlaas.scenarios.network5g.twin")
    scenario: Any = load("network5g", size="medium")
    ours = rate(vector_work(scenario, BATCH, 5, default_threads()), seconds=seconds)
    rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        envs = BATCH if device == "cpu" else 8192
        env = twin.TorchNetwork5G(scenario.network, envs, device=device, seed=0)
        env.reset()
        rows_of_actions = np.repeat(scenario.single_action_space.sample()[None], envs * scenario.cells, axis=0)
        action = torch.as_tensor(rows_of_actions, device=device)

        def work(env: Any = env, action: Any = action, envs: int = envs, device: str = device) -> float:
            for _ in range(3):
                env.step(action)
            if device == "cuda":
                torch.cuda.synchronize()
            return 3.0 * envs

        what = f"network5g medium, torch twin on {device}, {envs} environments"
        rows.append(Row(what, "env steps/s", rate(work, seconds=seconds), "compiled engine", ours))
    return rows


def main() -> None:
    arguments = parse_arguments("scenarios")
    seconds = 0.2 if arguments.quick else 3.0
    threads = default_threads()
    started = time.perf_counter()
    rows = against_mobile_env(seconds) + by_users(seconds) + sizes(seconds, threads) + recsys_rows(seconds, threads)
    rows += memory() + twin_rows(seconds)
    if not arguments.quick:
        rows += first_step_rows()
    report("scenarios", rows, arguments.json)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    np.random.seed(0)
    main()
