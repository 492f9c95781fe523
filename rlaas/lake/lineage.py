"""What came from what: a graph of named things, walked both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlaas.errors import InvalidInputError, NotFoundError, check_choice

__all__ = ["KINDS", "Edge", "Graph", "Node", "Step", "parse_name", "tree_lines"]

Direction = Literal["from", "to"]

KINDS = (
    "dataset",
    "decision",
    "decisions",
    "experiment",
    "feature",
    "front",
    "gate",
    "policy",
    "rollout",
    "run",
    "table",
)


@dataclass(frozen=True, slots=True)
class Node:
    """A thing that data flows through.

    Attributes:
        kind: one of :data:`KINDS`.
        name: of the thing, with its version where it has some: ``network5g@3``.
        facts: what is worth knowing at a glance.
    """

    kind: str
    name: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        """``kind:name``."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """Something that went from one node into another; ``relation`` reads from the latter: "trained on"."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True)
class Step:
    """A node met on a walk.

    Attributes:
        node: the node.
        depth: from the start, which has none.
        relation: of the edge that led here.
        seen: it was met before, and is not gone on from again.
    """

    node: Node
    depth: int
    relation: str
    seen: bool


class Graph:
    """Nodes and edges; adding what is there already does nothing."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._sources: dict[str, dict[str, str]] = {}
        self._targets: dict[str, dict[str, str]] = {}

    def add(self, node: Node) -> Node:
        """Add a node; facts of one that is there already are completed."""
        known = self._nodes.get(node.id)
        kept = node if known is None else Node(node.kind, node.name, {**known.facts, **node.facts})
        self._nodes[node.id] = kept
        return kept

    def link(self, source: Node, target: Node, relation: str) -> None:
        """Say that ``source`` went into ``target``."""
        self.add(source)
        self.add(target)
        self._sources.setdefault(target.id, {}).setdefault(source.id, relation)
        self._targets.setdefault(source.id, {}).setdefault(target.id, relation)

    def get(self, node_id: str) -> Node:
        """A node by id.

        Raises:
            NotFoundError: there is none; names some that there are.
        """
        found = self._nodes.get(node_id)
        if found is None:
            kind = node_id.partition(":")[0]
            others = sorted(other for other in self._nodes if other.startswith(f"{kind}:"))
            listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            raise NotFoundError(f"no {node_id[:120]!r} in the lineage; known: {listed or '(none)'}", field="name")
        return found

    def nodes(self, kind: str | None = None) -> list[Node]:
        """Every node (of a kind), by id."""
        return [node for _, node in sorted(self._nodes.items()) if kind is None or node.kind == kind]

    def edges(self) -> list[Edge]:
        """Every edge, by source and target."""
        return [
            Edge(source, target, relation)
            for source, targets in sorted(self._targets.items())
            for target, relation in sorted(targets.items())
        ]

    def neighbours(self, node_id: str, direction: Direction) -> list[tuple[Node, str]]:
        """What went into a node (``from``), or what it went into (``to``), with the relation."""
        found = (self._sources if direction == "from" else self._targets).get(node_id, {})
        return [(self._nodes[other], relation) for other, relation in found.items()]

    def walk(self, start: str, direction: Direction, *, depth: int | None = None) -> Iterator[Step]:
        """The start and everything behind it, depth first; each node is gone on from once.

        Args:
            start: id of a node.
            direction: ``from`` for what it came from, ``to`` for what came from it.
            depth: edges away at most; default all.

        Raises:
            NotFoundError: there is no such node.
        """
        seen: set[str] = set()
        stack = [(self.get(start), 0, "")]
        while stack:
            node, level, relation = stack.pop()
            known = node.id in seen
            yield Step(node, level, relation, known)
            seen.add(node.id)
            if known or (depth is not None and level >= depth):
                continue
            stack += [(other, level + 1, how) for other, how in reversed(self.neighbours(node.id, direction))]

    def part(self, start: str) -> Graph:
        """The graph of all that a node came from and that came from it."""
        reached = {step.node.id for way in ("from", "to") for step in self.walk(start, way)}
        some = Graph()
        for edge in self.edges():
            if edge.source in reached and edge.target in reached:
                some.link(self._nodes[edge.source], self._nodes[edge.target], edge.relation)
        some.add(self.get(start))
        return some

    def to_dict(self) -> dict[str, Any]:
        """Nodes and edges as plain JSON types."""
        return {
            "nodes": [{"id": n.id, "kind": n.kind, "name": n.name, "facts": dict(n.facts)} for n in self.nodes()],
            "edges": [{"source": e.source, "target": e.target, "relation": e.relation} for e in self.edges()],
        }

    def to_dot(self) -> str:
        """The graph for Graphviz."""
        lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box, fontname=sans];"]
        lines += [f"  {_quoted(node.id)};" for node in self.nodes()]
        lines += [f"  {_quoted(e.source)} -> {_quoted(e.target)} [label={_quoted(e.relation)}];" for e in self.edges()]
        return "\n".join([*lines, "}"]) + "\n"


def parse_name(text: str) -> tuple[str, str, str | None]:
    """Kind, name and version of what a caller names: ``policy:network5g@3``; a name without a kind is a decision's.

    Raises:
        InvalidInputError: nothing, or a kind that there is not.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        kind, rest = ("table" if "." in text.partition("@")[0] else "decision"), text
    check_choice(kind, KINDS, field="kind", error=InvalidInputError)
    name, _, version = rest.rpartition("@") if "@" in rest else (rest, "", "")
    if not name:
        raise InvalidInputError("name something: policy:NAME@VERSION, table@VERSION, front:SCENARIO, ...", field="name")
    return kind, name, version or None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def tree_lines(steps: Sequence[Step]) -> list[str]:
    """A walk as an indented list, for a person."""
    lines = []
    for step in steps:
        facts = ", ".join(f"{name} {value}" for name, value in step.node.facts.items())
        how = f" ({step.relation})" if step.relation else ""
        again = " ..." if step.seen else ""
        lines.append(
            f"{'  ' * step.depth}{step.node.id}{how}{f'  [{facts}]' if facts and not step.seen else ''}{again}"
        )
    return lines
