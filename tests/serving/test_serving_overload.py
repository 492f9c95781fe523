"""What a replica gives up when it falls behind, and what it cuts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.bundles import policy_bundle
from support.serving_kit import Bench, deployment, make_bench

from rlaas.errors import InvalidInputError
from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.pressure import BEAT_S, Pressure
from rlaas.serving.transport import (
    ClientGoneError,
    DeadlineError,
    Limits,
    SlowBodyError,
    TooLargeError,
    UnsupportedEncodingError,
    read_body,
    read_head,
)

ROW = [0.1, -0.5, 2.0]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pressure_follows_the_delay_up_at_once_and_down_slowly() -> None:
    clock = Clock()
    pressure = Pressure(0.05, 0.5, clock)

    def beat(late: float) -> None:
        clock.now += BEAT_S + late
        pressure.beat()

    beat(0.0)
    assert not pressure.pressed
    beat(0.06)
    assert pressure.pressed
    assert not pressure.overloaded
    beat(0.9)
    assert pressure.overloaded
    beat(0.0)
    assert pressure.delay_s == pytest.approx(0.45)
    for _ in range(10):
        beat(0.0)
    assert not pressure.pressed


def test_a_real_loop_that_stalls_is_noticed() -> None:
    pressure = Pressure()

    async def stall() -> None:
        watching = asyncio.get_running_loop().create_task(pressure.watch())
        await asyncio.sleep(5 * BEAT_S)
        calm = pressure.delay_s
        time.sleep(0.2)  # a loop that does something else
        await asyncio.sleep(2 * BEAT_S)
        assert pressure.delay_s > calm + 0.03
        watching.cancel()

    asyncio.run(stall())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pressure(clock: Clock) -> Pressure:
    return Pressure(0.05, 0.5, clock)


@pytest.fixture
def bench(tmp_path: Path, pressure: Pressure) -> Bench:
    paths = {("toy", v): policy_bundle(tmp_path / f"toy{v}", seed=v) for v in (1, 2)}
    variants = [
        {"name": "champion", "version": 1, "weight": 1, "explore": True},
        {"name": "next", "version": 2, "weight": 0, "shadow": True},
    ]
    return make_bench(tmp_path, paths, deployment("toy", variants), pressure=pressure)


def _delay(pressure: Pressure, clock: Clock, seconds: float) -> None:
    clock.now += BEAT_S + seconds
    pressure.beat()


def test_exploration_and_shadows_go_first(bench: Bench, pressure: Pressure, clock: Clock) -> None:
    assert bench.decide("toy", observation=ROW)["action_propensity"] is not None
    assert bench.engine.shadows.work() == 1
    _delay(pressure, clock, 0.1)
    assert bench.decide("toy", observation=ROW)["action_propensity"] is None
    assert bench.decide("toy", observations=[ROW] * 2)["decisions"][0]["action_propensity"] is None
    assert bench.engine.shadows.work() == 0
    # What is logged says that nothing was explored: off-policy evaluation must not take it for a sample.
    assert [r.action_propensity is None for r in bench.logged_decisions()] == [False, True, True, True]


def _site(bench: Bench, pressure: Pressure, most_open: int = 8) -> FastLane:
    async def nothing(*_: Any) -> None:
        raise AssertionError("the fast lane answers this itself")

    path = HotPath("default", Limits(4096, 0.3), most_open, pressure)
    path.refresh(bench.engine)
    FastLane.gateway = path
    return FastLane(nothing)


async def _post(app: FastLane, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.post("/api/v1/policies/toy/decide", **options)


@pytest.fixture(autouse=True)
def _leave() -> Any:
    yield
    FastLane.gateway = None


def test_an_overloaded_replica_refuses_and_says_when_to_come_back(
    bench: Bench, pressure: Pressure, clock: Clock
) -> None:
    app = _site(bench, pressure)
    _delay(pressure, clock, 1.0)
    refused = asyncio.run(_post(app, json={"observation": ROW}))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["code"] == "OverloadedError"
    assert pressure.refused == 1
    for _ in range(10):
        _delay(pressure, clock, 0.0)
    assert asyncio.run(_post(app, json={"observation": ROW})).status_code == 200


def test_only_so_many_requests_are_open(bench: Bench, pressure: Pressure) -> None:
    app = _site(bench, pressure, most_open=2)

    async def never() -> Any:
        yield b"{"
        await asyncio.sleep(10)

    async def drive() -> list[int]:
        slow = [asyncio.create_task(_post(app, content=never())) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await _post(app, json={"observation": ROW})
        cut = [answer.status_code for answer in await asyncio.gather(*slow)]
        after = await _post(app, json={"observation": ROW})
        return [refused.status_code, *cut, after.status_code]

    # The slow ones are cut with 408 and make room.
    assert asyncio.run(drive()) == [429, 408, 408, 200]


def test_requests_that_wait_to_be_decided_together_are_not_counted(bench: Bench, pressure: Pressure) -> None:
    app = _site(bench, pressure, most_open=2)

    async def drive() -> list[httpx.Response]:
        return await asyncio.gather(*(_post(app, json={"observation": ROW}) for _ in range(50)))

    assert {answer.status_code for answer in asyncio.run(drive())} == {200}


def test_a_deadline_that_has_passed_is_504_and_nothing_is_decided(bench: Bench, pressure: Pressure) -> None:
    app = _site(bench, pressure)
    body = json.dumps({"observation": ROW}).encode()

    async def late() -> Any:
        yield body[:5]
        await asyncio.sleep(0.15)
        yield body[5:]

    answer = asyncio.run(_post(app, content=late(), headers={"x-request-timeout": "0.05"}))
    assert answer.status_code == 504
    assert "nothing was done" in answer.json()["detail"]
    assert bench.logged_decisions() == []
    for bad in ("soon", "0", "-1", "nan", "1e9"):
        answer = asyncio.run(_post(app, content=body, headers={"x-request-timeout": bad}))
        assert (answer.status_code, answer.json()["field"]) == (422, "x-request-timeout")
    assert asyncio.run(_post(app, content=body, headers={"x-request-timeout": "5"})).status_code == 200


def _reading(messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]], limits: Limits) -> bytes:
    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(10)
        return messages.pop(0)

    return asyncio.run(read_body(receive, read_head(headers), limits))


def test_bodies_are_read_within_their_limits() -> None:
    limits = Limits(10, 0.1)
    part = {"type": "http.request", "body": b"12345", "more_body": True}
    last = {"type": "http.request", "body": b"67890", "more_body": False}
    assert _reading([part, last], [], limits) == b"1234567890"
    with pytest.raises(TooLargeError):
        _reading([part, dict(part), {**last, "body": b"6"}], [], limits)
    with pytest.raises(TooLargeError):
        _reading([], [(b"content-length", b"11")], limits)
    with pytest.raises(SlowBodyError):
        _reading([part], [], limits)
    with pytest.raises(ClientGoneError):
        _reading([part, {"type": "http.disconnect"}], [], limits)
    with pytest.raises(UnsupportedEncodingError):
        _reading([last], [(b"content-encoding", b"gzip")], limits)
    with pytest.raises(DeadlineError):
        _reading([part], [(b"x-request-timeout", b"0.01")], limits)
    with pytest.raises(InvalidInputError, match="content-length"):
        read_head([(b"content-length", b"ten")])


def test_a_thread_of_its_own_explores_apart(bench: Bench) -> None:
    """Generators are not thread-safe: every thread draws from its own."""
    found: dict[int, list[float]] = {}

    def draw(index: int) -> None:
        found[index] = bench.engine.acting.draws().random(4).tolist()

    threads = [threading.Thread(target=draw, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(values) for values in found.values()}) == 4
