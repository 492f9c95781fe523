"""Routes of the rollouts of a deployment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydantic import Field

from rlaas.control.requests import Answer, Body, Handler, page_of, parse_body
from rlaas.control.rollouts.service import RolloutService
from rlaas.errors import InvalidInputError, check_choice
from rlaas.serving.web import ControlRequest

__all__ = ["RolloutRoutes"]

_BY_NUMBER = ("pause", "promote", "resume", "rollback")


class _Action(Body):
    reason: str = Field(min_length=1, max_length=500, description="why; kept in the history")
    actor: str = Field(default="operator", min_length=1, max_length=128, description="who")


class RolloutRoutes:
    """Answers ``/api/v1/deployments/{id}/rollouts[...]``, ``.../switch`` and ``.../switch-back``.

    Args:
        rollouts: that are steered.
        policy_of: name of the policy of a deployment, by id or policy.
    """

    def __init__(self, rollouts: RolloutService, policy_of: Callable[[str], str]) -> None:
        self._rollouts, self._policy_of = rollouts, policy_of

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path, and handler of each route."""
        base = r"/api/v1/deployments/(?P<deployment>.+)"
        return [
            ("GET", base + r"/rollouts", self._history),
            ("POST", base + r"/rollouts/(?P<number>[^/]+)/(?P<action>[^/]+)", self._act),
            ("POST", base + r"/(?P<action>switch|switch-back)", self._switch),
        ]

    def _history(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        rollouts = self._rollouts.history(self._policy_of(path["deployment"]))
        return page_of(request, [(str(rollout["number"]), rollout) for rollout in rollouts])

    def _act(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        action = check_choice(path["action"], _BY_NUMBER, field="action", error=InvalidInputError)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", path["number"], re.ASCII):
            raise InvalidInputError(f"rollout {path['number'][:80]!r} is not a whole number >= 1", field="rollout")
        return self._do(request, self._policy_of(path["deployment"]), int(path["number"]), action)

    def _switch(self, request: ControlRequest, path: Mapping[str, str]) -> Answer:
        policy = self._policy_of(path["deployment"])
        return self._do(request, policy, self._rollouts.running_number(policy), path["action"])

    def _do(self, request: ControlRequest, policy: str, number: int, action: str) -> Answer:
        body = parse_body(request, _Action)
        return Answer(200, self._rollouts.act(policy, number, action, actor=body.actor, reason=body.reason), {})
