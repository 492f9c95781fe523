"""Routes of the control plane: a request of the Gateway in, an answer out, without Ray and without a web framework."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import structlog
from pydantic import Field

from rlaas.control.drift.routes import DriftRoutes
from rlaas.control.experiments.routes import ExperimentRoutes
from rlaas.control.experiments.service import ExperimentService
from rlaas.control.features_routes import FeatureRoutes
from rlaas.control.front_routes import FrontRoutes
from rlaas.control.fronts import FrontService
from rlaas.control.gating.override import Override
from rlaas.control.gating.routes import GateRoutes
from rlaas.control.keyed_locks import KeyedLocks
from rlaas.control.requests import Answer, Body, Handler, called, page_of, parse_body
from rlaas.control.rollouts.plan import ReplicaBounds
from rlaas.control.rollouts.routes import RolloutRoutes
from rlaas.control.service import ControlService
from rlaas.control.state import Remembered
from rlaas.errors import BundleError, ConflictError, InvalidInputError, NotFoundError, RlaasError
from rlaas.names import check_name
from rlaas.registry import CHAMPION
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.problems import problem_document, problem_of
from rlaas.serving.web import ControlReply, ControlRequest

__all__ = ["ControlRoutes", "Operations"]

_MAX_KEY = 256


class Operations(Protocol):
    """What the routes ask of the processes around Control; every call may block."""

    def scale(self, replicas: int) -> None:
        """Set the number of Gateway replicas."""

    def lake_status(self) -> dict[str, Any]:
        """State of the committer."""

    def flush_lake(self) -> dict[str, Any]:
        """Bring everything that was acknowledged into the lake and join it."""


class _Decided(Body):
    override: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="why a version may go live that does not pass the policy's gate; kept in the history",
    )
    actor: str = Field(default="operator", min_length=1, max_length=128, description="who; kept in that history")

    def word(self) -> Override:
        """What the operator says of the gate."""
        return Override(self.override, self.actor)


class _Register(Body):
    name: str
    path: str = Field(description="folder of the bundle, relative to the installation's home")
    alias: str | None = "candidate"
    params: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, Any] = Field(default_factory=dict)


class _Promote(_Decided):
    version: int = Field(ge=1, strict=True)
    alias: str = CHAMPION


class _Create(_Decided):
    policy: str
    variants: list[Any]
    experiment: Any = None
    strategy: Any = Field(default=None, description="canary, blue_green or shadow with its options; null: at once")
    fallback: int | None = Field(default=None, ge=1, strict=True)
    min_replicas: int | None = Field(default=None, ge=1, le=1000, strict=True)
    max_replicas: int | None = Field(default=None, ge=1, le=1000, strict=True)
    shield: Any = Field(default=None, description="bounds, rate limits and rules of every action; left out: as before")
    safe_action: Any = Field(default=None, description="answers when no version can; left out: as before")
    features: dict[str, str] | None = Field(
        default=None,
        description="numbers of the observation that requests with entities leave out, by name: a feature, or "
        "feature@version; left out: as before",
    )

    def safety(self) -> dict[str, Any]:
        """What is said of shield, safe action and features; null takes it away, what is left out stays."""
        names = ("shield", "safe_action", "features")
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}

    def scaling(self) -> ReplicaBounds | None:
        """Bounds of the pool, if they are given."""
        if self.min_replicas is None and self.max_replicas is None:
            return None
        if self.max_replicas is None:
            raise InvalidInputError("max_replicas is needed beside min_replicas", field="max_replicas")
        least = self.min_replicas or 1
        if self.max_replicas < least:
            raise InvalidInputError(
                f"max_replicas must be >= min_replicas ({least}), got {self.max_replicas}", field="max_replicas"
            )
        return ReplicaBounds(min_replicas=least, max_replicas=self.max_replicas)


class _Scale(Body):
    replicas: int = Field(ge=1, le=1000, strict=True)


class ControlRoutes:
    """Answers ``/api/v1/models``, ``deployments`` and ``lake``; where they are given also fronts and experiments.

    Args:
        service: the control plane.
        operations: the processes around it.
        fronts: what has been found, and who chooses from it.
        experiments: that compare versions.
    """

    def __init__(
        self,
        service: ControlService,
        operations: Operations,
        fronts: FrontService | None = None,
        experiments: ExperimentService | None = None,
    ) -> None:
        self._service = service
        self._operations = operations
        self._alone = KeyedLocks()
        # A name takes slashes too, so that the answer to a path-like one names the field.
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(pattern), handler)
            for method, pattern, handler in (
                ("GET", r"/api/v1/models", self._list_models),
                ("POST", r"/api/v1/models/register", self._register),
                ("GET", r"/api/v1/models/(?P<model>.+)/versions", self._list_versions),
                ("DELETE", r"/api/v1/models/(?P<model>.+)/versions/(?P<version>[^/]+)", self._delete_version),
                ("POST", r"/api/v1/models/(?P<model>.+)/promote", self._promote),
                *GateRoutes(service.gates).table(),
                *DriftRoutes(service.drift).table(),
                ("GET", r"/api/v1/deployments", self._list_deployments),
                ("POST", r"/api/v1/deployments/create", self._create),
                ("GET", r"/api/v1/deployments/(?P<deployment>.+)/status", self._status),
                *RolloutRoutes(service.rollouts, service.policy_of).table(),
                ("PUT", r"/api/v1/deployments/(?P<deployment>.+)/scale", self._scale),
                ("DELETE", r"/api/v1/deployments/(?P<deployment>[^/]+)", self._delete_deployment),
                ("GET", r"/api/v1/lake/status", self._lake_status),
                ("POST", r"/api/v1/lake/flush", self._flush_lake),
                *FeatureRoutes(service.features).table(),
                *(FrontRoutes(fronts).table() if fronts is not None else ()),
                *(ExperimentRoutes(experiments, self._once).table() if experiments is not None else ()),
            )
        ]

    def dispatch(self, request: ControlRequest) -> ControlReply:
        """Answer a request; every error becomes a problem document."""
        try:
            return self._dispatch(request)
        except RlaasError as problem:
            status, body = problem_of(problem)
            if status >= 500:
                structlog.get_logger().warning("control_failed", path=request.path, error=problem.message)
            return ControlReply(status, body, {})
        except Exception:
            structlog.get_logger().exception("control_crashed", path=request.path, method=request.method)
            document = problem_document(500, "an internal error occurred; the log of Control says more")
            return ControlReply(500, msgspec.json.encode(document), {})

    def _dispatch(self, request: ControlRequest) -> ControlReply:
        allowed = []
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if method == request.method or (method == "GET" and request.method == "HEAD"):
                answer = handler(request, match.groupdict())
                body = b"" if answer.document is None else msgspec.json.encode(answer.document)
                return ControlReply(answer.status, body, answer.headers)
            allowed.append(method)
        if not allowed:
            raise NotFoundError(f"no route {request.method} {request.path[:200]}", field="path")
        allow = ", ".join(sorted(set(allowed)))
        document = problem_document(405, f"method {request.method} is not allowed here; allowed: {allow}")
        return ControlReply(405, msgspec.json.encode({**document, "field": "method"}), {"Allow": allow})

    def _list_models(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        return page_of(request, [(name, {"name": name}) for name in self._service.policies()])

    def _list_versions(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        with called(policy="model"):
            versions = self._service.versions(check_name(path["model"], field="model"))
        return page_of(request, [(str(document["version"]), document) for document in versions])

    def _register(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Register)

        def register() -> Answer:
            try:
                with called(policy="name"):
                    document = self._service.register(
                        body.name, body.path, alias=body.alias, params=body.params, metrics=body.metrics, tags=body.tags
                    )
            except BundleError as problem:  # what the caller points to is the caller's to mend
                raise InvalidInputError(f"path holds no sound bundle: {problem.message}", field="path") from problem
            return Answer(201, document, {})

        return self._once(request, register)

    def _delete_version(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        check_name(path["model"], field="model")
        if not re.fullmatch(r"[1-9][0-9]{0,9}", path["version"], re.ASCII):
            raise InvalidInputError(f"version {path['version'][:80]!r} is not a whole number >= 1", field="version")
        with called(policy="model"):
            self._service.delete_version(path["model"], int(path["version"]))
        return Answer(200, {"deleted": {"policy": path["model"], "version": int(path["version"])}}, {})

    def _promote(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        check_name(path["model"], field="model")
        body = parse_body(request, _Promote)
        with called(policy="model"):
            version, record = self._service.promote(
                path["model"],
                body.version,
                alias=body.alias,
                if_match=request.headers.get("if-match"),
                override=body.word(),
            )
        document = {"version": version, "deployment": None if record is None else _document(record)}
        return Answer(200, document, {} if record is None else {"ETag": record.etag})

    def _list_deployments(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        return page_of(request, [(record.policy, _document(record)) for record in self._service.deployments()])

    def _create(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Create)
        scaling, safety = body.scaling(), body.safety()

        def create() -> Answer:
            if body.features:
                safety["features"] = self._service.features.pinned(body.features)
            record, new = self._service.create_deployment(
                body.policy,
                body.variants,
                body.experiment,
                strategy=body.strategy,
                fallback=body.fallback,
                scaling=scaling,
                safety=safety,
                if_match=request.headers.get("if-match"),
                override=body.word(),
            )
            return Answer(201 if new else 200, _document(record), {"ETag": record.etag})

        return self._once(request, create)

    def _status(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        record, document = self._service.status(path["deployment"])
        return Answer(200, document, {"ETag": record.etag})

    def _scale(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Scale)
        self._service.status(path["deployment"])
        self._operations.scale(body.replicas)
        return Answer(202, {"deployment": path["deployment"], "replicas": body.replicas}, {})

    def _delete_deployment(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        self._service.delete_deployment(path["deployment"], if_match=request.headers.get("if-match"))
        return Answer(200, {"deleted": {"deployment": path["deployment"]}}, {})

    def _lake_status(self, _: ControlRequest, __: Mapping[str, str]) -> Answer:
        return Answer(200, self._operations.lake_status(), {})

    def _flush_lake(self, _: ControlRequest, __: Mapping[str, str]) -> Answer:
        return Answer(200, self._operations.flush_lake(), {})

    def _once(self, request: ControlRequest, work: Callable[[], Answer]) -> Answer:
        """Do ``work``, or repeat the answer that the same request got under its Idempotency-Key."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return work()
        if not 0 < len(key) <= _MAX_KEY:
            raise InvalidInputError(f"Idempotency-Key must have 1 to {_MAX_KEY} characters", field="Idempotency-Key")
        content = b"\0".join((request.method.encode(), request.path.encode(), request.body))
        digest = hashlib.sha256(content).hexdigest()
        with self._alone(f"{request.tenant}\0{key}"):
            known = self._service.database.recall(request.tenant, key)
            if known is not None:
                if known.request != digest:
                    raise ConflictError("Idempotency-Key was used for another request", field="Idempotency-Key")
                return Answer(known.status, msgspec.json.decode(known.body), {"Idempotent-Replay": "true"})
            answer = work()
            reply = Remembered(digest, answer.status, msgspec.json.encode(answer.document))
            self._service.database.remember(request.tenant, key, reply)
            return answer


def _document(record: DeploymentRecord) -> dict[str, Any]:
    return {**record.model_dump(mode="json"), "weights": record.weights()}
