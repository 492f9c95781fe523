"""What the control plane reads off deployment records and versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rlaas.errors import ConflictError
from rlaas.registry import CHAMPION, PolicyVersion
from rlaas.serving.live import DeploymentRecord

__all__ = ["champion", "check_match", "version_document", "versions_of"]


def versions_of(record: DeploymentRecord) -> list[int]:
    """Versions that a Gateway needs for a record."""
    fallback = [] if record.fallback is None else [record.fallback]
    return sorted({*(variant.version for variant in record.variants), *fallback})


def champion(version: int) -> dict[str, Any]:
    """The variant of a version that serves alone."""
    return {"name": CHAMPION, "version": version, "weight": 1.0}


def version_document(version: PolicyVersion) -> dict[str, Any]:
    """A version as JSON types."""
    return {**asdict(version), "aliases": list(version.aliases)}


def check_match(record: DeploymentRecord | None, if_match: str | None) -> None:
    """Refuse a change of another generation than the one that was seen.

    Raises:
        ConflictError: ``if_match`` is neither ``*`` nor the entity tag of the record.
    """
    if if_match is None or if_match == "*":
        return
    if record is None or record.etag != if_match:
        current = record.etag if record else "(none)"
        raise ConflictError(f"If-Match is {if_match[:80]} but the current entity tag is {current}", field="If-Match")
