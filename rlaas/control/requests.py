"""What the routes of the control plane share: bodies, answers, pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlaas.errors import InvalidInputError, NotFoundError
from rlaas.serving.live import validation_error
from rlaas.serving.requests import decode_document
from rlaas.serving.web import ControlRequest

__all__ = ["Answer", "Body", "Handler", "called", "page_of", "parse_body"]

_MAX_PAGE = 1000


class Body(BaseModel):
    """Base of what a request may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a document (None: no body at all), and headers."""

    status: int
    document: Any
    headers: Mapping[str, str]


Handler = Callable[[ControlRequest, Mapping[str, str]], Answer]
"""Answers a request, given the named parts of its path."""
BodyType = TypeVar("BodyType", bound=Body)


def parse_body(request: ControlRequest, model: type[BodyType]) -> BodyType:
    """The body of a request.

    Raises:
        MalformedBodyError: it is not JSON.
        InvalidInputError: a wrong key or value; names it and what is allowed.
    """
    document = decode_document(request.body)
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        found, first = validation_error(problem), problem.errors()[0]
        path = _path(document, first["loc"])
        text = found.message.removeprefix(f"{found.field}: ")
        if first["type"] == "extra_forbidden":
            text = f"{text}; allowed: {', '.join(model.model_fields)}"
        raise InvalidInputError(f"{path}: {text}", field=path) from problem


def _path(document: Any, location: Sequence[int | str]) -> str:
    """Where pydantic found something wrong, without the members of a union that it tried: the sender knows none."""
    path: list[str] = []
    for place, part in enumerate(location):
        inside = isinstance(document, dict) and part in document
        if inside or (isinstance(document, list) and isinstance(part, int)):
            document = document[part]
        elif place < len(location) - 1 or not isinstance(document, dict):
            continue
        path.append(str(part))
    return ".".join(path) or "body"


@contextmanager
def called(**names: str) -> Iterator[None]:
    """Have what is wrong or missing be named as the request names it; a conflict keeps the name of what it is about.

    Args:
        names: the request's name by that of who is asked, for example ``policy="model"``.
    """
    try:
        yield
    except (InvalidInputError, NotFoundError) as problem:
        problem.field = names.get(problem.field or "", problem.field)
        raise


def page_of(request: ControlRequest, items: Sequence[tuple[str, Any]]) -> Answer:
    """One page of ``items`` (key, document); the token names the last key that was shown.

    Raises:
        InvalidInputError: an impossible size, or a token that was not issued here.
    """
    size = request.query.get("page_size", "100")
    if not re.fullmatch(r"[0-9]{1,4}", size, re.ASCII) or not 1 <= int(size) <= _MAX_PAGE:
        raise InvalidInputError(f"page_size must be a whole number from 1 to {_MAX_PAGE}", field="page_size")
    start = 0
    token = request.query.get("page_token")
    if token:
        try:
            last = base64.urlsafe_b64decode(token.encode()).decode()
            start = [key for key, _ in items].index(last) + 1
        except (binascii.Error, UnicodeError, ValueError):
            raise InvalidInputError("page_token was not issued here or has expired", field="page_token") from None
    page = items[start : start + int(size)]
    more = start + len(page) < len(items)
    next_token = base64.urlsafe_b64encode(page[-1][0].encode()).decode() if more and page else None
    return Answer(200, {"items": [document for _, document in page], "next_page_token": next_token}, {})
