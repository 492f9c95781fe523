"""The two clients: how a call is sent, retried and read."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

import httpx

from rlaas.client.answers import Reply
from rlaas.client.calls import PlatformCalls
from rlaas.client.retrying import Attempts, Patience
from rlaas.client.sessions import AsyncSession, Session
from rlaas.client.wire import Call
from rlaas.errors import RetryableError

__all__ = ["AsyncClient", "Client"]

_KEPT_S = 4.0
"""Seconds that an idle connection is kept: servers commonly close it after five, and may do so under a request."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Client(PlatformCalls[dict[str, Any]]):
    """Calls the platform and waits for the answer. Use it as a context manager, or close it. Thread-safe.

    A call is sent again, after a growing pause or the one that ``Retry-After`` asks for, while the platform says "not
    now" or cannot be reached; after an answer got lost on its way only if doing it twice does no harm. The platform is
    told how long each attempt waits (``x-request-timeout``), so that it begins nothing for nobody.

    Args:
        base_url: for example ``http://127.0.0.1:8000``.
        token: sent as a bearer token.
        timeout: seconds for one attempt: to connect, and to wait for bytes.
        deadline: seconds for a call with all its attempts; None for no end but that of the attempts.
        attempts: at most.
        max_connections: open at a time; further calls wait for one.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        deadline: float | None = None,
        attempts: int = 5,
        max_connections: int = 100,
    ) -> None:
        self._patience = Patience(timeout_s=timeout, deadline_s=deadline, attempts=attempts)
        self._http = httpx.Client(base_url=base_url, headers=_headers(token), limits=_limits(max_connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def within(self, deadline: float) -> Self:
        """This client over the same connections, with another deadline in seconds for each call."""
        other = copy.copy(self)
        other._patience = dataclasses.replace(self._patience, deadline_s=deadline)
        return other

    def session(self, policy: str, *, session: str | None = None, step: int = 0) -> Session:
        """A control loop over one connection.

        Args:
            policy: that decides.
            session: id of the trajectory; None for a fresh one.
            step: of the first decision.
        """
        return Session(str(self._http.base_url), _handshake(self._http), self._patience, policy, session, step)

    def _send(self, call: Call) -> dict[str, Any]:
        attempts = Attempts(call, self._patience)
        while True:
            request = _request(self._http, call, attempts.begin())
            reply: Reply | None = None
            try:
                reply = _reply(self._http.send(request))
                return call.read(reply)
            except httpx.TransportError as problem:
                pause = attempts.lost(problem, sent=not isinstance(problem, _NEVER_SENT))
            except RetryableError as problem:
                pause = attempts.refused(problem, reply)
            time.sleep(pause)


class AsyncClient(PlatformCalls[Awaitable[dict[str, Any]]]):
    """Calls the platform without blocking the event loop; arguments as for :class:`Client`."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        deadline: float | None = None,
        attempts: int = 5,
        max_connections: int = 100,
    ) -> None:
        self._patience = Patience(timeout_s=timeout, deadline_s=deadline, attempts=attempts)
        self._http = httpx.AsyncClient(base_url=base_url, headers=_headers(token), limits=_limits(max_connections))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def within(self, deadline: float) -> Self:
        """This client over the same connections, with another deadline in seconds for each call."""
        other = copy.copy(self)
        other._patience = dataclasses.replace(self._patience, deadline_s=deadline)
        return other

    def session(self, policy: str, *, session: str | None = None, step: int = 0) -> AsyncSession:
        """A control loop over one connection.

        Args:
            policy: that decides.
            session: id of the trajectory; None for a fresh one.
            step: of the first decision.
        """
        return AsyncSession(str(self._http.base_url), _handshake(self._http), self._patience, policy, session, step)

    async def _send(self, call: Call) -> dict[str, Any]:
        attempts = Attempts(call, self._patience)
        while True:
            request = _request(self._http, call, attempts.begin())
            reply: Reply | None = None
            try:
                reply = _reply(await self._http.send(request))
                return call.read(reply)
            except httpx.TransportError as problem:
                pause = attempts.lost(problem, sent=not isinstance(problem, _NEVER_SENT))
            except RetryableError as problem:
                pause = attempts.refused(problem, reply)
            await asyncio.sleep(pause)


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}


def _handshake(http: httpx.Client | httpx.AsyncClient) -> dict[str, str]:
    return {name: value for name, value in http.headers.items() if name == "authorization"}


def _limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEPT_S)


def _request(http: httpx.Client | httpx.AsyncClient, call: Call, seconds: float) -> httpx.Request:
    return http.build_request(
        call.method,
        call.path,
        content=call.body,
        params=call.query or None,
        headers={**Attempts.header(seconds), **call.headers},
        timeout=seconds,
    )


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content, str(response.request.url))
