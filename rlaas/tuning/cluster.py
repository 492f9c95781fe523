"""The Ray that a search runs on: the caller's, a cluster's, or a local one that ends with it."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rlaas.errors import ConfigurationError
from rlaas.training.resources import process_resources
from rlaas.tuning.config import TuningConfig

__all__ = ["check_room", "search_ray", "trial_room"]


@contextmanager
def search_ray(config: TuningConfig) -> Iterator[None]:
    """A running Ray with room for a trial of ``config``.

    Raises:
        ConfigurationError: there is no room for one trial; raised before anything starts where there is no cluster yet.
    """
    import ray

    if ray.is_initialized():
        check_room(config)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        try:
            check_room(config)
            yield
        finally:
            ray.shutdown()
        return
    check_room(config)
    # Ray puts sockets below this folder, and a socket's path may hold 107 characters at most.
    folder = tempfile.mkdtemp(prefix="rlaas-tune-", dir="/tmp")
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local",
            num_cpus=_local_cpus(config),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100 * 1024 * 1024,
            _temp_dir=folder,
        )
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler would end this process at once and leave the rest of the block undone.
            signal.signal(signal.SIGTERM, terminate)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def trial_room(config: TuningConfig) -> list[dict[str, float]]:
    """What each process of a trial reserves, by Ray's names: the trial's own first, then its runners and learners."""
    own = {"CPU": config.cpus_per_trial}
    if config.training.device == "cuda":
        own["GPU"] = 1.0
    return [own, *process_resources(config.training)]


def _local_cpus(config: TuningConfig) -> int:
    """CPUs of a local Ray: what ``concurrency`` trials reserve. A population knows no other limit."""
    return max(1, math.ceil(config.concurrency * _together(trial_room(config), "CPU")))


def check_room(config: TuningConfig) -> None:
    """Refuse a trial that there is no room for.

    Raises:
        ConfigurationError: naming the field and what there is.
    """
    import ray
    import torch

    if ray.is_initialized():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest, whole = "the largest node of the cluster", "the cluster"
    else:
        nodes = [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]
        largest = whole = "this machine"
    most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    if config.cpus_per_trial > most:
        raise ConfigurationError(
            f"cpus_per_trial {config.cpus_per_trial:g} exceeds the {most:g} CPUs of {largest}; lower it",
            field="cpus_per_trial",
        )
    room, training = trial_room(config), config.training
    for name in ("CPU", "GPU"):
        needed, there = _together(room, name), _together(nodes, name)
        if needed > there:
            raise ConfigurationError(
                f"a trial with num_env_runners {training.num_env_runners}, num_learners {training.num_learners}, "
                f"num_gpus_per_learner {training.num_gpus_per_learner:g} and device {training.device} reserves "
                f"{needed:g} {name}s, and {whole} has {there:g}; lower them",
                field="training.num_env_runners" if training.num_env_runners else "training.num_learners",
            )


def _together(parts: list[dict[str, float]], name: str) -> float:
    return sum(part.get(name, 0.0) for part in parts)
