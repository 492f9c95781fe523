"""What the descriptions in :mod:`rlaas.client.contract` share: schemas, statuses, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.serving.openapi.operations import Operation, reference

__all__ = [
    "COUNT",
    "EXPERIMENT",
    "LIST",
    "NUMBER",
    "OBJECT",
    "PAGED",
    "READ",
    "RULES",
    "TEXT",
    "TIMED",
    "VARIANTS",
    "answer_schemas",
    "delete",
    "object_schema",
    "or_null",
    "page_schema",
    "read",
]

READ = (408, 413, 415, 422, 503, 504)
"""Statuses of every route that the Gateway passes on."""
TIMED = ("x-request-timeout",)
PAGED = ("page_size", "page_token", *TIMED)
TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
OBJECT: dict[str, Any] = {"type": "object"}
LIST: dict[str, Any] = {"type": "array"}
VARIANTS: list[dict[str, Any]] = [
    {"name": "champion", "version": 1, "weight": 0.9},
    {"name": "challenger", "version": 2, "weight": 0.1, "explore": True, "epsilon": 0.1},
]
EXPERIMENT: dict[str, Any] = {"name": "autumn", "design": "user", "salt": "autumn-1"}
RULES: dict[str, Any] = {
    "version": 1,
    "context": {"load": {"type": "number", "range": [0, 1]}},
    "rules": [{"name": "busy", "when": "load > 0.8", "then": {"mode": "emergency"}}],
}


def read(
    name: str, path: str, tag: str, summary: str, answer: dict[str, Any], parameters: tuple[str, ...], *errors: int
) -> Operation:
    """A route that shows something."""
    return Operation(
        method="GET",
        path=path,
        id=name,
        tag=tag,
        summary=summary,
        parameters=parameters,
        answers={200: answer},
        errors=(*READ, *errors),
    )


def delete(name: str, path: str, tag: str, parameters: tuple[str, ...]) -> Operation:
    """A route that deletes."""
    return Operation(
        method="DELETE",
        path=path,
        id=name,
        tag=tag,
        summary="Delete a version that nothing serves" if tag == "models" else "Serve the policy no longer",
        parameters=parameters,
        answers={200: object_schema(deleted=OBJECT)},
        errors=(*READ, 404, 409),
    )


def page_schema(item: dict[str, Any]) -> dict[str, Any]:
    """A page of a list."""
    return object_schema(items={"type": "array", "items": item}, next_page_token={"type": ["string", "null"]})


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def object_schema(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has these properties, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def answer_schemas(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What Control answers, by name; ``record`` is the schema of a deployment as it is stored."""
    # What is answered may grow.
    opened = {key: value for key, value in record.items() if key != "additionalProperties"}
    live = {**record["properties"], "weights": {"type": "object", "additionalProperties": {"type": "number"}}}
    rollout = object_schema(
        number=COUNT,
        policy=TEXT,
        deployment=TEXT,
        kind={"enum": ["canary", "blue_green", "shadow"]},
        state=TEXT,
        step=COUNT,
        from_version=COUNT,
        to_version=COUNT,
        started_us=COUNT,
        ended_us={"type": ["integer", "null"]},
        strategy=OBJECT,
    )
    rollout["properties"] |= {
        "verdict": {"enum": ["harm", "no_harm", "undecided"]},
        "evidence": OBJECT,
        "decisions": COUNT,
        "events": {
            "type": "array",
            "items": object_schema(time_us=COUNT, actor=TEXT, kind=TEXT, step=COUNT, reason=TEXT, evidence=OBJECT),
        },
    }
    about = {"label": TEXT, "version": TEXT, "source": TEXT, "updated_us": COUNT}
    return {
        "Deployment": {**opened, "title": "Deployment", "properties": live, "required": sorted(live)},
        "DeploymentStatus": object_schema(
            **live,
            ready={"type": "boolean", "description": "every replica has loaded this generation"},
            replicas=LIST,
            rollout=or_null(reference("Rollout")),
            autoscaling=or_null(OBJECT),
        ),
        "Rollout": rollout,
        "FrontSummary": object_schema(scenario=TEXT, **about, objectives=LIST, candidates=COUNT),
        "Front": object_schema(scenario=TEXT, **about, objectives=LIST, candidates=LIST, schema_version=COUNT),
        "Resolution": object_schema(
            scenario=TEXT,
            mode=TEXT,
            preference=OBJECT,
            method=TEXT,
            candidate=TEXT,
            kind=TEXT,
            parameters=OBJECT,
            step={"type": "string", "description": "where it came from: `live`, or what stood in for it"},
            certificate=or_null(OBJECT),
            passed_over=LIST,
        ),
        "Elicitation": object_schema(
            scenario=TEXT,
            front_version=TEXT,
            done={"type": "boolean"},
            question=or_null(OBJECT),
            answered=COUNT,
            remaining=NUMBER,
            preference=OBJECT,
        ),
    }
