"""Event-time windows of one source, folded over its events in the order in which they lie there.

For a source (a partition) the result is a function of the sequence of its events alone: not of how it was cut into
batches, nor of restarts. Before each event the watermark is the newest event time so far minus the delay; a window
takes the event unless its end plus the allowed lateness is at or before the watermark. Then it is final, and never
changes again. An event far ahead of the time at which the source took it down would close everything: it is taken by no
window and moves no watermark.

As long as no event is too late, the result does not depend on the order either: sums are kept as an expansion of floats
that is exact (Shewchuk 1997), and the last value is that of the greatest (time, receipt).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Event", "Fold", "Window", "WindowShape", "starts_of"]


class Event(NamedTuple):
    """One value at one time; ``sent_us`` is when the source took it down, -1 where it does not say."""

    entity: str
    time_us: int
    value: float
    receipt: str
    sent_us: int = -1


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Where windows lie, how long they wait, and how far ahead of ``sent_us`` an event may be; microseconds."""

    size_us: int
    slide_us: int
    delay_us: int = 0
    lateness_us: int = 0
    ahead_us: int = 3_600_000_000


@dataclass(slots=True)
class Window:
    """Aggregates of one window of one entity.

    Attributes:
        count: values.
        parts: floats that do not overlap, whose exact sum is that of the values.
        minimum, maximum: of the values.
        last: the newest value, when it was, and its receipt.
    """

    count: int = 0
    parts: list[float] = field(default_factory=list)
    minimum: float = math.inf
    maximum: float = -math.inf
    last: tuple[int, str, float] = (-1, "", math.nan)

    def add(self, event: Event) -> None:
        """Take a value in."""
        self.count += 1
        self.parts = _grown(self.parts, event.value)
        self.minimum, self.maximum = min(self.minimum, event.value), max(self.maximum, event.value)
        self.last = max(self.last, (event.time_us, event.receipt, event.value))

    @property
    def mean(self) -> float:
        """Mean of the values, from their correctly rounded sum."""
        return math.fsum(self.parts) / self.count


def _grown(parts: list[float], value: float) -> list[float]:
    """An expansion with a value added, exactly: error-free transformations of sums (Shewchuk 1997, figure 6)."""
    grown = []
    for part in parts:
        large, small = (value, part) if abs(value) >= abs(part) else (part, value)
        total = large + small
        rest = small - (total - large)
        if rest:
            grown.append(rest)
        value = total
    grown.append(value)
    return grown


def starts_of(time_us: int, shape: WindowShape) -> Iterator[int]:
    """Starts of the windows that a time lies in, the earliest first."""
    last = time_us // shape.slide_us * shape.slide_us
    first = (time_us - shape.size_us) // shape.slide_us * shape.slide_us + shape.slide_us
    return iter(range(first, last + 1, shape.slide_us))


class Fold:
    """The open windows of one source.

    Args:
        shape: where windows lie.
        open_windows: by entity and start, where a fold is taken up again.
        newest_us: newest event time so far; -1 before the first event.
        count: events so far.
        late: of them, those that no window took: too late, or too far ahead.
    """

    def __init__(
        self,
        shape: WindowShape,
        open_windows: dict[tuple[str, int], Window] | None = None,
        *,
        newest_us: int = -1,
        count: int = 0,
        late: int = 0,
    ) -> None:
        self.shape = shape
        self.windows = dict(open_windows or {})
        self.newest_us, self.count, self.late = newest_us, count, late

    @property
    def watermark_us(self) -> int:
        """Nothing older is expected; -1 before the first event."""
        return -1 if self.newest_us < 0 else max(-1, self.newest_us - self.shape.delay_us)

    def apply(self, events: Iterable[Event]) -> dict[tuple[str, int], tuple[Window, bool]]:
        """Take events in, in the order of the source.

        Returns:
            The windows that changed or became final, by entity and start; and whether they are final.
        """
        changed: dict[tuple[str, int], tuple[Window, bool]] = {}
        for event in events:
            self.count += 1
            if 0 <= event.sent_us < event.time_us - self.shape.ahead_us:
                self.late += 1
                continue
            taken = False
            for start in starts_of(event.time_us, self.shape):
                if self._closed(start):
                    continue
                taken = True
                key = (event.entity, start)
                window = self.windows.setdefault(key, Window())
                window.add(event)
                changed[key] = (window, False)
            self.late += not taken
            self.newest_us = max(self.newest_us, event.time_us)
        for key in [key for key in self.windows if self._closed(key[1])]:
            changed[key] = (self.windows.pop(key), True)
        return changed

    def _closed(self, start_us: int) -> bool:
        return start_us + self.shape.size_us + self.shape.lateness_us <= self.watermark_us
