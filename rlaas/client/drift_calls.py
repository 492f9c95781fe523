"""Calls about drift: how a policy is watched, how far that is, and the alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.client.wire import Answer, Call, CallSender, encode, given, page, quoted

__all__ = ["DriftCalls"]


def _path(policy: str, more: str) -> str:
    return f"/api/v1/models/{quoted(policy)}/{more}"


class DriftCalls(CallSender[Answer]):
    """Drift of policies."""

    def configure_drift(self, policy: str, config: Mapping[str, Any]) -> Answer:
        """Watch a policy so from now on; its baseline is learned anew.

        Args:
            policy: name in the registry.
            config: what is watched and what happens, see ``docs/drift.md``; what is left out has its default.
        """
        return self._send(Call("POST", _path(policy, "drift-config"), encode(config)))

    def drift_config(self, policy: str) -> Answer:
        """How a policy is watched."""
        return self._send(Call("GET", _path(policy, "drift-config")))

    def drift_status(self, policy: str) -> Answer:
        """What the watch of a policy is doing, its strongest evidence, and the episode that lasts."""
        return self._send(Call("GET", _path(policy, "drift")))

    def drift_alerts(
        self,
        *,
        policy: str | None = None,
        state: str | None = None,
        page_size: int = 1000,
        page_token: str | None = None,
    ) -> Answer:
        """Episodes of drift, newest first: ``items`` and ``next_page_token``.

        Args:
            policy: only of it.
            state: only ``active`` or ``closed`` ones.
            page_size, page_token: of the list.
        """
        query = {**page(page_size, page_token), **given(model=policy, state=state)}
        return self._send(Call("GET", "/api/v1/alerts/model-drift", query=query))
