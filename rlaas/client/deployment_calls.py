"""Calls about deployments and the rollouts by which new versions come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaas.client.wire import Answer, Call, CallSender, encode, given, idempotency, page, quoted

__all__ = ["DeploymentCalls"]


class DeploymentCalls(CallSender[Answer]):
    """What is live, and how it changes. ``deployment`` is an id, or the name of the policy."""

    def deployments(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Live deployments: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/deployments", query=page(page_size, page_token)))

    def create_deployment(
        self,
        policy: str,
        variants: Sequence[Mapping[str, Any]],
        experiment: Mapping[str, Any] | None = None,
        *,
        strategy: Mapping[str, Any] | None = None,
        fallback: int | None = None,
        min_replicas: int | None = None,
        max_replicas: int | None = None,
        override: str | None = None,
        actor: str | None = None,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Serve a policy from several versions; an existing deployment gets its next generation.

        Args:
            policy: name in the registry.
            variants: ``{"name", "version", "weight"}`` with optional ``explore``, ``epsilon`` and ``shadow``.
            experiment: ``{"name", "design", "salt"}``, and ``block_steps`` for design ``switchback``.
            strategy: by which the one variant comes in beside what is live: ``{"kind": "canary"}``, ``blue_green`` or
                ``shadow`` with their options; None: at once.
            fallback: version that answers while another keeps failing; None: the one that served before.
            min_replicas, max_replicas: bounds of the pool; None: as before.
            override: why a version goes live although the policy's gate does not pass it.
            actor: who overrides.
            if_match: entity tag of the generation to replace.
            idempotency_key: repeats under the same key get the first answer; drawn for each call by default.
        """
        headers = idempotency(idempotency_key)
        if if_match is not None:
            headers["If-Match"] = if_match
        more = given(
            strategy=strategy,
            fallback=fallback,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            override=override,
            actor=actor,
        )
        body = encode({"policy": policy, "variants": variants, "experiment": experiment, **more})
        return self._send(Call("POST", "/api/v1/deployments/create", body, headers=headers))

    def deployment_status(self, deployment: str) -> Answer:
        """A deployment; ``ready`` once every replica has loaded its generation, ``rollout`` while one is running."""
        return self._send(Call("GET", f"/api/v1/deployments/{quoted(deployment)}/status"))

    def scale_deployment(self, deployment: str, replicas: int) -> Answer:
        """Set the number of Gateway replicas, which serve all deployments."""
        body = encode({"replicas": replicas})
        return self._send(Call("PUT", f"/api/v1/deployments/{quoted(deployment)}/scale", body))

    def delete_deployment(self, deployment: str, *, if_match: str | None = None) -> Answer:
        """Serve its policy no longer.

        Args:
            deployment: which.
            if_match: entity tag of the generation that is meant.
        """
        headers = given(**{"If-Match": if_match})
        path = f"/api/v1/deployments/{quoted(deployment)}"
        return self._send(Call("DELETE", path, headers=headers, idempotent=False))

    def rollouts(self, deployment: str, *, page_size: int = 100, page_token: str | None = None) -> Answer:
        """Every rollout with its events, newest first: ``items`` and ``next_page_token``."""
        path = f"/api/v1/deployments/{quoted(deployment)}/rollouts"
        return self._send(Call("GET", path, query=page(page_size, page_token)))

    def promote_rollout(self, deployment: str, number: int, *, reason: str, actor: str = "operator") -> Answer:
        """Make the new version of a rollout the only live one, whatever was found so far.

        Args:
            deployment: which.
            number: of the rollout.
            reason, actor: why and who; kept in the history.
        """
        return self._steer(deployment, number, "promote", reason, actor)

    def rollback_rollout(self, deployment: str, number: int, *, reason: str, actor: str = "operator") -> Answer:
        """Go back to what was live before; arguments as for :meth:`promote_rollout`."""
        return self._steer(deployment, number, "rollback", reason, actor)

    def pause_rollout(self, deployment: str, number: int, *, reason: str, actor: str = "operator") -> Answer:
        """Stay at the present step; arguments as for :meth:`promote_rollout`."""
        return self._steer(deployment, number, "pause", reason, actor)

    def resume_rollout(self, deployment: str, number: int, *, reason: str, actor: str = "operator") -> Answer:
        """Go on after a pause; arguments as for :meth:`promote_rollout`."""
        return self._steer(deployment, number, "resume", reason, actor)

    def switch(self, deployment: str, *, reason: str, actor: str = "operator") -> Answer:
        """Switch the running blue-green rollout to its new version.

        Args:
            deployment: which.
            reason, actor: why and who; kept in the history.
        """
        return self._act(f"{quoted(deployment)}/switch", reason, actor)

    def switch_back(self, deployment: str, *, reason: str, actor: str = "operator") -> Answer:
        """Switch the running blue-green rollout back; arguments as for :meth:`switch`."""
        return self._act(f"{quoted(deployment)}/switch-back", reason, actor)

    def _steer(self, deployment: str, number: int, action: str, reason: str, actor: str) -> Answer:
        return self._act(f"{quoted(deployment)}/rollouts/{number}/{action}", reason, actor)

    def _act(self, path: str, reason: str, actor: str) -> Answer:
        body = encode({"reason": reason, "actor": actor})
        return self._send(Call("POST", f"/api/v1/deployments/{path}", body, idempotent=False))
