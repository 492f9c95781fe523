"""The one error tree of rlaas, grouped by what the caller does next.

    RlaasError                        500  base of everything rlaas raises on purpose
    ├── RequestError                  422  fix the request: nothing was changed
    │   ├── ConfigurationError        422  an unknown or impossible option, key or value
    │   │   └── UnknownNameError      422  a name that a mapping does not have; a KeyError too
    │   ├── InvalidInputError         422  a value of the wrong shape, type or range
    │   ├── MalformedBodyError        400  the body is not the JSON (or tensor) it claims to be
    │   ├── ForgedDecisionError       422  a decision id that this installation never issued
    │   ├── NotFoundError             404  no such policy, version, deployment, front, route
    │   └── ConflictError             409  the thing exists already or says something else
    ├── RetryableError                503  wait and retry: the same request may succeed later
    │   ├── NotReadyError             503  no policy is loaded yet
    │   └── OverloadedError           429  a bounded queue is full
    └── OperatorError                 500  call an operator: retrying does not help
        ├── BundleError               500  a bundle is damaged or disagrees with its golden batch
        ├── LakeError                 500  the write-ahead log or a table is damaged
        ├── PipelineError             500  a stage of a pipeline failed, retries included
        └── TrainingError             500  training failed (a NaN loss, a lost learner)

Every error carries its message (one line, naming the field and what is allowed), the field in question
where there is one, and as class attributes the HTTP status and whether a retry can help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

__all__ = [
    "BundleError",
    "ConfigurationError",
    "ConflictError",
    "ForgedDecisionError",
    "InvalidInputError",
    "LakeError",
    "MalformedBodyError",
    "NotFoundError",
    "NotReadyError",
    "OperatorError",
    "OverloadedError",
    "PipelineError",
    "RequestError",
    "RetryableError",
    "RlaasError",
    "TrainingError",
    "UnknownNameError",
    "check_choice",
    "shown",
]


class RlaasError(Exception):
    """Base of every error that rlaas raises on purpose.

    Args:
        message: one line that says what is wrong and what is allowed.
        field: the offending field as the caller knows it (``"preference.latency"``), if there is one.
    """

    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross Ray process boundaries, where the default reduction would lose the keyword.
        return (_rebuild, (type(self), self.message, self.field))


def _rebuild(kind: type[RlaasError], message: str, field: str | None) -> RlaasError:
    return kind(message, field=field)


class RequestError(RlaasError, ValueError):
    """The request cannot be carried out as it stands; nothing was changed."""

    http_status = 422


class ConfigurationError(RequestError):
    """An unknown or impossible option, key or value."""


class UnknownNameError(ConfigurationError, KeyError):
    """A name that a mapping does not have. A KeyError too, as of any other mapping."""

    def __str__(self) -> str:
        # A KeyError would put its message between quotation marks.
        return self.message


class InvalidInputError(RequestError):
    """A value of the wrong shape, type or range."""


class MalformedBodyError(RequestError):
    """The body is not the JSON (or tensor) that it claims to be."""

    http_status = 400


class ForgedDecisionError(RequestError):
    """A decision id that this installation never issued."""


class NotFoundError(RequestError, LookupError):
    """No such policy, version, deployment, front or route."""

    http_status = 404


class ConflictError(RequestError):
    """The thing exists already, or what was sent contradicts what is stored."""

    http_status = 409


class RetryableError(RlaasError):
    """The same request may succeed later."""

    http_status = 503
    retryable = True


class NotReadyError(RetryableError):
    """No policy is loaded yet."""


class OverloadedError(RetryableError):
    """A bounded queue is full."""

    http_status = 429


class OperatorError(RlaasError):
    """Something is broken that only an operator can mend."""


class BundleError(OperatorError):
    """A bundle is damaged, or disagrees with its golden batch."""


class LakeError(OperatorError):
    """The write-ahead log or a table is damaged."""


class PipelineError(OperatorError):
    """A stage of a pipeline failed, retries included; what earlier stages made is kept."""


class TrainingError(OperatorError):
    """Training failed: a NaN loss, a lost learner."""


def check_choice(
    value: str, allowed: Iterable[str], *, field: str, error: type[RequestError] = ConfigurationError
) -> str:
    """Return ``value`` if it is one of ``allowed``; otherwise raise ``error`` naming the choices.

    Raises:
        RequestError: (of the given type) if ``value`` is not allowed.
    """
    choices = sorted(allowed)
    # By type first: an array would be compared entry by entry.
    if not isinstance(value, str) or value not in choices:
        raise error(f"unknown {field} {shown(value, str)!r}; allowed: {', '.join(choices) or '(none)'}", field=field)
    return value


def shown(value: Any, text: Callable[[Any], str] = repr) -> str:
    """A value for a message: on one line, and short."""
    try:
        return " ".join(text(value).split())[:80]
    except Exception:  # a message about a value must not fail because of it: numbers of 5,000 digits have no text
        return f"<{type(value).__name__}>"
