"""More policies live than fit into memory."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest
from support.bundles import policy_bundle
from support.lanes import StandIn
from support.serving_kit import Bench, deployment, make_bench

from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.loaded import ColdPolicyError
from rlaas.serving.pressure import Pressure
from rlaas.serving.residents import Residents
from rlaas.serving.transport import Limits
from rlaas.serving.web import create_app

ROW = [0.1, -0.5, 2.0]
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {(name, 1): policy_bundle(root / name, seed=seed) for seed, name in enumerate(NAMES)}


def _records(generation: int = 1) -> list[object]:
    one = [{"name": "champion", "version": 1, "weight": 1}]
    return [deployment(name, one, updated_us=index, generation=generation) for index, name in enumerate(NAMES, start=1)]


def test_the_least_recently_used_policy_goes(paths: dict[tuple[str, int], Path]) -> None:
    residents = Residents(most=2)
    state = residents.follow(_records(), paths, {})
    assert (set(state.policies), state.cold) == ({"c", "d"}, {"a", "b"})  # what changed last comes first
    assert residents.is_current(_records())
    state = residents.admit("a", {"c": 5, "d": 7})
    assert (set(state.policies), state.cold) == ({"a", "d"}, {"b", "c"})
    state = residents.admit("b", {"a": 9, "c": 5, "d": 7})
    assert set(state.policies) == {"a", "b"}
    kept = state.policies["a"]
    # A new generation of the records keeps who is loaded, and loads what changed.
    state = residents.follow(_records(generation=2), paths, {"a": 9, "b": 10})
    assert set(state.policies) == {"a", "b"}
    assert state.policies["a"].record.generation == 2
    assert state.policies["a"].primary.policy is kept.primary.policy
    assert residents.admit("nobody", {}) is state
    assert residents.admit("a", {}) is state
    state = residents.follow(_records()[:1], paths, {})
    assert (set(state.policies), state.cold) == ({"a"}, frozenset())


class Lane(StandIn):
    """A Gateway's part in it."""

    def __init__(self, bench: Bench, residents: Residents) -> None:
        super().__init__(bench.engine, limits=Limits(4096, 5.0))
        self._bench = bench
        self._residents = residents
        self._loading = asyncio.Lock()
        self.hot = HotPath("default", self.limits, 64, Pressure())
        self.hot.refresh(bench.engine)
        self.warmed: list[str] = []

    async def warm(self, policy: str) -> None:
        async with self._loading:
            self.warmed.append(policy)
            used = dict(self._bench.engine.used)
            self._bench.engine.switch(await asyncio.to_thread(self._residents.admit, policy, used))
            self.hot.refresh(self._bench.engine)


def test_a_cold_policy_answers_its_first_request_and_stays_warm(
    tmp_path: Path, paths: dict[tuple[str, int], Path]
) -> None:
    bench = make_bench(tmp_path, paths)
    residents = Residents(most=2)
    bench.engine.switch(residents.follow(_records(), paths, {}))
    with pytest.raises(ColdPolicyError, match="'a' is being loaded"):
        bench.decide("a", observation=ROW)
    lane = Lane(bench, residents)
    app = FastLane(create_app(lane))

    async def ask(client: httpx.AsyncClient, name: str) -> int:
        return (await client.post(f"/api/v1/policies/{name}/decide", json={"observation": ROW})).status_code

    async def drive() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert await asyncio.gather(*(ask(client, "a") for _ in range(8))) == [200] * 8
            assert lane.warmed == ["a"] * 8  # all that waited; one of them loaded
            assert [await ask(client, name) for name in ("d", "a", "b", "a")] == [200] * 4
            assert lane.warmed[8:] == ["b"]
            assert (await client.get("/v2/models/c")).json()["name"] == "c"
            missing = await client.post("/api/v1/policies/x/decide", content=json.dumps({"observation": ROW}))
            assert (missing.status_code, missing.json()["detail"]) == (404, "no live policy 'x'; allowed: a, b, c, d")

    FastLane.gateway = lane.hot
    try:
        asyncio.run(drive())
    finally:
        FastLane.gateway = None
    assert len(bench.engine.state.policies) == 2


def test_policies_are_swapped_under_fire(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    bench = make_bench(tmp_path, paths)
    residents = Residents(most=2)
    bench.engine.switch(residents.follow(_records(), paths, {}))
    wrong: list[str] = []

    def ask(name: str) -> None:
        for _ in range(30):
            while True:
                try:
                    answer = bench.decide(name, observation=ROW)
                except ColdPolicyError:
                    bench.engine.switch(residents.admit(name, dict(bench.engine.used)))
                else:
                    break
            if answer["policy"] != name:
                wrong.append(answer["policy"])

    threads = [threading.Thread(target=ask, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(bench.logged_decisions()) == 30 * len(NAMES)
    assert len(residents.state.policies) == 2
