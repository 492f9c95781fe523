"""How busy this process is: what the pool is scaled by."""

from __future__ import annotations

import time
from collections.abc import Callable

from rlaas.serving.pressure import Pressure

__all__ = ["LoadMeter"]


class LoadMeter:
    """Takes differences between two readings.

    Args:
        pressure: of the event loop.
        clock: monotonic seconds.
        cpu: seconds of processor time that this process has taken.
    """

    def __init__(
        self,
        pressure: Pressure,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._pressure, self._clock, self._cpu = pressure, clock, cpu
        self._last = clock(), cpu(), pressure.refused, 0

    def read(self, decisions: int) -> dict[str, float]:
        """What has happened since the last reading.

        Args:
            decisions: of this process since it began.

        Returns:
            ``busy`` (processor time in cores), ``loop_delay_s``, ``refused_per_s`` and ``decisions_per_s``.
        """
        then, cpu, refused, decided = self._last
        self._last = self._clock(), self._cpu(), self._pressure.refused, decisions
        seconds = max(self._last[0] - then, 1e-6)
        return {
            "busy": (self._last[1] - cpu) / seconds,
            "loop_delay_s": self._pressure.delay_s,
            "refused_per_s": (self._last[2] - refused) / seconds,
            "decisions_per_s": (decisions - decided) / seconds,
        }
