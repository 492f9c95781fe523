"""The edges of the HTTP surface, on a real port and in Serve's own order of middlewares, without a running Ray."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn.config
from ray.serve._private.http_util import _apply_middlewares
from support.bundles import policy_bundle
from support.http_server import serving
from support.lanes import StandIn
from support.serving_kit import Bench, deployment, make_bench
from websockets.sync.client import connect

from rlaas.serving.fast_lane import FastLane, middlewares
from rlaas.serving.hot_path import HotPath
from rlaas.serving.pressure import Pressure
from rlaas.serving.transport import Limits, PatientProtocol, read_head, request_id_of
from rlaas.serving.web import ControlReply, ControlRequest, create_app

ROW = [0.1, -0.5, 2.0]
DECIDE, INFER, OUTCOMES = "/api/v1/policies/toy/decide", "/v2/models/toy/infer", "/api/v1/outcomes"
PATIENCE_S = 0.4
TENSOR = {"name": "observation", "shape": [1, 3], "datatype": "FP32", "data": ROW}


class Content(StandIn):
    """Its Control says yes to everything."""

    async def forward(self, request: ControlRequest) -> ControlReply:
        return ControlReply(200, b"{}", {})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("edges")
    paths = {("toy", 1): policy_bundle(root / "toy", seed=1)}
    return make_bench(root, paths, deployment("toy", [{"name": "a", "version": 1, "weight": 1}]))


@pytest.fixture(scope="module", params=["routes", "fast lane"])
def at(request: pytest.FixtureRequest, bench: Bench) -> Iterator[str]:
    """``host:port`` of the application behind the server that Serve would start for it."""
    lane = Content(bench.engine, limits=Limits(4096, PATIENCE_S))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatientProtocol, "head_s", PatientProtocol.head_s)
        patch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])
        path = HotPath(lane.tenant, lane.limits, 8, Pressure())
        path.refresh(bench.engine)
        patch.setattr(FastLane, "gateway", path if request.param == "fast lane" else None)
        with serving(_apply_middlewares(create_app(lane), middlewares())) as address:
            yield address


@pytest.fixture
def client(at: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{at}", timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", DECIDE, {"observation": ROW}, {}, 200),
        ("POST", DECIDE, {"observation": [1]}, {}, 422),
        ("POST", DECIDE, {"observation": ROW}, {"x-request-timeout": "soon"}, 422),
        ("POST", INFER, {"inputs": [TENSOR]}, {}, 200),
        ("POST", OUTCOMES, {}, {}, 422),
        ("GET", "/ready", None, {}, 200),
        ("GET", "/openapi.json", None, {}, 200),
        ("GET", "/v2/models/toy", None, {}, 200),
        ("GET", "/v2/models/nobody", None, {}, 404),
        ("GET", "/nowhere", None, {}, 404),
        ("PUT", DECIDE, {}, {}, 405),
        ("GET", "/api/v1/models", None, {}, 200),
    ],
)
def test_every_answer_has_the_id_of_its_request_once(
    client: httpx.Client, method: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    answer = client.request(method, path, json=body, headers={**headers, "x-request-id": "mine"})
    assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["mine"])
    fresh = [client.request(method, path, json=body, headers=headers) for _ in range(2)]
    ids = [found for answer in fresh for found in answer.headers.get_list("x-request-id")]
    assert len(ids) == len(set(ids)) == 2
    assert all(ids)


def test_an_id_is_found_also_where_another_header_is_refused() -> None:
    assert request_id_of([(b"x-request-timeout", b"soon"), (b"x-request-id", b"a" * 200)]) == b"a" * 128
    assert request_id_of([(b"x-request-id", b"")]) != request_id_of([])
    assert read_head([(b"x-request-id", b"")]).request_id


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, INFER, "POST") for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS")),
        ("GET", "/v2/models/toy/versions/1/infer", "POST"),
        ("GET", "/v2/models/nobody/infer", "POST"),
        ("POST", "/v2/models/toy", "GET, HEAD"),
        ("POST", "/v2/models/toy/ready", "GET, HEAD"),
        ("POST", "/v2", "GET, HEAD"),
        ("GET", DECIDE, "POST"),
        ("GET", OUTCOMES, "POST"),
        ("GET", "/api/v1/edge/toy/sync", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("OPTIONS", "/api/v1/deployments", "DELETE, GET, HEAD, PATCH, POST, PUT"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_405(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["detail"] == f"method {method} is not allowed here; allowed: {allowed}"
    assert document["field"] == "method"
    assert document.get("error") == (document["detail"] if path.startswith("/v2") else None)


def test_head_has_no_body_and_the_same_status(client: httpx.Client) -> None:
    for path in (INFER, DECIDE):
        answer = client.head(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", ["/v2/models", "/v2/", "/health/", f"{DECIDE}/"])
def test_a_slash_too_many_or_too_few_is_404_and_no_redirect(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["field"]) == (404, "path")


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "detail"),
    [
        (DECIDE, b"", 400, "body", 'the body is empty; send a JSON object like {"observation": [...]}'),
        (DECIDE, b" \n", 400, "body", 'the body is empty; send a JSON object like {"observation": [...]}'),
        (INFER, b"", 400, "body", 'the body is empty; send a JSON object like {"inputs": [...]}'),
        (
            OUTCOMES,
            b"",
            400,
            "body",
            'the body is empty; send a JSON object like {"outcome_id": "...", "decision_id": "...", "outcome": {...}}',
        ),
        (DECIDE, b"hello", 400, "body", "body is not valid JSON: invalid character (byte 0)"),
        (DECIDE, b"{", 400, "body", "body is not valid JSON: input data was truncated"),
        (DECIDE, b"{'a': 1}", 400, "body", "body is not valid JSON: object keys must be strings (byte 1)"),
        (
            DECIDE,
            b"\xef\xbb\xbf{}",
            400,
            "body",
            "body is not valid JSON: it begins with a byte order mark; leave that out",
        ),
        (DECIDE, b"{} x", 400, "body", "body is not valid JSON: trailing characters (byte 4)"),
        (
            INFER,
            b'{"inputs": []}\0\0\0',
            400,
            "body",
            (
                "body is not valid JSON: trailing characters (byte 15); bytes of "
                "tensors behind it need the header inference-header-content-length, the length of the JSON"
            ),
        ),
        (DECIDE, b'{"mode": 5}', 422, "mode", "mode: expected `str | null`, got `int`"),
        (
            DECIDE,
            {"observation": ROW, "preference": {"speed": 1}},
            422,
            "preference",
            "unknown preference objective 'speed'; allowed: latency, throughput",
        ),
        (INFER, {}, 422, "inputs", "inputs: missing, but required"),
        (
            INFER,
            {"inputs": [{"name": "observation"}]},
            422,
            "inputs[0].shape",
            "inputs[0].shape: missing, but required",
        ),
        (
            INFER,
            {"inputs": [{**TENSOR, "data": None}]},
            422,
            "inputs[0].data",
            "inputs[0].data is missing; send numbers, or bytes behind the JSON and parameters.binary_data_size",
        ),
        (
            INFER,
            {"inputs": [{**TENSOR, "parameters": {"binary_data_size": 12}}]},
            422,
            "inputs[0].parameters.binary_data_size",
            "inputs[0] has data, and with binary_data_size bytes behind the JSON too; send one of them",
        ),
        (OUTCOMES, {}, 422, "outcome_id", "outcome_id: missing, but required"),
        (OUTCOMES, [5], 422, "outcomes[0]", "outcomes[0]: expected `object`, got `int`"),
        (
            OUTCOMES,
            {"outcomes": [{"outcome_id": "a"}]},
            422,
            "outcomes[0].decision_id",
            "outcomes[0].decision_id: missing, but required",
        ),
        (OUTCOMES, {"outcomes": [], "x": 1}, 422, "x", "x: unknown field; allowed: outcomes"),
        (
            OUTCOMES,
            [{"x": 1}],
            422,
            "outcomes[0].x",
            (
                "outcomes[0].x: unknown field; allowed: outcome_id, decision_id, "
                "outcome, revision, terminated, truncated, time"
            ),
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(
    client: httpx.Client, path: str, body: Any, status: int, field: str, detail: str
) -> None:
    answer = client.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    document = answer.json()
    assert (answer.status_code, document["detail"], document["field"]) == (status, detail, field)


@pytest.mark.parametrize("length", ["0", "9999"])
def test_a_header_of_tensors_has_a_length_within_the_body(client: httpx.Client, length: str) -> None:
    body = json.dumps({"inputs": [TENSOR]}).encode()
    answer = client.post(INFER, content=body, headers={"inference-header-content-length": length})
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        f"inference-header-content-length is {length}; allowed: 1 to {len(body)}, the bytes of the body"
    )


def _drip(connection: socket.socket, data: bytes, gap_s: float = 0.05, most_s: float = 10 * PATIENCE_S) -> bytes:
    """Send byte by byte until the other side ends the connection; what it said."""
    heard, end = b"", time.monotonic() + most_s
    connection.settimeout(gap_s)
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
            while found := connection.recv(4096):
                heard += found
            return heard
        except TimeoutError:
            if time.monotonic() > end:
                break
        except OSError:
            return heard
    raise AssertionError(f"still open after {most_s} s")


SLOW = b"POST " + DECIDE.encode() + b" HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 1000


def _connected(at: str) -> socket.socket:
    host, port = at.split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def _ask(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    connection.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
    return connection.recv(4096)


def test_a_header_that_drips_in_is_cut(at: str) -> None:
    with _connected(at) as connection:
        started = time.monotonic()
        heard = _drip(connection, SLOW)
        assert PATIENCE_S * 0.9 < time.monotonic() - started < PATIENCE_S * 3
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    assert json.loads(body)["detail"] == f"the header did not arrive within {PATIENCE_S:g} s"


def test_so_is_the_header_of_a_later_request_and_a_connection_that_says_nothing(at: str) -> None:
    with _connected(at) as connection:
        assert _ask(connection).startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408 " in _drip(connection, SLOW)
    with _connected(at) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_drips_in_is_cut(at: str) -> None:
    with _connected(at) as connection:
        connection.sendall(b"POST " + DECIDE.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert b"HTTP/1.1 408 " in _drip(connection, b" " * 1000)


def test_who_only_rests_between_requests_is_left_alone(at: str) -> None:
    with _connected(at) as connection:
        for pause_s in (PATIENCE_S / 2, PATIENCE_S * 3, 0.0):
            assert _ask(connection).startswith(b"HTTP/1.1 200")
            time.sleep(pause_s)


def test_a_session_outlives_the_patience_with_headers(at: str) -> None:
    with connect(f"ws://{at}/api/v1/policies/toy/session") as loop:
        for _ in range(2):
            loop.send(json.dumps({"observation": ROW}))
            assert "action" in json.loads(loop.recv(timeout=5))
            time.sleep(PATIENCE_S * 2)


def test_what_is_no_http_gets_a_problem_document(at: str) -> None:
    with _connected(at) as connection:
        connection.sendall(b"BREW /coffee HTTP/1.1\r\n\r\n")
        head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "its method is unknown" in json.loads(body)["detail"]


def test_an_id_that_serve_could_not_read_is_not_passed_on() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    async def ask(value: bytes) -> None:
        headers = [(b"x-request-id", value), (b"accept", b"*/*")]
        await FastLane(app)({"type": "http", "method": "GET", "path": "/", "headers": headers}, None, None)  # type: ignore[arg-type]

    asyncio.run(ask("ü".encode("latin-1")))
    asyncio.run(ask(b"mine"))
    assert seen == [[(b"accept", b"*/*")], [(b"x-request-id", b"mine"), (b"accept", b"*/*")]]
