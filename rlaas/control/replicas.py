"""What the Gateways say they have loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ReplicaBoard"]


@dataclass(frozen=True, slots=True)
class _Report:
    heard: float  # monotonic seconds
    generations: Mapping[str, int]
    failures: Mapping[str, str]


class ReplicaBoard:
    """The latest report of each Gateway replica; one that falls silent is dropped.

    Args:
        stale_s: seconds of silence after which a replica counts as gone.
    """

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self._reports: dict[str, _Report] = {}
        self._lock = threading.Lock()

    def report(self, replica: str, generations: Mapping[str, int], failures: Mapping[str, str]) -> None:
        """Note what a replica has loaded (generation by deployment id) and what it could not load."""
        now = time.monotonic()
        with self._lock:
            self._reports[replica] = _Report(now, dict(generations), dict(failures))
            self._reports = {name: r for name, r in self._reports.items() if now - r.heard <= self._stale_s}

    def of(self, deployment: str) -> list[dict[str, Any]]:
        """Replicas with the generation of a deployment that they have loaded (0: nothing yet)."""
        now = time.monotonic()
        with self._lock:
            reports = sorted(self._reports.items())
        return [
            {
                "replica": name,
                "generation": report.generations.get(deployment, 0),
                "error": report.failures.get(deployment),
                "silent_s": round(now - report.heard, 3),
            }
            for name, report in reports
            if now - report.heard <= self._stale_s
        ]
