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
from rlaas.tuning.config import TuningConfig

__all__ = ["check_cpus", "search_ray"]


@contextmanager
def search_ray(config: TuningConfig) -> Iterator[None]:
    """A running Ray with room for a trial of ``config``.

    Raises:
        ConfigurationError: no node has as many CPUs as a trial asks for; raised before anything starts where there is
            no cluster yet.
    """
    import ray

    if ray.is_initialized():
        check_cpus(config)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        try:
            check_cpus(config)
            yield
        finally:
            ray.shutdown()
        return
    check_cpus(config)
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


def _local_cpus(config: TuningConfig) -> int:
    """CPUs of a local Ray: what ``concurrency`` trials reserve. A population knows no other limit."""
    return max(1, math.ceil(config.concurrency * config.cpus_per_trial))


def check_cpus(config: TuningConfig) -> None:
    """Refuse a trial that no node can hold.

    Raises:
        ConfigurationError: naming the field and what there is.
    """
    import ray

    if ray.is_initialized():
        sizes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        most, where = max(sizes, default=0.0), "the largest node of the cluster"
    else:
        most, where = float(os.cpu_count() or 1), "this machine"
    if config.cpus_per_trial > most:
        raise ConfigurationError(
            f"cpus_per_trial {config.cpus_per_trial:g} exceeds the {most:g} CPUs of {where}; lower it",
            field="cpus_per_trial",
        )
