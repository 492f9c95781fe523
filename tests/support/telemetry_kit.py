"""Clocks that are set by hand, rows, and reporters that break."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def row(step: int, **more: float) -> dict[str, float]:
    """A row as a training of the toy gives it."""
    return {
        "step": float(step),
        "reward": 0.5,
        "reward_near": 0.25,
        "reward_mirror": 0.75,
        "critic_loss": 1.0 / step,
        "entropy": 2.0,
        "seconds": step / 100.0,
        "steps_per_second": 100.0,
        "seconds_environment": step / 400.0,
        **more,
    }


class Recorder:
    """Remembers what it was told; raises where the test wants it."""

    name = "recorder"

    def __init__(self, name: str = "recorder", *, breaks: str = "") -> None:
        self.name, self.breaks = name, breaks
        self.calls: list[tuple[str, Any]] = []

    def _called(self, method: str, argument: Any = None) -> None:
        self.calls.append((method, argument))
        if method == self.breaks:
            raise OSError(28, "No space left on device")

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    def started(self, config: Any, scenario: Any) -> None:
        self._called("started")

    def iteration(self, row: Mapping[str, float]) -> None:
        self._called("iteration", row)

    def finished(self, metrics: Mapping[str, float]) -> None:
        self._called("finished", metrics)

    def failed(self, problem: BaseException) -> None:
        self._called("failed", problem)

    def close(self) -> None:
        self._called("close")
