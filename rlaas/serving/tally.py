"""What a Gateway counts about the versions that it serves, so that a canary can be judged and a pool be scaled.

Counts only ever grow while the process lives: whoever reads them takes differences, and a report that is lost or read
twice does no harm.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LATENCY_EDGES_US", "Tally", "VersionTally", "latency_quantile"]

LATENCY_EDGES_US: tuple[int, ...] = tuple(round(10 * 2 ** (k / 4)) for k in range(80))
"""Upper ends of the latency buckets in microseconds: four for each doubling, from 10 us to 9 s."""


@dataclass(frozen=True, slots=True)
class VersionTally:
    """Counts of one version of a policy in one process since it began.

    Attributes:
        policy, version: which.
        decisions: answered.
        errors: requests that failed because of the version: its network raised, or gave an action that is not finite.
        latency_us: decisions by time taken, [len(LATENCY_EDGES_US) + 1]; the last bucket has no upper end.
        rewards: outcomes that carried every objective.
        reward_sum, reward_squares: of their utilities, each in [0, 1].
        latency_sum_us: time taken by all decisions together; those of one request each count its whole time.
        compared: of a shadow's decisions, those that were held against what was served.
        difference: sum over these of the distance of the two actions, in [0, 1]: whether choices differ, or the mean
            difference over the components of a box as a share of their range.
    """

    policy: str
    version: int
    decisions: int
    errors: int
    latency_us: tuple[int, ...]
    rewards: int
    reward_sum: float
    reward_squares: float
    latency_sum_us: float = 0.0
    compared: int = 0
    difference: float = 0.0


class _Counts:
    __slots__ = (
        "compared",
        "decisions",
        "difference",
        "errors",
        "latency",
        "latency_sum_ns",
        "reward_squares",
        "reward_sum",
        "rewards",
    )

    def __init__(self) -> None:
        self.decisions = 0
        self.errors = 0
        self.latency = [0] * (len(LATENCY_EDGES_US) + 1)
        self.latency_sum_ns = 0
        self.compared = 0
        self.difference = 0.0
        self.rewards = 0
        self.reward_sum = 0.0
        self.reward_squares = 0.0


# Bucket by the whole microsecond up to 4 ms: a lookup, where nearly every decision falls.
_DIRECT_US = 4096
_BUCKET_OF = [bisect_left(LATENCY_EDGES_US, microseconds) for microseconds in range(_DIRECT_US)]


def _bucket(microseconds: int) -> int:
    return _BUCKET_OF[microseconds] if microseconds < _DIRECT_US else bisect_left(LATENCY_EDGES_US, microseconds)


class Tally:
    """Counters of one process. Thread-safe: large requests and shadows are worked on beside the event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], _Counts] = {}
        self._lock = threading.Lock()

    def decided(self, policy: str, version: int, count: int, nanoseconds: int) -> None:
        """``count`` decisions were answered together, in so much time."""
        with self._lock:
            counts = self._of(policy, version)
            counts.decisions += count
            counts.latency[_bucket(nanoseconds // 1000)] += count
            counts.latency_sum_ns += nanoseconds * count

    def decided_each(self, policy: str, version: int, nanoseconds: Sequence[int]) -> None:
        """Decisions of as many requests were made together; each waited for so long."""
        with self._lock:
            counts = self._of(policy, version)
            counts.decisions += len(nanoseconds)
            counts.latency_sum_ns += sum(nanoseconds)
            for waited in nanoseconds:
                counts.latency[_bucket(waited // 1000)] += 1

    def failed(self, policy: str, version: int) -> None:
        """A request failed because of this version."""
        with self._lock:
            self._of(policy, version).errors += 1

    def compared(self, policy: str, version: int, count: int, difference: float) -> None:
        """A shadow's decisions were held against the served ones; ``difference`` is the sum of their distances."""
        with self._lock:
            counts = self._of(policy, version)
            counts.compared += count
            counts.difference += difference

    def rewarded(self, policy: str, version: int, utility: float) -> None:
        """An outcome came back; ``utility`` in [0, 1]."""
        with self._lock:
            counts = self._of(policy, version)
            counts.rewards += 1
            counts.reward_sum += utility
            counts.reward_squares += utility * utility

    def snapshot(self) -> list[VersionTally]:
        """All counts, by policy and version."""
        with self._lock:
            return [
                VersionTally(
                    policy,
                    version,
                    counts.decisions,
                    counts.errors,
                    tuple(counts.latency),
                    counts.rewards,
                    counts.reward_sum,
                    counts.reward_squares,
                    counts.latency_sum_ns / 1000,
                    counts.compared,
                    counts.difference,
                )
                for (policy, version), counts in sorted(self._counts.items())
            ]

    def _of(self, policy: str, version: int) -> _Counts:
        counts = self._counts.get((policy, version))
        if counts is None:
            counts = self._counts[policy, version] = _Counts()
        return counts


def latency_quantile(latency_us: Sequence[int], q: float) -> float:
    """Upper end in microseconds of the bucket that holds the quantile ``q`` of counts by bucket; NaN without any."""
    counts = np.asarray(latency_us, dtype=np.int64)
    total = int(counts.sum())
    if not total:
        return float("nan")
    bucket = int(np.searchsorted(counts.cumsum(), q * total, side="left"))
    return float(LATENCY_EDGES_US[bucket]) if bucket < len(LATENCY_EDGES_US) else float("inf")
