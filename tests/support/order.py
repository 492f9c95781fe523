"""Which test files are begun first when several processes share them out.

A long file that comes last leaves the other processes idle. The two that come first compile different kernels, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["longest_first"]

SECONDS = {
    "demo/test_demo_loop.py": 365,
    "ray_apps/test_ray_apps_jobs.py": 235,
    "tuning/test_tuning_search.py": 195,
    "training/test_training_federated_rounds.py": 190,
    "control/test_control_rollouts_platform.py": 190,
    "control/test_control_gating.py": 160,
    "training/test_training_engine.py": 150,
    "cli/test_cli_optimize.py": 150,
    "serving/test_serving_faults.py": 140,
    "pipeline/test_pipeline_continuous.py": 130,
    "control/test_control_platform.py": 110,
    "tuning/test_tuning_resume.py": 90,
    "tuning/test_tuning_front_search_resume.py": 75,
    "tuning/test_tuning_front_search.py": 60,
    "scenarios/network5g/test_network5g_slots.py": 60,
    "pipeline/test_pipeline_crash.py": 60,
    "cli/test_cli_serve.py": 55,
    "cli/test_cli_train.py": 50,
    "client/test_client_platform.py": 40,
    "experiments/test_experiments_allocation_adaptive.py": 40,
    "scenarios/network5g/test_network5g_twin.py": 40,
    "scenarios/recsys/test_recsys_scenario.py": 35,
}
"""What long files take on two cores, by the end of their path."""

WITH_RAY, OF_A_TEST = 20.0, 0.1
"""Of the others: a file that starts a Ray, and any test."""


class Item(Protocol):
    """What is used of a test."""

    nodeid: str

    def get_closest_marker(self, name: str) -> object | None:
        """The mark of that name, or None."""


def longest_first(items: Sequence[Item]) -> list[Item]:
    """The tests, file by file, those of the longest file first; within a file they stay as they are."""
    files: dict[str, list[Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.split("::")[0], []).append(item)

    def seconds(file: str) -> float:
        known = [taken for name, taken in SECONDS.items() if file.endswith(name)]
        with_ray = any(item.get_closest_marker("ray") is not None for item in files[file])
        return known[0] if known else WITH_RAY * with_ray + OF_A_TEST * len(files[file])

    return [item for file in sorted(files, key=seconds, reverse=True) for item in files[file]]
