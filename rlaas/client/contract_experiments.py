"""The routes of experiments, described for :mod:`rlaas.client.contract`."""

from __future__ import annotations

from typing import Any

from rlaas.client.contract_parts import (
    COUNT,
    LIST,
    OBJECT,
    PAGED,
    READ,
    TEXT,
    TIMED,
    object_schema,
    page_schema,
    read,
)
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.control.experiments.routes import _Stop
from rlaas.serving.openapi.operations import Operation, pydantic_schemas, reference

__all__ = ["experiment_operations", "experiment_schemas"]

_BASE = "/api/v1/experiments"
_EXAMPLE: dict[str, Any] = {
    "id": "autumn",
    "policy": "toy",
    "variants": [{"name": "control", "version": 1}, {"name": "treatment", "version": 2}],
    "primary": {"kind": "mean", "name": "latency", "value": "latency", "window_s": 60},
    "stopping": {"kind": "sequential", "planned": 5000},
}


def experiment_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what the routes decode and answer."""
    found = pydantic_schemas({"ExperimentDocument": ExperimentDocument, "StopExperiment": _Stop})
    summary = object_schema(
        id=TEXT, policy=TEXT, state=TEXT, design=TEXT, variants=LIST, primary=TEXT, start_us=COUNT, created_us=COUNT
    )
    found["ExperimentSummary"] = summary
    found["Experiment"] = object_schema(**summary["properties"], document=OBJECT, history=LIST)
    return found


def experiment_operations() -> list[Operation]:
    """Every route of :class:`rlaas.control.experiments.routes.ExperimentRoutes`."""
    one, tag = f"{_BASE}/{{experiment}}", "experiments"
    return [
        read("experiments", _BASE, tag, "Experiments", page_schema(reference("ExperimentSummary")), PAGED),
        Operation(
            method="POST",
            path=_BASE,
            id="create_experiment",
            tag=tag,
            summary="Begin an experiment: its variants are live from now on",
            parameters=("Idempotency-Key", "If-Match", *TIMED),
            body=reference("ExperimentDocument"),
            examples={"sequential": _EXAMPLE},
            answers={201: reference("Experiment")},
            headers=("Idempotent-Replay",),
            errors=(*READ, 400, 404, 409, 500),
        ),
        read("experiment", one, tag, "An experiment with its history", reference("Experiment"), _NAMED, 404),
        read("experiment_result", f"{one}/result", tag, "The latest result page", OBJECT, _NAMED, 404, 409, 500),
        read(
            "experiment_audit",
            f"{one}/audit",
            tag,
            "What came too late or contradicts itself, and so changed nothing",
            page_schema(OBJECT),
            ("experiment", *PAGED),
            404,
        ),
        Operation(
            method="POST",
            path=f"{one}/analyse",
            id="analyse_experiment",
            tag=tag,
            summary="Take in what is new in the lake, and show the result page",
            parameters=_NAMED,
            answers={200: OBJECT},
            errors=(*READ, 404, 409, 500),
        ),
        Operation(
            method="POST",
            path=f"{one}/stop",
            id="stop_experiment",
            tag=tag,
            summary="End an experiment: ship a variant, keep the control, or neither",
            parameters=("experiment", "Idempotency-Key", *TIMED),
            body=reference("StopExperiment"),
            examples={"keep": {"decision": "keep", "reason": "no difference worth having"}},
            answers={200: reference("Experiment")},
            headers=("Idempotent-Replay",),
            errors=(*READ, 400, 404, 409, 500),
        ),
    ]


_NAMED = ("experiment", *TIMED)
