"""How far behind a replica is, by the delay of its own event loop, and what is given up first.

A request that waits does so in front of the loop, where no queue of ours sees it; what a timer is late by is what every
request waits. From ``pressed_s`` on, what nobody waits for goes: copies for shadows, and exploration, whose samples
cost more than modes. From ``overloaded_s`` on, requests are refused before any work is put into them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Pressure"]

BEAT_S = 0.02
_MEMORY = 0.5
"""Weight of the delays before in the running one: a single stall is forgotten in some beats."""


class Pressure:
    """The delay of one event loop.

    Args:
        pressed_s, overloaded_s: delays in seconds from which the words hold.
        clock: monotonic seconds.

    Attributes:
        delay_s: running delay in seconds.
        refused: requests that were turned away.
    """

    def __init__(
        self, pressed_s: float = 0.05, overloaded_s: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pressed_s = pressed_s
        self._overloaded_s = overloaded_s
        self._clock = clock
        self._due = clock() + BEAT_S
        self.delay_s = 0.0
        self.refused = 0

    @property
    def pressed(self) -> bool:
        """Give up what nobody waits for."""
        return self.delay_s >= self._pressed_s

    @property
    def overloaded(self) -> bool:
        """Refuse requests."""
        return self.delay_s >= self._overloaded_s

    def beat(self) -> None:
        """Called by a timer that was due ``BEAT_S`` after the last one."""
        now = self._clock()
        late = max(0.0, now - self._due)
        # Upwards at once: the load has come already. Downwards slowly: refusing is what made it better.
        self.delay_s = late if late > self.delay_s else _MEMORY * self.delay_s + (1 - _MEMORY) * late
        self._due = now + BEAT_S

    async def watch(self) -> None:
        """Beat for ever, on the loop that is watched."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()
