"""Reads the lineage of an installation from where it is recorded: the lake, the registry and the state database.

Nothing is recorded for the lineage alone. The versions of tables that a policy was made from are tags of its version,
or stand in its bundle; how far the join had read is in the transactions of ``silver.transitions``; who decided stands
in the row of the decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from sqlalchemy.engine import make_url

from rlaas.control.experiments.store import ExperimentStore
from rlaas.control.gating.store import GateStore
from rlaas.control.rollouts.store import RolloutStore
from rlaas.control.state import StateDatabase
from rlaas.errors import LakeError, NotFoundError
from rlaas.lake import TABLES, Lake
from rlaas.lake.datasets import datasets
from rlaas.lake.features import FeatureStore
from rlaas.lake.lineage import Graph, Node
from rlaas.registry import FrontStore, PolicyVersion, Registry
from rlaas.settings import Settings

__all__ = ["Collector", "policy_node", "table_node", "trained_versions"]

DECISIONS = "bronze.decisions"
_JOINED = {"bronze.decisions": "decisions", "bronze.outcomes": "outcomes"}
_SILVER = "silver.transitions"
_RUNS = {"pipeline_run": "made by pipeline", "training_run": "trained in"}


def policy_node(name: str, version: int | str, **facts: Any) -> Node:
    """A version of a policy."""
    return Node("policy", f"{name}@{version}", facts)


def table_node(table: str, version: int, **facts: Any) -> Node:
    """A version of a table."""
    return Node("table", f"{table}@{version}", facts)


def trained_versions(version: PolicyVersion) -> dict[str, tuple[int, str]]:
    """Delta versions by table that a policy was made from, and how.

    ``lake_versions`` of a training on the simulator says what the lake was then, and not that it was learnt from.
    """
    tags = version.tags
    pinned = _json(tags.get("lake_versions"))
    relation = "pinned by the pipeline" if "stage_keys" in tags else "lake at the time of training"
    found = {str(table): (int(number), relation) for table, number in pinned.items()}
    table, number = tags.get("lineage.table"), tags.get("lineage.table_version")
    if table is not None and number is not None:
        found[table] = (int(number), "trained on")
    return found


class Collector:
    """Collects the graph of one installation.

    Args:
        settings: name the lake, the registry and the state database.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = Lake(settings.lake_root, settings.tenant)
        self._registry = Registry(settings)
        self._state = StateDatabase(settings.state_database)
        self._tenant = settings.tenant
        self._known: dict[str, set[int]] = {}

    def collect(self) -> Graph:
        """The graph, without single decisions: there are too many of them.

        Raises:
            RlaasError: the registry, the state database or a table cannot be read.
        """
        graph = Graph()
        for name in self._registry.names():
            for version in self._registry.versions(name):
                self._policy(graph, version)
        self._fronts(graph)
        self._experiments(graph)
        self._gates_and_rollouts(graph)
        for table, newest in self._lake.versions().items():
            self._known.setdefault(table, set()).add(newest)
        self._datasets(graph)
        self._features(graph)
        self._joins(graph)
        self._growth(graph)
        self._decided(graph)
        return graph

    def ask_for_version(self, table: str, version: int) -> None:
        """Have a version of a table in the graph, whether somebody used it or not; call it before :meth:`collect`.

        Raises:
            ConfigurationError: unknown table.
            NotFoundError: there is no such version.
        """
        if self._lake.open(table, version=version) is None:
            raise NotFoundError(f"table {table} holds nothing yet", field="name")
        self._known.setdefault(table, set()).add(version)

    def attach_decision(self, graph: Graph, decision_id: str) -> Node:
        """Put a decision into the graph: who made it, for which experiment, where it is recorded, and its outcome.

        Raises:
            NotFoundError: there is no such decision in the lake.
        """
        rows = self._lake.read(DECISIONS, _ROW, filter=pc.field("decision_id") == decision_id).to_pylist()
        if not rows:
            raise NotFoundError(f"no decision {decision_id[:80]!r} in {DECISIONS}", field="name")
        return self._decision(graph, rows[0])

    def sample_decisions(self, graph: Graph, policy: str, version: int, most: int) -> list[Node]:
        """Put the newest decisions of a policy's version into the graph."""
        mine = (pc.field("policy") == policy) & (pc.field("version") == version)
        rows = self._lake.read(DECISIONS, _ROW, filter=mine)
        newest = rows.take(pc.select_k_unstable(rows, min(most, rows.num_rows), [("time_us", "descending")]))
        return [self._decision(graph, row) for row in newest.to_pylist()]

    def _policy(self, graph: Graph, version: PolicyVersion) -> None:
        node = policy_node(
            version.name, version.version, created=_time(version.created_us), aliases=",".join(version.aliases) or "-"
        )
        graph.add(node)
        for table, (number, relation) in trained_versions(version).items():
            graph.link(table_node(table, number), node, relation)
            self._known.setdefault(table, set()).add(number)
        for dataset in json.loads(version.tags.get("datasets", "[]")):
            graph.link(Node("dataset", dataset), node, "pinned by the pipeline")
        parent = version.tags.get("parent_version")
        if parent is not None:
            graph.link(policy_node(version.name, parent), node, "held against")
        for tag, relation in _RUNS.items():
            if version.tags.get(tag):
                graph.link(Node("run", version.tags[tag]), node, relation)

    def _fronts(self, graph: Graph) -> None:
        store = FrontStore(self._registry)
        stored, _ = store.all()
        for front in stored:
            node = Node(
                "front",
                f"{front.scenario}@{front.front.version}",
                {"label": front.label, "candidates": len(front.front.candidates)},
            )
            graph.add(node)
            if front.policy_version is not None:
                graph.link(node, policy_node(front.scenario, front.policy_version), "chosen from")

    def _experiments(self, graph: Graph) -> None:
        for stored in ExperimentStore(self._state, self._tenant).all():
            document = stored.document
            verdict = stored.verdict or {}
            facts = {"state": str(stored.state), **({"verdict": verdict["decision"]} if "decision" in verdict else {})}
            node = Node("experiment", document.id, facts)
            graph.add(node)
            for variant in document.variants:
                graph.link(policy_node(document.policy, variant.version), node, f"variant {variant.name}")

    def _gates_and_rollouts(self, graph: Graph) -> None:
        gates, rollouts = GateStore(self._state, self._tenant), RolloutStore(self._state, self._tenant)
        for name in self._registry.names():
            for number, event in gates.events(name):
                if event.version is not None:
                    node = Node("gate", f"{name}#{number}", {"event": event.kind, "at": _time(event.time_us)})
                    graph.link(policy_node(name, event.version), node, "judged")
            for rollout, _ in rollouts.history(name):
                node = Node("rollout", f"{name}#{rollout.number}", {"state": str(rollout.state)})
                graph.link(policy_node(name, rollout.target.version), node, "rolled out")

    def _datasets(self, graph: Graph) -> None:
        for record in datasets(self._lake):
            facts = {"rows": record.rows, **({} if record.gone is None else {"gone": record.gone})}
            node = Node("dataset", record.name, facts)
            graph.link(table_node(record.table, record.version), node, "rows of")
            self._known.setdefault(record.table, set()).add(record.version)
            if record.replaces is not None:
                graph.link(Node("dataset", record.replaces), node, "without erased rows of")

    def _features(self, graph: Graph) -> None:
        """Features, what they are computed from, and whose observations they fill."""
        url = make_url(self._settings.features_database)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return  # there are none, and to look at the lineage makes no database
        for feature in FeatureStore(self._settings.features_database, self._tenant).features():
            node = Node("feature", feature.key, {"entity": feature.definition.entity})
            graph.add(node)
            source = feature.definition.source.table
            newest = None if source is None else self._lake.version(source)
            if source is not None and newest is not None:
                graph.link(table_node(source, newest), node, "computed from")
        for record in self._state.deployments(self._tenant):
            for key in (record.features or {}).values():
                for variant in record.variants:
                    graph.link(Node("feature", key), policy_node(record.policy, variant.version), "filled observations")

    def _joins(self, graph: Graph) -> None:
        """How far ``bronze`` had been read when a version of ``silver.transitions`` was written."""
        for version in sorted(self._known.get(_SILVER, ())):
            delta = self._open(_SILVER, version)
            for table, stream in _JOINED.items() if delta is not None else ():
                read = delta.transaction_version(f"rlaas/{self._tenant}/join/{stream}")  # type: ignore[union-attr]
                if read is not None and read >= 0:
                    graph.link(table_node(table, int(read)), table_node(_SILVER, version), "joined into")
                    self._known.setdefault(table, set()).add(int(read))

    def _growth(self, graph: Graph) -> None:
        """What was in a version is in the next one as well."""
        for table, versions in self._known.items():
            ordered = sorted(versions)
            for earlier, later in pairwise(ordered):
                graph.link(table_node(table, earlier), table_node(table, later), "grew into")
            graph.add(table_node(table, ordered[-1]))

    def _decided(self, graph: Graph) -> None:
        """Which policies' decisions a version of ``bronze.decisions`` brought."""
        before: dict[tuple[str, int], int] = {}
        files: frozenset[str] = frozenset()
        for version in sorted(self._known.get(DECISIONS, ())):
            delta = self._open(DECISIONS, version)
            if delta is None:
                continue
            now = frozenset(delta.file_uris())
            counted = dict(before) if files <= now else {}
            for policy, number, experiment, rows in self._count(delta, None if not counted else now - files):
                counted[policy, number] = counted.get((policy, number), 0) + rows
                if experiment is not None:
                    graph.link(Node("experiment", experiment), Node("decisions", f"{policy}@{number}"), "drew")
            for (policy, number), rows in counted.items():
                group = Node("decisions", f"{policy}@{number}", {"rows": rows})
                graph.link(policy_node(policy, number), group, "decided")
                if rows > before.get((policy, number), 0):
                    graph.link(group, table_node(DECISIONS, version), "recorded in")
            before, files = counted, now

    def _count(self, delta: DeltaTable, only: frozenset[str] | None) -> Iterator[tuple[str, int, str | None, int]]:
        """Rows by policy, version and experiment; of some files only, where those before are counted."""
        if only is None:
            parts = [self._lake.read_open(TABLES[DECISIONS], delta, columns=_MADE_BY)]
        else:
            mine = [uri for uri in sorted(only) if f"/tenant={self._tenant}/" in uri]
            parts = [_columns(uri, _MADE_BY) for uri in mine]
        for part in parts:
            for row in part.group_by(_MADE_BY).aggregate([([], "count_all")]).to_pylist():
                yield row["policy"], int(row["version"]), row["experiment"], int(row["count_all"])

    def _decision(self, graph: Graph, row: Mapping[str, Any]) -> Node:
        node = Node("decision", row["decision_id"], {"at": _time(row["time_us"]), "variant": row["variant"]})
        graph.link(policy_node(row["policy"], row["version"]), node, "decided by")
        if row["experiment"] is not None:
            graph.link(Node("experiment", row["experiment"]), node, "drawn by")
        mine = pc.field("decision_id") == row["decision_id"]
        for version in sorted(self._known.get(DECISIONS, ())):
            delta = self._open(DECISIONS, version)
            dated = mine & (pc.field("date") == row["date"])
            if delta is not None and self._lake.read_open(TABLES[DECISIONS], delta, columns=["date"], filter=dated):
                graph.link(node, table_node(DECISIONS, version), "recorded in")
                break
        return node

    def _open(self, table: str, version: int) -> DeltaTable | None:
        """A version of a table, or None where its files or its log are gone."""
        try:
            return self._lake.open(table, version=version)
        except (LakeError, NotFoundError, DeltaError):
            return None


_MADE_BY = ["policy", "version", "experiment"]
_ROW = ["decision_id", "time_us", "date", "policy", "version", "variant", "experiment"]


def _columns(uri: str, names: list[str]) -> pa.Table:
    base, path = pa_fs.FileSystem.from_uri(uri)
    with base.open_input_file(path) as file:
        return pq.ParquetFile(file).read(names)


def _json(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
