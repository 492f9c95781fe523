"""Generated and hostile requests: every one is answered, none crashes a route, none holds another up."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from support.http_platform import HttpPlatform, shared_platform
from support.http_server import serving

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.serving_fuzz import CHUNK, fuzz, generated, operations
from benchmarks.serving_fuzz_changes import Sent, changed
from benchmarks.serving_fuzz_report import Progress
from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.openapi import openapi_document
from rlaas.serving.pressure import Pressure
from rlaas.serving.transport import Limits
from rlaas.serving.web import create_app

DOCUMENT = json.loads(openapi_document())
DECIDE = "/api/v1/policies/toy/decide"
PER_ROUTE = 40
BODY_S = 0.5


@pytest.fixture(scope="module")
def platform() -> HttpPlatform:
    return shared_platform()


@pytest.fixture(params=["routes", "fast lane"])
def address(request: pytest.FixtureRequest, platform: HttpPlatform) -> Iterator[str]:
    """A server that waits half a second for a body, with the fast lane and without."""
    with _impatient(platform, fast=request.param == "fast lane") as address:
        yield address


@contextmanager
def _impatient(platform: HttpPlatform, *, fast: bool) -> Iterator[str]:
    platform.restore()
    other = copy.copy(platform)
    other.limits = Limits(1 << 20, BODY_S)
    other.app = FastLane(create_app(other))
    if fast:
        FastLane.gateway = HotPath(other.tenant, other.limits, 512, Pressure())
        FastLane.gateway.refresh(other.engine())
    try:
        with serving(other.app) as address:
            yield address
    finally:
        FastLane.gateway = None


def test_generated_requests_crash_no_route_and_get_documented_answers(platform: HttpPlatform) -> None:
    pool = generated(DOCUMENT, {"positive": 2, "negative": 2}, seed=1)
    with platform.fast_lane():
        reports = asyncio.run(fuzz(platform, DOCUMENT, pool, requests=PER_ROUTE, seed=1))
    assert len(reports) == len(list(operations(DOCUMENT)))
    assert [finding for one in reports for finding in one.findings] == []
    # They reach what lies behind the checks, or else they would prove little.
    reached = [one.label for one in reports if any(status < 400 for status in one.statuses)]
    assert len(reached) > 0.7 * len(reports)


class _Silent(Exception):
    """A request that should not have been sent."""


def test_a_run_goes_on_from_where_another_was_cut_short(platform: HttpPlatform, tmp_path: Path) -> None:
    async def silent(*_: object) -> None:
        raise _Silent

    platform.restore()
    file, only = tmp_path / "progress.jsonl", ["health", "v2_live"]

    def run(requests: int, seed: int = 1, minutes: float = 60.0) -> list[tuple[int, int]]:
        progress = Progress(file, seed)
        found = fuzz(
            platform, DOCUMENT, {}, requests=requests, seed=seed, only=only, minutes=minutes, progress=progress
        )
        return [(one.requests, one.crashes) for one in asyncio.run(found)]

    assert run(CHUNK, minutes=0) == [(0, 0)] * 2
    assert run(CHUNK) == [(CHUNK, 0)] * 2
    platform = copy.copy(platform)
    platform.app = silent
    assert run(CHUNK) == [(CHUNK, 0)] * 2  # counted, not sent again
    assert run(CHUNK + 1) == [(CHUNK + 1, 1)] * 2
    assert run(1, seed=2) == [(1, 1)] * 2


def test_changes_are_the_same_for_the_same_seed_and_differ() -> None:
    base = Sent("POST", DECIDE, body=json.dumps({"observation": [0.1, -0.5, 2.0]}).encode())
    runs = [[changed(base, rng, DECIDE) for _ in range(200)] for rng in (Random(1), Random(1), Random(2))]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len({one.shown() for one in runs[0]}) > 100


KNOWN = [
    (DECIDE, b'{"observation": [0, 0, 0], "\\ud800": NaN}'),
    (DECIDE, b'{"preference": {"latency": "a"}, "mode": "\xd2"}'),
    ("/api/v1/models/register", b'{"name": "toy", "path": "\\u0000"}'),
    ("/api/v1/models/register", json.dumps({"name": "toy", "path": "x" * 5000}).encode()),
    ("/api/v1/models/register", b'{"name": "toy", "path": "."}'),
    ("/api/v1/resolve", b'{"scenario": "network5g", "preference": {"latency": 1' + b"0" * 400 + b"}}"),
]


@pytest.mark.parametrize(
    ("path", "body"), KNOWN, ids=["surrogate", "bad utf-8", "nul", "long path", "no bundle", "huge weight"]
)
def test_what_once_crashed_a_route_is_a_refusal(platform: HttpPlatform, path: str, body: bytes) -> None:
    answer = _ask(platform, "POST", path, body)
    assert answer.status_code in (400, 422)
    assert answer.json()["field"]


def _ask(platform: HttpPlatform, method: str, path: str, body: bytes) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=platform.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=body)

    platform.restore()
    with platform.fast_lane():
        return asyncio.run(ask())


ONE = {"name": "a", "version": 1, "weight": 1}
FIELDS = [
    ("POST", "/api/v1/models/register", {"name": "a b", "path": "bundles/toy"}, "name"),
    ("GET", "/api/v1/models/nobody/versions", None, "model"),
    ("POST", "/api/v1/models/nobody/promote", {"version": 1}, "model"),
    ("POST", "/api/v1/models/toy/promote", {"version": 99}, "version"),
    ("DELETE", "/api/v1/models/nobody/versions/1", None, "model"),
    ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": [ONE], "fallback": 99}, "fallback"),
    ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": [{**ONE, "version": 99}]}, "version"),
    ("PUT", "/api/v1/models/toy/gate", {"value": "latency", "estimator": "best"}, "estimator"),
    ("POST", "/api/v1/outcomes", {"outcome_id": "o", "decision_id": "d", "outcome": {"a": 1e999}}, "outcome.a"),
    ("POST", DECIDE, {"observation": [0, 0, 0], "context": {"a": [1e999]}}, "context.a[0]"),
    ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": [ONE], "colour": 1}, "colour"),
]


@pytest.mark.parametrize(
    ("method", "path", "document", "field"), FIELDS, ids=[f"{path} {field}" for _, path, _, field in FIELDS]
)
def test_a_refusal_names_the_field_as_the_request_does(
    platform: HttpPlatform, method: str, path: str, document: dict[str, Any] | None, field: str
) -> None:
    body = b"" if document is None else json.dumps(document).replace("Infinity", "1e999").encode()
    answer = _ask(platform, method, path, body)
    assert answer.status_code in (404, 422), answer.text
    assert answer.json()["field"] == field


def test_a_gzip_bomb_is_refused_unopened(address: str) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    for encoding in ("gzip", "br", "gzip, gzip"):
        answer = httpx.post(f"http://{address}{DECIDE}", content=bomb, headers={"content-encoding": encoding})
        assert (answer.status_code, answer.json()["field"]) == (415, "content-encoding")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"observation":' * 50_000,
        b'{"observation": [NaN, 1, 2]}',
        b'{"observation": [Infinity, 1, 2]}',
        b'{"observation": [1e999, 1, 2]}',
        b'{"observation": [0, 0, 0], "context": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"observation": [0, 0, 0], "context": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b"\xff\xfe\x00",
        b"1" * 100_000,
    ],
)
def test_bodies_that_are_no_decent_json_are_refused(address: str, body: bytes) -> None:
    for path in (DECIDE, "/api/v1/outcomes", "/v2/models/toy/infer", "/api/v1/deployments/create"):
        answer = httpx.post(f"http://{address}{path}", content=body, timeout=30)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def _connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _head(address: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {DECIDE} HTTP/1.1", f"Host: {address}", *lines, "", ""]).encode()


def _status(connection: socket.socket) -> int:
    return int(connection.recv(4096).split(b" ")[1])


def test_a_body_of_100_mb_is_refused_without_being_read(address: str) -> None:
    with _connect(address) as connection:
        # Only the head: the answer comes before any of the body.
        connection.sendall(_head(address, f"Content-Length: {100 << 20}"))
        assert _status(connection) == 413
    sent = 0
    with _connect(address) as connection:
        connection.sendall(_head(address, "Transfer-Encoding: chunked"))
        while sent < 100 << 20 and not select.select([connection], [], [], 0)[0]:
            connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            sent += 65_536
        assert _status(connection) == 413
    # The limit is 1 MiB; beyond it only what was on its way is taken.
    assert sent < 20 << 20


def test_a_body_that_trickles_is_cut_and_others_are_served_meanwhile(address: str) -> None:
    with _connect(address) as connection:
        connection.sendall(_head(address, "Content-Length: 1000") + b'{"obs')
        answer = httpx.post(f"http://{address}{DECIDE}", json={"observation": [0, 0, 0]})
        assert answer.status_code == 200
        assert _status(connection) == 408
    with _connect(address) as connection:
        # The caller's own deadline is shorter than the server's patience.
        connection.sendall(_head(address, "Content-Length: 1000", "x-request-timeout: 0.1") + b"{")
        assert _status(connection) == 504


def test_half_open_clients_hold_nobody_up(address: str) -> None:
    halves = [_connect(address) for _ in range(100)]
    for index, connection in enumerate(halves):
        head = _head(address, "Content-Length: 1000")
        connection.sendall(head[: len(head) // 2] if index % 2 else head + b"{")
    try:
        for _ in range(20):
            assert httpx.post(f"http://{address}{DECIDE}", json={"observation": [0, 0, 0]}).status_code == 200
        for connection in halves[::4]:
            # Gone without a word: the server gets a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        assert all(_status(connection) == 408 for connection in halves[2::4])
        assert httpx.get(f"http://{address}/health").status_code == 200
    finally:
        for connection in halves:
            connection.close()
