"""The routes that a Gateway answers itself, described for OpenAPI."""

from __future__ import annotations

from typing import Any

from rlaas.serving.answers import Decision, _Decisions
from rlaas.serving.edge.records import EdgeDecision, EdgeOutcome
from rlaas.serving.edge.sync import MAX_RECORDS, _Answer, _Batch
from rlaas.serving.exposition import CONTENT_TYPE
from rlaas.serving.openapi.operations import Operation, msgspec_schemas, reference
from rlaas.serving.outcomes import _Accepted
from rlaas.serving.requests import (
    MAX_OUTCOMES,
    DecideRequest,
    InferRequest,
    OutcomeItem,
    _OutcomeBatch,
)

__all__ = ["BINARY_TYPE", "TAGS", "gateway_operations", "gateway_schemas"]

BINARY_TYPE = "application/octet-stream"
TAGS = {
    "health": "Whether the platform is alive and ready.",
    "decisions": "Decisions and what became of them.",
    "inference": "Open Inference Protocol V2.",
}

_READ = (408, 413, 415, 422)
"""Statuses of every route that reads a body: for its length, encoding, headers and time."""
_HOT = (*_READ, 400, 404, 429, 503, 504)
_TIMED = ("x-request-id", "x-request-timeout")
_ROW = [0.1, -0.5, 2.0]
_DECISION = {
    "decision_id": "0199c3f0a1b27c3d8e4f5a6b7c8d9e0f.0123456789abcdef.toy-2.Zm9yZ2Vk",
    "action": 1,
    "policy": "toy",
    "version": 2,
    "variant": "champion",
    "experiment": None,
    "variant_propensity": 1.0,
    "action_propensity": None,
}
_OUTCOME = {"outcome_id": "order-17", "decision_id": _DECISION["decision_id"], "outcome": {"latency": 4.2}}
_SESSION = """Upgrades to a WebSocket: a control loop over one connection. Each text message is a JSON object.

* A body of `decide` with one `observation`. `session` and `step` are filled in where they are left out: one session for
  each connection, steps counted from 0. The answer is that of `decide` with `session` and `step`.
* `{"outcome": {...}}` with any further fields of an outcome. `decision_id` is that of the last decision and
  `outcome_id` its id too, where they are left out. `terminated` or `truncated` begin a new session behind it. The
  answer is that of `outcomes`.

A message that is refused is answered with a problem document, and the loop goes on. One that is longer than a body may
be closes the connection with code 1009. Without an upgrade the route is a 404."""


def gateway_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what these routes decode and encode."""
    found = msgspec_schemas(
        {
            "DecideRequest": DecideRequest,
            "OutcomeItem": OutcomeItem,
            "OutcomeBatch": _OutcomeBatch,
            "InferRequest": InferRequest,
            "Decision": Decision,
            "Decisions": _Decisions,
            "AcceptedOutcomes": _Accepted,
            "EdgeBatch": _Batch,
            "EdgeAnswer": _Answer,
            "EdgeDecision": EdgeDecision,
            "EdgeOutcome": EdgeOutcome,
        }
    )
    # Decoded one by one, so that a record that can never be taken does not hold up the others.
    found["EdgeBatch"]["properties"]["records"] = {
        "type": "array",
        "maxItems": MAX_RECORDS,
        "items": {"anyOf": [reference("EdgeDecision"), reference("EdgeOutcome")]},
    }
    tensor = {"name": {"type": "string"}, "datatype": {"type": "string"}, "shape": {"type": "array"}}
    found["ModelMetadata"] = _object(
        name={"type": "string"},
        versions={"type": "array", "items": {"type": "string"}},
        platform={"type": "string"},
        inputs={"type": "array", "items": _object(**tensor)},
        outputs={"type": "array", "items": _object(**tensor)},
    )
    output = _object(**tensor)
    output["properties"] |= {"data": {"type": "array"}, "parameters": {"type": "object"}}
    found["InferAnswer"] = _object(model_name={"type": "string"}, outputs={"type": "array", "items": output})
    found["InferAnswer"]["properties"] |= {"model_version": {"type": "string"}, "id": {"type": "string"}}
    found["Problem"] = {
        **_object(
            type={"type": "string"},
            title={"type": "string"},
            status={"type": "integer", "minimum": 400, "maximum": 599},
            detail={"type": "string", "description": "one line: what is wrong, and what is allowed"},
            field={"type": ["string", "null"], "description": "the offending field as the caller knows it"},
        ),
        "title": "Problem",
        "description": "RFC 9457. `code` names the error of `rlaas.errors`; V2 routes repeat `detail` as `error`.",
    }
    found["Problem"]["properties"] |= {"code": {"type": "string"}, "error": {"type": "string"}}
    return found


def gateway_operations() -> list[Operation]:
    """Every route of :func:`rlaas.serving.web.create_app` that it does not pass on to Control."""
    return [*_health(), *_decisions(), *_inference()]


def _health() -> list[Operation]:
    def get(path: str, name: str, summary: str, schema: dict[str, Any], errors: tuple[int, ...] = ()) -> Operation:
        return Operation(
            method="GET", path=path, id=name, tag="health", summary=summary, answers={200: schema}, errors=errors
        )

    flag = {"type": "boolean", "const": True}
    live = {"type": "object", "additionalProperties": {"type": "integer"}, "description": "generation by policy"}
    return [
        get("/health", "health", "Liveness", _object(status={"const": "alive"})),
        get(
            "/ready",
            "ready",
            "Whether a policy is loaded",
            _object(status={"const": "ready"}, policies=live),
            (503,),
        ),
        Operation(
            method="GET",
            path="/metrics",
            id="metrics",
            tag="health",
            summary="Counters and latencies of this replica, for Prometheus",
            answers={200: {}},
            binary_answers={CONTENT_TYPE: {"type": "string"}},
            errors=(503,),
        ),
        get("/openapi.json", "openapi", "This document", {"type": "object"}),
        get("/v2/health/live", "v2_live", "Liveness as V2 has it", _object(live=flag)),
        get("/v2/health/ready", "v2_ready", "Readiness as V2 has it", _object(ready=flag), (503,)),
    ]


def _decisions() -> list[Operation]:
    return [
        Operation(
            method="POST",
            path="/api/v1/policies/{policy}/decide",
            id="decide",
            tag="decisions",
            summary="Decide for one observation, or for several",
            description="Every decision is logged before it is answered, so repeating a request decides again.",
            parameters=("policy", *_TIMED),
            body=reference("DecideRequest"),
            examples={
                "one": {"observation": _ROW, "unit": "user-17", "mode": "emergency"},
                "several": {"observations": [_ROW, _ROW], "preference": {"latency": 0.7, "throughput": 0.3}},
            },
            answers={200: {"anyOf": [reference("Decision"), reference("Decisions")]}},
            headers=("x-request-id",),
            answer_example=_DECISION,
            errors=_HOT,
        ),
        Operation(
            method="GET",
            path="/api/v1/policies/{policy}/session",
            id="session",
            tag="decisions",
            summary="A control loop over one WebSocket",
            description=_SESSION,
            parameters=("policy",),
            answers={101: None},
            errors=(404,),
        ),
        Operation(
            method="POST",
            path="/api/v1/outcomes",
            id="outcomes",
            tag="decisions",
            summary="Report what became of decisions: one, a list, or an object with a list; all or none",
            description=(
                f"At most {MAX_OUTCOMES} in a request. Idempotent by (`outcome_id`, `revision`). The example's "
                "`decision_id` was issued nowhere: put in one from an answer of `decide`."
            ),
            parameters=_TIMED,
            body={
                "anyOf": [
                    reference("OutcomeItem"),
                    {"type": "array", "items": reference("OutcomeItem"), "minItems": 1, "maxItems": MAX_OUTCOMES},
                    reference("OutcomeBatch"),
                ]
            },
            examples={"one": _OUTCOME, "list": [{**_OUTCOME, "outcome_id": "order-18", "terminated": True}]},
            answers={202: reference("AcceptedOutcomes")},
            headers=("x-request-id",),
            answer_example={
                "accepted": [
                    {
                        "outcome_id": "order-17",
                        "revision": 0,
                        "receipt_id": "0199c3f0a1b27c3d8e4f5a6b7c8d9e0f",
                        "duplicate": False,
                    }
                ]
            },
            errors=(*_READ, 400, 409, 429, 503, 504),
        ),
        Operation(
            method="POST",
            path="/api/v1/edge/{policy}/sync",
            id="edge_sync",
            tag="decisions",
            summary="A device hands in what it recorded, and learns which version is live",
            description=(
                "Each record is taken once, however often it is sent; one that can never be taken is refused on its "
                "own. The example is signed by no device: `rlaas policies export --target edge` makes one."
            ),
            parameters=("policy", "x-rlaas-signature", "x-request-timeout"),
            body=reference("EdgeBatch"),
            examples={"nothing new": {"device": "mast7", "nonce": "1", "version": 1, "int8": False, "records": []}},
            answers={200: reference("EdgeAnswer")},
            headers=("x-rlaas-signature",),
            errors=(*_READ, 400, 401, 404, 503, 504),
        ),
    ]


def _inference() -> list[Operation]:
    named = _object(name={"type": "string"}, version={"const": "2"}, extensions={"type": "array"})
    ready = _object(name={"type": "string"}, ready={"type": "boolean", "const": True})
    found = [
        Operation(method="GET", path="/v2", id="v2_server", tag="inference", summary="The server", answers={200: named})
    ]
    for base, suffix, parameters in (
        ("/v2/models/{model}/versions/{version}", "_version", ("model", "version")),
        ("/v2/models/{model}", "", ("model",)),
    ):
        what = "a version" if suffix else "a model"
        found += [
            Operation(
                method="POST",
                path=f"{base}/infer",
                id=f"infer{suffix}",
                tag="inference",
                summary=f"Run {what}",
                description=(
                    "Inputs: `observation` [n, features] and, where the policy takes one, `preference` [n, objectives] "
                    "or [1, objectives]. Nothing is logged unless `parameters.log` is true. Binary tensors follow the "
                    "JSON, little-endian and row by row; `Inference-Header-Content-Length` says how long the JSON is."
                ),
                parameters=(*parameters, *_TIMED, "Inference-Header-Content-Length"),
                body=reference("InferRequest"),
                examples={
                    "json": {
                        "inputs": [{"name": "observation", "shape": [1, 3], "datatype": "FP32", "data": _ROW}],
                        "outputs": [{"name": "action"}],
                    }
                },
                binary_body={BINARY_TYPE: {"type": "string", "contentMediaType": BINARY_TYPE}},
                answers={200: reference("InferAnswer")},
                binary_answers={BINARY_TYPE: {"type": "string", "contentMediaType": BINARY_TYPE}},
                headers=("x-request-id", "Inference-Header-Content-Length"),
                answer_example={
                    "model_name": "toy",
                    "model_version": "1",
                    "outputs": [{"name": "action", "datatype": "INT64", "shape": [1], "data": [1]}],
                },
                errors=_HOT,
            ),
            Operation(
                method="GET",
                path=f"{base}/ready",
                id=f"model_ready{suffix}",
                tag="inference",
                summary=f"Whether {what} is live and in memory",
                parameters=parameters,
                answers={200: ready},
                errors=(404, 422, 503),
            ),
            Operation(
                method="GET",
                path=base,
                id=f"model_metadata{suffix}",
                tag="inference",
                summary=f"Tensors of {what}",
                parameters=parameters,
                answers={200: reference("ModelMetadata")},
                errors=(404, 422, 503),
            ),
        ]
    return found


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has these properties, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}
