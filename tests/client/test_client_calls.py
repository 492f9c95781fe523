"""Both clients against a real HTTP server that answers as it is told."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import rlaas
from rlaas import errors
from rlaas.client import AsyncClient, AsyncSession, Client, Session
from rlaas.client.calls import PlatformCalls
from rlaas.errors import InvalidInputError, NotFoundError, OperatorError, RequestError, RetryableError, RlaasError
from rlaas.serving.problems import problem_of


class Server:
    """Answers with what is queued, then with 200 and an echo of the request."""

    def __init__(self) -> None:
        self.queued: list[tuple[int, bytes] | None] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.more: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers, body))
                planned = (
                    outer.queued.pop(0)
                    if outer.queued
                    else (200, json.dumps({"path": self.path, **outer.more}).encode())
                )
                if planned is None:  # the answer gets lost
                    self.connection.close()
                    return
                self.send_response(planned[0])
                self.send_header("Content-Length", str(len(planned[1])))
                self.end_headers()
                self.wfile.write(planned[1])

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


ALL_ERRORS = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]


@pytest.mark.parametrize("kind", [kind for kind in ALL_ERRORS if not kind.retryable])
def test_every_error_comes_back_as_it_was_raised(server: Server, kind: type[RlaasError]) -> None:
    server.queued = [problem_of(kind("what is wrong", field="a.b"))]
    with Client(server.url) as client, pytest.raises(kind) as caught:
        client.deployments()
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.field) == ("what is wrong", "a.b")


@pytest.mark.parametrize("kind", [kind for kind in ALL_ERRORS if kind.retryable])
def test_not_now_is_asked_again(server: Server, kind: type[RlaasError]) -> None:
    server.queued = [problem_of(kind("later"))] * 2
    with Client(server.url) as client:
        assert client.decide("toy", observation=[1.0]) == {"path": "/api/v1/policies/toy/decide"}
        server.queued = [problem_of(kind("later"))] * 9
        with pytest.raises(kind):
            client.decide("toy", observation=[1.0])
        before = len(server.requests)
        with pytest.raises(kind):
            client.ready()
    assert len(server.requests) == before + 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>", NotFoundError),
        (418, b"[]", RequestError),
        (413, b'{"detail": "too long", "code": "Exception"}', RequestError),
        (500, b'{"code": "check_choice"}', OperatorError),
        (200, b"not json", OperatorError),
    ],
)
def test_strange_answers_are_errors_too(server: Server, status: int, body: bytes, kind: type[RlaasError]) -> None:
    server.queued = [(status, body)]
    with Client(server.url) as client, pytest.raises(kind):
        client.health()


def test_a_lost_answer_is_asked_for_again_only_if_that_does_no_harm(server: Server) -> None:
    with Client(server.url) as client:
        server.queued = [None]
        assert client.outcomes([]) == {"path": "/api/v1/outcomes"}
        server.queued = [None]
        with pytest.raises(RetryableError, match="no answer to POST"):
            client.decide("toy", observation=[1.0])
        server.queued = [None]
        client.create_deployment("toy", [])
    keys = [headers["idempotency-key"] for _, path, headers, _ in server.requests if path.endswith("/create")]
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_nobody_there_is_retryable(server: Server) -> None:
    server.close()
    with Client(server.url) as client, pytest.raises(RetryableError, match="no answer"):
        client.health()


def test_arrays_are_written_and_nan_is_refused_before_it_is_sent(server: Server) -> None:
    with Client(server.url, token="t") as client:
        client.decide("a/b", observations=np.ones((2, 2)), step=np.int64(3), unit=None)
        _, path, headers, body = server.requests[0]
        assert (path, headers["authorization"]) == ("/api/v1/policies/a%2Fb/decide", "Bearer t")
        assert json.loads(body) == {"observations": [[1.0, 1.0], [1.0, 1.0]], "step": 3}
        with pytest.raises(InvalidInputError, match="NaN"):
            client.decide("toy", observation=[float("nan")])
        with pytest.raises(InvalidInputError, match="JSON type"):
            client.decide("toy", observation=object())  # type: ignore[arg-type]
    assert len(server.requests) == 1


ARGUMENTS: dict[str, Any] = {
    "policy": "toy",
    "model": "toy",
    "name": "toy",
    "deployment": "dep",
    "outcomes": [],
    "body": {},
    "path": "p",
    "version": 1,
    "replicas": 2,
    "variants": [],
    "scenario": "toy",
    "number": 3,
    "experiment": "autumn",
    "document": {},
    "declaration": {},
    "config": {},
    "decision": "keep",
    "reason": "why",
    "inputs": {"observation": np.ones((1, 2))},
}


def test_both_clients_send_the_same_requests(server: Server) -> None:
    names = sorted(name for name in dir(PlatformCalls) if not name.startswith("_"))
    assert len(names) > 25
    server.more = {"outputs": []}

    def arguments(name: str) -> dict[str, Any]:
        parameters = inspect.signature(getattr(Client, name)).parameters.values()
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name != "self"
        ]
        fixed = {"idempotency_key": "k"} if name in ("create_deployment", "register") else {}
        return {**{key: ARGUMENTS[key] for key in needed}, **fixed}

    async def ask_all() -> list[dict[str, Any]]:
        async with AsyncClient(server.url) as client:
            return [await getattr(client, name)(**arguments(name)) for name in names]

    with Client(server.url) as client:
        waited = [getattr(client, name)(**arguments(name)) for name in names]
    first, server.requests = server.requests, []
    assert asyncio.run(ask_all()) == waited
    assert [(m, p, b) for m, p, _, b in server.requests] == [(m, p, b) for m, p, _, b in first]
    # The two forms of inference share a path.
    assert len({(m, p) for m, p, _, _ in first}) == len(names) - 1


def test_both_clients_and_both_sessions_have_the_same_surface() -> None:
    for ours, other, more in (
        (Client, AsyncClient, ["close", "session", "within"]),
        (Session, AsyncSession, ["close", "decide", "report"]),
    ):
        surfaces = [
            {
                name: list(inspect.signature(getattr(kind, name)).parameters.values())
                for name in dir(kind)
                if not name.startswith("_")
            }
            for kind in (ours, other)
        ]
        assert surfaces[0] == surfaces[1]
        assert set(more) <= surfaces[0].keys()
        for kind in (ours, other):
            assert all(getattr(kind, name).__doc__ for name in surfaces[0])
    parameters = [list(inspect.signature(kind).parameters.values()) for kind in (Client, AsyncClient)]
    assert parameters[0] == parameters[1]


def test_the_async_client_raises_and_retries_alike(server: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            server.queued = [problem_of(RetryableError("later")), None]
            assert await client.models() == {"path": "/api/v1/models?page_size=1000"}
            server.queued = [problem_of(NotFoundError("gone", field="policy"))]
            with pytest.raises(NotFoundError, match="gone"):
                await client.versions("toy")

    asyncio.run(ask())


def test_the_client_is_offered_by_the_package() -> None:
    assert rlaas.Client is Client
