"""A circuit breaker for each policy version: what keeps failing is not asked again for a while.

The pattern is that of Nygard 2007 ("Release It!", chapter 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Circuit", "Circuits"]

WINDOW = 20
"""Last answers that are looked at."""

FAILURES = 10
"""Failures among them that open the circuit."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
"""How long an open circuit stays open; doubled each time that a trial fails."""

_MASK = (1 << WINDOW) - 1


class Circuit:
    """Closed while a version answers; open, it lets one trial through after each pause."""

    __slots__ = ("_clock", "_opens_until", "_pause_s", "_recent")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._recent = 0  # one bit an answer, the latest lowest; 1 is a failure
        self._pause_s = FIRST_PAUSE_S
        self._opens_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the version is avoided."""
        return self._opens_until is not None

    def admits(self) -> bool:
        """Whether to ask the version now; a trial of an open circuit is admitted once for each pause."""
        if self._opens_until is None:
            return True
        now = self._clock()
        if now < self._opens_until:
            return False
        self._opens_until = now + self._pause_s  # whoever comes meanwhile is sent elsewhere
        return True

    def succeeded(self) -> None:
        """The version answered."""
        self._recent = (self._recent << 1) & _MASK
        if self._opens_until is not None:
            self._recent, self._opens_until, self._pause_s = 0, None, FIRST_PAUSE_S

    def failed(self) -> None:
        """The version did not answer, or not with an action that can be used."""
        self._recent = ((self._recent << 1) | 1) & _MASK
        if self._opens_until is not None:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        elif self._recent.bit_count() < FAILURES:
            return
        self._opens_until = self._clock() + self._pause_s


class Circuits:
    """One circuit for each policy version.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[tuple[str, int], Circuit] = {}

    def of(self, policy: str, version: int) -> Circuit:
        """The circuit of a version."""
        circuit = self._circuits.get((policy, version))
        if circuit is None:  # of threads that ask at once all get the first one's
            circuit = self._circuits.setdefault((policy, version), Circuit(self._clock))
        return circuit

    def open(self) -> list[tuple[str, int]]:
        """Versions that are avoided now."""
        return sorted(key for key, circuit in self._circuits.items() if circuit.is_open)
