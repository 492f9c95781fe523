"""The routes of the features, described for :mod:`rlaas.client.contract`."""

from __future__ import annotations

from typing import Any

from rlaas.client.contract_parts import (
    COUNT,
    NUMBER,
    OBJECT,
    PAGED,
    READ,
    TEXT,
    TIMED,
    object_schema,
    page_schema,
    read,
)
from rlaas.control.features_routes import _Online
from rlaas.serving.openapi.operations import Operation, pydantic_schemas, reference

__all__ = ["feature_operations", "feature_schemas"]

_BASE = "/api/v1/features"


def feature_schemas() -> dict[str, dict[str, Any]]:
    """Schemas of what the routes decode and answer."""
    found = pydantic_schemas({"FeaturesAsked": _Online})
    found["FeatureValue"] = object_schema(
        feature={"type": "string", "description": "name@version"},
        value={"type": ["number", "boolean", "null"], "description": "the default where it is not fresh"},
        status={"enum": ["fresh", "stale", "missing"]},
        time_us={"type": ["integer", "null"], "description": "of the newest event in it"},
        age_s={"type": ["number", "null"]},
    )
    found["EntityFeatures"] = object_schema(
        entity=OBJECT, features={"type": "object", "additionalProperties": reference("FeatureValue")}
    )
    found["Feature"] = object_schema(
        name=TEXT,
        version=COUNT,
        entity=TEXT,
        type={"enum": ["float", "int", "bool"]},
        source=OBJECT,
        transformation=OBJECT,
        ttl_s=NUMBER,
        owner=TEXT,
        created_us=COUNT,
        digest=TEXT,
    )
    return found


def feature_operations() -> list[Operation]:
    """Every route of :class:`rlaas.control.features_routes.FeatureRoutes`."""
    return [
        read("features", _BASE, "features", "Every version of every feature", page_schema(reference("Feature")), PAGED),
        read(
            "feature",
            f"{_BASE}/{{feature}}",
            "features",
            "A definition",
            reference("Feature"),
            ("feature", *TIMED),
            404,
        ),
        read(
            "features_of",
            f"{_BASE}/online",
            "features",
            "Values of one entity now",
            reference("EntityFeatures"),
            ("entity", "features", *TIMED),
            404,
        ),
        Operation(
            method="POST",
            path=f"{_BASE}/online",
            id="features_online",
            tag="features",
            summary="Values of many entities now",
            parameters=TIMED,
            body=reference("FeaturesAsked"),
            examples={"two": {"features": ["cell_load"], "entities": [{"cell": "c-17"}, {"cell": "c-18"}]}},
            answers={200: object_schema(items={"type": "array", "items": reference("EntityFeatures")})},
            errors=(*READ, 400, 404),
        ),
    ]
