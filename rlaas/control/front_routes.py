"""Routes of fronts: what was found, what is chosen from it, and questions about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from rlaas.control.fronts import DEADLINE_S, FrontService, Wish
from rlaas.control.requests import Answer, Body, Handler, page_of, parse_body
from rlaas.errors import InvalidInputError
from rlaas.names import check_name
from rlaas.serving.web import ControlRequest

__all__ = ["FrontRoutes"]


class _Wish(Body):
    label: str | None = Field(default=None, max_length=128)
    mode: str | None = Field(default=None, max_length=128)
    # Checked by Preference.of, which takes no text and no truth value for a number.
    preference: dict[str, Any] | None = None
    method: str = "topsis"
    rules: dict[str, Any] | None = Field(default=None, description="a rule book, as in configs/rules/")
    context: dict[str, Any] | None = Field(default=None, description="what the rules look at")
    deadline_s: float = Field(default=DEADLINE_S, gt=0, le=30, strict=True)


class _Resolve(_Wish):
    scenario: str


class _Elicit(Body):
    answers: list[Literal["a", "b", "equal"]] = Field(default_factory=list, max_length=200)
    label: str | None = Field(default=None, max_length=128)
    front_version: str | None = Field(default=None, max_length=128)


class FrontRoutes:
    """Answers ``/api/v1/fronts`` and ``/api/v1/resolve``.

    Args:
        service: finds fronts and chooses from them.
    """

    def __init__(self, service: FrontService) -> None:
        self._service = service

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path and handler of each route."""
        return [
            ("GET", r"/api/v1/fronts", self._list),
            ("POST", r"/api/v1/resolve", self._resolve),
            ("POST", r"/api/v1/fronts/(?P<scenario>.+)/resolve", self._resolve_scenario),
            ("POST", r"/api/v1/fronts/(?P<scenario>.+)/elicit", self._elicit),
            ("GET", r"/api/v1/fronts/(?P<scenario>.+)", self._show),
        ]

    def _list(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        return page_of(request, [(f"{f.source} {f.scenario} {f.label}", f.to_dict()) for f in self._service.fronts()])

    def _show(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        unknown = request.query.keys() - {"label"}
        if unknown:
            raise InvalidInputError(f"unknown parameter {min(unknown)[:80]!r}; allowed: label", field=min(unknown)[:80])
        found = self._service.front(check_name(path["scenario"], field="scenario"), request.query.get("label"))
        about = found.to_dict()
        document = {key: about[key] for key in ("label", "version", "source", "policy_version", "updated_us")}
        # The body says more than the front does: an alias may move between versions that have the same one.
        tag = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
        headers = {"ETag": f'"{tag}"'}
        if _matches(request.headers.get("if-none-match"), headers["ETag"]):
            return Answer(304, None, headers)
        return Answer(200, {**found.front.to_dict(), **document}, headers)

    def _resolve(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Resolve)
        return Answer(200, self._service.resolve(Wish(**dict(body))).to_dict(), {})

    def _resolve_scenario(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        wish = Wish(scenario=path["scenario"], **dict(parse_body(request, _Wish)))
        return Answer(200, self._service.resolve(wish).to_dict(), {})

    def _elicit(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Elicit)
        check_name(path["scenario"], field="scenario")
        document = self._service.elicit(
            path["scenario"], body.answers, label=body.label, front_version=body.front_version
        )
        return Answer(200, document, {})


def _matches(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names the entity tag; weakly, as RFC 9110 (13.1.2) wants it."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or header.strip() == "*"
