"""Training from end to end: time to a stated return, the environment's share, scaling, and the replay's memory.

The rates of single updates and steps are in ``benchmarks/training.py``. Here whole runs are measured: CartPole until
the mean return of the last 20 episodes is 400 (ours, Stable-Baselines3 and stock RLlib with the same network, batch,
epochs and learning rate; median of the seeds, runs take turns); the shipped configurations of both scenarios; PPO with
1, 2 and 4 runners and two learners on this machine; and what a replay of 1,000,000 transitions weighs.

    python -m benchmarks.training_runs [--quick] [--json] [--part NAME]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray gives its workers a lower priority, which on few cores measures the scheduler.
os.environ.setdefault("RAY_worker_niceness", "0")

import importlib.util
import logging
import statistics
import subprocess
import sys
import time
import warnings
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import CONFIGS, Row, parse_arguments, report
from rlaas.training import TrainingConfig, build_algorithm, load_config

GOAL, LAST, ENVS, LENGTH, MINIBATCH, EPOCHS, RATE = 400.0, 20, 8, 128, 256, 10, 1e-3
MOST_STEPS = 300_000
PARTS = ("goal", "environment", "scaling", "memory")


def ours_to_goal(seed: int, goal: float) -> float:
    """Seconds of training until the goal; infinite where the steps run out."""
    config = TrainingConfig(
        environment="CartPole-v1",
        steps=MOST_STEPS,
        seed=seed,
        num_envs=ENVS,
        learning_rate=RATE,
        gamma=0.99,
        ppo={"rollout_length": LENGTH, "minibatch": MINIBATCH, "epochs": EPOCHS, "entropy": 0.0},
    )
    algo = build_algorithm(config, "ppo")
    returns: deque[float] = deque(maxlen=LAST)
    started = time.perf_counter()
    try:
        while algo.steps_done < MOST_STEPS:
            algo.train()
            returns.extend(algo.sampled.returns)
            if len(returns) == LAST and np.mean(returns) >= goal:
                return time.perf_counter() - started
    finally:
        algo.stop()
    return float("inf")


def sb3_to_goal(seed: int, goal: float) -> float:
    """The same of Stable-Baselines3; building the model is left out, as it is for ours."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Until(BaseCallback):
        reached = False

        def _on_step(self) -> bool:
            last = [episode["r"] for episode in list(self.model.ep_info_buffer or [])[-LAST:]]
            self.reached = len(last) == LAST and float(np.mean(last)) >= goal
            return not self.reached

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", ENVS, seed=seed),
        n_steps=LENGTH,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        learning_rate=RATE,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        seed=seed,
        device="cpu",
    )
    until = Until()
    started = time.perf_counter()
    model.learn(MOST_STEPS, callback=until)
    return time.perf_counter() - started if until.reached else float("inf")


def rllib_to_goal(seed: int, goal: float) -> float:
    """The same of stock RLlib."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    model = DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
    algo = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=LENGTH)
        .learners(num_learners=0)
        .training(
            train_batch_size=ENVS * LENGTH,
            minibatch_size=MINIBATCH,
            num_epochs=EPOCHS,
            lr=RATE,
            gamma=0.99,
            lambda_=0.95,
        )
        .rl_module(model_config=model)
        .debugging(seed=seed)
        .reporting(metrics_num_episodes_for_smoothing=LAST)
        .build_algo()
    )
    started = time.perf_counter()
    try:
        for _ in range(MOST_STEPS // (ENVS * LENGTH)):
            result = algo.train()
            if float(result["env_runners"].get("episode_return_mean", 0.0)) >= goal:
                return time.perf_counter() - started
    finally:
        algo.stop()
    return float("inf")


def goal_rows(quick: bool) -> list[Row]:
    import ray

    seeds, goal = ((1,), 60.0) if quick else ((1, 2, 3, 4, 5), GOAL)
    rivals: dict[str, Callable[[int, float], float]] = {f"RLlib {ray.__version__} stock": rllib_to_goal}
    if importlib.util.find_spec("stable_baselines3") is None:
        print("stable_baselines3 is not installed (pip install -e '.[bench]'): its row is left out", file=sys.stderr)
    else:
        import stable_baselines3

        rivals[f"Stable-Baselines3 {stable_baselines3.__version__}"] = sb3_to_goal
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in rivals}
    for seed in seeds:
        mine.append(ours_to_goal(seed, goal))
        for name, rival in rivals.items():
            theirs[name].append(rival(seed, goal))
    what = f"PPO, CartPole, seconds until the last {LAST} episodes return {goal:g}, median of {len(seeds)} seeds"
    print(
        f"{what}: ours {np.round(mine, 1)}, { ({k: np.round(v, 1).tolist() for k, v in theirs.items()}) }",
        file=sys.stderr,
    )
    return [
        Row(what, "s", _finite(mine), rival=name, rival_value=_finite(values), better="lower")
        for name, values in theirs.items()
    ]


def _finite(seconds: list[float]) -> float:
    """The median; a large number where most runs never got there, which JSON can hold."""
    return min(statistics.median(seconds), 1e6)


def environment_rows(quick: bool) -> list[Row]:
    rows = []
    for name in ("network5g-ppo", "network5g-sac", "recsys-ppo"):
        config = load_config(CONFIGS / f"{name}.yaml")
        algorithm = config.algorithm
        assert algorithm is not None
        algo = build_algorithm(config, algorithm)
        iterations = 30 if quick else 200
        # Compilation and the random warm-up are over before the clock starts.
        while algo.updates == 0:
            algo.train()
        before, started = algo.time_spent, time.perf_counter()
        for _ in range(iterations if algorithm == "sac" else max(3, iterations // 20)):
            algo.train()
        seconds = time.perf_counter() - started
        spent = algo.time_spent["environment"] - before["environment"]
        rows.append(Row(f"{name}: share of the time in the environment (wanted: under 30)", "%", 100 * spent / seconds))
        algo.stop()
    return rows


PRODUCTS = """
import sys, time, torch
torch.set_num_threads(1)
a, b, done = torch.randn(2048, 512), torch.randn(512, 512), 0
end = time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    a @ b
    done += 1
print(done)
"""


def machine_rate(processes: int, seconds: float) -> float:
    """Products a second of so many processes that share nothing: what the machine's cores give to anybody."""
    command = [sys.executable, "-c", PRODUCTS, str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(int(one.communicate()[0]) for one in running) / seconds


def scaling_rows(quick: bool) -> list[Row]:
    """Runners and learners in processes of their own: the parts alone, where each has enough to do, and whole PPO.

    An iteration of PPO takes its turns (sample, then learn), so of the whole only the part that is shared out scales.
    """
    seconds = 3.0 if quick else 20.0
    base = load_config(CONFIGS / "network5g-sac.yaml").model_dump(exclude_unset=True)
    base |= {"algorithm": "ppo", "steps": 10**9, "num_envs": 64, "learning_rate": 1e-3, "batch_size": 256}
    base["ppo"] = {"rollout_length": 32, "minibatch": 2048}
    wide = base | {"hidden": (512, 512), "num_envs": 128}

    def rate_of(work: Callable[[Any], Callable[[], None]], settings: dict[str, Any], **placement: int) -> float:
        """Decisions per second of what ``work`` makes of an algorithm."""
        algo = build_algorithm(TrainingConfig(**{**settings, **placement}), "ppo")
        try:
            once = work(algo)
            for _ in range(2):
                once()
            before, count, started = algo.steps_done, 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                once()
                count += 1
            taken = algo.steps_done - before or count * 32 * algo.runner.rows_per_env * algo.training.num_envs
            return float(taken / (time.perf_counter() - started))
        finally:
            algo.stop()

    def sampling(algo: Any) -> Callable[[], None]:
        return lambda: algo.sample(32)

    def learning(algo: Any) -> Callable[[], None]:
        algo.renormalise()
        here = build_algorithm(TrainingConfig(**wide), "ppo")
        rollout = ray.put(here.sample(32).arrays())
        here.stop()
        return lambda: algo.learners.learn("update_from_rollout", rollout=rollout, progress=0.0)

    def whole(algo: Any) -> Callable[[], None]:
        return algo.train

    import ray

    rows = []
    one, two = (machine_rate(n, seconds) for n in (1, 2))
    what = f"the machine: products of layers 512x512, 2 processes that share nothing (efficiency {two / (2 * one):.2f})"
    rows.append(Row(what, "products/s", two, rival="1 process", rival_value=one))
    one, two = (rate_of(sampling, wide, num_env_runners=n) for n in (1, 2))
    what = f"sampling alone, network5g, 128 networks, 512x512, 2 runners (efficiency {two / (2 * one):.2f})"
    rows.append(Row(what, "steps/s", two, rival="1 runner", rival_value=one))
    one, two = (rate_of(learning, wide, num_learners=n) for n in (1, 2))
    what = f"learning alone, PPO, 512x512, minibatch 2,048, 2 learners (efficiency {two / (2 * one):.2f})"
    rows.append(Row(what, "decisions/s", two, rival="1 learner", rival_value=one))
    here = rate_of(whole, base)
    one = rate_of(whole, base, num_env_runners=1)
    for runners in (1, 2, 4):
        found = one if runners == 1 else rate_of(whole, base, num_env_runners=runners)
        what = f"PPO, network5g, 64 networks, 64x64, {runners} runner{'s' * (runners > 1)} in other processes"
        what += f" (efficiency {found / (one * runners):.2f})"
        rows.append(Row(what, "steps/s", found, rival="all in one process", rival_value=here))
    one, two = (rate_of(whole, base, num_learners=n) for n in (1, 2))
    what = f"PPO, network5g, 64 networks, 64x64, two learners (efficiency {two / (2 * one):.2f})"
    rows.append(Row(what, "steps/s", two, rival="one learner in its own process", rival_value=one))
    return rows


def memory_rows(quick: bool) -> list[Row]:
    from rlaas.training.replay import ReplayBuffer

    size = 100_000 if quick else 1_000_000
    widths = [40, 8, 4, 4, 1, 40, 0, 0]
    before = _resident()
    replay = ReplayBuffer(size, widths)
    replay.continue_from(np.ones((size, sum(widths)), dtype=np.float32), size)
    grown = _resident() - before
    arrays = size * sum(widths) * 4
    # The array that filled it is gone by now; what stays is the buffer.
    return [
        Row(
            f"replay of {size:,} transitions (40 features, 8 actions, 4 objectives): resident memory",
            "MB",
            grown / 1e6,
            rival="its arrays",
            rival_value=arrays / 1e6,
            better="lower",
        )
    ]


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    def parts(parser: ArgumentParser) -> None:
        parser.add_argument("--part", choices=PARTS, action="append", help="measure this part only; may be repeated")

    arguments = parse_arguments("training runs", parts)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="ray|gymnasium|stable_baselines3")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    measures: dict[str, Callable[[bool], list[Row]]] = {
        "goal": goal_rows,
        "environment": environment_rows,
        "scaling": scaling_rows,
        "memory": memory_rows,
    }
    rows: list[Any] = []
    for name in arguments.part or PARTS:
        rows += measures[name](arguments.quick)
    ray.shutdown()
    report("training runs", rows, arguments.json)


if __name__ == "__main__":
    main()
