"""Errors as RFC 9457 ``application/problem+json`` documents."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from rlaas.errors import RetryableError, RlaasError

__all__ = ["PROBLEM_TYPE", "answer_failure", "for_protocol", "problem_document", "problem_of"]

PROBLEM_TYPE = "application/problem+json"
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KEY_OF = re.compile(r"(?P<path>\S+) (?:objective|field)")
"""How the rooms call a key that an object of the request should not have."""


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
    return {**document, "status": status, "detail": _sendable(detail), "field": field and _sendable(field)}


def _sendable(text: str) -> str:
    """Half of a surrogate pair, which JSON may carry but UTF-8 may not, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def problem_of(error: RlaasError) -> tuple[int, bytes]:
    """Status and body that tell a client about ``error``."""
    kind = type(error)
    key = _KEY_OF.fullmatch(error.field or "")
    field = error.field if key is None else key["path"]
    document = problem_document(kind.http_status, error.message, code=kind.__name__, field=field)
    return kind.http_status, msgspec.json.encode(document)


def for_protocol(path: str, body: bytes) -> bytes:
    """A problem document as the protocol behind ``path`` wants it: V2 clients look for ``error``."""
    if not path.startswith("/v2"):
        return body
    document = msgspec.json.decode(body)
    return msgspec.json.encode({**document, "error": document["detail"]})


def answer_failure(route: str, method: str, path: str, failure: Exception) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and further headers for a request that failed; what only an operator can mend is logged.

    Args:
        route: as the log names it.
        method, path: of the request.
        failure: what was raised.
    """
    if not isinstance(failure, RlaasError):
        # The client learns that it failed, the operator learns why.
        structlog.get_logger().error("request_crashed", path=route, method=method, exc_info=failure)
        document = problem_document(500, "an internal error occurred; the log of the Gateway says more")
        return 500, for_protocol(path, msgspec.json.encode(document)), {}
    if failure.http_status >= 500:
        cause = None if failure.__cause__ is None else str(failure.__cause__).splitlines()[0]
        structlog.get_logger().warning("request_failed", path=route, error=failure.message, cause=cause)
    status, body = problem_of(failure)
    retry = {"Retry-After": "1"} if isinstance(failure, RetryableError) and status in (429, 503) else {}
    return status, for_protocol(path, body), retry
