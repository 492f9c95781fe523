"""What a Gateway answers in the fast lane: ``decide``, ``outcomes`` and V2 ``infer``, each in one hop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from rlaas.errors import OverloadedError
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.gather import Gather
from rlaas.serving.pressure import Pressure
from rlaas.serving.principal import Principal, resolve_principal
from rlaas.serving.problems import PROBLEM_TYPE, answer_failure
from rlaas.serving.responding import respond
from rlaas.serving.tensors import Inference, inference_headers
from rlaas.serving.transport import (
    LARGE_BODY,
    ClientGoneError,
    Limits,
    PatientProtocol,
    RequestHead,
    read_body,
    read_head,
    request_id_of,
)

__all__ = ["HotPath"]

_Headers = list[tuple[bytes, bytes]]
_JSON: _Headers = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One path of the lane.

    Attributes:
        route: as the log names it.
        work: principal, body and headers in, answer out.
        status: of an answer that succeeds.
        gathered: the same for requests that may be answered together with others, where there are such.
        at_once: bytes of the longest body that is answered on the event loop; others are in a thread.
    """

    route: str
    work: Callable[[Principal, bytes, RequestHead], bytes | Inference]
    status: int
    gathered: Callable[[Principal, bytes], Awaitable[bytes]] | None = None
    at_once: int = LARGE_BODY


class HotPath:
    """The endpoints of one Gateway by path; see :class:`rlaas.serving.fast_lane.FastPath`.

    Args:
        tenant: of the installation.
        limits: of a request; those of time hold for headers too, from the next server that this process starts.
        most_open: requests whose body is being read or that are worked on in a thread, at most; beyond it 429.
        pressure: of the event loop; while it is overloaded the answer is 429 too.
    """

    def __init__(self, tenant: str, limits: Limits, most_open: int, pressure: Pressure) -> None:
        self._tenant = tenant
        self._limits = limits
        self._most_open = most_open
        self._pressure = pressure
        self._open = 0
        self._endpoints: dict[str, _Endpoint] = {}
        PatientProtocol.enter(limits.body_s)

    def refresh(self, engine: DecisionEngine) -> None:
        """Take up what the engine serves now."""
        endpoints = {"/api/v1/outcomes": _recording(engine)}
        gather = Gather(engine)
        for name, live in engine.state.policies.items():
            endpoints[f"/api/v1/policies/{name}/decide"] = _deciding(engine, gather, name, live.features is None)
            endpoints[f"/v2/models/{name}/infer"] = _inferring(engine, name, None)
            for variant in live.variants.values():
                version = str(variant.version)
                endpoints[f"/v2/models/{name}/versions/{version}/infer"] = _inferring(engine, name, version)
        self._endpoints = endpoints

    def find(self, path: str) -> _Endpoint | None:
        """The endpoint behind a path; every other path is for the ordinary routes."""
        return self._endpoints.get(path)

    async def answer(
        self,
        endpoint: _Endpoint,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Any],
        send: Callable[[Any], Any],
    ) -> None:
        """Answer a request; what goes wrong becomes a problem document."""
        request_id = b""
        try:
            head = read_head(scope["headers"])
            request_id = head.request_id
            if self._open >= self._most_open:
                raise OverloadedError(f"{self._open} requests are open already; try again later")
            if self._pressure.overloaded:
                self._pressure.refused += 1
                raise OverloadedError(f"requests wait for {self._pressure.delay_s:.1f} s already; try again later")
            self._open += 1
            waiting: Awaitable[bytes] | None = None
            try:
                body = await read_body(receive, head, self._limits)
                head.check_deadline()
                principal = resolve_principal(scope["headers"], tenant=self._tenant)
                if len(body) > endpoint.at_once:
                    answer = await asyncio.to_thread(endpoint.work, principal, body, head)
                elif endpoint.gathered is not None:
                    waiting = endpoint.gathered(principal, body)
                else:
                    answer = endpoint.work(principal, body, head)
            finally:
                self._open -= 1
            if waiting is not None:  # for the rest of its turn: no queue that could fill up
                answer = await waiting
            status = endpoint.status
            if isinstance(answer, bytes):
                payload, headers = answer, _JSON
            else:
                payload, headers = answer.body, _raw(inference_headers(answer))
        except ClientGoneError:
            return
        except Exception as failure:
            request_id = request_id or request_id_of(scope["headers"])
            status, payload, more = answer_failure(endpoint.route, scope["method"], scope["path"], failure)
            headers = _raw({"Content-Type": PROBLEM_TYPE, **more})
        await respond(
            send,
            status,
            [*headers, (b"content-length", b"%d" % len(payload)), (b"x-request-id", request_id)],
            payload,
        )


def _raw(headers: Mapping[str, str]) -> _Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _recording(engine: DecisionEngine) -> _Endpoint:
    return _Endpoint("/api/v1/outcomes", lambda principal, body, _: engine.record_outcomes(principal, body), 202)


def _deciding(engine: DecisionEngine, gather: Gather, policy: str, quick: bool) -> _Endpoint:
    """Of a policy whose requests wait for no store (``quick``), or may."""

    async def gathered(principal: Principal, body: bytes) -> bytes:
        question = engine.read(principal, policy, body)
        return await gather.ask(question) if question.plain else engine.answer(question)

    return _Endpoint(
        "/api/v1/policies/{policy}/decide",
        lambda principal, body, _: engine.decide(principal, policy, body),
        200,
        gathered,
        LARGE_BODY if quick else -1,
    )


def _inferring(engine: DecisionEngine, model: str, version: str | None) -> _Endpoint:
    return _Endpoint(
        "/v2/models/{model}/infer",
        lambda principal, body, head: engine.infer(principal, model, version, body, head.inference_header),
        200,
    )
