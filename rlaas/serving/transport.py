"""What both lanes make of an HTTP request before the engine sees it: headers that matter, and a bounded body.

Free of any web framework: ASGI scopes and ``receive`` callables in, bytes out. What comes before there is a scope is
bounded by :class:`PatientProtocol`, where uvicorn is the server.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
import types
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rlaas.errors import InvalidInputError, MalformedBodyError, RetryableError, RlaasError
from rlaas.serving.problems import PROBLEM_TYPE, problem_of

__all__ = [
    "LARGE_BODY",
    "ClientGoneError",
    "DeadlineError",
    "Limits",
    "PatientProtocol",
    "RequestHead",
    "SlowBodyError",
    "SlowHeadError",
    "TooLargeError",
    "UnsupportedEncodingError",
    "read_body",
    "read_head",
    "request_id_of",
]

Receive = Callable[[], Awaitable[Any]]

LARGE_BODY = 64 * 1024
"""Beyond it a request is worth a thread: below, the hand-over costs more than the work, and the loop hardly waits."""

_LONGEST_TIMEOUT_S = 3600.0
_LONGEST_ID = 128
_READ = frozenset(
    {b"content-length", b"content-encoding", b"inference-header-content-length", b"x-request-id", b"x-request-timeout"}
)
_PROCESS, _COUNTER = os.urandom(8).hex().encode(), itertools.count()
"""Of which request ids are made: those of a process differ by their number, processes by their name."""
_TOO_LATE = "x-request-timeout passed before the request was answered; nothing was done"


class TooLargeError(InvalidInputError):
    """A body beyond the limit."""

    http_status = 413


class UnsupportedEncodingError(InvalidInputError):
    """A compressed body: a few bytes may unpack to gigabytes."""

    http_status = 415


class SlowBodyError(InvalidInputError):
    """The body did not arrive in time."""

    http_status = 408


class SlowHeadError(SlowBodyError):
    """The header did not arrive in time."""


class DeadlineError(RetryableError):
    """The caller's own deadline passed before there was an answer; nothing was done."""

    http_status = 504


class ClientGoneError(Exception):
    """The client hung up before its body was complete: nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request.

    Attributes:
        body_bytes: longest body.
        body_s: seconds within which it has to arrive; before it the header has as many.
    """

    body_bytes: int
    body_s: float


class RequestHead:
    """The headers that the lanes act on.

    Attributes:
        request_id: the caller's, or a fresh one; goes back as ``x-request-id``.
        deadline: monotonic seconds after which the caller no longer waits; None without ``x-request-timeout``.
        declared: length of the body as declared; 0 where it is not.
        encoding: ``content-encoding``, empty for none.
        inference_header: length of the JSON of a binary V2 request; None for any other.
    """

    __slots__ = ("deadline", "declared", "encoding", "inference_header", "request_id")

    def __init__(self) -> None:
        self.request_id = b""
        self.deadline: float | None = None
        self.declared = 0
        self.encoding = b""
        self.inference_header: int | None = None

    def check_deadline(self) -> None:
        """Raise :class:`DeadlineError` if the caller no longer waits."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineError(_TOO_LATE)


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Pick out of ASGI headers (names in lower case) what the lanes need.

    Raises:
        InvalidInputError: a ``content-length`` or ``x-request-timeout`` that is not a number in its range.
    """
    head = RequestHead()
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"content-length":
            head.declared = _whole(value, "content-length")
        elif name == b"x-request-id":
            head.request_id = value[:_LONGEST_ID]
        elif name == b"x-request-timeout":
            head.deadline = time.monotonic() + _timeout_s(value)
        elif name == b"inference-header-content-length":
            head.inference_header = _whole(value, "inference-header-content-length")
        elif name == b"content-encoding" and value.lower() != b"identity":
            head.encoding = value
    if not head.request_id:
        head.request_id = _fresh_id()
    return head


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What :func:`read_head` finds as the id of a request, also where it refuses the other headers."""
    given = [value[:_LONGEST_ID] for name, value in headers if name == b"x-request-id"]
    return (given[-1] if given else b"") or _fresh_id()


def _fresh_id() -> bytes:
    return b"%b-%x" % (_PROCESS, next(_COUNTER))


def _whole(value: bytes, field: str) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidInputError(f"{field} must be a whole number", field=field)
    return int(value)


def _timeout_s(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise InvalidInputError(
            f"x-request-timeout must be seconds > 0 and <= {_LONGEST_TIMEOUT_S:g}", field="x-request-timeout"
        )
    return seconds


async def read_body(receive: Receive, head: RequestHead, limits: Limits) -> bytes:
    """The raw body, read no further and waited for no longer than ``limits`` and the caller's deadline allow.

    Raises:
        UnsupportedEncodingError: it is compressed.
        TooLargeError: it is longer than allowed.
        SlowBodyError: it took too long.
        DeadlineError: the caller no longer waits.
        ClientGoneError: the client hung up.
    """
    if head.encoding:
        raise UnsupportedEncodingError(
            f"content-encoding {head.encoding[:40].decode('latin-1')!r} is not supported; send the body as it is",
            field="content-encoding",
        )
    if head.declared > limits.body_bytes:
        raise TooLargeError(f"body is longer than {limits.body_bytes} bytes", field="body")
    # Nearly always everything is here by now. A timer is set only where there is something to wait for.
    reading = _read(receive, limits).__await__()
    try:
        waits_for = reading.send(None)
    except StopIteration as done:
        found: bytes = done.value
        return found
    left = math.inf if head.deadline is None else head.deadline - time.monotonic()
    try:
        async with asyncio.timeout(min(limits.body_s, left)):
            return await _go_on(reading, waits_for)
    except TimeoutError:
        # Not by the clock: a timer may fire a moment before its time.
        if left < limits.body_s:
            raise DeadlineError(_TOO_LATE) from None
        raise SlowBodyError(f"the body did not arrive within {limits.body_s:g} s", field="body") from None


@types.coroutine
def _go_on(reading: Generator[Any, Any, bytes], waits_for: Any) -> Generator[Any, Any, bytes]:
    """Await what was begun already and waits for a future now."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as problem:  # a timeout, say: it is for whoever waits
                waits_for = reading.throw(problem)
            else:
                waits_for = reading.send(sent)
    except StopIteration as done:
        found: bytes = done.value
        return found


async def _read(receive: Receive, limits: Limits) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limits.body_bytes:
            raise TooLargeError(f"body is longer than {limits.body_bytes} bytes", field="body")
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit to its patience with headers, which uvicorn has not: 408 and the connection ends.

    What is no HTTP at all gets a problem document too.

    Without it a client that sends a byte now and then holds a connection for as long as it likes, unseen by any
    application. Each connection looks at itself a few times within the limit; a request costs nothing.

    What it finds is always a client that is slow: the response before is complete and uvicorn's keep-alive timer, which
    it stops at the first byte, does not run.

    Attributes:
        head_s: seconds that a header may take from the opening of the connection, or from its first byte where it is
            not the first. There a look may come late by a fourth of it.
    """

    head_s: ClassVar[float] = 10.0
    _LOOKS: ClassVar[int] = 4

    @classmethod
    def enter(cls, head_s: float) -> None:
        """Have every uvicorn that this process starts from now on use it, wherever it is left to choose."""
        cls.head_s = head_s
        uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{cls.__module__}:{cls.__qualname__}"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        super().connection_made(transport)
        self._found, self._looks = self.cycle, 1
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(self.head_s / self._LOOKS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # at its end, or a WebSocket by now
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.timeout_keep_alive_task is not None:
            self._looks = 0
        else:
            self._looks = self._looks + 1 if self._looks and self._found is self.cycle else 1
        self._found = self.cycle
        if self._looks > self._LOOKS:
            self._cut()
        else:
            self._look_again()

    def _cut(self) -> None:
        self._refuse(SlowHeadError(f"the header did not arrive within {self.head_s:g} s", field="header"))

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP."""
        del msg
        self._refuse(
            MalformedBodyError(
                "the request cannot be read: its method is unknown, or its first line or a header is malformed"
            )
        )

    def _refuse(self, problem: RlaasError) -> None:
        status, body = problem_of(problem)
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"content-type: {PROBLEM_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {_fresh_id().decode()}",
            "connection: close",
        )
        self.transport.write("\r\n".join((*head, "", "")).encode() + body)
        self.transport.close()
