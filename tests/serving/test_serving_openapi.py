"""The OpenAPI document: valid, up to date, complete, and its examples run."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.routing import Route, WebSocketRoute
from support.http_platform import HttpPlatform, shared_platform
from support.serving_kit import SECRET

from rlaas.client.contract import control_operations, platform_document
from rlaas.serving import web
from rlaas.serving.edge.sync import device_key
from rlaas.serving.openapi import openapi_document
from rlaas.serving.openapi.gateway import gateway_operations

DOCUMENT: dict[str, Any] = json.loads(openapi_document())
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
NEW = [{"name": "champion", "version": 2, "weight": 1}]


@pytest.fixture(scope="module")
def platform() -> Iterator[HttpPlatform]:
    platform = shared_platform()
    with platform.fast_lane():
        yield platform


class Api:
    """Sends requests to the application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@pytest.fixture
def api(platform: HttpPlatform) -> Api:
    platform.restore()
    return Api(platform.app)


def test_the_file_is_what_the_code_makes() -> None:
    made = json.loads(json.dumps(platform_document()))
    assert made == DOCUMENT, "run: python -m rlaas.client.contract"


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert [error.message for error in Draft202012Validator(OPENAPI_31).iter_errors(DOCUMENT)] == []
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"#/components/(\w+)/([^"]+)"', text))
    there = {(kind, name) for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert used == there


def test_operations_are_named_once_and_described() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for method, path, operation in OPERATIONS:
        assert operation["summary"], path
        assert set(operation["tags"]) <= tags
        assert "default" in operation["responses"]
        named = set(re.findall(r"{(\w+)}", path))
        parameters = [
            DOCUMENT["components"]["parameters"][ref["$ref"].rsplit("/", 1)[1]]
            for ref in operation.get("parameters", [])
        ]
        assert {p["name"] for p in parameters if p["in"] == "path"} == named, path
        assert ("requestBody" in operation) <= (method != "GET")


def _without_convertors(path: str) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", r"{\1}", path)


def test_every_route_of_the_gateway_is_in_the_document_and_no_other(platform: HttpPlatform) -> None:
    forwarded = [f"/api/v1/{room}" for room in web._FORWARDED]
    routes = set()
    for route in web.create_app(platform).routes:
        assert isinstance(route, Route | WebSocketRoute)
        path = _without_convertors(route.path)
        if any(path == room or path.startswith(f"{room}/") for room in forwarded):
            continue
        methods = (route.methods or set()) - {"HEAD"} if isinstance(route, Route) else {"GET"}
        routes |= {(method, path) for method in methods}
    assert {(one.method, one.path) for one in gateway_operations()} == routes
    # What is passed on is described as Control has it.
    for operation in control_operations():
        assert any(operation.path == room or operation.path.startswith(f"{room}/") for room in forwarded)


def test_every_route_of_control_is_in_the_document_and_no_other(platform: HttpPlatform) -> None:
    routes = {
        (method, re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern.pattern))
        for method, pattern, _ in platform.routes._routes
    }
    assert {(one.method, one.path) for one in control_operations()} == routes
    assert {(method, path) for method, path, _ in OPERATIONS} == routes | {
        (one.method, one.path) for one in gateway_operations()
    }


def _valid(schema: dict[str, Any], value: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(value)]


def test_the_examples_of_bodies_and_answers_fit_their_schemas() -> None:
    for _, path, operation in OPERATIONS:
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            assert media.get("examples") or kind != "application/json", path
            for name, shown in media.get("examples", {}).items():
                assert _valid(media["schema"], shown["value"]) == [], (path, name)
        for response in operation["responses"].values():
            for media in response.get("content", {}).values():
                if "example" in media:
                    assert _valid(media["schema"], media["example"]) == [], path


def _rollout(kind: str) -> Callable[[Api], dict[str, str]]:
    """What has to be there before a rollout can be steered; the parts of the path that follow from it."""

    def prepare(api: Api) -> dict[str, str]:
        strategy = {"kind": kind} if kind == "canary" else {"kind": kind, "auto_switch": False}
        created = api(
            "POST", "/api/v1/deployments/create", json={"policy": "toy", "variants": NEW, "strategy": strategy}
        )
        assert created.status_code == 200, created.text
        status = api("GET", "/api/v1/deployments/toy/status").json()
        return {"number": str(status["rollout"]["number"])}

    return prepare


def _spare_version(api: Api) -> dict[str, str]:
    made = api("POST", "/api/v1/models/register", json={"name": "toy", "path": "bundles/toy"})
    return {"version": str(made.json()["version"])}


def _experiment(api: Api) -> dict[str, str]:
    """One under a fresh name; any that runs on the policy is ended first."""
    for item in api("GET", "/api/v1/experiments").json()["items"]:
        if item["stopped_us"] is None:
            api("POST", f"/api/v1/experiments/{item['id']}/stop", json={"decision": "none", "reason": "next"})
    operation = DOCUMENT["paths"]["/api/v1/experiments"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["examples"]["sequential"]["value"]
    name = f"exp-{uuid.uuid4().hex[:8]}"
    made = api("POST", "/api/v1/experiments", json={**body, "id": name})
    assert made.status_code == 201, made.text
    return {"experiment": name}


def _no_experiment(api: Api) -> dict[str, str]:
    name = _experiment(api)["experiment"]
    api("POST", f"/api/v1/experiments/{name}/stop", json={"decision": "none", "reason": "next"})
    return {}


def _gate(api: Api) -> dict[str, str]:
    operation = DOCUMENT["paths"]["/api/v1/models/{model}/gate"]["put"]
    body = operation["requestBody"]["content"]["application/json"]["examples"]["throughput"]["value"]
    declared = api("PUT", "/api/v1/models/toy/gate", json=body)
    assert declared.status_code == 200, declared.text
    return {}


PREPARED: dict[str, Callable[[Api], dict[str, str]]] = {
    "steer_rollout": _rollout("canary"),
    "switch": _rollout("blue_green"),
    "delete_version": _spare_version,
    "create_experiment": _no_experiment,
    **dict.fromkeys(("remove_gate", "gate_history", "judge_version", "override_gate"), _gate),
    **dict.fromkeys(
        ("experiment", "experiment_result", "experiment_audit", "analyse_experiment", "stop_experiment"), _experiment
    ),
}


def _cases() -> list[Any]:
    cases = []
    for method, path, operation in OPERATIONS:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, body in content.get("examples", {"": {"value": None}}).items():
            label = f"{operation['operationId']} {name}".strip()
            if operation["operationId"] != "session":  # a WebSocket; see test_serving_sessions.py
                cases.append(pytest.param(method, path, operation, body["value"], id=label))
    return cases


@pytest.mark.parametrize(("method", "path", "operation", "body"), _cases())
def test_an_example_runs_and_is_answered_as_documented(
    api: Api, method: str, path: str, operation: dict[str, Any], body: Any
) -> None:
    parts = PREPARED.get(operation["operationId"], lambda _: {})(api)
    options: dict[str, Any] = {}
    for reference in operation.get("parameters", []):
        parameter = DOCUMENT["components"]["parameters"][reference["$ref"].rsplit("/", 1)[1]]
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parts.get(parameter["name"], parameter["example"]))
        elif parameter["in"] == "query" and parameter.get("required"):
            options["params"] = {**options.get("params", {}), parameter["name"]: parameter["example"]}
    if operation["operationId"] == "outcomes":
        decided = api("POST", "/api/v1/policies/toy/decide", json={"observation": [0, 0, 0]}).json()["decision_id"]
        items = body if isinstance(body, list) else [body]
        body = [{**item, "decision_id": decided} for item in items]
    if operation["operationId"] == "create_experiment":  # whoever asked before may have taken the name
        body = {**body, "id": f"exp-{uuid.uuid4().hex[:8]}"}
    if body is not None:
        options["content"] = json.dumps(body).encode()
    if operation["operationId"] == "edge_sync":
        key = bytes.fromhex(device_key(SECRET, body["device"], tenant="default"))
        signature = hmac.digest(key, b"toy\0" + options["content"], "sha256").hex()
        options["headers"] = {"x-rlaas-signature": signature}
    answer = api(method, path, **options)
    assert answer.status_code < 300, answer.text
    response = operation["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"]
    assert kind in response["content"]
    if "json" in kind:
        assert _valid(response["content"][kind]["schema"], answer.json()) == []
    for name in ("ETag", "Idempotent-Replay", "Retry-After", "Inference-Header-Content-Length"):
        assert name not in answer.headers or name in response.get("headers", {}), name


def test_a_refusal_is_the_documented_problem(api: Api) -> None:
    schema = DOCUMENT["components"]["schemas"]["Problem"]
    for method, path, options, status in (
        ("POST", "/api/v1/policies/toy/decide", {"json": {}}, 422),
        ("POST", "/api/v1/policies/nobody/decide", {"json": {}}, 404),
        ("POST", "/api/v1/policies/toy/decide", {"content": b"{"}, 400),
        ("POST", "/v2/models/toy/infer", {"json": {}}, 422),
        ("GET", "/api/v1/policies/toy/session", {}, 404),
        ("DELETE", "/api/v1/models/toy/versions/1", {}, 409),
        ("POST", "/api/v1/resolve", {"json": {"scenario": "network5g", "colour": 1}}, 422),
    ):
        answer = api(method, path, **options)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert _valid(schema, answer.json()) == []


def test_the_gateway_serves_the_document(api: Api) -> None:
    answer = api("GET", "/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == DOCUMENT
