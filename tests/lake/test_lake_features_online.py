"""The online store holds, for every entity, the newest value of the offline one: whatever happened in between."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support.feature_kit import AGGREGATES, Event, event_table, naive, over_events, registered
from support.lake_records import decision

from rlaas.errors import ConfigurationError, LakeError, NotFoundError
from rlaas.lake import Lake
from rlaas.lake.features import (
    FeatureStore,
    FeatureVersion,
    definitions,
    load_features,
    materialization,
    materialize,
    training_set,
)
from rlaas.lake.rows import decision_rows
from rlaas.lake.schemas import table_spec

CHILD = Path(__file__).with_name("features_children.py")
NOW = 10**12


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(f"sqlite:///{tmp_path / 'features.db'}")


def _features(store: FeatureStore, path: Path) -> list[FeatureVersion]:
    plain = [over_events(path, aggregate) for aggregate in AGGREGATES]
    return registered(store, *plain, *(over_events(path, aggregate, 100.0) for aggregate in AGGREGATES[1:]))


def _events(rng: np.random.Generator, count: int) -> list[Event]:
    times = rng.integers(0, 1_000_000_000, count)
    arrived = times + rng.integers(-10, 300_000_000, count)
    values = [
        None if draw < 0.1 else float(value)
        for draw, value in zip(rng.random(count), rng.normal(size=count), strict=True)
    ]
    return [
        (f"c{rng.integers(0, 12)}", int(time), int(come), value)
        for time, come, value in zip(times, arrived, values, strict=True)
    ]


def check_in_step(
    store: FeatureStore, lake: Lake, features: list[FeatureVersion], events: list[Event] | None = None
) -> int:
    """Online is the newest offline value of every entity, bit for bit, and both are what a naive computation says."""
    entities = [f"c{i}" for i in range(20)] + [f"d{i}" for i in range(5)]
    rows = pa.table({"cell": entities, "time_us": pa.array([NOW] * len(entities), pa.int64())})
    offline, _ = training_set(lake, features, rows)
    online = store.values(entities, [feature.key for feature in features])
    for feature in features:
        for entity, value in zip(entities, offline[feature.definition.name].to_pylist(), strict=True):
            stored = online.get((entity, feature.key))
            assert (None if stored is None else stored.value) == value, (feature.key, entity)
            if events is not None:
                expected = naive(feature.definition, events, entity, NOW)
                assert (None if stored is None else (stored.value, stored.time_us)) == expected
    return len(online)


@pytest.mark.parametrize("seed", range(4))
def test_online_is_the_newest_offline_value_after_any_interleaving(
    store: FeatureStore, lake: Lake, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "events"
    here: list[Event] = _events(rng, 5)
    write_deltalake(str(path), event_table(here))
    features = _features(store, path)
    for _ in range(12):
        what = rng.choice(
            ["append", "append", "append", "compact", "rewrite", "delete", "vacuum", "materialize", "one"]
        )
        if what == "append":
            fresh = _events(rng, int(rng.integers(1, 60)))
            # The same event once more is another event.
            fresh += fresh[:1]
            here += fresh
            write_deltalake(str(path), event_table(fresh), mode="append")
        elif what == "compact":
            DeltaTable(str(path)).optimize.compact()
        elif what == "rewrite":
            here = [(f"d{event[0][1:]}" if rng.random() < 0.1 else event[0], *event[1:]) for event in here]
            here = [event for event in here if rng.random() < 0.95]
            write_deltalake(str(path), event_table(here), mode="overwrite")
        elif what == "delete":
            DeltaTable(str(path)).delete("cell = 'c3'")
            here = [event for event in here if event[0] != "c3"]
        elif what == "vacuum":
            DeltaTable(str(path)).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        else:
            materialize(store, lake, None if what == "materialize" else [features[int(rng.integers(len(features)))]])
    materialize(store, lake)
    assert check_in_step(store, lake, features, here) > 0


def test_a_process_killed_at_any_statement_leaves_all_of_a_step_or_nothing(
    store: FeatureStore, lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table(_events(np.random.default_rng(1), 50)))
    features = registered(store, over_events(path, "mean", 100.0), over_events(path, "last"))
    materialize(store, lake)
    store.close()
    command = [sys.executable, str(CHILD), str(tmp_path / "features.db"), lake.root, str(path), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 2  # killed behind the commit: all of the step is there
    materialize(store, lake)
    assert check_in_step(store, lake, features) >= 40


def test_only_what_changed_is_read(store: FeatureStore, lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table([("a", 1, 1, 1.0), ("b", 1, 1, 1.0)]))
    (feature,) = registered(store, over_events(path, "sum"))
    (first,) = materialize(store, lake)
    assert (first.events, first.entities, first.rebuilt) == (2, 2, True)
    assert materialize(store, lake)[0].events == 0
    write_deltalake(str(path), event_table([("b", 2, 2, 5.0)]), mode="append")
    (second,) = materialize(store, lake)
    assert (second.events, second.entities, second.rebuilt) == (1, 1, False)
    DeltaTable(str(path)).optimize.compact()
    (third,) = materialize(store, lake)
    assert (third.events, third.rebuilt) == (0, False)
    assert store.values(["b"], [feature.key])["b", feature.key].value == 6.0


def test_the_lakes_own_tables_are_sources_of_one_tenant(store: FeatureStore, lake: Lake) -> None:
    feature = definitions.FeatureDefinition.model_validate(
        {
            "name": "load",
            "entity": "cell",
            "source": {"table": "bronze.decisions", "entity": "context.cell", "where": "policy == 'toy' and step >= 1"},
            "value": "observation[1] + context.load",
            "transformation": {"aggregate": "sum"},
            "ttl_s": 60,
            "owner": "tests",
        }
    )
    (registered_feature,) = registered(store, feature)
    assert materialize(store, lake)[0].events == 0  # nobody has decided anything yet
    for tenant, load in (("default", 1.0), ("other", 100.0)):
        records = [
            decision(
                f"{tenant}-{i}",
                tenant=tenant,
                policy="toy" if i else "box",
                step=i,
                observation=[0.0, 10.0],
                context={"cell": f"c-{i % 2}", "load": load},
            )
            for i in range(5)
        ]
        Lake(lake.root, tenant).append_once("bronze.decisions", {tenant: [(1, lambda r=records: decision_rows(r))]})
    assert materialize(store, lake)[0].events == 4
    found = store.values(["c-0", "c-1"], [registered_feature.key])
    assert [found[entity, "load@1"].value for entity in ("c-0", "c-1")] == [22.0, 22.0]


def test_files_that_change_are_read_again(store: FeatureStore, lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    pq.write_table(event_table([("a", 1, 1, 1.0)]), folder / "1.parquet")
    (feature,) = registered(store, over_events(folder, "sum"))
    materialize(store, lake)
    pq.write_table(event_table([("a", 2, 2, 2.0)]), folder / "2.parquet")
    (added,) = materialize(store, lake)
    assert (added.events, added.rebuilt) == (1, False)
    pq.write_table(event_table([("b", 1, 1, 10.0), ("b", 1, 1, 10.0)]), folder / "1.parquet")
    (changed,) = materialize(store, lake)
    assert changed.rebuilt
    values = {entity: one.value for (entity, _), one in store.values(["a", "b"], [feature.key]).items()}
    assert values == {"a": 2.0, "b": 20.0}
    shutil.rmtree(folder)
    with pytest.raises(NotFoundError, match="no such file"):
        materialize(store, lake)


def test_two_processes_do_not_feed_the_same_rows_twice(
    store: FeatureStore, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table([("a", 1, 1, 1.0)]))
    (feature,) = registered(store, over_events(path, "sum"))
    opened = materialization.open_source
    others = 0

    def after_another(*arguments: Any) -> Any:
        nonlocal others
        found = opened(*arguments)
        if others < 2:  # between the look and the transaction somebody else does the same
            others += 1
            materialize(store, lake)
        return found

    monkeypatch.setattr(materialization, "open_source", after_another)
    materialize(store, lake)
    assert others == 2
    assert store.values(["a"], [feature.key])["a", feature.key].value == 1.0


def test_a_source_that_lacks_a_column_is_refused_and_nothing_is_remembered(
    store: FeatureStore, lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table([("a", 1, 1, 1.0)]).drop_columns(["load"]))
    registered(store, over_events(path, "sum"))
    with pytest.raises(ConfigurationError, match="load"):
        materialize(store, lake)
    assert store.progress() == {}


def test_a_damaged_file_is_no_fault_of_the_caller(store: FeatureStore, lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table([("a", 1, 1, 1.0)]))
    registered(store, over_events(path, "sum"))
    for file in path.glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(LakeError, match="damaged"):
        materialize(store, lake)


def test_of_an_entity_that_is_forgotten_no_byte_is_left(store: FeatureStore, lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "events"
    names = [f"cell-{i}" for i in range(200)] + ["a-person-to-forget"]
    write_deltalake(str(path), event_table([(name, 1, 1, 1.0) for name in names]))
    features = _features(store, path)
    materialize(store, lake)
    files = [tmp_path / "features.db", tmp_path / "features.db-wal"]
    assert any(b"a-person-to-forget" in file.read_bytes() for file in files)
    assert store.forget(["a-person-to-forget"]) == len(features)
    assert not any(b"a-person-to-forget" in file.read_bytes() for file in files if file.exists())
    assert len(store.values(names, [features[0].key])) == 200
    # Rows that leave the source take the values of their entity along.
    DeltaTable(str(path)).delete("cell = 'cell-7'")
    materialize(store, lake)
    assert ("cell-7", features[0].key) not in store.values(names, [features[0].key])


def test_a_source_that_is_rewritten_while_it_is_read_is_read_again(
    store: FeatureStore, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    for value in (1.0, 2.0):
        write_deltalake(str(path), event_table([("a", 1, 1, value)]), mode="append")
    (feature,) = registered(store, over_events(path, "sum"))
    opened = materialization.open_source
    turns = 0

    def then_compacted(*arguments: Any) -> Any:
        nonlocal turns
        found = opened(*arguments)
        turns += 1
        if turns == 1:
            table = DeltaTable(str(path))
            table.optimize.compact()
            table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        return found

    monkeypatch.setattr(materialization, "open_source", then_compacted)
    assert [one.events for one in materialize(store, lake)] == [2]
    assert turns == 2
    assert store.values(["a"], [feature.key])["a", feature.key].value == 3.0


def test_a_stream_of_events_is_a_source_like_any_other(store: FeatureStore, lake: Lake, repository: Path) -> None:
    features = registered(store, *load_features(repository / "configs" / "features" / "network5g.yaml").features)
    spec = table_spec("bronze.events")
    minute = 60_000_000

    def rows() -> pa.Table:
        # The report of minute 3 comes after that of minute 4; that of minute 0 has left the window then.
        said = [("c-1", 0, 0, 0.9), ("c-1", 4, 4, 0.5), ("c-1", 5, 5, 0.25), ("c-1", 3, 6, 0.75), ("c-2", 5, 5, None)]
        made = [
            {
                **{column.name: "" for column in spec.schema if column.type == pa.string()},
                "tenant": "default",
                "date": "1970-01-01",
                "receipt_id": str(place),
                "source": "5g-network-events",
                "entity": cell,
                "time_us": time * minute,
                "received_us": come * minute,
                "values": [] if load is None else [("load", load)],
                "schema_version": 1,
            }
            for place, (cell, time, come, load) in enumerate(said)
        ]
        return pa.Table.from_pylist(made, schema=spec.schema)

    lake.append_once("bronze.events", {"tests": [(1, rows)]})
    materialize(store, lake)
    key = next(feature.key for feature in features if feature.definition.name == "cell_reported_load_5m")
    found = store.values(["c-1", "c-2"], [key])
    assert found == {("c-1", key): ((0.5 + 0.25 + 0.75) / 3, 5 * minute, 6 * minute)}
    asked = pa.table({"cell": ["c-1"] * 4, "time_us": pa.array([3 * minute, 4 * minute, 5 * minute, 6 * minute])})
    streamed = [feature for feature in features if feature.key == key]
    offline, _ = training_set(lake, streamed, asked)
    assert offline["cell_reported_load_5m"].to_pylist() == [0.9, 0.7, 0.375, 0.5]


def test_a_source_that_is_gone_holds_up_its_own_features_only(store: FeatureStore, lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "events"
    write_deltalake(str(path), event_table([("a", 1, 1, 1.0)]))
    _, _, kept = registered(
        store, over_events(tmp_path / "gone", "sum"), over_events(tmp_path / "gone", "max"), over_events(path, "last")
    )
    with pytest.raises(NotFoundError, match="gone"):
        materialize(store, lake)
    assert store.progress().keys() == {kept.key}
    assert store.values(["a"], [kept.key])["a", kept.key].value == 1.0
