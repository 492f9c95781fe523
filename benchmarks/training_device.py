"""Training that stays on one device, on the torch twin of network5g, beside the compiled engine on the CPU.

    python -m benchmarks.training_device [--device cuda] [--networks N] [--quick] [--json]

PPO and SAC of the same settings in both lanes, and on a GPU its utilisation by NVML while each trains. On a CPU the
compiled engine is the faster lane by far: ``--device cpu`` only shows that the other one works.
"""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.harness import Row, parse_arguments, rate, report
from benchmarks.quality_kit import one_ray
from rlaas.training import TrainingConfig, build_algorithm
from rlaas.training.telemetry.gpus import Gpus, find_nvml

ROLLOUT, MINIBATCHES, EPOCHS, BATCH, HIDDEN, CELLS = 32, 8, 4, 4_096, (64, 64), 3
SAMPLE_EVERY_S = 0.1


def options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark asks for beside the common options."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="where the tensors live")
    parser.add_argument("--networks", type=int, help="environments; 8,192 on a GPU and 64 on a CPU by default")


def settings(algorithm: str, networks: int) -> dict[str, Any]:
    """The same for both lanes."""
    rows = networks * CELLS
    common = {"scenario": "network5g", "steps": 10**9, "num_envs": networks, "hidden": HIDDEN, "algorithm": algorithm}
    if algorithm == "ppo":
        return common | {
            "ppo": {"rollout_length": ROLLOUT, "minibatch": rows * ROLLOUT // MINIBATCHES, "epochs": EPOCHS}
        }
    # Some sixteen updates a step of all networks, whatever their number.
    sac = {"updates_per_step": 16 / rows, "learning_starts": 4 * rows, "buffer_size": 64 * rows, "head_start": 0}
    return common | {"batch_size": min(BATCH, 16 * rows), "sac": sac}


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Collects the first GPU's utilisation while the block runs; nothing where there is none."""
    found: list[float] = []
    gpus, over = Gpus(find_nvml()), threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            value = gpus.sample().get("gpu0_utilization")
            if value is not None:
                found.append(value)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        gpus.close()


def speed(algorithm: str, networks: int, device: str | None, seconds: float) -> tuple[float, list[float]]:
    """Decisions per second of a lane, once it learns, and the GPU's utilisation meanwhile."""
    algo = build_algorithm(TrainingConfig(**settings(algorithm, networks), device=device), algorithm)

    def step() -> float:
        before = algo.steps_done
        algo.train()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(algo.steps_done - before)

    try:
        while algo.updates < 4 * EPOCHS * MINIBATCHES:
            step()
        with utilisation() as found:
            return rate(step, seconds=seconds), found
    finally:
        algo.stop()


def main() -> None:
    arguments = parse_arguments("training_device", options)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device cuda: torch finds no CUDA device here; --device cpu shows that the lane works")
    networks = arguments.networks or (8_192 if arguments.device == "cuda" else 64)
    seconds = 1.0 if arguments.quick else 10.0
    rows, started = [], time.perf_counter()
    with one_ray():
        for algorithm in ("ppo", "sac"):
            ours, used = speed(algorithm, networks, arguments.device, seconds)
            theirs, _ = speed(algorithm, networks, None, seconds)
            what = f"{algorithm.upper()}, {networks:,} networks of network5g small on {arguments.device}"
            rows.append(Row(what, "decisions/s", ours, "compiled engine, networks on the CPU", theirs))
            if used:
                rows.append(Row(f"{what}: median GPU utilisation, wanted > .85", "share", statistics.median(used)))
    report("training_device", rows, arguments.json, [f"took {time.perf_counter() - started:.0f} s"])


if __name__ == "__main__":
    main()
