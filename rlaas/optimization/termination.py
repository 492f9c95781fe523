"""When a search ends: counts, time, a target, or nothing gained any more."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rlaas.errors import ConfigurationError, shown
from rlaas.optimization.history import Generation

__all__ = [
    "DistanceStall",
    "Evaluations",
    "Generations",
    "HypervolumeStall",
    "Seconds",
    "Stop",
    "TargetHypervolume",
    "stops_of",
]


class Stop(ABC):
    """Looks at what was done so far and says why it is enough. Another one is a subclass."""

    __slots__ = ()

    def reason(self, history: Sequence[Generation]) -> str | None:
        """Why the search ends after the last of ``history`` (at least one generation), or None to go on."""
        return self._reason(history)

    @abstractmethod
    def _reason(self, history: Sequence[Generation]) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Generations(Stop):
    """After so many generations, the first (sampled) one included."""

    count: int

    def __post_init__(self) -> None:
        _at_least_one(self.count, "generations")

    def _reason(self, history: Sequence[Generation]) -> str | None:
        return f"{self.count} generations" if history[-1].number >= self.count else None


@dataclass(frozen=True, slots=True)
class Evaluations(Stop):
    """At the end of the generation in which so many candidates were evaluated, unknown ones included."""

    count: int

    def __post_init__(self) -> None:
        _at_least_one(self.count, "evaluations")

    def _reason(self, history: Sequence[Generation]) -> str | None:
        return f"{self.count} evaluations" if history[-1].evaluations >= self.count else None


@dataclass(frozen=True, slots=True)
class Seconds(Stop):
    """At the end of the generation in which so much wall time was spent, that before a resumption included."""

    limit: float

    def __post_init__(self) -> None:
        _positive(self.limit, "seconds")

    def _reason(self, history: Sequence[Generation]) -> str | None:
        return f"{self.limit:g} s" if history[-1].seconds >= self.limit else None


@dataclass(frozen=True, slots=True)
class TargetHypervolume(Stop):
    """As soon as the front's hypervolume reaches a value; the search needs a ``reference``."""

    value: float

    def __post_init__(self) -> None:
        _positive(self.value, "target hypervolume")

    def _reason(self, history: Sequence[Generation]) -> str | None:
        reached = history[-1].hypervolume
        return f"hypervolume {self.value:g}" if reached is not None and reached >= self.value else None


@dataclass(frozen=True, slots=True)
class _Stall(Stop):
    generations: int
    tolerance: float

    def __post_init__(self) -> None:
        _at_least_one(self.generations, "stall generations")
        _positive(self.tolerance, "stall tolerance")

    def _reason(self, history: Sequence[Generation]) -> str | None:
        return self._stalled(history[-1 - self.generations :]) if len(history) > self.generations else None

    @abstractmethod
    def _stalled(self, window: Sequence[Generation]) -> str | None:
        """Why the window, and the generation before it, are a stall."""


@dataclass(frozen=True, slots=True)
class HypervolumeStall(_Stall):
    """When the hypervolume has grown by no more than a share of itself over a window; needs a ``reference``.

    Attributes:
        generations: the window.
        tolerance: least relative growth over it that counts.
    """

    generations: int = 30
    tolerance: float = 1e-3

    def _stalled(self, window: Sequence[Generation]) -> str | None:
        now, before = window[-1].hypervolume, window[0].hypervolume
        # Nothing feasible yet is no stall: the volume is 0 until something is.
        if now is None or before is None or not before > 0 or now - before > self.tolerance * before:
            return None
        return f"hypervolume grew by less than {self.tolerance:g} of itself in {self.generations} generations"


@dataclass(frozen=True, slots=True)
class DistanceStall(_Stall):
    """When the front has hardly moved over a window, by generational distance between successive fronts.

    Each generation's distance is the mean of how far its front's members lie from the nearest of the generation before,
    in shares of the front's extent (Van Veldhuizen 1999 for the distance; between successive fronts as in Blank & Deb
    2020, "A running performance metric and termination criterion").

    Attributes:
        generations: the window.
        tolerance: mean distance over it that counts as standing still.
    """

    generations: int = 30
    tolerance: float = 2.5e-3

    def _stalled(self, window: Sequence[Generation]) -> str | None:
        moves = [entry.moved for entry in window[1:]]
        if not all(math.isfinite(move) for move in moves) or sum(moves) > self.tolerance * self.generations:
            return None
        return f"the front moved by less than {self.tolerance:g} of its extent in {self.generations} generations"


def stops_of(generations: int | None, stop: Stop | Sequence[Stop], *, measured: bool) -> list[Stop]:
    """What a search may end by: its number of generations, then the caller's stops.

    Args:
        generations: at most; None for any number.
        stop: one or several.
        measured: whether the search measures hypervolume.

    Raises:
        ConfigurationError: nothing that ends the search, something that is no stop, or one that needs a hypervolume
            where none is measured.
    """
    stops: list[Stop] = list(stop) if isinstance(stop, Sequence) else [stop]
    if generations is not None:
        stops.insert(0, Generations(generations))
    if not stops:
        raise ConfigurationError("a search needs generations or a stop, to end some time", field="generations")
    for one in stops:
        if not isinstance(one, Stop):
            raise ConfigurationError(f"stop {shown(one)} is none; see rlaas.optimization.termination", field="stop")
        if isinstance(one, TargetHypervolume | HypervolumeStall) and not measured:
            raise ConfigurationError(f"{type(one).__name__} needs a reference point", field="reference")
    return stops


def _at_least_one(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number >= 1, got {shown(value)}", field=name)


def _positive(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise ConfigurationError(f"{name} must be a finite number > 0, got {shown(value)}", field=name)
