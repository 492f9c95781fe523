"""The process around a Gateway's routes, for tests that need the routes and no Gateway."""

from __future__ import annotations

import asyncio
from typing import Any

from rlaas.control.routes import ControlRoutes
from rlaas.errors import NotReadyError
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.transport import Limits
from rlaas.serving.web import ControlReply, ControlRequest

__all__ = ["StandIn"]

_LIMITS = Limits(1 << 20, 5.0)


class StandIn:
    """Has what a test gives it; what it has not is not ready, and nothing is cold.

    Args:
        engine: that answers.
        control: of this process; without one nobody may ask for it.
        limits: of a request.
    """

    tenant = "default"

    def __init__(
        self,
        engine: DecisionEngine | None = None,
        control: ControlRoutes | None = None,
        limits: Limits = _LIMITS,
    ) -> None:
        self._engine, self._control, self.limits = engine, control, limits

    def engine(self) -> DecisionEngine:
        if self._engine is None:
            raise NotReadyError("not yet")
        return self._engine

    def edge(self) -> Any:
        raise NotReadyError("not yet")

    async def warm(self, policy: str) -> None:
        raise AssertionError(f"{policy} is not cold")

    async def forward(self, request: ControlRequest) -> ControlReply:
        assert self._control is not None, request.path
        return await asyncio.to_thread(self._control.dispatch, request)
