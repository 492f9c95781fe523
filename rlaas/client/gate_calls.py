"""Calls about the gate of a policy: what new versions have to pass before they get live traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.client.wire import Answer, Call, CallSender, encode, given, page, quoted

__all__ = ["GateCalls"]


def _path(policy: str, more: str = "") -> str:
    return f"/api/v1/models/{quoted(policy)}/gate{more}"


class GateCalls(CallSender[Answer]):
    """Off-policy gates and their verdicts."""

    def gate(self, policy: str) -> Answer:
        """The declared gate under ``gate``, or null: then every version goes live that is told to."""
        return self._send(Call("GET", _path(policy)))

    def declare_gate(self, policy: str, declaration: Mapping[str, Any], *, actor: str | None = None) -> Answer:
        """Declare by what new versions are judged, before they are.

        Args:
            policy: name in the registry.
            declaration: ``estimator`` and one of ``value``, ``weights`` and ``mode``, for an estimator of sessions also
                ``horizon``; see ``docs/rollouts.md``.
            actor: who; kept in the history.
        """
        body = encode({**declaration, **given(actor=actor)})
        return self._send(Call("PUT", _path(policy), body))

    def remove_gate(self, policy: str) -> Answer:
        """Let every version go live that is told to."""
        return self._send(Call("DELETE", _path(policy), idempotent=False))

    def gate_history(self, policy: str, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """What was declared, asked and overridden: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", _path(policy, "/history"), query=page(page_size, page_token)))

    def judge_version(
        self, policy: str, version: int, *, explore: bool | None = None, epsilon: float | None = None
    ) -> Answer:
        """What the gate would say of a version now; nothing goes live.

        Args:
            policy: name in the registry.
            version: of it.
            explore: it would sample from its distribution.
            epsilon: share of uniform actions while it does.
        """
        body = encode({"version": version, **given(explore=explore, epsilon=epsilon)})
        return self._send(Call("POST", _path(policy, "/judge"), body))

    def override_gate(self, policy: str, version: int, *, reason: str, actor: str | None = None) -> Answer:
        """Let a version through once whatever the gate says, to live traffic or to devices.

        Args:
            policy: name in the registry.
            version: of it.
            reason: why; kept in the history.
            actor: who.
        """
        body = encode({"version": version, "reason": reason, **given(actor=actor)})
        return self._send(Call("POST", _path(policy, "/override"), body, idempotent=False))
