"""Routes of experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import Field

from rlaas.control.experiments.documents import parse_document
from rlaas.control.experiments.service import ExperimentService
from rlaas.control.requests import Answer, Body, Handler, page_of, parse_body
from rlaas.names import check_name
from rlaas.serving.requests import decode_document
from rlaas.serving.web import ControlRequest

__all__ = ["ExperimentRoutes"]

Once = Callable[[ControlRequest, Callable[[], Answer]], Answer]
"""Does the work, or repeats the answer that the same request got under its Idempotency-Key."""


class _Stop(Body):
    decision: str = Field(description="ship, keep or none")
    variant: str | None = Field(default=None, description="to ship; needed where there are several treatments")
    reason: str = Field(min_length=1, max_length=500, description="why; kept in the history")
    actor: str = Field(default="operator", min_length=1, max_length=128, description="who")


class ExperimentRoutes:
    """Answers ``/api/v1/experiments[/{id}[/result|/audit|/analyse|/stop]]``.

    Args:
        experiments: the service.
        once: remembers answers by Idempotency-Key.
    """

    def __init__(self, experiments: ExperimentService, once: Once) -> None:
        self._experiments, self._once = experiments, once

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path, and handler of each route."""
        one = r"/api/v1/experiments/(?P<experiment>.+?)"
        return [
            ("GET", r"/api/v1/experiments", self._list),
            ("POST", r"/api/v1/experiments", self._create),
            ("GET", one + r"/result", self._result),
            ("GET", one + r"/audit", self._audit),
            ("POST", one + r"/analyse", self._analyse),
            ("POST", one + r"/stop", self._stop),
            ("GET", r"/api/v1/experiments/(?P<experiment>[^/]+)", self._get),
        ]

    def _list(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        return page_of(request, [(document["id"], document) for document in self._experiments.all()])

    def _create(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        document = parse_document(decode_document(request.body))

        def create() -> Answer:
            made = self._experiments.create(document, if_match=request.headers.get("if-match"))
            return Answer(201, made, {})

        return self._once(request, create)

    def _get(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._experiments.get(_id(path)), {})

    def _result(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._experiments.result(_id(path)), {})

    def _audit(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        records = self._experiments.audit(_id(path))
        return page_of(request, [(str(number), record) for number, record in enumerate(records)])

    def _analyse(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._experiments.analyse(_id(path)), {})

    def _stop(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        id_, body = _id(path), parse_body(request, _Stop)

        def stop() -> Answer:
            ended = self._experiments.stop(
                id_, body.decision, variant=body.variant, reason=body.reason, actor=body.actor
            )
            return Answer(200, ended, {})

        return self._once(request, stop)


def _id(path: Mapping[str, str]) -> str:
    return check_name(path["experiment"], field="experiment")
