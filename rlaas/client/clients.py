"""The two clients: how a call is sent, retried and read."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

import httpx

from rlaas.client.calls import Call, PlatformCalls, read_answer
from rlaas.errors import RetryableError, RlaasError

__all__ = ["AsyncClient", "Client"]

_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.1


class Client(PlatformCalls[dict[str, Any]]):
    """Calls the platform and waits for the answer. Use it as a context manager, or close it.

    Args:
        base_url: for example ``http://127.0.0.1:8000``.
        token: sent as a bearer token.
        timeout: seconds for one attempt.
    """

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._http = httpx.Client(base_url=base_url, headers=_headers(token), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            try:
                return read_answer(self._http.send(_request(self._http, call)))
            except (httpx.TransportError, RetryableError) as problem:
                time.sleep(_pause_s(call, attempt, problem))
        raise AssertionError("unreachable: the last attempt returns or raises")


class AsyncClient(PlatformCalls[Awaitable[dict[str, Any]]]):
    """Calls the platform without blocking the event loop; arguments as for :class:`Client`."""

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, headers=_headers(token), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: Call) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            try:
                return read_answer(await self._http.send(_request(self._http, call)))
            except (httpx.TransportError, RetryableError) as problem:
                await asyncio.sleep(_pause_s(call, attempt, problem))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}


def _request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    return http.build_request(
        call.method, call.path, content=call.body, params=call.query or None, headers=dict(call.headers)
    )


def _pause_s(call: Call, attempt: int, problem: httpx.TransportError | RlaasError) -> float:
    """Seconds to wait before the next attempt.

    What never reached the platform, or what it refused for now, was not done and may be sent again. An answer that
    got lost on the way back may be asked for again only if doing it twice does no harm.

    Raises:
        RetryableError: there is no next attempt.
    """
    lost = isinstance(problem, httpx.TransportError) and not isinstance(problem, httpx.ConnectError)
    if attempt + 1 >= _ATTEMPTS or not call.patient or (lost and not call.idempotent):
        if isinstance(problem, RlaasError):
            raise problem
        reason = str(problem) or type(problem).__name__
        raise RetryableError(f"no answer to {call.method} {call.path}: {reason}") from problem
    # Jitter, so that clients that were turned away together do not come back together.
    return _FIRST_PAUSE_S * 2.0**attempt * random.uniform(0.5, 1.5)
