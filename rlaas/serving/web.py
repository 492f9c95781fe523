"""The routes of the platform as an ASGI application, without Ray: the Gateway puts itself behind them.

Bodies are read raw and decoded by the engine; a web framework's own parsing would cost more than the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from rlaas.errors import NotFoundError, NotReadyError
from rlaas.serving.edge import EdgeSync
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.exposition import CONTENT_TYPE, render
from rlaas.serving.inference import model_metadata, versioned
from rlaas.serving.loaded import ColdPolicyError, LivePolicy
from rlaas.serving.openapi import openapi_document
from rlaas.serving.principal import Principal, resolve_principal
from rlaas.serving.problems import PROBLEM_TYPE, answer_failure, for_protocol, problem_document, problem_of
from rlaas.serving.sessions import session_route
from rlaas.serving.tensors import Inference, inference_headers
from rlaas.serving.transport import LARGE_BODY, ClientGoneError, Limits, RequestHead, read_body, read_head

__all__ = ["ControlReply", "ControlRequest", "Lane", "create_app"]

_FORWARDED = ("models", "deployments", "lake", "fronts", "resolve", "experiments", "alerts", "features")
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]
_INFER = "/infer"
_PASSED_ON = ("if-match", "if-none-match", "idempotency-key")

Answer = TypeVar("Answer")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A request on its way to Control; ``path`` as received, header names in lower case."""

    tenant: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ControlReply:
    """Control's answer: a JSON body, a problem document where ``status`` is 400 or more."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Lane(Protocol):
    """What the routes need from the process that they run in."""

    tenant: str
    limits: Limits

    def engine(self) -> DecisionEngine:
        """The engine, or :class:`rlaas.errors.NotReadyError`."""

    def edge(self) -> EdgeSync:
        """Who takes the batches of devices, or :class:`rlaas.errors.NotReadyError`."""

    async def warm(self, policy: str) -> None:
        """Load a policy that is live, but not in memory."""

    async def forward(self, request: ControlRequest) -> ControlReply:
        """Ask Control."""


def create_app(lane: Lane) -> Starlette:
    """The ASGI application of a Gateway."""
    app = Starlette(
        routes=[*_health_routes(lane), *_v2_routes(lane), *_api_routes(lane), _session_route(lane)],
        exception_handlers={HTTPException: _framework_problem},
    )
    # A path with a slash too many is no route: sent elsewhere, a client would lose its body, or land on another error.
    app.router.redirect_slashes = False
    return app


def _health_routes(lane: Lane) -> list[Route]:
    async def health(_: Request) -> Response:
        return _json({"status": "alive"})

    async def ready(_: Request) -> Response:
        return _json({"status": "ready", "policies": _loaded(lane)})

    async def v2_live(_: Request) -> Response:
        return _json({"live": True})

    async def v2_ready(_: Request) -> Response:
        _loaded(lane)
        return _json({"ready": True})

    async def metrics(_: Request) -> Response:
        engine = lane.engine()
        return Response(render(engine.tally.snapshot(), engine.acting.circuits.open()), media_type=CONTENT_TYPE)

    async def openapi(_: Request) -> Response:
        return _raw(openapi_document())

    return [
        _route("/metrics", metrics, ["GET"]),
        _route("/openapi.json", openapi, ["GET"]),
        _route("/health", health, ["GET"]),
        _route("/ready", ready, ["GET"]),
        _route("/v2/health/live", v2_live, ["GET"]),
        _route("/v2/health/ready", v2_ready, ["GET"]),
    ]


def _v2_routes(lane: Lane) -> list[Route]:
    async def server(_: Request) -> Response:
        return _json({"name": "rlaas", "version": "2", "extensions": ["binary_tensor_data"]})

    async def metadata(request: Request) -> Response:
        model = request.path_params["model"]
        if model.endswith(_INFER):  # no name has a slash: this is another method on the route above
            raise HTTPException(405, headers={"Allow": "POST"})
        live = await _warmed(lane, model)
        return _json(model_metadata(live, request.path_params.get("version")))

    async def ready(request: Request) -> Response:
        live = lane.engine().state.policy(request.path_params["model"], field="model")
        versioned(live, request.path_params.get("version"))
        return _json({"name": live.record.policy, "ready": True})

    async def infer(request: Request) -> Response:
        head, body = await _body(request, lane)
        engine, principal, path = lane.engine(), _principal(request, lane), request.path_params
        work = partial(engine.infer, principal, path["model"], path.get("version"), header_length=head.inference_header)
        return _inference(await _run(lane, head, work, body))

    routes = [_route("/v2", server, ["GET"])]
    # The path convertor takes what is not a plain name too, so that the answer names the field instead of "not found".
    for base in ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}"):
        routes += [
            _route(f"{base}{_INFER}", infer, ["POST"]),
            _route(f"{base}/ready", ready, ["GET"]),
        ]
    routes += [
        _route("/v2/models/{model:path}/versions/{version}", metadata, ["GET"]),
        _route("/v2/models/{model:path}", metadata, ["GET"]),
    ]
    return routes


def _api_routes(lane: Lane) -> list[Route]:
    async def decide(request: Request) -> Response:
        head, body = await _body(request, lane)
        engine, principal = lane.engine(), _principal(request, lane)
        return _raw(await _run(lane, head, engine.decide, body, principal, request.path_params["policy"]))

    async def outcomes(request: Request) -> Response:
        head, body = await _body(request, lane)
        return _raw(await _run(lane, head, lane.engine().record_outcomes, body, _principal(request, lane)), status=202)

    async def edge(request: Request) -> Response:
        head, body = await _body(request, lane)
        policy, signature = request.path_params["policy"], request.headers.get("x-rlaas-signature", "")
        await _warmed(lane, policy, field="policy")
        head.check_deadline()
        state, principal = lane.engine().state, _principal(request, lane)
        answer = await asyncio.to_thread(lane.edge().sync, principal, policy, signature, body, state)
        return Response(answer.body, headers={"x-rlaas-signature": answer.signature}, media_type="application/json")

    async def control(request: Request) -> Response:
        reply = await lane.forward(
            ControlRequest(
                tenant=_principal(request, lane).tenant,
                method=request.method,
                path=request.scope["path"],
                query=dict(request.query_params),
                headers={name: request.headers[name] for name in _PASSED_ON if name in request.headers},
                body=(await _body(request, lane))[1],
            )
        )
        media_type = PROBLEM_TYPE if reply.status >= 400 else "application/json"
        return Response(reply.body, reply.status, headers=dict(reply.headers), media_type=media_type)

    routes = [
        _route("/api/v1/policies/{policy:path}/decide", decide, ["POST"]),
        _route("/api/v1/outcomes", outcomes, ["POST"]),
        _route("/api/v1/edge/{policy:path}/sync", edge, ["POST"]),
    ]
    for room in _FORWARDED:
        routes += [
            _route(f"/api/v1/{room}", control, _METHODS),
            _route(f"/api/v1/{room}/{{rest:path}}", control, _METHODS),
        ]
    return routes


def _session_route(lane: Lane) -> WebSocketRoute:
    return session_route(tenant=lane.tenant, longest=lambda: lane.limits.body_bytes, engine=lane.engine, warm=lane.warm)


async def _warmed(lane: Lane, name: str, *, field: str = "model") -> LivePolicy:
    try:
        return lane.engine().state.policy(name, field=field)
    except ColdPolicyError:
        await lane.warm(name)
        return lane.engine().state.policy(name, field=field)


async def _run(lane: Lane, head: RequestHead, work: Callable[..., Answer], body: bytes, *arguments: Any) -> Answer:
    try:
        return await _work(head, work, body, *arguments)
    except ColdPolicyError as cold:
        await lane.warm(cold.policy)
        return await _work(head, work, body, *arguments)


async def _work(head: RequestHead, work: Callable[..., Answer], body: bytes, *arguments: Any) -> Answer:
    head.check_deadline()
    if len(body) > LARGE_BODY:
        return await asyncio.to_thread(work, *arguments, body)
    return work(*arguments, body)


def _loaded(lane: Lane) -> dict[str, int]:
    """Generation of each live policy."""
    policies = lane.engine().state.policies
    if not policies:
        raise NotReadyError("no policy is loaded yet; promote a version or create a deployment")
    return {name: live.record.generation for name, live in sorted(policies.items())}


def _principal(request: Request, lane: Lane) -> Principal:
    return resolve_principal(request.scope["headers"], tenant=lane.tenant)


async def _body(request: Request, lane: Lane) -> tuple[RequestHead, bytes]:
    head = read_head(request.scope["headers"])
    return head, await read_body(request.receive, head, lane.limits)


def _route(path: str, handler: Handler, methods: list[str]) -> Route:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientGoneError:
            return Response(status_code=400)  # nobody is left to read it
        except HTTPException:
            raise  # as the router's own
        except Exception as failure:
            status, body, headers = answer_failure(path, request.method, request.scope["path"], failure)
            return Response(body, status, headers=headers, media_type=PROBLEM_TYPE)

    return Route(path, guarded, methods=methods)


async def _framework_problem(request: Request, problem: Exception) -> Response:
    """404 and 405 of the router as problem documents."""
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    headers = problem.headers if isinstance(problem, HTTPException) else None
    if status == 404:
        missing = NotFoundError(f"no route {request.method} {request.scope['path'][:200]}", field="path")
        return _problem(request, *problem_of(missing))
    if status == 405:
        allowed = ", ".join(sorted((headers or {}).get("Allow", "").split(", ")))
        document = problem_document(405, f"method {request.method[:20]} is not allowed here; allowed: {allowed}")
        document["field"] = "method"
        response = _problem(request, 405, msgspec.json.encode(document))
        response.headers["Allow"] = allowed
        return response
    return _problem(request, status, msgspec.json.encode(problem_document(status, "the request cannot be served")))


def _problem(request: Request, status: int, body: bytes) -> Response:
    return Response(for_protocol(request.scope["path"], body), status, media_type=PROBLEM_TYPE)


def _inference(answer: Inference) -> Response:
    return Response(answer.body, headers=inference_headers(answer))


def _json(document: dict[str, Any]) -> Response:
    return _raw(msgspec.json.encode(document))


def _raw(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
