"""The HTTP interface of the whole platform as one OpenAPI 3.1 document.

    python -m rlaas.client.contract        # writes rlaas/serving/openapi/document.json

The Gateway serves that file at ``/openapi.json``. It is made here because here, above the control plane, everything
that the routes decode can be imported; ``rlaas.client`` itself does not import this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import rlaas.serving.openapi
from rlaas import __version__
from rlaas.client.contract_drift import drift_operations, drift_schemas
from rlaas.client.contract_experiments import experiment_operations, experiment_schemas
from rlaas.client.contract_features import feature_operations, feature_schemas
from rlaas.client.contract_gate import gate_operations, gate_schemas
from rlaas.client.contract_parts import (
    COUNT,
    EXPERIMENT,
    OBJECT,
    PAGED,
    READ,
    RULES,
    TEXT,
    TIMED,
    VARIANTS,
    answer_schemas,
    delete,
    object_schema,
    or_null,
    page_schema,
    read,
)
from rlaas.control.front_routes import _Elicit, _Resolve, _Wish
from rlaas.control.rollouts.plan import BlueGreen, Canary, Shadow
from rlaas.control.rollouts.routes import _Action
from rlaas.control.routes import _Create, _Promote, _Register, _Scale
from rlaas.decisions.rules import RuleFile
from rlaas.registry.versions import PolicyVersion
from rlaas.serving.live import DeploymentRecord, ExperimentSpec, Variant
from rlaas.serving.openapi.gateway import TAGS, gateway_operations, gateway_schemas
from rlaas.serving.openapi.operations import Operation, build_document, pydantic_schemas, reference

__all__ = ["control_operations", "platform_document"]

_DESCRIPTION = """Decisions, outcomes and the control plane of rlaas.

Errors are RFC 9457 `application/problem+json`; bad input names the field. Times are UTC microseconds. Every route
answers 405 with `Allow` to another method. Bodies are plain JSON: compressed ones are refused."""
_CONTROL_TAGS = {
    "models": "Policies and their versions.",
    "deployments": "Which versions are live, and how new ones take over.",
    "fronts": "Trade-offs that were found, and choices from them.",
    "experiments": "Comparisons of versions, and what they found.",
    "features": "Quantities of entities, for observations.",
    "drift": "Whether what policies see, do and bring about is still what it was.",
    "lake": "What has been recorded.",
}


def platform_document() -> dict[str, Any]:
    """The document of the Gateway's and of Control's routes."""
    return build_document(
        [*gateway_operations(), *control_operations()],
        {**gateway_schemas(), **control_schemas()},
        title="rlaas",
        version=__version__,
        description=_DESCRIPTION,
        tags={**TAGS, **_CONTROL_TAGS},
    )


def control_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what Control decodes and answers."""
    found = pydantic_schemas(
        {
            "Register": _Register,
            "Promote": _Promote,
            "DeploymentCreate": _Create,
            "Scale": _Scale,
            "RolloutAction": _Action,
            "Wish": _Wish,
            "Resolve": _Resolve,
            "Elicit": _Elicit,
            "RuleFile": RuleFile,
            "Canary": Canary,
            "BlueGreen": BlueGreen,
            "Shadow": Shadow,
            "Variant": Variant,
            "ExperimentSpec": ExperimentSpec,
            "DeploymentRecord": DeploymentRecord,
        }
    )
    # Decoded in a second step, so that the models of the bodies say nothing about them.
    create = found["DeploymentCreate"]["properties"]
    create["variants"] = {"type": "array", "items": reference("Variant"), "minItems": 1, "maxItems": 32}
    create["experiment"] = or_null(reference("ExperimentSpec"))
    create["strategy"] |= {
        "anyOf": [*(reference(kind) for kind in ("Canary", "BlueGreen", "Shadow")), {"type": "null"}]
    }
    for wish in ("Wish", "Resolve"):
        found[wish]["properties"]["rules"] |= or_null(reference("RuleFile"))
        found[wish]["properties"]["preference"] |= or_null(
            {"type": "object", "additionalProperties": {"type": "number"}, "description": "weight by objective"}
        )
    found["PolicyVersion"] = {**TypeAdapter(PolicyVersion).json_schema(), "title": "PolicyVersion"}
    found |= answer_schemas(found.pop("DeploymentRecord"))
    found |= experiment_schemas()
    found |= gate_schemas()
    found |= drift_schemas()
    found |= feature_schemas()
    return found


def control_operations() -> list[Operation]:
    """Every route of :class:`rlaas.control.routes.ControlRoutes` with fronts and experiments."""
    return [
        *_models(),
        *gate_operations(),
        *_deployments(),
        *_rollouts(),
        *_fronts(),
        *experiment_operations(),
        *drift_operations(),
        *feature_operations(),
        *_lake(),
    ]


def _models() -> list[Operation]:
    base = "/api/v1/models"
    return [
        read("models", base, "models", "Registered policies", page_schema(object_schema(name=TEXT)), PAGED),
        read(
            "versions",
            f"{base}/{{model}}/versions",
            "models",
            "Versions of a policy, newest first",
            page_schema(reference("PolicyVersion")),
            ("model", *PAGED),
            404,
        ),
        Operation(
            method="POST",
            path=f"{base}/register",
            id="register",
            tag="models",
            summary="Register a bundle that lies under the platform's home",
            parameters=("Idempotency-Key", *TIMED),
            body=reference("Register"),
            examples={"bundle": {"name": "toy", "path": "bundles/toy", "alias": "candidate", "tags": {"team": "core"}}},
            answers={201: reference("PolicyVersion")},
            headers=("Idempotent-Replay",),
            errors=(*READ, 400, 409, 500),
        ),
        Operation(
            method="POST",
            path=f"{base}/{{model}}/promote",
            id="promote",
            tag="models",
            summary="Point an alias at a version; as champion it alone is live from then on",
            parameters=("model", "If-Match", *TIMED),
            body=reference("Promote"),
            examples={"champion": {"version": 1}, "alias": {"version": 2, "alias": "candidate"}},
            answers={
                200: object_schema(version=reference("PolicyVersion"), deployment=or_null(reference("Deployment")))
            },
            headers=("ETag",),
            errors=(*READ, 400, 404, 409, 500),
        ),
        delete("delete_version", f"{base}/{{model}}/versions/{{version}}", "models", ("model", "version", *TIMED)),
    ]


def _deployments() -> list[Operation]:
    base = "/api/v1/deployments"
    tag = "deployments"
    return [
        read("deployments", base, tag, "Live deployments", page_schema(reference("Deployment")), PAGED),
        Operation(
            method="POST",
            path=f"{base}/create",
            id="create_deployment",
            tag=tag,
            summary="Serve a policy from several versions, or begin to bring in a new one by a strategy",
            description="An existing deployment of the policy gets its next generation.",
            parameters=("Idempotency-Key", "If-Match", *TIMED),
            body=reference("DeploymentCreate"),
            examples={
                "split": {"policy": "toy", "variants": VARIANTS},
                "experiment": {"policy": "toy", "variants": VARIANTS, "experiment": EXPERIMENT},
                "canary": {
                    "policy": "toy",
                    "variants": [{"name": "champion", "version": 2, "weight": 1}],
                    "strategy": {"kind": "canary", "steps": [0.05, 0.25, 0.5], "step_s": 60},
                },
            },
            answers={201: reference("Deployment"), 200: reference("Deployment")},
            headers=("ETag", "Idempotent-Replay"),
            errors=(*READ, 400, 404, 409, 500),
        ),
        Operation(
            method="GET",
            path=f"{base}/{{deployment}}/status",
            id="deployment_status",
            tag=tag,
            summary="A deployment, and what the replicas have loaded of it",
            parameters=("deployment", *TIMED),
            answers={200: reference("DeploymentStatus")},
            headers=("ETag",),
            errors=(*READ, 404),
        ),
        Operation(
            method="PUT",
            path=f"{base}/{{deployment}}/scale",
            id="scale_deployment",
            tag=tag,
            summary="Set the number of Gateway replicas, which serve all deployments",
            parameters=("deployment", *TIMED),
            body=reference("Scale"),
            examples={"two": {"replicas": 2}},
            answers={202: object_schema(deployment=TEXT, replicas=COUNT)},
            errors=(*READ, 400, 404, 409),
        ),
        delete("delete_deployment", f"{base}/{{deployment}}", tag, ("deployment", "If-Match", *TIMED)),
    ]


def _rollouts() -> list[Operation]:
    base = "/api/v1/deployments/{deployment}"

    def act(name: str, path: str, parameters: tuple[str, ...], summary: str) -> Operation:
        return Operation(
            method="POST",
            path=base + path,
            id=name,
            tag="deployments",
            summary=summary,
            parameters=(*parameters, *TIMED),
            body=reference("RolloutAction"),
            examples={"why": {"reason": "the numbers look odd", "actor": "ada"}},
            answers={200: reference("Rollout")},
            errors=(*READ, 400, 404, 409),
        )

    return [
        read(
            "rollouts",
            f"{base}/rollouts",
            "deployments",
            "Every rollout with its events, newest first",
            page_schema(reference("Rollout")),
            ("deployment", *PAGED),
            404,
        ),
        act(
            "steer_rollout",
            "/rollouts/{number}/{action}",
            ("deployment", "number", "rollout_action"),
            "Promote a rollout, roll it back, pause or resume it",
        ),
        act("switch", "/{action}", ("deployment", "switch_action"), "Switch a blue-green rollout, or switch it back"),
    ]


def _fronts() -> list[Operation]:
    wish = {"preference": {"latency": 0.7, "throughput": 0.1, "energy": 0.1, "satisfaction": 0.1}}

    def choose(name: str, path: str, body: str, parameters: tuple[str, ...], examples: Mapping[str, Any]) -> Operation:
        return Operation(
            method="POST",
            path=path,
            id=name,
            tag="fronts",
            summary="The candidate of a front that fits best, with its certificate",
            parameters=(*parameters, *TIMED),
            body=reference(body),
            examples=examples,
            answers={200: reference("Resolution")},
            errors=(*READ, 400, 404),
        )

    return [
        read(
            "fronts",
            "/api/v1/fronts",
            "fronts",
            "Fronts that were found",
            page_schema(reference("FrontSummary")),
            PAGED,
        ),
        Operation(
            method="GET",
            path="/api/v1/fronts/{scenario}",
            id="front",
            tag="fronts",
            summary="A front with its candidates",
            parameters=("scenario", "label", "If-None-Match", *TIMED),
            answers={200: reference("Front"), 304: None},
            headers=("ETag",),
            errors=(*READ, 404),
        ),
        choose(
            "resolve",
            "/api/v1/resolve",
            "Resolve",
            (),
            {
                "preference": {"scenario": "network5g", **wish},
                "rules": {"scenario": "network5g", "mode": "normal", "rules": RULES, "context": {"load": 0.9}},
            },
        ),
        choose("resolve_scenario", "/api/v1/fronts/{scenario}/resolve", "Wish", ("scenario",), {"preference": wish}),
        Operation(
            method="POST",
            path="/api/v1/fronts/{scenario}/elicit",
            id="elicit",
            tag="fronts",
            summary="The next pairwise question, or the preference that the answers amount to",
            parameters=("scenario", *TIMED),
            body=reference("Elicit"),
            examples={"first": {"answers": []}, "second": {"answers": ["a"]}},
            answers={200: reference("Elicitation")},
            errors=(*READ, 400, 404, 409),
        ),
    ]


def _lake() -> list[Operation]:
    return [
        read("lake_status", "/api/v1/lake/status", "lake", "What has been committed", OBJECT, TIMED),
        Operation(
            method="POST",
            path="/api/v1/lake/flush",
            id="flush_lake",
            tag="lake",
            summary="Bring everything that was acknowledged into the lake, and join it",
            parameters=TIMED,
            answers={200: OBJECT},
            errors=READ,
        ),
    ]


def main() -> None:
    """Write the document to where the Gateway reads it."""
    path = Path(rlaas.serving.openapi.__file__).with_name("document.json")
    path.write_text(json.dumps(platform_document(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
