"""Routes of drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.control.drift.service import DriftService
from rlaas.control.requests import Answer, Handler, called, page_of
from rlaas.errors import InvalidInputError, check_choice
from rlaas.names import check_name
from rlaas.serving.requests import decode_document
from rlaas.serving.web import ControlRequest

__all__ = ["DriftRoutes"]


class DriftRoutes:
    """Answers ``/api/v1/models/{model}/drift[-config]`` and ``/api/v1/alerts/model-drift``.

    Args:
        drift: the service.
    """

    def __init__(self, drift: DriftService) -> None:
        self._drift = drift

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path, and handler of each route."""
        one = r"/api/v1/models/(?P<model>.+)"
        return [
            ("POST", one + r"/drift-config", self._configure),
            ("GET", one + r"/drift-config", self._config),
            ("GET", one + r"/drift", self._status),
            ("GET", r"/api/v1/alerts/model-drift", self._alerts),
        ]

    def _configure(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        with called(policy="model"):
            return Answer(200, self._drift.configure(_model(path), decode_document(request.body)), {})

    def _config(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._drift.config(_model(path)), {})

    def _status(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._drift.status(_model(path)), {})

    def _alerts(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        model = request.query.get("model")
        if model is not None:
            check_name(model, field="model")
        state: Any = request.query.get("state")
        if state is not None:
            check_choice(state, ("active", "closed"), field="state", error=InvalidInputError)
        alerts = self._drift.alerts(model=model, state=state)
        return page_of(request, [(f"{one['model']}/{one['episode']}", one) for one in alerts])


def _model(path: Mapping[str, str]) -> str:
    return check_name(path["model"], field="model")
