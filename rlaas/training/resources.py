"""Ray and its resources: one that is running or one of our own, and what to say when nothing comes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rlaas.errors import ConfigurationError
from rlaas.training.config import TrainingConfig

__all__ = ["needed_resources", "process_resources", "running_ray", "wait_for_resources"]

SAY_AFTER_S = 30.0
GIVE_UP_AFTER_S = 600.0

log = logging.getLogger(__name__)


def process_resources(config: TrainingConfig) -> list[dict[str, float]]:
    """What each process of a training but the trainer's own reserves, by Ray's names."""
    on_gpu = config.num_gpus_per_learner > 0
    learner = {"GPU": config.num_gpus_per_learner} if on_gpu else {"CPU": 1.0}
    return [{"CPU": 1.0}] * config.num_env_runners + [learner] * config.num_learners


def needed_resources(config: TrainingConfig) -> dict[str, float]:
    """What they reserve together; the trainer's own process reserves nothing."""
    processes = process_resources(config)
    return {name: sum(one.get(name, 0.0) for one in processes) for name in ("CPU", "GPU")}


@contextmanager
def running_ray(config: TrainingConfig) -> Iterator[None]:
    """A Ray that has what ``config`` needs: the caller's, that of ``RAY_ADDRESS``, or a minimal one for the block.

    Raises:
        ConfigurationError: this machine does not have it, or it has not come within ten minutes.
    """
    import ray

    needed = needed_resources(config)
    if ray.is_initialized():
        wait_for_resources(needed, ray.available_resources)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        here = os.cpu_count() or 1
        if needed["CPU"] > here:
            raise ConfigurationError(
                f"num_env_runners {config.num_env_runners} and num_learners {config.num_learners} need "
                f"{needed['CPU']:.0f} CPUs, and this machine has {here}; lower them, or name a larger Ray cluster by "
                "RAY_ADDRESS",
                field="num_env_runners" if config.num_env_runners else "num_learners",
            )
        ray.init(
            address="local",
            num_cpus=max(1, int(needed["CPU"])),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            object_store_memory=100 * 1024 * 1024,
        )
    try:
        wait_for_resources(needed, ray.available_resources)
        yield
    finally:
        ray.shutdown()


def wait_for_resources(
    needed: Mapping[str, float],
    available: Callable[[], Mapping[str, float]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once all that is needed is free; say what is missing after 30 s, and every 30 s from then on.

    Raises:
        ConfigurationError: ten minutes have passed.
    """
    started, said = clock(), 0.0
    while True:
        free = available()
        missing = {name: amount for name, amount in needed.items() if amount > free.get(name, 0.0) + 1e-9}
        if not missing:
            return
        passed = clock() - started
        wanted = ", ".join(f"{amount:g} {name} ({free.get(name, 0.0):g} free)" for name, amount in missing.items())
        if passed >= GIVE_UP_AFTER_S:
            field = "num_gpus_per_learner" if "GPU" in missing else "num_env_runners"
            raise ConfigurationError(
                f"the Ray cluster has not had {wanted} for {passed:.0f} s; lower num_env_runners and num_learners, "
                "or add nodes",
                field=field,
            )
        if passed - said >= SAY_AFTER_S:
            said = passed
            log.warning("waiting for %s in the Ray cluster since %.0f s", wanted, passed)
        sleep(0.5)
