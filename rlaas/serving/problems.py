"""Errors as RFC 9457 ``application/problem+json`` documents."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec

from rlaas.errors import RlaasError

__all__ = ["PROBLEM_TYPE", "problem_document", "problem_of"]

PROBLEM_TYPE = "application/problem+json"
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def problem_document(
    status: int, detail: str, *, code: str = "about:blank", field: str | None = None
) -> dict[str, Any]:
    """A problem document.

    Args:
        status: HTTP status.
        detail: one line that says what is wrong and what is allowed.
        code: class of the error in :mod:`rlaas.errors`, from which clients rebuild it; ``about:blank`` where the
            status says everything.
        field: the offending field as the caller knows it.
    """
    if code == "about:blank":
        document: dict[str, Any] = {"type": code, "title": HTTPStatus(status).phrase}
    else:
        title = _WORDS.sub(" ", code.removesuffix("Error")).lower().capitalize()
        document = {"type": f"urn:rlaas:problem:{code}", "title": title, "code": code}
    return {**document, "status": status, "detail": detail, "field": field}


def problem_of(error: RlaasError) -> tuple[int, bytes]:
    """Status and body that tell a client about ``error``."""
    kind = type(error)
    document = problem_document(kind.http_status, error.message, code=kind.__name__, field=error.field)
    return kind.http_status, msgspec.json.encode(document)
