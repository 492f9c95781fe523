"""The calls of the platform, written once: what is sent, and how an answer is read."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

import rlaas.errors
from rlaas.errors import (
    InvalidInputError,
    NotFoundError,
    OperatorError,
    OverloadedError,
    RequestError,
    RetryableError,
    RlaasError,
)

__all__ = ["Call", "PlatformCalls", "read_answer"]

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
    """

    method: str
    path: str
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    idempotent: bool = True
    patient: bool = True


class PlatformCalls(ABC, Generic[Answer]):
    """Every call of the platform; a subclass says how a call is sent, and with that what it returns.

    Each returns the platform's JSON document. Each raises the error of :mod:`rlaas.errors` that the platform
    answered with, and :class:`rlaas.errors.RetryableError` when it could not be reached.
    """

    @abstractmethod
    def _send(self, call: Call) -> Answer:
        """Send a call and read the answer."""

    def health(self) -> Answer:
        """Whether the platform is alive."""
        return self._send(Call("GET", "/health", patient=False))

    def ready(self) -> Answer:
        """The live policies with their generations.

        Raises:
            NotReadyError: no policy is loaded yet.
        """
        return self._send(Call("GET", "/ready", patient=False))

    def decide(
        self,
        policy: str,
        *,
        observation: Sequence[float] | None = None,
        observations: Sequence[Sequence[float]] | None = None,
        **fields: Any,
    ) -> Answer:
        """Decide for one observation [n_features] or for rows [n, n_features].

        Args:
            policy: name of a deployed policy.
            observation: one row of numbers (a list or an array); or
            observations: several rows; the answer then has ``decisions``, one per row.
            **fields: ``unit``, ``session``, ``step``, ``mode``, ``preference``, ``context``; None means left out.
        """
        document = {"observation": observation, "observations": observations, **fields}
        return self._send(
            Call(
                "POST",
                f"/api/v1/policies/{_quoted(policy)}/decide",
                _encode({key: value for key, value in document.items() if value is not None}),
                idempotent=False,
            )
        )

    def outcomes(self, outcomes: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Answer:
        """Report outcomes, all or none; ``accepted`` holds a receipt for each once they are durable.

        Args:
            outcomes: ``{"outcome_id", "decision_id", "outcome": {objective: value}}`` with optional ``revision``,
                ``terminated``, ``truncated`` and ``time`` (UTC microseconds); one or several.
        """
        return self._send(Call("POST", "/api/v1/outcomes", _encode(outcomes)))

    def infer(self, model: str, body: Mapping[str, Any], *, version: int | None = None) -> Answer:
        """Open Inference Protocol V2 inference with JSON tensors; nothing is logged."""
        middle = "" if version is None else f"/versions/{version}"
        return self._send(Call("POST", f"/v2/models/{_quoted(model)}{middle}/infer", _encode(body)))

    def models(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Registered policies: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/models", query=_page(page_size, page_token)))

    def versions(self, name: str, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Versions of a policy, newest first: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", f"/api/v1/models/{_quoted(name)}/versions", query=_page(page_size, page_token)))

    def register(self, name: str, path: str, **fields: Any) -> Answer:
        """Register a bundle folder under the platform's home.

        Args:
            name: policy.
            path: folder, relative to the home.
            **fields: ``alias``, ``params``, ``metrics``, ``tags``.
        """
        body = _encode({"name": name, "path": path, **fields})
        return self._send(Call("POST", "/api/v1/models/register", body, headers=_idempotency(None)))

    def promote(self, name: str, version: int, alias: str = "champion") -> Answer:
        """Point an alias at a version; as ``champion`` it alone is live from then on."""
        body = _encode({"version": version, "alias": alias})
        return self._send(Call("POST", f"/api/v1/models/{_quoted(name)}/promote", body))

    def delete_version(self, name: str, version: int) -> Answer:
        """Delete a version that nothing serves."""
        return self._send(Call("DELETE", f"/api/v1/models/{_quoted(name)}/versions/{version}", idempotent=False))

    def deployments(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Live deployments: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/deployments", query=_page(page_size, page_token)))

    def create_deployment(
        self,
        policy: str,
        variants: Sequence[Mapping[str, Any]],
        experiment: Mapping[str, Any] | None = None,
        *,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Serve a policy from several versions; an existing deployment gets its next generation.

        Args:
            policy: name in the registry.
            variants: ``{"name", "version", "weight"}`` with optional ``explore``.
            experiment: ``{"name", "design", "salt"}``, and ``block_steps`` for design ``switchback``.
            if_match: entity tag of the generation to replace.
            idempotency_key: repeats under the same key get the first answer; drawn for each call by default.
        """
        headers = _idempotency(idempotency_key)
        if if_match is not None:
            headers["If-Match"] = if_match
        body = _encode({"policy": policy, "variants": variants, "experiment": experiment})
        return self._send(Call("POST", "/api/v1/deployments/create", body, headers=headers))

    def deployment_status(self, deployment: str) -> Answer:
        """A deployment by id or policy; ``ready`` once every replica has loaded its generation."""
        return self._send(Call("GET", f"/api/v1/deployments/{_quoted(deployment)}/status"))

    def scale_deployment(self, deployment: str, replicas: int) -> Answer:
        """Set the number of Gateway replicas, which serve all deployments."""
        body = _encode({"replicas": replicas})
        return self._send(Call("PUT", f"/api/v1/deployments/{_quoted(deployment)}/scale", body))

    def delete_deployment(self, deployment: str) -> Answer:
        """Serve its policy no longer."""
        return self._send(Call("DELETE", f"/api/v1/deployments/{_quoted(deployment)}", idempotent=False))

    def lake_status(self) -> Answer:
        """What has been committed, and the versions of the tables."""
        return self._send(Call("GET", "/api/v1/lake/status"))

    def flush_lake(self) -> Answer:
        """Bring everything that was acknowledged before the call into the lake, and join it."""
        return self._send(Call("POST", "/api/v1/lake/flush"))

    def fronts(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Fronts that were found: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/fronts", query=_page(page_size, page_token)))

    def front(self, scenario: str, *, label: str | None = None) -> Answer:
        """A front with its candidates and its ``version``; :meth:`rlaas.fronts.Front.from_dict` reads it.

        Args:
            scenario: name.
            label: ``champion``, ``candidate`` or that of a search; by default the first of these that there is.
        """
        query = {} if label is None else {"label": label}
        return self._send(Call("GET", f"/api/v1/fronts/{_quoted(scenario)}", query=query))

    def resolve(self, scenario: str, **fields: Any) -> Answer:
        """The candidate of a front that fits best, with its certificate and the ``step`` that it came from.

        Args:
            scenario: name.
            **fields: ``mode`` or ``preference``, ``method``, ``rules`` and ``context``, ``label``, ``deadline_s``; None
                means left out.
        """
        document = {"scenario": scenario, **{key: value for key, value in fields.items() if value is not None}}
        return self._send(Call("POST", "/api/v1/resolve", _encode(document)))

    def elicit(
        self, scenario: str, answers: Sequence[str] = (), *, label: str | None = None, front_version: str | None = None
    ) -> Answer:
        """The next pairwise question about a front, or once ``done`` the ``preference`` that the answers amount to.

        Args:
            scenario: name.
            answers: ``a``, ``b`` or ``equal`` for each question so far.
            label: of the front.
            front_version: that the answers are about; :class:`rlaas.errors.ConflictError` if it is no longer that one.
        """
        given = {"label": label, "front_version": front_version}
        document = {"answers": list(answers), **{key: value for key, value in given.items() if value is not None}}
        return self._send(Call("POST", f"/api/v1/fronts/{_quoted(scenario)}/elicit", _encode(document)))


def read_answer(response: httpx.Response) -> Document:
    """The document of a successful answer.

    Raises:
        RlaasError: the error that the platform answered with.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.is_success and isinstance(document, dict):
        return document
    problem = document if isinstance(document, dict) else {}
    detail = str(problem.get("detail") or f"HTTP {response.status_code} from {response.request.url}")
    where = problem.get("field")
    kind = _error_class(str(problem.get("code")), response.status_code)
    raise kind(detail, field=where if isinstance(where, str) else None)


def _error_class(code: str, status: int) -> type[RlaasError]:
    found = getattr(rlaas.errors, code, None) if code in rlaas.errors.__all__ else None
    if isinstance(found, type) and issubclass(found, RlaasError):
        return found
    if status in (502, 503, 504):
        return RetryableError
    by_status: dict[int, type[RlaasError]] = {404: NotFoundError, 429: OverloadedError}
    return by_status.get(status, RequestError if 400 <= status < 500 else OperatorError)


def _encode(document: Any) -> bytes:
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


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _page(size: int, token: str | None) -> dict[str, str]:
    return {"page_size": str(size), **({} if token is None else {"page_token": token})}


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid.uuid4().hex}
