"""The routes of drift, described for OpenAPI."""

from __future__ import annotations

from typing import Any

from rlaas.client.contract_parts import (
    COUNT,
    LIST,
    NUMBER,
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
from rlaas.monitoring import DriftConfig
from rlaas.serving.openapi.operations import Operation, pydantic_schemas, reference

__all__ = ["drift_operations", "drift_schemas"]

_BASE = "/api/v1/models/{model}"


def drift_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what these routes decode and answer."""
    found = pydantic_schemas({"DriftConfig": DriftConfig})
    stream = object_schema(stream=TEXT, evidence=NUMBER, sigma=NUMBER, sigma_unit=NUMBER)
    found["DriftAlert"] = object_schema(
        model=TEXT,
        episode=COUNT,
        version=COUNT,
        state={"enum": ["active", "closed"]},
        detected_second={**COUNT, "description": "UTC second whose records tipped the evidence"},
        opened_us=COUNT,
        last_us=COUNT,
        closed_us=or_null(COUNT),
        closed_by={"enum": ["quiet", "promoted", "reconfigured", None]},
        streams={"type": "array", "items": stream},
        retrain=object_schema(
            state={"enum": ["none", "waiting", "claimed", "requested", "failed"]},
            id=or_null(TEXT),
            time_us=or_null(COUNT),
            job=or_null(TEXT),
        ),
        resolution=or_null(OBJECT),
    )
    found["DriftAlert"]["properties"]["webhooks"] = LIST
    found["DriftConfigStored"] = object_schema(
        model=TEXT, revision=COUNT, updated_us=COUNT, config=reference("DriftConfig")
    )
    found["DriftStatus"] = object_schema(
        model=TEXT,
        version=or_null(COUNT),
        phase={"enum": ["waiting", "settling", "learning", "calibrating", "watching"]},
        remaining_s=or_null(COUNT),
        streams={"type": "array", "items": TEXT},
        last_second=or_null(COUNT),
        late=COUNT,
        evidence={"type": "array", "items": stream},
        positions=OBJECT,
        updated_us=or_null(COUNT),
        episode=or_null(reference("DriftAlert")),
    )
    return found


def drift_operations() -> list[Operation]:
    """Every route of :class:`rlaas.control.drift.routes.DriftRoutes`."""
    config = f"{_BASE}/drift-config"
    return [
        Operation(
            method="POST",
            path=config,
            id="configure_drift",
            tag="drift",
            summary="Watch a policy for drift so from now on",
            description="Its baseline is learned anew; an episode that lasts is closed.",
            parameters=("model", *TIMED),
            body=reference("DriftConfig"),
            examples={
                "alert": {"webhook": "https://example.com/hook"},
                "inputs": {"monitor": ["input"], "arl_days": 365, "reference": {"cycle": "week", "learn_s": 1_209_600}},
            },
            answers={200: reference("DriftConfigStored")},
            errors=(*READ, 400, 404, 409),
        ),
        read(
            "drift_config",
            config,
            "drift",
            "How a policy is watched",
            reference("DriftConfigStored"),
            ("model", *TIMED),
            404,
        ),
        read(
            "drift_status",
            f"{_BASE}/drift",
            "drift",
            "What the watch is doing, and its strongest evidence",
            reference("DriftStatus"),
            ("model", *TIMED),
            404,
        ),
        read(
            "drift_alerts",
            "/api/v1/alerts/model-drift",
            "drift",
            "Episodes of drift, newest first",
            page_schema(reference("DriftAlert")),
            ("alert_model", "alert_state", *PAGED),
        ),
    ]
