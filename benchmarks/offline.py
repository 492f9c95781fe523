"""Learning from logs: what implicit and conservative Q-learning make of poor logs, against behaviour cloning.

CartPole is logged as a half-trained policy leaves it: PPO is stopped after 10,000 steps and sampled. Every seed trains
its own behaviour policy, logs its own 20,000 rows, fits each method to them and plays fresh episodes with the fitted
policy's best action (500 is perfect). Rows are mean returns over the seeds with 95 % intervals (a percentile
bootstrap); cloning of the same logs is the rival, and the difference is paired by seed.

    python benchmarks/offline.py [--quick] [--json] [--seeds 5]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from benchmarks.harness import Row, parse_arguments, report
from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.training import FitSettings, GymnasiumScenario, TrainingConfig, build_algorithm, export_bundle, fit_offline

METHODS = ("cloning", "advantage_weighted", "iql", "cql")
ENVS = 16
RESAMPLES = 10_000


ENVIRONMENT = "CartPole-v1"
TRAINING: dict[str, Any] = {
    "algorithm": "ppo",
    "steps": 10_000,
    "num_envs": 8,
    "learning_rate": 3e-4,
    "ppo": {"rollout_length": 128, "minibatch": 256},
}
LOGGED_ROWS = 20_000
FIT: dict[str, Any] = {"gamma": 0.98, "epochs": 15}


def behaviour(seed: int, folder: Path) -> BundlePolicy:
    """A policy whose training was stopped early."""
    config = TrainingConfig(environment=ENVIRONMENT, seed=seed, **TRAINING)
    algo = build_algorithm(config, "ppo")
    try:
        while algo.steps_done < config.steps:
            algo.train()
        scenario = GymnasiumScenario(ENVIRONMENT)
        return load_bundle(export_bundle(algo.policy, scenario, folder, algorithm="ppo"))
    finally:
        algo.stop()


def environments(seed: int) -> SyncVectorEnv:
    """Some of them side by side."""
    made = [lambda: gymnasium.make(ENVIRONMENT)] * ENVS
    vector = SyncVectorEnv(made, autoreset_mode=AutoresetMode.NEXT_STEP)
    vector.reset(seed=seed)
    return vector


def log_of(policy: BundlePolicy, seed: int) -> tuple[pa.Table, float]:
    """What serving ``policy`` leaves behind, and the mean return of its episodes."""
    rng, vector = np.random.default_rng([seed, 7]), environments(1_000 + seed)
    observation, _ = vector.reset(seed=1_000 + seed)
    ended, returns, finished = np.zeros(ENVS, dtype=bool), np.zeros(ENVS), []
    parts: list[dict[str, Any]] = []
    rows = 0
    while rows < LOGGED_ROWS:
        action, propensity = policy.act(np.asarray(observation, dtype=np.float32), rng=rng)
        following, reward, terminated, truncated, _ = vector.step(action)
        keep = ~ended
        parts.append(
            {
                "observation": observation[keep],
                "action": action[keep, None],
                "reward": reward[keep],
                "next_observation": following[keep],
                "terminated": terminated[keep],
                "truncated": truncated[keep],
                "action_propensity": propensity[keep],
            }
        )
        rows += int(keep.sum())
        returns[keep] += reward[keep]
        ended = terminated | truncated
        finished += returns[ended].tolist()
        returns[ended] = 0.0
        observation = following
    vector.close()
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return table_of(joined), float(np.mean(finished))


def table_of(columns: dict[str, NDArray[Any]]) -> pa.Table:
    """Arrays as the columns of ``silver.transitions`` that a fit reads."""

    def lists(values: NDArray[Any]) -> pa.Array:
        flat = pa.array(values.astype(np.float64).reshape(-1))
        offsets = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, flat)

    reward = columns["reward"].astype(np.float64)
    n = len(reward)
    outcome = pa.MapArray.from_arrays(
        pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(["return"] * n), pa.array(reward)
    )
    vectors = {name: lists(columns[name]) for name in ("observation", "action", "next_observation")}
    scalars = {name: pa.array(columns[name]) for name in ("terminated", "truncated", "action_propensity")}
    return pa.table({**vectors, **scalars, "outcome": outcome})


def played(policy: BundlePolicy, seed: int) -> float:
    """Mean return of one whole episode in each environment, taking the best action."""
    vector = environments(5_000 + seed)
    observation, _ = vector.reset(seed=5_000 + seed)
    over, returns = np.zeros(ENVS, dtype=bool), np.zeros(ENVS)
    while not over.all():
        action, _ = policy.act(np.asarray(observation, dtype=np.float32))
        observation, reward, terminated, truncated, _ = vector.step(action)
        returns[~over] += reward[~over]
        over |= terminated | truncated
    vector.close()
    return float(returns.mean())


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean (percentile bootstrap)."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def measured(seeds: int, quick: bool, work: Path) -> list[Row]:
    """A row per method: its mean return against cloning's, with the interval of the paired difference."""
    reached: dict[str, list[float]] = {name: [] for name in ("behaviour", *METHODS)}
    for seed in range(1, seeds + 1):
        policy = behaviour(seed, work / "behaviour")
        table, logged = log_of(policy, seed)
        reached["behaviour"].append(logged)
        for method in METHODS:
            settings = {**FIT, **({"epochs": 2} if quick else {})}
            run = fit_offline(
                table,
                GymnasiumScenario(ENVIRONMENT),
                preference=None,
                output=work / method,
                settings=FitSettings(method=method, seed=seed, **settings),  # type: ignore[arg-type]
            )
            reached[method].append(played(load_bundle(run.bundle), seed))
    found = {name: np.array(values) for name, values in reached.items()}
    rows = []
    for name in ("behaviour", *METHODS[1:]):
        low, high = interval(found[name])
        difference = interval(found[name] - found["cloning"])
        what = (
            f"{ENVIRONMENT} mean return, {name}, {seeds} seeds [{low:.0f}, {high:.0f}]; "
            f"less cloning's, paired [{difference[0]:+.0f}, {difference[1]:+.0f}]"
        )
        mine, theirs = float(found[name].mean()), float(found["cloning"].mean())
        rows.append(Row(what, "return", mine, rival="cloning of the same log", rival_value=theirs))
    return rows


def main() -> None:
    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seeds", type=int, default=5)

    arguments = parse_arguments("offline", extend)
    seeds = 1 if arguments.quick else arguments.seeds
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="ray|gymnasium")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="rlaas-offline-") as folder:
        rows = measured(seeds, arguments.quick, Path(folder))
    ray.shutdown()
    report("offline", rows, arguments.json)


if __name__ == "__main__":
    main()
