"""A response as one write to the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["respond"]


class _Held:
    """Stands in for a transport until a response is whole."""

    __slots__ = ("_parts", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def close(self) -> None:
        self.flush()
        self._transport.close()


async def respond(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    """Send a whole response.

    ASGI has a message for the head and one for the body, and uvicorn writes each when it gets it: two system calls,
    and a client (or proxy) that wakes up for a head without a body. Where uvicorn is the server, what it writes is held
    until both are there; every other server gets the two messages as they are.

    Args:
        send: of the ASGI application.
        status: HTTP status.
        headers: with ``content-length``.
        body: all of it.
    """
    start = {"type": "http.response.start", "status": status, "headers": headers}
    end = {"type": "http.response.body", "body": body}
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle:
        await send(start)
        await send(end)
        return
    transport: Any = cycle.transport
    held: Any = _Held(transport)
    cycle.transport = held
    try:
        await send(start)
        await send(end)
    finally:
        cycle.transport = transport
        held.flush()
