"""How a route is described, and how descriptions become an OpenAPI 3.1 document.

Source: OpenAPI Specification 3.1.0, https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from pydantic import BaseModel

from rlaas.serving.problems import PROBLEM_TYPE

__all__ = ["JSON_TYPE", "Operation", "build_document", "msgspec_schemas", "pydantic_schemas", "reference"]

JSON_TYPE = "application/json"
Document = dict[str, Any]

_REASONS = {
    400: "The body is not JSON.",
    401: "No device of this installation signed it.",
    404: "There is no such thing; the detail says what there is.",
    408: "The body did not arrive in time.",
    409: "What is stored contradicts the request.",
    413: "The body is longer than allowed.",
    415: "The body is compressed.",
    422: "A field has the wrong shape, type or value; `field` names it.",
    429: "Too many requests are open; come back after `Retry-After` seconds.",
    500: "Something is broken that only an operator can mend.",
    503: "Not now; come back after `Retry-After` seconds.",
    504: "`x-request-timeout` passed before there was an answer; nothing was done.",
}
_WITH_RETRY = (429, 503)
RESPONSE_HEADERS: Mapping[str, Document] = {
    "ETag": {"description": "Entity tag of what the body shows.", "schema": {"type": "string"}},
    "Idempotent-Replay": {
        "description": "`true` where an earlier answer is repeated under its Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Inference-Header-Content-Length": {
        "description": "Bytes of JSON in front of binary tensors.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "x-rlaas-signature": {
        "description": "HMAC-SHA256 by the device's key over the request's signature and the body, in hex.",
        "schema": {"type": "string"},
    },
    "x-request-id": {
        "description": "The caller's, or one that was drawn; sent by the fast lane.",
        "schema": {"type": "string"},
    },
}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"}


def _path(name: str, what: str, example: str, schema: Mapping[str, Any] = _NAME) -> Document:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": what,
        "schema": dict(schema),
        "example": example,
    }


def _header(name: str, what: str, schema: Mapping[str, Any]) -> Document:
    return {"name": name, "in": "header", "description": what, "schema": dict(schema)}


def _query(name: str, what: str, schema: Mapping[str, Any]) -> Document:
    return {"name": name, "in": "query", "description": what, "schema": dict(schema)}


_WHOLE = {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}
PARAMETERS: Mapping[str, Document] = {
    "policy": _path("policy", "Name of a policy.", "toy"),
    "model": _path("model", "Name of a policy.", "toy"),
    "version": _path("version", "Version of the policy.", "1", _WHOLE),
    "deployment": _path("deployment", "Id of a deployment, or the name of its policy.", "toy"),
    "number": _path("number", "Number of a rollout of the policy, from 1.", "1", _WHOLE),
    "experiment": _path("experiment", "Id of an experiment.", "autumn"),
    "x-rlaas-signature": {
        **_header(
            "x-rlaas-signature",
            "HMAC-SHA256 by the device's key over policy, a zero byte and body, in hex.",
            {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        ),
        "required": True,
    },
    "scenario": _path("scenario", "Name of a scenario.", "network5g"),
    "rollout_action": _path(
        "action", "What to do.", "pause", {"type": "string", "enum": ["pause", "promote", "resume", "rollback"]}
    ),
    "switch_action": _path("action", "What to do.", "switch", {"type": "string", "enum": ["switch", "switch-back"]}),
    "x-request-id": _header(
        "x-request-id", "Comes back in the answer; cut after 128 bytes.", {"type": "string", "maxLength": 128}
    ),
    "x-request-timeout": _header(
        "x-request-timeout",
        "Seconds for which the caller waits; after them nothing is begun.",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
    ),
    "Idempotency-Key": _header(
        "Idempotency-Key",
        "Repeats of the same request under one key get the first answer; another request under it is a 409.",
        {"type": "string", "minLength": 1, "maxLength": 256},
    ),
    "If-Match": _header(
        "If-Match", "Entity tag that has to be current, otherwise 409; `*` is any.", {"type": "string"}
    ),
    "If-None-Match": _header("If-None-Match", "Entity tags that the caller has; then 304.", {"type": "string"}),
    "Inference-Header-Content-Length": _header(
        "Inference-Header-Content-Length",
        "Bytes of JSON in front of binary tensors; left out for a body that is JSON alone.",
        {"type": "integer", "minimum": 0},
    ),
    "page_size": _query("page_size", "Items on a page.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    "page_token": _query("page_token", "`next_page_token` of the page before.", {"type": "string"}),
    "feature": _path("feature", "Name of a feature, or name@version.", "cell_load", {"type": "string"}),
    "entity": {
        **_query("entity", "Ids by kind of entity, separated by commas.", {"type": "string"}),
        "required": True,
        "example": "cell:c-17",
    },
    "features": _query(
        "features", "Names, or name@version, separated by commas; default: the newest that apply.", {"type": "string"}
    ),
    "alert_model": _query("model", "Only alerts of this policy.", _NAME),
    "alert_state": _query(
        "state", "Only alerts that last, or that are over.", {"type": "string", "enum": ["active", "closed"]}
    ),
    "label": _query(
        "label", "Which front: `champion`, `candidate` or that of a search.", {"type": "string", "maxLength": 128}
    ),
}


def reference(name: str) -> Document:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        method: upper case.
        path: template.
        id: names the operation for generators of clients.
        tag: group of operations.
        summary, description: for readers.
        parameters: keys of :data:`PARAMETERS`.
        body: schema of the JSON body; None for no body.
        examples: bodies that succeed, by name.
        binary_body: further content types of the body with their schemas.
        answers: what succeeds: status to schema; a None schema has no body.
        binary_answers: further content types of the answers that have a body.
        headers: of the answers that succeed, keys of :data:`RESPONSE_HEADERS`.
        answer_example: a body of the first of ``answers``.
        errors: statuses of problem documents.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: Document | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    binary_body: Mapping[str, Document] = field(default_factory=dict)
    answers: Mapping[int, Document | None]
    binary_answers: Mapping[str, Document] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    answer_example: Any = None
    errors: tuple[int, ...] = ()


def build_document(
    operations: Iterable[Operation],
    schemas: Mapping[str, Document],
    *,
    title: str,
    version: str,
    description: str,
    tags: Mapping[str, str],
) -> Document:
    """The document of some operations.

    Args:
        operations: in the order in which they are shown.
        schemas: components that they refer to.
        title, version, description: of the interface.
        tags: what each group of operations is about.
    """
    paths: Document = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": description,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": what} for name, what in tags.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "parameters": dict(PARAMETERS),
            "headers": dict(RESPONSE_HEADERS),
            "responses": {"Problem": _problem("What went wrong.", ())},
        },
    }


def _operation(operation: Operation) -> Document:
    found: Document = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        found["description"] = operation.description
    if operation.parameters:
        found["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in operation.parameters]
    if operation.body is not None:
        content: Document = {JSON_TYPE: {"schema": operation.body}}
        if operation.examples:
            content[JSON_TYPE]["examples"] = {name: {"value": value} for name, value in operation.examples.items()}
        content |= {kind: {"schema": schema} for kind, schema in operation.binary_body.items()}
        found["requestBody"] = {"required": True, "content": content}
    responses: Document = {}
    for index, (status, schema) in enumerate(operation.answers.items()):
        response: Document = {"description": HTTPStatus(status).phrase}
        if operation.headers:
            response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in operation.headers}
        if schema is not None:
            response["content"] = {JSON_TYPE: {"schema": schema}} if schema else {}
            response["content"] |= {kind: {"schema": other} for kind, other in operation.binary_answers.items()}
            if index == 0 and operation.answer_example is not None:
                response["content"][JSON_TYPE]["example"] = operation.answer_example
        responses[str(status)] = response
    for status in sorted(operation.errors):
        responses[str(status)] = _problem(_REASONS[status], ("Retry-After",) if status in _WITH_RETRY else ())
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    return {**found, "responses": responses}


def _problem(description: str, headers: Sequence[str]) -> Document:
    found: Document = {"description": description, "content": {PROBLEM_TYPE: {"schema": reference("Problem")}}}
    if headers:
        found["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return found


def msgspec_schemas(names: Mapping[str, type[msgspec.Struct]]) -> dict[str, Document]:
    """Schemas of structs under the names that the document gives them, with those that they refer to."""
    template = "#/components/schemas/{name}"
    _, found = msgspec.json.schema_components(list(names.values()), ref_template=template)
    public = {kind.__name__: name for name, kind in names.items()}
    return _renamed(found, public)


def pydantic_schemas(names: Mapping[str, type[BaseModel]]) -> dict[str, Document]:
    """Schemas of models under the names that the document gives them, with those that they refer to.

    Raises:
        ValueError: two models of one name differ.
    """
    found: dict[str, Document] = {}
    public = {kind.__name__: name for name, kind in names.items()}
    for kind in names.values():
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = {**schema.pop("$defs", {}), kind.__name__: schema}
        for name, part in _renamed(parts, public).items():
            if found.setdefault(name, part) != part:
                raise ValueError(f"two schemas are named {name!r}")
    return found


def _renamed(schemas: Mapping[str, Document], public: Mapping[str, str]) -> dict[str, Document]:
    names = {name: public.get(name, name.lstrip("_")) for name in schemas}
    references = {f"#/components/schemas/{old}": f"#/components/schemas/{new}" for old, new in names.items()}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: references.get(item, item) if key == "$ref" and isinstance(item, str) else renamed(item)
                for key, item in value.items()
            }
        return [renamed(item) for item in value] if isinstance(value, list) else value

    return {names[name]: {**renamed(schema), "title": names[name]} for name, schema in schemas.items()}
