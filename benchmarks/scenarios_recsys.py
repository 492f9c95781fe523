"""Decisions per second of each strategy of the recommender, and what candidate lists change.

    python -m benchmarks.scenarios_recsys [--quick] [--json]

One decision retrieves 50 of 1,000 items, ranks and diversifies them, shows a page of ten to one user, and takes in the
user's answer and all that both sides learn of it. "full" scores every item for every page, "shortlist" those of lists
made beforehand; the two stand side by side, over the same streams. No package offers a comparable environment, so there
is no other rival. "random" draws from all actions, samples and confidence bounds included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from benchmarks.harness import Row, parse_arguments, rate, report
from rlaas.scenarios import evaluate
from rlaas.scenarios.compiled import default_threads
from rlaas.scenarios.recsys import COLD_START, Recommender

BATCH = 512
STRATEGIES = (*COLD_START, "mmr", "dpp", "random")
CHANGED = ("popularity", "demographic", "content", "mmr", "user_linucb", "thompson", "random")


def work(scenario: Recommender, baseline: str, threads: int, steps: int) -> Callable[[], float]:
    """Work that takes ``steps`` decisions in every environment and returns how many decisions that was."""
    env = scenario.vector_env(BATCH, threads=threads, copy=False)
    env.reset(seed=0)
    if baseline == "random":
        actions = np.random.default_rng(0).integers(scenario.actions.n, size=(16, BATCH))
    else:
        controller = scenario.baselines[baseline].make()
        controller.reset(BATCH, 0)
        actions = controller.act(np.zeros((BATCH, 1)))[None]

    def run() -> float:
        for step in range(steps):
            env.step(actions[step % len(actions)])
        return float(BATCH * steps)

    return run


def change_rows(full: Recommender, shortlist: Recommender, seeds: int, steps: int) -> list[Row]:
    """Clicks per impression with lists beside those without, over common streams, with the half-width in the name."""
    rows = []
    for name in CHANGED:
        ctr = [
            evaluate(s, s.baselines[name].make(), range(500, 500 + seeds), steps=steps, warmup=20, replicas=64).values[
                :, 0
            ]
            for s in (full, shortlist)
        ]
        change = (ctr[1] - ctr[0]) / ctr[0].mean()
        half = stats.t.ppf(0.975, seeds - 1) * change.std(ddof=1) / np.sqrt(seeds)
        what = f"recsys, {name}, change of clicks per impression by lists {change.mean():+.2%} +- {half:.2%}"
        rows.append(Row(what, "clicks/impression", float(ctr[1].mean()), "full scoring", float(ctr[0].mean())))
    return rows


def main() -> None:
    arguments = parse_arguments("recommender")
    seconds, steps = (0.1, 2) if arguments.quick else (1.0, 10)
    full, shortlist, rows = Recommender(), Recommender(retrieval="shortlist"), []
    threads = default_threads()
    for name in STRATEGIES:
        theirs = rate(work(full, name, threads, steps), seconds=seconds)
        ours = rate(work(shortlist, name, threads, steps), seconds=seconds)
        rows.append(Row(f"recsys, {name}, lists, {threads} threads", "decisions/s", ours, "full scoring", theirs))
    rows += change_rows(full, shortlist, *((2, 20) if arguments.quick else (10, 300)))
    report("recommender", rows, arguments.json)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)
