"""The thread that reconciles rollouts."""

from __future__ import annotations

from rlaas.control.looping import Loop
from rlaas.control.rollouts.controller import RolloutController

__all__ = ["RolloutLoop"]


class RolloutLoop(Loop):
    """Ticks a controller, and behind the last tick lets another process go on.

    Args:
        controller: that reconciles.
        interval_s: between the end of a tick and the next.
    """

    def __init__(self, controller: RolloutController, *, interval_s: float = 1.0) -> None:
        # A lease that cannot be released runs out by itself.
        super().__init__(controller.tick, name="rollouts", interval_s=interval_s, at_end=controller.release)
