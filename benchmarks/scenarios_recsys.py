"""Decisions per second of the recommender: 1,000 items, a shortlist of 50, slates of 10.

    python benchmarks/scenarios_recsys.py [--quick] [--json]

One decision retrieves, ranks, diversifies and shows one page to one user, with the user's answer and everything that
both sides learn of it. Retrieval scores all 1,000 items for every page and takes the exact 50 best; "no shortlist"
ranks, diversifies and keeps 500 of them instead of 50. No package offers a comparable environment, so the rows stand
without a rival; "all strategies" draws from every action at random, samples and confidence bounds included.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.harness import Row, parse_arguments, rate, report
from rlaas.scenarios.recsys import Recommender

BATCH = 512
ROWS: tuple[tuple[str, dict[str, int], str, int, int], ...] = (
    ("popularity", {}, "popularity", BATCH, 2),
    ("content, ranked by clicks, MMR", {}, "mmr", BATCH, 2),
    ("content, ranked by clicks, MMR", {}, "mmr", BATCH, 1),
    ("content, ranked by clicks, MMR, 10,000 environments", {}, "mmr", 10_000, 2),
    ("content, ranked by clicks, DPP", {}, "dpp", BATCH, 2),
    ("content, ranked by clicks, LinUCB bounds on all items", {}, "user_linucb", BATCH, 2),
    ("content, top-two Thompson", {}, "top_two", BATCH, 2),
    ("factorisation", {}, "als", BATCH, 2),
    ("all strategies", {}, "random", BATCH, 2),
    ("content, ranked by clicks, MMR, 500 of 1,000 items ranked", {"shortlist": 500}, "mmr", BATCH, 2),
)
_COLD = (
    "import time; from rlaas.scenarios.recsys import Recommender; start = time.perf_counter();"
    "env = Recommender().vector_env(256); env.reset(); env.step([0] * 256); print(time.perf_counter() - start)"
)


def work(scenario: Recommender, baseline: str, envs: int, threads: int, steps: int) -> Callable[[], float]:
    """Work that takes ``steps`` decisions in ``envs`` environments and returns how many decisions that was."""
    env = scenario.vector_env(envs, threads=threads, copy=False)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    if baseline == "random":
        actions = rng.integers(scenario.actions.n, size=(16, envs))
    else:
        controller = scenario.baselines[baseline].make()
        controller.reset(envs, 0)
        actions = controller.act(np.zeros((envs, 1)))[None]

    def run() -> float:
        for step in range(steps):
            env.step(actions[step % len(actions)])
        return float(envs * steps)

    return run


def main() -> None:
    arguments = parse_arguments("recommender")
    seconds, steps = (0.2, 2) if arguments.quick else (3.0, 20)
    rows = []
    for what, options, baseline, envs, threads in ROWS:
        if arguments.quick and envs > BATCH:
            continue
        scenario = Recommender(**options)
        done = rate(work(scenario, baseline, envs, threads, steps), seconds=seconds)
        cores = f"{threads} core{'s' if threads > 1 else ''}"
        rows.append(Row(f"recsys, {what}, {envs:,} environments, {cores}", "decisions/s", done))
    size = Recommender().vector_env(1).bytes_per_environment
    rows.append(Row("recsys, state of an environment", "bytes", float(size), better="lower"))
    first = min(float(subprocess.check_output([sys.executable, "-c", _COLD], text=True)) for _ in range(2))
    rows.append(Row("recsys, scenario, reset and first step, compiled code on disk", "s", first, better="lower"))
    report("recommender", rows, arguments.json)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)
