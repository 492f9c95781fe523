"""The counts of a Gateway for Prometheus: as text under ``/metrics``, and through Ray's own exporter.

Behind a balancer a scrape of ``/metrics`` sees one replica. Ray's exporter on every node sees them all, under the same
names with the prefix ``ray_``; the shipped dashboards read those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlaas.serving.backlog import BacklogWatch
from rlaas.serving.tally import LATENCY_EDGES_US, VersionTally

__all__ = ["CONTENT_TYPE", "RayExporter", "Series", "render", "series_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_EVERY = 4
"""Buckets that are folded into one: those of the tally are finer than a dashboard needs."""

_HELP = {
    "rlaas_decisions_total": "decisions answered",
    "rlaas_decision_errors_total": "requests that a version could not answer: its network raised, or gave no number",
    "rlaas_shadow_compared_total": "decisions of a shadow that were held against what was served",
    "rlaas_shadow_difference_total": "sum of the distances of the two actions, each in [0, 1]",
    "rlaas_outcomes_total": "outcomes that carried every objective",
    "rlaas_outcome_utility_total": "sum of their utilities: normalised objectives under equal weights",
    "rlaas_decision_latency_microseconds_bucket": "decisions by time from the decoded request to the logged answer",
    "rlaas_decision_latency_microseconds_sum": "that time, all decisions together",
    "rlaas_decision_latency_microseconds_count": "decisions timed",
}

Series = tuple[str, tuple[tuple[str, str], ...], float]
"""Name, labels and value of a counter."""


def series_of(tallies: Iterable[VersionTally]) -> Iterator[Series]:
    """Every counter of some tallies."""
    for tally in tallies:
        labels = (("policy", tally.policy), ("version", str(tally.version)))
        yield "rlaas_decisions_total", labels, tally.decisions
        yield "rlaas_decision_errors_total", labels, tally.errors
        yield "rlaas_outcomes_total", labels, tally.rewards
        yield "rlaas_outcome_utility_total", labels, tally.reward_sum
        if tally.compared:
            yield "rlaas_shadow_compared_total", labels, tally.compared
            yield "rlaas_shadow_difference_total", labels, tally.difference
        for edge, count in _folded(tally.latency_us):
            yield "rlaas_decision_latency_microseconds_bucket", (*labels, ("le", edge)), count
        yield "rlaas_decision_latency_microseconds_sum", labels, tally.latency_sum_us
        yield "rlaas_decision_latency_microseconds_count", labels, sum(tally.latency_us)


def _folded(counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Upper end and cumulative count of each coarser bucket."""
    total = 0
    for index, count in enumerate(counts):
        total += count
        if index < len(LATENCY_EDGES_US) and (index + 1) % _EVERY == 0:
            yield str(LATENCY_EDGES_US[index]), total
    yield "+Inf", total


def render(tallies: Iterable[VersionTally], open_circuits: Iterable[tuple[str, int]]) -> str:
    """The text format of Prometheus."""
    lines: dict[str, list[str]] = {}
    for name, labels, value in series_of(tallies):
        family = name
        if name.startswith("rlaas_decision_latency"):
            family = name.rpartition("_")[0]
        if family not in lines:
            kind = "histogram" if family != name else "counter"
            lines[family] = [f"# HELP {family} {_HELP[name]}", f"# TYPE {family} {kind}"]
        inside = ",".join(f'{key}="{text}"' for key, text in labels)  # names of policies need no escaping
        lines[family].append(f"{name}{{{inside}}} {value:g}" if value % 1 else f"{name}{{{inside}}} {value:.0f}")
    gauge = "rlaas_circuit_open"
    lines[gauge] = [f"# HELP {gauge} versions that are avoided because they keep failing", f"# TYPE {gauge} gauge"]
    lines[gauge] += [f'{gauge}{{policy="{policy}",version="{version}"}} 1' for policy, version in open_circuits]
    lines |= _backlog()
    return "\n".join(line for family in lines.values() for line in family) + "\n"


def _backlog() -> dict[str, list[str]]:
    """What the logs hold that the lake does not, as this process saw it last."""
    watch = BacklogWatch.current
    if watch is None:
        return {}
    size, oldest = "rlaas_wal_bytes", "rlaas_wal_oldest_seconds"
    lines = {
        size: [f"# HELP {size} bytes acknowledged and not committed, by all Gateways", f"# TYPE {size} gauge"],
        oldest: [f"# HELP {oldest} age of the oldest of them", f"# TYPE {oldest} gauge"],
    }
    for stream, backlog in watch.streams.items():
        lines[size].append(f'{size}{{stream="{stream}"}} {backlog.size}')
        lines[oldest].append(f'{oldest}{{stream="{stream}"}} {backlog.oldest_s():.3f}')
    return lines


class RayExporter:
    """Adds what was counted since the last time to the counters of ``ray.util.metrics``."""

    def __init__(self) -> None:
        self._counters: dict[str, Any] = {}
        self._said: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def export(self, tallies: Iterable[VersionTally]) -> None:
        """Say what is new."""
        from ray.util.metrics import Counter

        for name, labels, value in series_of(tallies):
            more = value - self._said.get((name, labels), 0.0)
            if more <= 0:
                continue
            if name not in self._counters:
                self._counters[name] = Counter(name, _HELP[name], tuple(key for key, _ in labels))
            self._counters[name].inc(more, dict(labels))
            self._said[name, labels] = value
