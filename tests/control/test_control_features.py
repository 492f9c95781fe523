"""Features over HTTP: registered, read, and filled into decisions, through the real routes and the fast lane."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from support.feature_kit import event_table, over_events
from support.http_platform import HttpPlatform, shared_platform

from rlaas.lake import Lake
from rlaas.lake.features import materialize

NOW = time.time_ns() // 1000
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpPlatform]:
    """With ``busy`` (a cell's last load; fresh for an hour) and ``seen`` (an integer with a default)."""
    folder = tmp_path_factory.mktemp("features")
    events = [("c-1", NOW, NOW, 0.5), ("c-2", NOW - DAY, NOW - DAY, 0.75)]
    pq.write_table(event_table(events), folder / "events.parquet")
    platform = shared_platform()
    store = platform.control.features.store
    applied = store.apply(
        [
            over_events(folder / "events.parquet", "last", name="busy", ttl_s=3600),
            over_events(folder / "events.parquet", "count", name="seen", type="int", default=0, ttl_s=3600),
        ]
    )
    materialize(store, Lake(folder / "lake"), [version for version, _ in applied])
    with platform.fast_lane():
        yield platform
    platform.restore()


def _ask(platform: HttpPlatform, method: str, path: str, body: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=platform.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, f"/api/v1/{path}", **({} if body is None else {"json": body}))

    return asyncio.run(send())


def _busy(platform: HttpPlatform) -> str:
    return platform.control.features.store.feature("busy").key


def test_values_of_an_entity_with_their_ages(platform: HttpPlatform) -> None:
    found = _ask(platform, "GET", "features/online?entity=cell:c-1&features=busy,seen").json()
    assert found["entity"] == {"cell": "c-1"}
    busy, seen = found["features"]["busy"], found["features"]["seen"]
    assert (busy["value"], busy["status"], busy["time_us"], busy["feature"]) == (0.5, "fresh", NOW, _busy(platform))
    assert 0 <= busy["age_s"] < 3600
    assert seen["value"] == 1
    everything = _ask(platform, "GET", "features/online?entity=cell:c-1").json()["features"]
    assert everything.keys() >= {"busy", "seen", "cell_load"}


def test_values_of_many_entities(platform: HttpPlatform) -> None:
    body = {"features": ["busy", "seen"], "entities": [{"cell": "c-1"}, {"cell": "c-2"}, {"cell": 3}]}
    items = _ask(platform, "POST", "features/online", body).json()["items"]
    assert [item["entity"] for item in items] == body["entities"]
    assert [
        (one["busy"]["value"], one["busy"]["status"], one["seen"]["value"])
        for one in (item["features"] for item in items)
    ] == [(0.5, "fresh", 1), (None, "stale", 0), (None, "missing", 0)]
    pinned = _ask(platform, "POST", "features/online", {**body, "features": [_busy(platform)]}).json()["items"]
    assert list(pinned[0]["features"]) == [_busy(platform)]


def test_definitions_are_listed_and_shown(platform: HttpPlatform) -> None:
    listed = _ask(platform, "GET", "features?page_size=1000").json()["items"]
    assert {"busy", "seen", "cell_load"} <= {one["name"] for one in listed}
    shown = _ask(platform, "GET", f"features/{_busy(platform)}").json()
    assert shown in listed
    assert shown["transformation"] == {"aggregate": "last", "window_s": None}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "features/nothing", None, 404, "feature"),
        ("GET", "features/a%2Fb", None, 422, "feature"),
        ("GET", "features/online", None, 422, "entity"),
        ("GET", "features/online?entity=c-1", None, 422, "entity"),
        ("GET", "features/online?entity=cell:c-1&cell=c-1", None, 422, "cell"),
        ("GET", "features/online?entity=planet:mars", None, 422, "entities"),
        ("GET", "features/online?entity=cell:c-1&features=nothing", None, 404, "features"),
        ("POST", "features/online", {"entities": []}, 422, "entities"),
        ("POST", "features/online", {"entities": [{"cell": ""}], "features": ["busy"]}, 422, "entities.cell"),
        ("POST", "features/online", {"entities": [{"cell": "c"}, {}], "features": ["busy"]}, 422, "entities[1].cell"),
        ("POST", "features/online", {"entities": [{"cell": "c"}], "feature": "busy"}, 422, "feature"),
        ("POST", "features/online", {"entities": [{"cell": "c"}] * 1000, "features": ["busy"] * 200}, 422, "entities"),
        ("DELETE", "features/online", None, 405, "method"),
    ],
)
def test_what_cannot_be_read_is_refused(
    platform: HttpPlatform, method: str, path: str, body: Any, status: int, field: str
) -> None:
    answer = _ask(platform, method, path, body)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_deployment_declares_features_and_decisions_name_entities(platform: HttpPlatform) -> None:
    platform.restore()
    champion = [{"name": "champion", "version": 1, "weight": 1}]
    body = {"policy": "toy", "variants": champion, "features": {"x1": "busy", "x2": "seen"}}
    created = _ask(platform, "POST", "deployments/create", body)
    assert created.status_code == 200, created.text
    # Pinned: a later definition does not change what a live policy sees.
    assert created.json()["features"]["x1"] == _busy(platform)
    filled = _ask(platform, "POST", "policies/toy/decide", {"observation": [0.5], "entities": {"cell": "c-1"}})
    whole = _ask(platform, "POST", "policies/toy/decide", {"observation": [0.5, 0.5, 1.0]})
    assert filled.status_code == 200, filled.text
    assert filled.json()["action"] == whole.json()["action"]
    stale = _ask(platform, "POST", "policies/toy/decide", {"observation": [0.5], "entities": {"cell": "c-2"}})
    assert (stale.status_code, stale.json()["field"]) == (422, "entities.cell")
    assert re.search("feature 'busy' of cell 'c-2' is [0-9]+ s old, which is stale", stale.json()["detail"])
    # A promotion keeps them; null takes them away.
    promoted = _ask(platform, "POST", "models/toy/promote", {"version": 2}).json()["deployment"]
    assert promoted["features"]["x1"] == _busy(platform)
    removed = _ask(platform, "POST", "deployments/create", {"policy": "toy", "variants": champion, "features": None})
    assert removed.json()["features"] is None
    refused = _ask(platform, "POST", "policies/toy/decide", {"observation": [0.5], "entities": {"cell": "c-1"}})
    assert (refused.status_code, refused.json()["field"]) == (422, "entities")


@pytest.mark.parametrize(
    ("features", "status", "complaint"),
    [
        ({"x1": "nothing"}, 404, "no feature 'nothing'"),
        ({"x1": "busy@99"}, 404, "no feature 'busy@99'"),
        ({"x7": "busy"}, 422, "the policy has no 'x7'"),
        ({"x1": 3}, 422, "features"),
    ],
)
def test_features_that_a_policy_cannot_have_are_refused(
    platform: HttpPlatform, features: dict[str, Any], status: int, complaint: str
) -> None:
    body = {"policy": "toy", "variants": [{"name": "champion", "version": 1, "weight": 1}], "features": features}
    answer = _ask(platform, "POST", "deployments/create", body)
    assert answer.status_code == status, answer.text
    assert complaint in answer.json()["detail"]


def test_a_file_of_the_repository_registers(platform: HttpPlatform, repository: Path) -> None:
    from rlaas.lake.features import load_features

    for name in ("network5g", "recsys"):
        found = platform.control.features.store.apply(
            load_features(repository / "configs" / "features" / f"{name}.yaml").features
        )
        assert all(version.version == 1 for version, _ in found)
