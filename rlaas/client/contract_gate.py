"""The routes of the gates of policies, described for :mod:`rlaas.client.contract`."""

from __future__ import annotations

from typing import Any

from rlaas.client.contract_parts import (
    COUNT,
    OBJECT,
    PAGED,
    READ,
    TEXT,
    TIMED,
    object_schema,
    or_null,
    page_schema,
    read,
)
from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.routes import _Declare, _Judge, _Override
from rlaas.experiments.gate import Verdict
from rlaas.serving.openapi.operations import Operation, pydantic_schemas, reference

__all__ = ["gate_operations", "gate_schemas"]

_BASE = "/api/v1/models/{model}/gate"
_ROWS = object_schema(read=COUNT, counted=COUNT, left_out={"type": "object", "additionalProperties": COUNT})


def gate_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what the routes decode and answer."""
    found = pydantic_schemas(
        {
            "GateDeclare": _Declare,
            "GateDeclaration": GateDeclaration,
            "GateJudge": _Judge,
            "GateOverride": _Override,
            "GateVerdict": Verdict,
        }
    )
    declared = object_schema(declaration=reference("GateDeclaration"), metric=TEXT, declared_us=COUNT, actor=TEXT)
    found["Gate"] = object_schema(policy=TEXT, gate=or_null(declared), served={"type": "array", "items": COUNT})
    found["GateReport"] = object_schema(verdict=reference("GateVerdict"), override=or_null(OBJECT), rows=_ROWS)
    found["GateEvent"] = object_schema(
        number=COUNT,
        time_us=COUNT,
        kind={"enum": ["declared", "removed", "passed", "refused", "overridden", "promised"]},
        actor=TEXT,
        reason=TEXT,
        version=or_null(COUNT),
        report=or_null(OBJECT),
        edge={"type": "boolean"},
    )
    return found


def gate_operations() -> list[Operation]:
    """Every route of :class:`rlaas.control.gating.routes.GateRoutes`."""

    def send(method: str, name: str, path: str, summary: str, body: str, example: Any, answer: str) -> Operation:
        return Operation(
            method=method,
            path=_BASE + path,
            id=name,
            tag="models",
            summary=summary,
            parameters=("model", *TIMED),
            body=reference(body),
            examples={"throughput" if method == "PUT" else "second": example},
            answers={200: reference(answer)},
            errors=(*READ, 400, 404, 409, 500),
        )

    declaration = {"value": "throughput", "estimator": "snipw", "margin": 0.5, "actor": "ada"}
    return [
        read("gate", _BASE, "models", "What new versions have to pass", reference("Gate"), ("model", *TIMED), 404),
        send(
            "PUT",
            "declare_gate",
            "",
            "Declare by what a version is judged before it gets live traffic",
            "GateDeclare",
            declaration,
            "Gate",
        ),
        Operation(
            method="DELETE",
            path=_BASE,
            id="remove_gate",
            tag="models",
            summary="Let every version through from now on",
            parameters=("model", *TIMED),
            answers={200: object_schema(deleted=OBJECT)},
            errors=(*READ, 404, 409),
        ),
        read(
            "gate_history",
            f"{_BASE}/history",
            "models",
            "Declarations, judgements and overrides, newest first",
            page_schema(reference("GateEvent")),
            ("model", *PAGED),
            404,
        ),
        send(
            "POST",
            "judge_version",
            "/judge",
            "What the gate would say of a version now",
            "GateJudge",
            {"version": 2},
            "GateReport",
        ),
        send(
            "POST",
            "override_gate",
            "/override",
            "Let a version through once, beforehand, with a reason",
            "GateOverride",
            {"version": 2, "reason": "reviewed by hand", "actor": "ada"},
            "GateEvent",
        ),
    ]
