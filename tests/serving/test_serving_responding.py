from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from rlaas.serving.responding import respond

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


class Recorder(asyncio.Transport):
    """A connection that writes down what happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def write(self, data: Any) -> None:
        self.events.append(bytes(data))

    def close(self) -> None:
        self.events.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.events

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 200, HEADERS, b"{}")


async def _serve(app: Callable[..., Awaitable[None]], request: bytes) -> list[Any]:
    config = uvicorn.Config(app, log_config=None, lifespan="off", proxy_headers=False, date_header=False)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Recorder()
    protocol.connection_made(transport)
    protocol.data_received(request)
    for _ in range(20):
        await asyncio.sleep(0)
    events = list(transport.events)
    protocol.connection_lost(None)
    return events


def _post(*headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "host: here", *headers, "", ""]).encode()


def test_head_and_body_are_one_write() -> None:
    (written,) = asyncio.run(_serve(answers, _post()))
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"content-length: 2\r\n\r\n{}")


def test_a_connection_is_closed_behind_the_answer() -> None:
    written, closed = asyncio.run(_serve(answers, _post("connection: close")))
    assert written.endswith(b"connection: close\r\n\r\n{}")
    assert closed == "closed"


def test_requests_that_are_sent_ahead_are_answered_in_order() -> None:
    assert [part[-2:] for part in asyncio.run(_serve(answers, _post() + _post()))] == [b"{}", b"{}"]


def test_what_was_held_is_written_when_the_answer_fails_half_way(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, [(b"content-length", b"1")], b"{}")

    first, *rest = asyncio.run(_serve(breaks, _post()))
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "closed" in rest  # uvicorn hangs up on an answer that was cut short
    assert "Response content longer than Content-Length" in caplog.text


def test_any_other_server_gets_the_two_messages() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(respond(send, 202, HEADERS, b"{}"))
    assert sent == [
        {"type": "http.response.start", "status": 202, "headers": HEADERS},
        {"type": "http.response.body", "body": b"{}"},
    ]
