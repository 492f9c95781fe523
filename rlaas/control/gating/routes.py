"""Routes of the gates of policies."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.override import Override
from rlaas.control.gating.service import GateService
from rlaas.control.requests import Answer, Body, Handler, page_of, parse_body
from rlaas.names import check_name
from rlaas.serving.web import ControlRequest

__all__ = ["GateRoutes"]


class _Declare(GateDeclaration):
    actor: str = Field(default="operator", min_length=1, max_length=128, description="who; kept in the history")


class _Judge(Body):
    version: int = Field(ge=1, le=2**31 - 1, strict=True)
    explore: bool = Field(default=False, strict=True, description="it would sample from its distribution")
    epsilon: float = Field(default=0.0, ge=0, le=1, strict=True, description="share of uniform actions while it does")


class _Override(Body):
    version: int = Field(ge=1, le=2**31 - 1, strict=True)
    reason: str = Field(min_length=1, max_length=500, description="why; kept in the history")
    actor: str = Field(default="operator", min_length=1, max_length=128, description="who")


class GateRoutes:
    """Answers ``/api/v1/models/{name}/gate[/history|/judge|/override]``.

    Args:
        gates: the service.
    """

    def __init__(self, gates: GateService) -> None:
        self._gates = gates

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path, and handler of each route."""
        base = r"/api/v1/models/(?P<model>.+)/gate"
        return [
            ("GET", base, self._get),
            ("PUT", base, self._put),
            ("DELETE", base, self._delete),
            ("GET", base + r"/history", self._history),
            ("POST", base + r"/judge", self._judge),
            ("POST", base + r"/override", self._override),
        ]

    def _get(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._gates.describe(_name(path)), {})

    def _put(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        name, body = _name(path), parse_body(request, _Declare)
        declaration = GateDeclaration.model_validate(body.model_dump(exclude={"actor"}))
        return Answer(200, self._gates.declare(name, declaration, actor=body.actor), {})

    def _delete(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        name = _name(path)
        self._gates.remove(name)
        return Answer(200, {"deleted": {"policy": name}}, {})

    def _history(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        return page_of(request, [(str(event["number"]), event) for event in self._gates.history(_name(path))])

    def _judge(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        name, body = _name(path), parse_body(request, _Judge)
        found = self._gates.judge(name, body.version, explore=body.explore, epsilon=body.epsilon)
        return Answer(200, found, {})

    def _override(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        name, body = _name(path), parse_body(request, _Override)
        return Answer(200, self._gates.promise(name, body.version, Override(body.reason, body.actor)), {})


def _name(path: Mapping[str, str]) -> str:
    return check_name(path["model"], field="model")
