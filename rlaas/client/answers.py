"""What comes back: documents, or the errors that the platform answered with."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import rlaas.errors
from rlaas.errors import (
    ConflictError,
    InvalidInputError,
    MalformedBodyError,
    NotFoundError,
    OperatorError,
    OverloadedError,
    RequestError,
    RetryableError,
    RlaasError,
)

__all__ = ["Reply", "read_answer", "read_problem"]

Document = dict[str, Any]
_BY_STATUS: dict[int, type[RlaasError]] = {
    400: MalformedBodyError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidInputError,
    415: InvalidInputError,
    422: InvalidInputError,
    429: OverloadedError,
    502: RetryableError,
    503: RetryableError,
    504: RetryableError,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        status: of HTTP.
        headers: without regard to case.
        body: raw.
        url: that was asked, for messages.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def ours(self) -> bool:
        """Whether the platform wrote it, and not something on the way to it."""
        return self.status < 400 or "problem+json" in self.headers.get("content-type", "")

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait as the answer says: a number, or a date (RFC 9110, 10.2.3)."""
        value = self.headers.get("retry-after")
        if value is None:
            return None
        if value.strip().isdecimal():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:  # nobody can follow it
            return None


def read_answer(reply: Reply) -> Document:
    """The document of a successful answer.

    Raises:
        RlaasError: the error that the platform answered with.
    """
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        document = None
    if 200 <= reply.status < 300 and isinstance(document, dict):
        return document
    raise read_problem(reply.status, document, f"HTTP {reply.status} from {reply.url}")


def read_problem(status: int, document: Any, otherwise: str) -> RlaasError:
    """The error that a problem document tells of.

    Args:
        status: of the answer.
        document: its body, if that was JSON.
        otherwise: message where the document has none.
    """
    problem = document if isinstance(document, dict) else {}
    where = problem.get("field")
    kind = _error_class(str(problem.get("code")), status)
    return kind(str(problem.get("detail") or otherwise), field=where if isinstance(where, str) else None)


def _error_class(code: str, status: int) -> type[RlaasError]:
    found = getattr(rlaas.errors, code, None) if code in rlaas.errors.__all__ else None
    if isinstance(found, type) and issubclass(found, RlaasError):
        return found
    return _BY_STATUS.get(status, RequestError if 400 <= status < 500 else OperatorError)
