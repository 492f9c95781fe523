"""Point-in-time training sets: nothing that had not arrived, nothing stale, row by row as a naive loop has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_kit import AGGREGATES, definition, event_table, naive, over_events, unregistered

from rlaas.errors import InvalidInputError, NotFoundError
from rlaas.lake import Lake
from rlaas.lake.features import training_set, training_sets, write_training_set

SECOND = 1_000_000
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 40).map(lambda s: s * SECOND),
        st.integers(0, 60).map(lambda s: s * SECOND),  # before it happened, too: the clocks of two machines
        st.one_of(st.none(), st.integers(-3, 3).map(float)),
    ),
    max_size=50,
)
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(-5, 70)), min_size=1, max_size=30)


def _rows(rows: list[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {"cell": [name for name, _ in rows], "time_us": pa.array([t * SECOND for _, t in rows], pa.int64())}
    )


@settings(max_examples=60)
@given(events=EVENTS, rows=ROWS, parts=st.integers(1, 3))
def test_values_are_those_of_a_naive_loop(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], rows: list[Any], parts: int
) -> None:
    folder = tmp_path_factory.mktemp("pit")
    pq.write_table(event_table(events), folder / "events.parquet")
    features = [over_events(folder, aggregate, ttl_s=20) for aggregate in AGGREGATES]
    features += [over_events(folder, aggregate, 7.0, ttl_s=20) for aggregate in AGGREGATES[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_sets, "_PART_ROWS", max(1, len(rows) // parts))
        found, report = training_set(Lake(folder / "lake"), unregistered(*features), _rows(rows))
    for place, (entity, time) in enumerate(rows):
        for feature in features:
            expected = naive(feature, events, entity, time * SECOND)
            fresh = expected is not None and time * SECOND - expected[1] <= feature.ttl_us
            assert found[feature.name][place].as_py() == (expected[0] if expected and fresh else None)
    assert found.select(["cell", "time_us"]).equals(_rows(rows))
    assert report.rows == len(rows)
    for feature in features:
        assert report.features[f"{feature.name}@1"]["unknown"] == found[feature.name].null_count


def test_last_values_are_those_of_pandas(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    n, m = 20_000, 30_000
    # No two at one time: pandas takes the order of the rows there.
    times = np.sort(rng.choice(10**9, n, replace=False))
    events = pd.DataFrame({"cell": rng.integers(0, 50, n).astype(str), "time_us": times, "load": rng.normal(size=n)})
    rows = pd.DataFrame({"cell": rng.integers(0, 55, m).astype(str), "time_us": np.sort(rng.integers(0, 10**9, m))})
    theirs = pd.merge_asof(rows, events, on="time_us", by="cell", tolerance=5 * SECOND)
    pq.write_table(pa.Table.from_pandas(events.assign(arrived_us=times)), tmp_path / "events.parquet")
    feature = over_events(tmp_path, "last", ttl_s=5, name="ours")
    found, _ = training_set(Lake(tmp_path / "lake"), unregistered(feature), pa.Table.from_pandas(rows))
    np.testing.assert_array_equal(found["ours"].to_numpy(zero_copy_only=False), theirs["load"].to_numpy())


def test_a_value_that_arrives_later_is_not_seen_before(tmp_path: Path) -> None:
    events = [("a", 10 * SECOND, 10 * SECOND, 1.0), ("a", 5 * SECOND, 30 * SECOND, 100.0)]
    pq.write_table(event_table(events), tmp_path / "events.parquet")
    late = {"path": str(tmp_path), "entity": "cell", "arrived": "arrived_us", "delay_s": 5}
    features = [
        over_events(tmp_path, "sum"),
        definition("delayed", source=late, value="load", transformation={"aggregate": "sum"}),
    ]
    rows = _rows([("a", 9), ("a", 10), ("a", 15), ("a", 29), ("a", 30), ("a", 35)])
    found, _ = training_set(Lake(tmp_path / "lake"), unregistered(*features), rows)
    assert found["sum"].to_pylist() == [None, 1.0, 1.0, 1.0, 101.0, 101.0]
    assert found["delayed"].to_pylist() == [None, None, 1.0, 1.0, 1.0, 101.0]


def test_a_file_of_rows_becomes_a_file_with_types_defaults_and_provenance(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(event_table([("1", SECOND, SECOND, 2.0), ("1", 2 * SECOND, 2 * SECOND, 4.0)]), source / "e.parquet")
    features = unregistered(
        over_events(source, "count", type="int", default=0),
        over_events(source, "max", type="bool"),
        over_events(source, "mean"),
    )
    rows = tmp_path / "rows.csv"
    rows.write_text("cell,when,label\n1,1970-01-01T00:00:03,x\n2,1970-01-01T00:00:03,y\n")
    report = write_training_set(Lake(tmp_path / "lake"), features, rows, tmp_path / "out" / "set.parquet", time="when")
    found = pq.read_table(tmp_path / "out" / "set.parquet")
    assert found.drop_columns(["when"]).to_pydict() == {
        "cell": [1, 2],
        "label": ["x", "y"],
        "count": [2, 0],
        "max": [True, None],
        "mean": [3.0, None],
    }
    assert report.features == {key: {"unknown": 1, "stale": 0} for key in ("count@1", "max@1", "mean@1")}
    about = json.loads(found.schema.metadata[b"rlaas.features"])
    assert about["features"] == ["count@1", "max@1", "mean@1"]
    assert list(about["sources"]) == [str(source)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set.parquet"]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"user": ["a"], "time_us": [1]}, "cell"),
        ({"cell": ["a"], "when": [1]}, "time_us"),
        ({"cell": ["a"], "time_us": [1], "sum": [1]}, "sum"),
        ({"cell": [0.5], "time_us": [1]}, "not whole"),
        ({"cell": ["a"], "time_us": ["x"]}, "microseconds"),
        ({"cell": ["a"], "time_us": pa.array([None], pa.int64())}, "row 0"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(tmp_path: Path, columns: dict[str, Any], complaint: str) -> None:
    pq.write_table(event_table([]), tmp_path / "events.parquet")
    with pytest.raises(ValueError, match=complaint):
        training_set(Lake(tmp_path / "lake"), unregistered(over_events(tmp_path, "sum")), pa.table(columns))


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    features = unregistered(definition())
    with pytest.raises(NotFoundError, match="there is no such file"):
        write_training_set(Lake(tmp_path / "lake"), features, tmp_path / "none.parquet", tmp_path / "out.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        write_training_set(Lake(tmp_path / "lake"), features, tmp_path / "text.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
