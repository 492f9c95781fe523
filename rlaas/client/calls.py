"""The calls of the platform, written once: what is sent, and how an answer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaas.client.deployment_calls import DeploymentCalls
from rlaas.client.drift_calls import DriftCalls
from rlaas.client.experiment_calls import ExperimentCalls
from rlaas.client.front_calls import FrontCalls
from rlaas.client.gate_calls import GateCalls
from rlaas.client.wire import Answer, Call, encode, given, idempotency, page, quoted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["PlatformCalls"]


class PlatformCalls(
    DeploymentCalls[Answer], FrontCalls[Answer], ExperimentCalls[Answer], GateCalls[Answer], DriftCalls[Answer]
):
    """Every call of the platform; a subclass says how a call is sent, and with that what it returns.

    Each returns the platform's JSON document. Each raises the error of :mod:`rlaas.errors` that the platform
    answered with, and :class:`rlaas.client.NoAnswerError` when there was no answer.
    """

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
        repeat_if_lost: bool = False,
        **fields: Any,
    ) -> Answer:
        """Decide for one observation [n_features] or for rows [n, n_features].

        Args:
            policy: name of a deployed policy.
            observation: one row of numbers (a list or an array); or
            observations: several rows; the answer then has ``decisions``, one per row.
            repeat_if_lost: ask again after an answer got lost on its way; the log may then hold a decision that nobody
                acted on, beside the one that is returned.
            **fields: ``unit``, ``session``, ``step``, ``mode``, ``preference``, ``context``; None means left out.
        """
        body = encode(given(observation=observation, observations=observations, **fields))
        return self._send(Call("POST", f"/api/v1/policies/{quoted(policy)}/decide", body, idempotent=repeat_if_lost))

    def outcomes(self, outcomes: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Answer:
        """Report outcomes, all or none; ``accepted`` holds a receipt for each once they are durable.

        Args:
            outcomes: ``{"outcome_id", "decision_id", "outcome": {objective: value}}`` with optional ``revision``,
                ``terminated``, ``truncated`` and ``time`` (UTC microseconds); one or several.
        """
        return self._send(Call("POST", "/api/v1/outcomes", encode(outcomes)))

    def infer(self, model: str, body: Mapping[str, Any], *, version: int | None = None) -> Answer:
        """Open Inference Protocol V2 inference with JSON tensors.

        Args:
            model: name of a deployed policy.
            body: of the protocol. Nothing is logged unless its ``parameters.log`` is true.
            version: one of the live ones; by default that with the largest share.
        """
        logged = bool((body.get("parameters") or {}).get("log"))
        return self._send(Call("POST", _infer_path(model, version), encode(body), idempotent=not logged))

    def infer_arrays(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        version: int | None = None,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Answer:
        """V2 inference with arrays, which travel as bytes in both directions.

        Args:
            model: name of a deployed policy.
            inputs: ``observation`` [n, features] and, where the policy takes one, ``preference`` [n, objectives] or
                [1, objectives].
            version: one of the live ones; by default that with the largest share.
            outputs: names of what is wanted; None for everything.
            parameters: with ``log`` true every row is a decision, with ``unit``, ``session``, ``step``, ``mode`` and
                ``preference`` as of :meth:`decide`.

        Returns:
            The document, with ``outputs`` as arrays by name (texts as a list).
        """
        from rlaas.client.tensors import encode_arrays, read_arrays

        body, headers = encode_arrays(inputs, outputs, parameters)
        logged = bool((parameters or {}).get("log"))
        return self._send(
            Call("POST", _infer_path(model, version), body, headers=headers, idempotent=not logged, read=read_arrays)
        )

    def models(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Registered policies: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/models", query=page(page_size, page_token)))

    def versions(self, name: str, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Versions of a policy, newest first: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", f"/api/v1/models/{quoted(name)}/versions", query=page(page_size, page_token)))

    def register(self, name: str, path: str, *, idempotency_key: str | None = None, **fields: Any) -> Answer:
        """Register a bundle folder under the platform's home.

        Args:
            name: policy.
            path: folder, relative to the home.
            idempotency_key: repeats under the same key get the first answer; drawn for each call by default.
            **fields: ``alias``, ``params``, ``metrics``, ``tags``.
        """
        body = encode({"name": name, "path": path, **fields})
        return self._send(Call("POST", "/api/v1/models/register", body, headers=idempotency(idempotency_key)))

    def promote(
        self,
        name: str,
        version: int,
        alias: str = "champion",
        *,
        if_match: str | None = None,
        override: str | None = None,
        actor: str | None = None,
    ) -> Answer:
        """Point an alias at a version; as ``champion`` it alone is live from then on.

        Args:
            name: policy.
            version: of it.
            alias: that is pointed at it.
            if_match: entity tag of the generation to replace.
            override: why the version goes live although the policy's gate does not pass it.
            actor: who overrides.
        """
        body = encode({"version": version, "alias": alias, **given(override=override, actor=actor)})
        headers = given(**{"If-Match": if_match})
        # A repeat would find the tag of the generation that the first attempt made.
        path = f"/api/v1/models/{quoted(name)}/promote"
        return self._send(Call("POST", path, body, headers=headers, idempotent=if_match is None))

    def delete_version(self, name: str, version: int) -> Answer:
        """Delete a version that nothing serves."""
        return self._send(Call("DELETE", f"/api/v1/models/{quoted(name)}/versions/{version}", idempotent=False))

    def lake_status(self) -> Answer:
        """What has been committed, and the versions of the tables."""
        return self._send(Call("GET", "/api/v1/lake/status"))

    def flush_lake(self) -> Answer:
        """Bring everything that was acknowledged before the call into the lake, and join it."""
        return self._send(Call("POST", "/api/v1/lake/flush"))


def _infer_path(model: str, version: int | None) -> str:
    return f"/v2/models/{quoted(model)}{'' if version is None else f'/versions/{version}'}/infer"
