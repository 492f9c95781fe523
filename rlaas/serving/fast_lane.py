"""The fast lane: the routes of the hot path, answered in front of Serve's own request path.

Serve accounts for every request: it routes, logs, counts and copies, which costs twenty times what a decision does. An
ASGI middleware inside the ingress replica sees the request first. It answers ``decide``, ``outcomes`` and V2 ``infer``
itself, through the same engine as the routes of :mod:`rlaas.serving.web`, and passes everything else on. Where Serve
does not load it (no ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``), those routes answer, slower, the same.

Serve imports this module in its proxies too, outside the application: it is light, and passes everything through while
no Gateway has entered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Protocol

__all__ = ["CALLBACK", "FastLane", "FastPath", "middlewares"]

CALLBACK = "rlaas.serving.fast_lane:middlewares"
"""What ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class FastPath(Protocol):
    """What a Gateway offers to the fast lane."""

    def find(self, path: str) -> Any | None:
        """The endpoint behind a path that this lane answers; None for every other."""

    async def answer(self, endpoint: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST request to it; never raises."""


class FastLane:
    """The middleware.

    Attributes:
        gateway: who answers in this process, where one replica lives; None passes everything on.
    """

    gateway: ClassVar[FastPath | None] = None

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        gateway = FastLane.gateway
        if gateway is not None and scope["type"] == "http" and scope["method"] == "POST":
            root = scope.get("root_path")
            endpoint = gateway.find(scope["path"].removeprefix(root) if root else scope["path"])
            if endpoint is not None:
                await gateway.answer(endpoint, scope, receive, send)
                return
        await self._app(_legible(scope), receive, send)


def _legible(scope: Scope) -> Scope:
    """Serve reads the id of a request as UTF-8, and fails with 500 at another; without one it makes its own."""
    if scope["type"] != "http" or all(value.isascii() for name, value in scope["headers"] if name == b"x-request-id"):
        return scope
    return {**scope, "headers": [header for header in scope["headers"] if header[0] != b"x-request-id"]}


def middlewares() -> list[Any]:
    """What Serve puts around the application of every ingress replica (and of every proxy)."""
    from starlette.middleware import Middleware

    return [Middleware(FastLane)]
