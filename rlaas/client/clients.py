"""The two clients: how a call is sent, retried and read."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from rlaas.client.answers import Reply
from rlaas.client.calls import PlatformCalls
from rlaas.client.retrying import Attempts, Patience
from rlaas.client.sessions import AsyncSession, Session
from rlaas.client.wire import Answer, Call
from rlaas.errors import ConfigurationError, RetryableError

__all__ = ["AsyncClient", "Client"]

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

_KEPT_S = 4.0
"""Seconds that an idle connection is kept: servers commonly close it after five, and may do so under a request."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _HttpCalls(PlatformCalls[Answer], Generic[Answer, Http]):
    """What both clients share: their connections and options, and how a request is made and an answer is read."""

    _kind: type[Http]

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
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"the platform's URL {base_url!r} must begin with http:// or https://, as in http://127.0.0.1:8000",
                field="base_url",
            )
        self._patience = Patience(timeout_s=timeout, deadline_s=deadline, attempts=attempts)
        self._http: Http = self._kind(base_url=base_url, headers=_headers(token), limits=_limits(max_connections))

    def within(self, deadline: float) -> Self:
        """This client over the same connections, with another deadline in seconds for each call."""
        other = copy.copy(self)
        other._patience = dataclasses.replace(self._patience, deadline_s=deadline)
        return other

    def _session_arguments(self) -> tuple[str, dict[str, str], Patience]:
        """Where a control loop connects, what its handshake carries, and how patient it is."""
        handshake = {name: value for name, value in self._http.headers.items() if name == "authorization"}
        return str(self._http.base_url), handshake, self._patience

    def _request(self, call: Call, seconds: float) -> httpx.Request:
        request: httpx.Request = self._http.build_request(
            call.method,
            call.path,
            content=call.body,
            params=call.query or None,
            headers={**Attempts.header(seconds), **call.headers},
            timeout=seconds,
        )
        return request


class Client(_HttpCalls[dict[str, Any], httpx.Client]):
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

    Raises:
        ConfigurationError: ``base_url`` is not one of HTTP.
    """

    _kind = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def session(self, policy: str, *, session: str | None = None, step: int = 0) -> Session:
        """A control loop over one connection.

        Args:
            policy: that decides.
            session: id of the trajectory; None for a fresh one.
            step: of the first decision.
        """
        return Session(*self._session_arguments(), policy, session, step)

    def _send(self, call: Call) -> dict[str, Any]:
        attempts = Attempts(call, self._patience)
        while True:
            request = self._request(call, attempts.begin())
            reply: Reply | None = None
            try:
                reply = _reply(self._http.send(request))
                return call.read(reply)
            except (httpx.TransportError, RetryableError) as problem:
                pause = _pause(attempts, problem, reply)
            time.sleep(pause)


class AsyncClient(_HttpCalls[Awaitable[dict[str, Any]], httpx.AsyncClient]):
    """Calls the platform without blocking the event loop; arguments as for :class:`Client`."""

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def session(self, policy: str, *, session: str | None = None, step: int = 0) -> AsyncSession:
        """A control loop over one connection; arguments as for :meth:`Client.session`."""
        return AsyncSession(*self._session_arguments(), policy, session, step)

    async def _send(self, call: Call) -> dict[str, Any]:
        attempts = Attempts(call, self._patience)
        while True:
            request = self._request(call, attempts.begin())
            reply: Reply | None = None
            try:
                reply = _reply(await self._http.send(request))
                return call.read(reply)
            except (httpx.TransportError, RetryableError) as problem:
                pause = _pause(attempts, problem, reply)
            await asyncio.sleep(pause)


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}


def _limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEPT_S)


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content, str(response.request.url))


def _pause(attempts: Attempts, problem: httpx.TransportError | RetryableError, reply: Reply | None) -> float:
    """Seconds until the next attempt; raises what went wrong where there is none."""
    if isinstance(problem, RetryableError):
        return attempts.refused(problem, reply)
    return attempts.lost(problem, sent=not isinstance(problem, _NEVER_SENT))
