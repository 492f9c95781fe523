"""What is sent: a request as the calls describe it, without knowing how it travels."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from rlaas.client.answers import Reply, read_answer
from rlaas.errors import InvalidInputError

__all__ = ["Call", "CallSender", "encode", "given", "idempotency", "page", "quoted"]

Answer = TypeVar("Answer")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        method, path: of HTTP; the path is quoted already.
        body: JSON, or None.
        query: parameters.
        headers: beyond those that every request has.
        idempotent: sending it twice does no harm, so an answer that got lost may be asked for again.
        patient: wait and retry while the platform says "not now".
        read: makes the document of an answer, or raises the error that it tells of.
    """

    method: str
    path: str
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    idempotent: bool = True
    patient: bool = True
    read: Callable[[Reply], Document] = read_answer


class CallSender(ABC, Generic[Answer]):
    """Something that sends calls; what it returns is a document, or a promise of one."""

    @abstractmethod
    def _send(self, call: Call) -> Answer:
        """Send a call and read the answer."""


def encode(document: Any) -> bytes:
    """A document as JSON, arrays and numpy numbers included.

    Raises:
        InvalidInputError: it holds NaN, Infinity, or something that JSON does not have.
    """
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except ValueError as problem:
        raise InvalidInputError(f"the request holds NaN or Infinity: {problem}", field="body") from problem
    except TypeError as problem:
        raise InvalidInputError(f"the request cannot be written as JSON: {problem}", field="body") from problem


def _plain(value: Any) -> Any:
    """Arrays and numpy numbers as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def given(**fields: Any) -> Document:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def quoted(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def page(size: int, token: str | None) -> dict[str, str]:
    """Query of a list."""
    return {"page_size": str(size), **({} if token is None else {"page_token": token})}


def idempotency(key: str | None) -> dict[str, str]:
    """The header under which repeats of a creation get the first answer."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}
