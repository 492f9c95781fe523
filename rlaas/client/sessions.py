"""A control loop over one WebSocket: observations out, actions in, outcomes out on the same connection.

The client counts the steps and names the session itself, so that a connection that broke is opened again where the
loop stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rlaas.client.answers import read_problem
from rlaas.client.retrying import Attempts, Patience
from rlaas.client.wire import Call, encode, quoted
from rlaas.errors import InvalidInputError, OperatorError, RetryableError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncConnection
    from websockets.sync.client import ClientConnection

__all__ = ["AsyncSession", "Session"]

Answer = TypeVar("Answer")
Document = dict[str, Any]
_TOO_BIG = 1009
"""Close code of RFC 6455 for a message that is too long."""
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Message:
    text: str
    call: Call
    done: Callable[[Document], None]


class SessionCalls(ABC, Generic[Answer]):
    """What a control loop does; use it as a context manager. One message at a time.

    Args:
        url: ``http://...`` of the platform.
        headers: of the handshake.
        patience: of every message.
        policy: that decides.
        session: id of the trajectory; None for a fresh one.
        step: of the first decision.

    Attributes:
        session: id of the present trajectory.
        step: of the next decision.
    """

    def __init__(
        self, url: str, headers: dict[str, str], patience: Patience, policy: str, session: str | None, step: int
    ) -> None:
        self._path = f"/api/v1/policies/{quoted(policy)}/session"
        self._url = "ws" + url.removeprefix("http").rstrip("/") + self._path
        self._headers = headers
        self._patience = patience
        self._last: str | None = None
        self.session = session or uuid.uuid4().hex
        self.step = step

    def decide(self, observation: Sequence[float], *, repeat_if_lost: bool = False, **fields: Any) -> Answer:
        """Decide for one observation [n_features].

        Args:
            observation: a list or an array.
            repeat_if_lost: decide again, over a new connection, after an answer got lost.
            **fields: as of :meth:`rlaas.Client.decide`.
        """
        document = {"session": self.session, "step": self.step, "observation": observation, **fields}
        return self._exchange(self._message(document, repeat_if_lost, self._decided))

    def report(
        self, outcome: dict[str, float], *, terminated: bool = False, truncated: bool = False, **fields: Any
    ) -> Answer:
        """Report what became of the last decision.

        Args:
            outcome: values by objective or measure.
            terminated, truncated: the trajectory ended, so that the next decision begins another.
            **fields: ``decision_id`` of another decision, ``outcome_id``, ``revision``, ``time``.

        Raises:
            InvalidInputError: there was no decision yet.
        """
        decision = fields.get("decision_id", self._last)
        if decision is None:
            raise InvalidInputError("there is no decision yet that this could be the outcome of", field="decision_id")
        document = {
            "outcome_id": decision,
            "decision_id": decision,
            "outcome": outcome,
            "terminated": terminated,
            "truncated": truncated,
            **fields,
        }

        def recorded(_: Document) -> None:
            if terminated or truncated:
                self.session, self.step, self._last = uuid.uuid4().hex, 0, None

        # The same outcome under the same id is taken once.
        return self._exchange(self._message(document, True, recorded))

    @abstractmethod
    def _exchange(self, message: _Message) -> Answer:
        """Send a message and wait for its answer."""

    def _decided(self, answer: Document) -> None:
        self._last = answer["decision_id"]
        self.session, self.step = answer["session"], answer["step"] + 1

    def _message(self, document: Document, idempotent: bool, done: Callable[[Document], None]) -> _Message:
        return _Message(encode(document).decode(), Call("WEBSOCKET", self._path, idempotent=idempotent), done)

    def _read(self, message: _Message, text: str | bytes) -> Document:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise OperatorError(f"{self._url} answered with {str(text)[:80]!r}")
        if "detail" in document and "status" in document:
            raise read_problem(int(document["status"]), document, "refused")
        message.done(document)
        return document


def _check_handshake(problem: Exception) -> None:
    """Raise what a refused handshake or a closed connection says, if trying again is of no use."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    if isinstance(problem, InvalidStatus):
        status = problem.response.status_code
        error = read_problem(status, _document(problem.response.body), f"HTTP {status} instead of a session")
        if not isinstance(error, RetryableError):
            raise error from problem
    if isinstance(problem, ConnectionClosed) and problem.rcvd is not None and problem.rcvd.code == _TOO_BIG:
        raise InvalidInputError("the message is longer than the platform allows", field="message") from problem


def _document(body: bytes | bytearray | None) -> Any:
    try:
        return json.loads(body or b"")
    except ValueError:
        return None


class Session(SessionCalls[Document]):
    """A control loop that waits for its answers; made by :meth:`rlaas.Client.session`."""

    _socket: ClientConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next message opens another."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _exchange(self, message: _Message) -> Document:
        from websockets.exceptions import WebSocketException

        attempts = Attempts(message.call, self._patience)
        while True:
            seconds = attempts.begin()
            sent = False
            try:
                socket = self._socket = self._socket or self._connect(seconds)
                sent = True
                socket.send(message.text)
                return self._read(message, socket.recv(timeout=seconds))
            except RetryableError as problem:
                pause = attempts.refused(problem, None)
            except (WebSocketException, OSError) as problem:
                self.close()
                _check_handshake(problem)
                pause = attempts.lost(problem, sent=sent)
            time.sleep(pause)

    def _connect(self, seconds: float) -> ClientConnection:
        from websockets.sync.client import connect

        opening = connect(
            self._url, additional_headers=self._headers, compression=None, open_timeout=seconds, max_size=_LARGEST
        )
        # Entered, as later versions of the library want it; :meth:`close` is the exit.
        return contextlib.ExitStack().enter_context(opening)


class AsyncSession(SessionCalls[Awaitable[Document]]):
    """A control loop that awaits its answers; made by :meth:`rlaas.client.AsyncClient.session`."""

    _socket: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the next message opens another."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _exchange(self, message: _Message) -> Document:
        from websockets.exceptions import WebSocketException

        attempts = Attempts(message.call, self._patience)
        while True:
            seconds = attempts.begin()
            sent = False
            try:
                socket = self._socket = self._socket or await self._connect(seconds)
                sent = True
                async with asyncio.timeout(seconds):
                    await socket.send(message.text)
                    answer = await socket.recv()
                return self._read(message, answer)
            except RetryableError as problem:
                pause = attempts.refused(problem, None)
            except (WebSocketException, OSError) as problem:
                await self.close()
                _check_handshake(problem)
                pause = attempts.lost(problem, sent=sent)
            await asyncio.sleep(pause)

    async def _connect(self, seconds: float) -> AsyncConnection:
        from websockets.asyncio.client import connect

        return await connect(
            self._url, additional_headers=self._headers, compression=None, open_timeout=seconds, max_size=_LARGEST
        )
