"""Definitions, their versions, expressions, reading online values, and summaries."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.feature_kit import definition, event_table, over_events, registered, unregistered

from rlaas.errors import ConfigurationError, InvalidInputError, NotFoundError, RetryableError
from rlaas.lake import Lake
from rlaas.lake.features import (
    FeatureStore,
    OnlineFeatures,
    load_features,
    materialize,
    summarize,
    summarize_values,
)
from rlaas.lake.features.expressions import Expression

SECOND = 1_000_000
TABLE = pa.table(
    {
        "a": pa.array([1, None, 3], pa.int32()),
        "flag": [True, False, None],
        "name": pa.array(["x", "y", None]),
        "list": pa.array([[1.0, 2.0], [3.0], None]),
        "map": pa.array([[("k-1", 5.0)], [("other", 6.0)], None], pa.map_(pa.string(), pa.float64())),
        "struct": pa.array([{"b": 1.5}, {"b": None}, None]),
        "json": ['{"cell": "c-1", "load": 0.5, "deep": [{"n": 7}]}', "no json", None],
    }
)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(f"sqlite:///{tmp_path / 'features.db'}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [1, None, 3]),
        ("-a * 2 + 1 / 4", [-1.75, None, -5.75]),
        ("flag", [1, 0, None]),
        ("list[1]", [2, None, None]),
        ("map['k-1'] ** 2", [25, None, None]),
        ("struct.b", [1.5, None, None]),
        ("json.load", [0.5, None, None]),
        ("json.deep[0].n", [7, None, None]),
        ("maximum(a, 2)", [2, None, 3]),
        ("log(a - 1)", [-np.inf, None, np.log(2)]),
        ("a > 2", [0, None, 1]),
        ("name == 'x'", [1, 0, None]),
        ("name != 'x' and a >= 0", [0, 0, 0]),
        ("not a == 3 or flag", [1, 0, 0]),
        ("json.cell == 'c-1'", [1, None, None]),
    ],
)
def test_expressions(text: str, expected: list[float | None]) -> None:
    found = Expression(text, field="value").numbers(TABLE)
    assert [None if np.isnan(value) else value for value in found.tolist()] == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no expression"),
        ("a +", "no expression"),
        ("__import__('os')", "not allowed"),
        ("a.b()", "not allowed"),
        ("[x for x in a]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("a < 1 < 2", "not allowed"),
        ("a % 2", "not allowed"),
        ("log(a, 2)", "takes 1"),
        ("a" * 1001, "at most 1000"),
        ("(" * 300 + "a" + ")" * 300, "no expression"),
        ("unknown", "allowed: a, flag"),
        ("name", "is a text"),
        ("name + 1", "computes with a text"),
        ("name > 'x'", "for order"),
        ("name == 1", "compares a text with a number"),
        ("a.b", "has no part 'b'"),
        ("list", "allowed: numbers"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Expression(text, field="value").numbers(TABLE)


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_clear_refusal(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert Expression(text, field="value").numbers(TABLE).shape == (3,)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"value": None}, "value is needed by last"),
        ({"value": "1 +"}, "no expression"),
        ({"transformation": {"window_s": 5}}, "window_s does nothing"),
        ({"transformation": {"aggregate": "median"}}, "aggregate"),
        ({"type": "bool", "transformation": {"aggregate": "mean"}}, "does not give bool"),
        ({"type": "int", "default": 0.5}, "no int"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"name": "a/b"}, "plain name"),
        ({"source": {"entity": "unit"}}, "exactly one of table and path"),
        ({"source": {"table": "silver.transitions", "entity": "unit"}}, "would see the future"),
        ({"source": {"table": "bronze.decisions", "entity": "unit + 1"}}, "must be a path"),
        ({"source": {"table": "bronze.decisions", "entity": "unit", "where": "a = 1"}}, "no expression"),
    ],
)
def test_impossible_definitions_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        definition(**changes)


def test_a_file_names_its_mistakes(tmp_path: Path, repository: Path) -> None:
    text = (repository / "configs" / "features" / "network5g.yaml").read_text()
    file = tmp_path / "features.yaml"
    for old, new, complaint in (
        ("ttl_s: 600", "ttl_s: 600\n    tll: 1", "unknown key 'features.0.tll'; allowed: default, description"),
        ("window_s: 300", "window_s: -1", "transformation.window_s"),
        ("cell_decisions_1h", "cell_load_5m", "defined twice"),
        ("table: bronze.decisions", "table: bronze.decisions\n      path: x", "exactly one"),
    ):
        file.write_text(text.replace(old, new, 1) if old != "cell_decisions_1h" else text.replace(old, new))
        with pytest.raises(ConfigurationError, match=complaint):
            load_features(file)


def test_versions_never_change(store: FeatureStore) -> None:
    first = definition(description="one")
    assert [(v.version, new) for v, new in store.apply([first])] == [(1, True)]
    assert [(v.version, new) for v, new in store.apply([first])] == [(1, False)]
    second = definition(description="two")
    assert [(v.version, new) for v, new in store.apply([second])] == [(2, True)]
    assert [(v.version, new) for v, new in store.apply([first])] == [(3, True)]
    assert store.feature("load").key == "load@3"
    assert store.feature("load@1").definition == first
    assert store.feature("load@2").definition == second
    assert [one.key for one in store.features()] == ["load@1", "load@2", "load@3"]
    assert [one.key for one in store.newest()] == ["load@3"]
    for reference, complaint in (("load@9", "load@1, load@2"), ("other", "allowed: load")):
        with pytest.raises(NotFoundError, match=complaint):
            store.feature(reference)
    for reference in ("load@0", "load@x", "a/b", "", None):
        with pytest.raises(InvalidInputError):
            store.feature(reference)  # type: ignore[arg-type]


def test_definitions_are_registered_all_or_none(store: FeatureStore) -> None:
    store.apply([definition("a")])
    with pytest.raises(InvalidInputError, match="is of entity 'cell'"):
        store.apply([definition("b"), definition("a", entity="user")])
    assert [one.key for one in store.features()] == ["a@1"]


def test_tenants_are_apart(store: FeatureStore, tmp_path: Path) -> None:
    other = FeatureStore(f"sqlite:///{tmp_path / 'features.db'}", "other")
    store.apply([definition("a")])
    assert other.features() == []
    assert [(v.version, new) for v, new in other.apply([definition("a")])] == [(1, True)]


def test_a_database_that_cannot_be_used_is_named() -> None:
    for url, complaint in (("mysql://x", "allowed: postgresql, sqlite"), ("x", "SQLAlchemy URL")):
        with pytest.raises(ConfigurationError, match=complaint):
            FeatureStore(url)


def test_online_values_are_judged_by_their_age(store: FeatureStore, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(
        event_table([("c-1", SECOND, SECOND, 2.0), ("c-2", 50 * SECOND, 50 * SECOND, 3.0)]), tmp_path / "e.parquet"
    )
    features = registered(
        store,
        over_events(tmp_path / "e.parquet", "last", ttl_s=60, default=-1.0),
        over_events(tmp_path / "e.parquet", "count", ttl_s=60, type="int"),
    )
    materialize(store, Lake(tmp_path / "lake"))
    now = 62 * SECOND
    reader = OnlineFeatures(store, features, clock=lambda: now)
    old, fresh, none = reader.read([{"cell": "c-1"}, {"cell": "c-2", "user": "u"}, {"cell": "c-3"}])
    assert [(one.value, one.status, one.age_s) for one in old] == [(-1.0, "stale", 61.0), (None, "stale", 61.0)]
    assert [(one.value, one.status, one.age_s) for one in fresh] == [(3.0, "fresh", 12.0), (1, "fresh", 12.0)]
    assert [(one.value, one.status, one.age_s) for one in none] == [(-1.0, "missing", None), (None, "missing", None)]
    now = 61 * SECOND
    assert [one.status for one in reader.read([{"cell": "c-1"}])[0]] == ["fresh", "fresh"]
    for entities, field in (
        ({}, "entities.cell"),
        ({"cell": ""}, "entities.cell"),
        ({"cell": True}, "entities.cell"),
        (3, "entities"),
    ):
        with pytest.raises(InvalidInputError) as problem:
            reader.read([entities])
        assert problem.value.field == field
    with pytest.raises(InvalidInputError, match=r"entities\[1\].cell is missing"):
        reader.read([{"cell": "c-1"}, {}])


def test_what_was_read_is_used_again_for_a_moment(store: FeatureStore, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "e.parquet"
    pq.write_table(event_table([("c-1", SECOND, SECOND, 2.0)]), path)
    features = registered(store, over_events(path, "last"))
    lake = Lake(tmp_path / "lake")
    materialize(store, lake)
    now = 2 * SECOND
    reader = OnlineFeatures(store, features, keep_s=1.0, most=2, clock=lambda: now)
    assert reader.read([{"cell": "c-1"}])[0][0].value == 2.0
    pq.write_table(event_table([("c-1", 2 * SECOND, 2 * SECOND, 9.0)]), path)
    materialize(store, lake)
    assert reader.read([{"cell": "c-1"}])[0][0].value == 2.0
    now = 3 * SECOND + 1
    assert reader.read([{"cell": "c-1"}])[0][0].value == 9.0
    reader.read([{"cell": f"c-{i}"} for i in range(5)])
    assert len(reader._read) <= 2


@given(
    values=st.lists(st.one_of(st.floats(-10, 10), st.sampled_from([np.nan, np.inf])), max_size=80),
    bins=st.integers(1, 8),
)
def test_summaries_count_as_numpy_does(values: list[float], bins: int) -> None:
    array = np.array(values)
    finite = array[np.isfinite(array)]
    found = summarize_values("f@1", array, bins=bins)
    assert (found.count, found.missing) == (len(finite), len(array) - len(finite))
    assert sum(found.counts) == found.count
    if len(finite):
        assert found.quantiles[0.5] == pytest.approx(np.median(finite))
        assert found.mean == pytest.approx(finite.mean())
        assert found.std == pytest.approx(finite.std())
    edges = [-5.0, 0.0, 2.5]
    inner, _ = np.histogram(finite[finite != edges[-1]], edges)
    mine = summarize_values("f@1", array, edges=edges)
    assert list(mine.counts) == [int((finite < -5).sum()), *inner.tolist(), int((finite >= 2.5).sum())]


def test_a_window_is_summed_up_by_the_values_that_a_feature_took(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    events = [("a", 1, 1, 1.0), ("a", 2, 2, None), ("a", 3, 3, 3.0), ("b", 3, 9, 5.0), ("b", 10, 10, 7.0)]
    pq.write_table(event_table(events), tmp_path / "e.parquet")
    lake, features = Lake(tmp_path / "lake"), unregistered(over_events(tmp_path / "e.parquet", "sum"))
    (found,) = summarize(lake, features, start_us=2, end_us=10)
    assert (found.count, found.quantiles[0.0], found.quantiles[1.0]) == (2, 4.0, 5.0)
    (again,) = summarize(lake, features, start_us=0, end_us=20, edges={"sum@1": [4.0, 5.0, 12.0]})
    assert again.counts == (1, 1, 1, 1)
    with pytest.raises(InvalidInputError, match="end_us"):
        summarize(lake, features, start_us=5, end_us=5)
    with pytest.raises(InvalidInputError, match="ascending"):
        summarize(lake, features, start_us=0, end_us=5, edges={"sum@1": [1.0, 1.0]})


def test_a_store_that_does_not_answer_may_answer_later(store: FeatureStore, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "features.db")) as connection:
        connection.execute("DROP TABLE feature_values")
    reader = OnlineFeatures(store, registered(store, definition()))
    with pytest.raises(RetryableError, match="does not answer"):
        reader.read([{"cell": "c-1"}])


def test_more_entities_and_features_are_read_than_fit_into_a_statement(store: FeatureStore, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "e.parquet"
    pq.write_table(event_table([(f"c-{i}", SECOND, SECOND, float(i)) for i in range(900)]), path)
    features = registered(store, *(over_events(path, "last", name=f"f{i}") for i in range(3)))
    materialize(store, Lake(tmp_path / "lake"))
    entities = [f"c-{i}" for i in range(900)]
    found = store.values(entities, [f"nothing{i}@1" for i in range(500)] + [features[2].key])
    assert {entity: one.value for (entity, _), one in found.items()} == {f"c-{i}": float(i) for i in range(900)}
