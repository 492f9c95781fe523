"""Answers about one thing: what it came from, and what came from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlaas.control.lineage.collecting import Collector, trained_versions
from rlaas.errors import InvalidInputError, NotFoundError
from rlaas.lake.lineage import Graph, Step, parse_name
from rlaas.registry import Registry
from rlaas.settings import Settings

__all__ = ["Trace", "models_of_tables", "trace"]

SAMPLED = 5


@dataclass(frozen=True, slots=True)
class Trace:
    """The lineage of one thing.

    Attributes:
        start: its id.
        came_from, went_into: walks both ways.
        graph: all that was met.
    """

    start: str
    came_from: tuple[Step, ...]
    went_into: tuple[Step, ...]
    graph: Graph

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain JSON types."""
        return {
            "start": self.start,
            "came_from": [step.node.id for step in self.came_from[1:] if not step.seen],
            "went_into": [step.node.id for step in self.went_into[1:] if not step.seen],
            **self.graph.to_dict(),
        }


def trace(settings: Settings, text: str, *, sampled: int = SAMPLED, depth: int | None = None) -> Trace:
    """Trace what a caller names.

    Args:
        settings: of the process.
        text: ``decision:ID`` (or the id alone), ``policy:NAME@VERSION`` (or an alias), ``table@VERSION`` (without
            one the newest), ``front:SCENARIO``, ``experiment:ID``, ``run:ID`` and so on.
        sampled: decisions of a policy that are shown one by one, the newest.
        depth: edges away at most; default all.

    Raises:
        InvalidInputError: not such a name.
        NotFoundError: there is nothing of that name; names what there is.
        RlaasError: the registry, the state database or a table cannot be read.
    """
    kind, name, version = parse_name(text)
    collector = Collector(settings)
    if kind == "table" and version is not None:
        if not version.isdecimal():
            raise InvalidInputError(f"version {version[:40]!r} of a table is no number", field="name")
        collector.ask_for_version(name, int(version))
    graph = collector.collect()
    if kind == "decision":
        start = collector.attach_decision(graph, name).id
    elif kind == "policy":
        start = f"policy:{name}@{Registry(settings).get(name, version or 'champion').version}"
    elif version is None and kind in ("table", "front", "dataset", "feature"):
        start = _newest(graph, kind, name)
    else:
        start = f"{kind}:{name}" if version is None else f"{kind}:{name}@{version}"
    graph.get(start)
    reached = {step.node.name for step in graph.walk(start, "to") if step.node.kind == "decisions"}
    for group in sorted(reached):
        policy, _, number = group.rpartition("@")
        collector.sample_decisions(graph, policy, int(number), sampled)
    came_from = tuple(graph.walk(start, "from", depth=depth))
    went_into = tuple(graph.walk(start, "to", depth=depth))
    return Trace(start, came_from, went_into, graph.part(start))


def models_of_tables(settings: Settings) -> dict[str, dict[str, int]]:
    """For every registered version (``name@version``) the Delta versions by table that it was made from.

    Raises:
        RlaasError: the registry cannot be read.
    """
    registry = Registry(settings)
    return {
        f"{version.name}@{version.version}": {table: number for table, (number, _) in trained_versions(version).items()}
        for name in registry.names()
        for version in registry.versions(name)
    }


def _newest(graph: Graph, kind: str, name: str) -> str:
    """The newest version of something, of which the caller named none."""
    found = [node for node in graph.nodes(kind) if node.name.rpartition("@")[0] == name]
    if not found:
        raise NotFoundError(
            f"no {kind}:{name[:80]} in the lineage; known: {', '.join(n.name for n in graph.nodes(kind)) or '(none)'}",
            field="name",
        )
    if kind == "front":  # a front has a hash for a version; the champion's comes first
        return min(found, key=lambda node: (node.facts.get("label") != "champion", node.id)).id
    return max(found, key=lambda node: (len(node.name), node.name)).id
