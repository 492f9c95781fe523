"""Observations filled from the online store by entity, decided and logged whole."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.bundles import policy_bundle
from support.feature_kit import Event, event_table, over_events
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import InvalidInputError
from rlaas.lake import Lake
from rlaas.lake.features import FeatureStore, materialize
from rlaas.serving.entities import FeatureCatalogue
from rlaas.serving.loading import check_record, load_state

NOW = time.time_ns() // 1000
DAY = 86_400_000_000
ALONE = [{"name": "champion", "version": 1, "weight": 1}]
EVENTS: list[Event] = [("c-1", NOW, NOW, 0.25), ("c-2", NOW, NOW, 1 / 3), ("old", NOW - DAY, NOW - DAY, 9.0)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with ``load`` (refused when missing) and ``seen`` (3 when missing) of cells, fresh for an hour."""
    pq.write_table(event_table(EVENTS), tmp_path / "events.parquet")
    url = f"sqlite:///{tmp_path / 'features.db'}"
    store = FeatureStore(url)
    source = tmp_path / "events.parquet"
    store.apply(
        [
            over_events(source, "last", name="load", ttl_s=3600),
            over_events(source, "count", name="seen", type="int", default=3, ttl_s=3600),
        ]
    )
    materialize(store, Lake(tmp_path / "lake"))
    return url


@pytest.fixture
def bench(tmp_path: Path, url: str) -> Bench:
    return _bench(tmp_path, url, {"x1": "load@1", "x2": "seen@1"})


def _bench(root: Path, url: str, features: dict[str, str]) -> Bench:
    toy, box = policy_bundle(root / "toy"), policy_bundle(root / "box", kind="box")
    bench = make_bench(root, {("toy", 1): toy, ("box", 1): box}, deployment("box", ALONE))
    records = (deployment("toy", ALONE, features=features), deployment("box", ALONE))
    state, failures = load_state(
        bench.engine.state, records, bench.paths, catalogue=FeatureCatalogue(url, "default", 0.0)
    )
    assert failures == {}
    bench.engine.switch(state)
    return bench


def test_what_is_left_out_is_filled_decided_on_and_logged(bench: Bench) -> None:
    answer = bench.decide("toy", observation=[0.5], entities={"cell": "c-1"}, unit="c-1", mode="emergency")
    whole = bench.decide("toy", observation=[0.5, 0.25, 1.0], unit="c-1", mode="emergency")
    assert answer["action"] == whole["action"]
    first, second = bench.logged_decisions()
    assert first.observation == second.observation == [0.5, 0.25, 1.0]
    assert (first.unit, first.mode) == ("c-1", "emergency")


def test_every_bit_of_a_filled_number_is_logged(bench: Bench) -> None:
    bench.decide("toy", observation=[0.1], entities={"cell": "c-2"})
    assert bench.logged_decisions()[0].observation == [0.1, 1 / 3, 1.0]


def test_rows_have_an_entity_each_or_one_for_all(bench: Bench) -> None:
    two: list[dict[str, Any]] = [{"cell": "c-1"}, {"cell": "c-2"}]
    answer = bench.decide("toy", observations=[[1.0], [2.0]], entities=two)
    assert len(answer["decisions"]) == 2
    bench.decide("toy", observations=[[1.0], [2.0]], entities=two[0])
    logged = sorted(tuple(one.observation) for one in bench.logged_decisions())
    assert logged == [(1.0, 0.25, 1.0), (1.0, 0.25, 1.0), (2.0, 0.25, 1.0), (2.0, 1 / 3, 1.0)]


def test_a_policy_may_be_fed_by_entities_alone(tmp_path: Path, url: str) -> None:
    bench = _bench(tmp_path, url, {"x0": "seen@1", "x1": "load@1", "x2": "load@1"})
    bench.decide("toy", entities={"cell": "c-1"})
    assert len(bench.decide("toy", entities=[{"cell": "c-1"}, {"cell": "c-2"}])["decisions"]) == 2
    assert len(bench.decide("toy", entities=[{"cell": "c-2"}])["decisions"]) == 1
    assert [one.observation for one in bench.logged_decisions()] == [
        [1.0, 0.25, 0.25],
        [1.0, 0.25, 0.25],
        [1.0, 1 / 3, 1 / 3],
        [1.0, 1 / 3, 1 / 3],
    ]


def test_a_missing_or_stale_feature_is_its_default_or_refused_by_name(tmp_path: Path, url: str) -> None:
    bench = _bench(tmp_path, url, {"x2": "seen@1"})
    for entity in ("nobody", "old"):
        bench.decide("toy", observation=[0.0, 0.0], entities={"cell": entity})
    assert [one.observation for one in bench.logged_decisions()] == [[0.0, 0.0, 3.0]] * 2
    (tmp_path / "second").mkdir()
    strict = _bench(tmp_path / "second", url, {"x1": "load@1", "x2": "seen@1"})
    for entity, complaint in (
        ("nobody", "feature 'load' of cell 'nobody' has no value"),
        ("old", "s old, which is stale"),
    ):
        with pytest.raises(InvalidInputError, match=complaint) as problem:
            strict.decide("toy", observation=[0.0], entities={"cell": entity})
        assert problem.value.field == "entities.cell"
    assert strict.logged_decisions() == []


@pytest.mark.parametrize(
    ("body", "field", "complaint"),
    [
        ({"entities": {"cell": "c-1"}}, "observation", "expected the 1 that entities do not fill: x0"),
        ({"observation": [1, 2, 3], "entities": {"cell": "c-1"}}, "observation", "has 3 numbers"),
        ({"observation": [1], "entities": {"user": "u"}}, "entities.cell", "is missing"),
        ({"observation": [1], "entities": {"cell": ["c"]}}, "entities.cell", "id of a cell"),
        ({"observation": [1], "entities": {"cell": "x" * 513}}, "entities.cell", "1 to 512"),
        ({"observation": [1], "entities": "c-1"}, "entities", "must be an object"),
        ({"observation": [1], "entities": [{"cell": "c-1"}]}, "observation", "send observations"),
        ({"observations": [[1]], "entities": []}, "entities", "has 0 entries"),
        ({"observations": [[1]], "entities": [{"cell": "c-1"}] * 2}, "entities", "expected 1, as observations"),
        ({"observations": [[1], []], "entities": [{"cell": "c-1"}] * 2}, "observations[1]", "has 0 numbers"),
        ({"observations": [[1], [1]], "entities": [{"cell": "c-1"}, {}]}, "entities[1].cell", "is missing"),
        ({"observation": [1], "observations": [[1]], "entities": {"cell": "c-1"}}, "observation", "only one"),
        ({"observations": [[1]] * 200, "entities": {"cell": "c-1"}}, "observations", "at most 100"),
        ({"observation": [1e300], "entities": {"cell": "c-1"}}, "observation[0].x0", "only finite"),
    ],
)
def test_requests_that_cannot_be_filled_are_refused(
    bench: Bench, body: dict[str, Any], field: str, complaint: str
) -> None:
    with pytest.raises(InvalidInputError) as problem:
        bench.decide("toy", **body)
    assert problem.value.field == field
    assert complaint in problem.value.message
    assert bench.logged_decisions() == []


def test_a_whole_observation_and_other_policies_are_answered_as_ever(bench: Bench) -> None:
    bench.decide("toy", observation=[1.0, 2.0, 3.0])
    bench.decide("box", observation=[1.0, 2.0, 3.0])
    with pytest.raises(InvalidInputError, match="declares no features"):
        bench.decide("box", observation=[1.0], entities={"cell": "c-1"})
    question = bench.engine.read(
        PRINCIPAL, "toy", json.dumps({"observation": [1], "entities": {"cell": "c-1"}}).encode()
    )
    assert question.plain


def test_what_cannot_be_filled_is_not_served(tmp_path: Path, url: str) -> None:
    toy = policy_bundle(tmp_path / "toy")
    bench = make_bench(tmp_path, {("toy", 1): toy}, deployment("toy", ALONE))
    for features, catalogue, complaint in (
        ({"x0": "nothing@1"}, FeatureCatalogue(url, "default", 0.0), "no feature 'nothing@1'"),
        ({"x0": "load@7"}, FeatureCatalogue(url, "default", 0.0), "allowed: load@1"),
        ({"x9": "load@1"}, FeatureCatalogue(url, "default", 0.0), "no 'x9'; allowed: x0, x1, x2"),
        ({"x0": "load@1"}, None, "no store of features"),
    ):
        record = deployment("toy", ALONE, features=features, generation=2)
        _, failures = load_state(bench.engine.state, [record], bench.paths, catalogue=catalogue)
        assert complaint in failures["dep-toy"]
    policies = {1: bench.engine.state.policies["toy"].primary.policy}
    with pytest.raises(InvalidInputError, match="no 'x9'"):
        check_record(deployment("toy", ALONE, features={"x9": "load@1"}), policies)
    with pytest.raises(ValueError, match="features"):
        deployment("toy", ALONE, features={"x0": "load"})
