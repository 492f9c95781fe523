"""A control loop over one WebSocket: observations in, actions out, outcomes back on the same connection.

``GET /api/v1/policies/{policy}/session`` upgrades. Each text message is a JSON object:

* a body of ``decide`` with one ``observation``. ``session`` and ``step`` are filled in where they are left out: one
  session for each connection, steps counted from 0. The answer is that of ``decide`` with the ``session`` and ``step``;
* ``{"outcome": {...}}`` with any further fields of an outcome. ``decision_id`` is that of the last decision and
  ``outcome_id`` its id too, where they are left out; ``terminated`` or ``truncated`` begin a new session behind it. The
  answer is that of ``outcomes``.

A message that is refused is answered with a problem document, and the loop goes on. What was answered is in the log, as
over HTTP; a client that lost its connection opens another and says ``session`` and ``step`` itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlaas.errors import InvalidInputError
from rlaas.serving.decision_ids import uuid7_hex
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.loaded import ColdPolicyError
from rlaas.serving.principal import Principal, resolve_principal
from rlaas.serving.problems import answer_failure
from rlaas.serving.requests import decode_document

__all__ = ["session_route"]

PATH = "/api/v1/policies/{policy}/session"
_NOT_TEXT, _TOO_BIG = 1003, 1009
"""Close codes of RFC 6455 for a message of another kind, and for one that is too long."""


class _Loop:
    """The state of one connection."""

    def __init__(self, engine: DecisionEngine, principal: Principal, policy: str) -> None:
        self._engine = engine
        self._principal = principal
        self._policy = policy
        self._session = uuid7_hex()
        self._step = 0
        self._last: str | None = None

    def answer(self, message: str) -> bytes:
        """Answer a message.

        Raises:
            RlaasError: it is refused; the loop stands where it stood.
        """
        document = decode_document(message.encode(), field="message")
        if not isinstance(document, dict):
            raise InvalidInputError("a message must be a JSON object", field="message")
        return self._record(document) if "outcome" in document else self._decide(document)

    def _decide(self, document: dict[str, Any]) -> bytes:
        if "observations" in document:
            raise InvalidInputError("a session decides one observation at a time", field="observations")
        said = {name: value for name, value in document.items() if value is not None}
        asked = {"session": self._session, "step": self._step, **said}
        found = self._engine.decide(self._principal, self._policy, msgspec.json.encode(asked))
        answer = msgspec.json.decode(found)
        self._session, self._step, self._last = asked["session"], asked["step"] + 1, answer["decision_id"]
        return msgspec.json.encode({**answer, "session": asked["session"], "step": asked["step"]})

    def _record(self, document: dict[str, Any]) -> bytes:
        if self._last is None and "decision_id" not in document:
            raise InvalidInputError("there is no decision yet that this could be the outcome of", field="decision_id")
        told = {"decision_id": self._last, **document}
        told.setdefault("outcome_id", told["decision_id"])
        found = self._engine.record_outcomes(self._principal, msgspec.json.encode(told))
        if told.get("terminated") or told.get("truncated"):
            self._session, self._step, self._last = uuid7_hex(), 0, None
        return found


def session_route(
    *,
    tenant: str,
    longest: Callable[[], int],
    engine: Callable[[], DecisionEngine],
    warm: Callable[[str], Awaitable[None]],
) -> WebSocketRoute:
    """The route.

    Args:
        tenant: of the installation.
        longest: bytes of one message, at most.
        engine: the engine, or it raises :class:`rlaas.errors.NotReadyError`.
        warm: loads a policy that is live, but not in memory.
    """

    async def serve(socket: WebSocket) -> None:
        policy = socket.path_params["policy"]
        await socket.accept()
        loop: _Loop | None = None
        while True:
            try:
                message = await socket.receive_text()
            except WebSocketDisconnect:
                return
            except KeyError:  # a message of bytes
                await socket.close(_NOT_TEXT, "send text messages")
                return
            if len(message) > longest():
                await socket.close(_TOO_BIG, "message is too long")
                return
            try:
                if loop is None:
                    current = engine()
                    try:
                        current.state.policy(policy)
                    except ColdPolicyError:
                        await warm(policy)
                    loop = _Loop(current, resolve_principal(socket.scope["headers"], tenant=tenant), policy)
                try:
                    answer = loop.answer(message)
                except ColdPolicyError:
                    await warm(policy)
                    answer = loop.answer(message)
            except Exception as failure:  # whatever it is, the next message may be better
                _, answer, _ = answer_failure(PATH, "WEBSOCKET", socket.scope["path"], failure)
            await socket.send_text(answer.decode())

    return WebSocketRoute(PATH, serve)
