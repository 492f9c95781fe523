"""What became of generated requests, and how far a run got: for :mod:`benchmarks.serving_fuzz`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

__all__ = ["SHOWN", "Progress", "RouteReport"]

SHOWN = 20
"""Findings of a route that are kept."""


@dataclass(slots=True)
class RouteReport:
    """What became of the requests to one route.

    Attributes:
        label: method and path.
        requests: sent.
        worst_ms: slowest answer.
        slowest: the request that it was given to.
        cpu_s: processor time of this process, with making and judging the requests.
        statuses: how often each came.
        findings: what should not have happened, at most ``SHOWN``.
    """

    label: str
    requests: int = 0
    worst_ms: float = 0.0
    slowest: str = ""
    cpu_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def crashes(self) -> int:
        """Answers of 500 or more, but 504."""
        return sum(count for status, count in self.statuses.items() if status >= 500 and status != 504)

    def took(self, milliseconds: float, request: str) -> None:
        """Keep the request if none before it took longer."""
        if milliseconds > self.worst_ms:
            self.worst_ms, self.slowest = milliseconds, request

    def add(self, other: RouteReport) -> None:
        """Count what became of more requests to the route."""
        self.requests += other.requests
        self.took(other.worst_ms, other.slowest)
        self.cpu_s += other.cpu_s
        self.statuses += other.statuses
        self.findings = (self.findings + other.findings)[:SHOWN]


class Progress:
    """The chunks that are finished, in a file that a later run goes on from.

    Args:
        path: of the file, one JSON document a line; None to keep nothing.
        seed: of the changes; chunks of another are not counted.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self._path = path
        self._seed = seed
        self._done: dict[tuple[str, int], RouteReport] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            one = json.loads(line)
            if one.pop("seed") == seed:
                chunk = one.pop("chunk")
                statuses = Counter({int(status): count for status, count in one.pop("statuses").items()})
                self._done[one["label"], chunk] = RouteReport(**one, statuses=statuses)

    def done(self, label: str, chunk: int, requests: int) -> RouteReport | None:
        """What became of a chunk; None if that many requests of it have not been sent."""
        found = self._done.get((label, chunk))
        return found if found is not None and found.requests == requests else None

    def keep(self, chunk: int, found: RouteReport) -> None:
        """Write down a finished chunk."""
        if self._path is None:
            return
        values = {one.name: getattr(found, one.name) for one in fields(found)}
        with self._path.open("a") as file:
            file.write(json.dumps({"seed": self._seed, "chunk": chunk, **values}) + "\n")
