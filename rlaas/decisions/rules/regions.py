"""Sets of values of one field, exact over floats, closed under and, or and not."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rlaas.decisions.rules.expressions import Comparison
from rlaas.decisions.rules.schema import DAY, Field, Value

__all__ = ["Labels", "Numbers", "Region", "domain", "region"]

LARGEST = sys.float_info.max


class Region(ABC):
    """A set of values of one field; both sides of an operation are of the same kind."""

    __slots__ = ()

    @abstractmethod
    def __and__(self, other: Self) -> Self: ...

    @abstractmethod
    def __or__(self, other: Self) -> Self: ...

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether it holds no value."""

    @abstractmethod
    def example(self) -> Value:
        """A value of it, which must not be empty."""


@dataclass(frozen=True, slots=True)
class Numbers(Region):
    """Finite floats, as sorted and disjoint closed intervals.

    An open end is the next float inside (``x < 2`` is ``x <= 1.9999999999999998``): over floats that is the same set,
    and closed intervals need no case for ends.
    """

    intervals: tuple[tuple[float, float], ...]

    def __and__(self, other: Self) -> Self:
        pairs = ((max(a, c), min(b, d)) for a, b in self.intervals for c, d in other.intervals)
        return type(self)(tuple(sorted(pair for pair in pairs if pair[0] <= pair[1])))

    def __or__(self, other: Self) -> Self:
        merged: list[tuple[float, float]] = []
        for low, high in sorted(self.intervals + other.intervals):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        return type(self)(tuple(merged))

    @property
    def empty(self) -> bool:
        """Whether it holds no value."""
        return not self.intervals

    def example(self) -> float:
        """A value of it, away from the ends where there is room."""
        low, high = self.intervals[0]
        if low > -LARGEST and high < LARGEST:
            return min(max(low / 2 + high / 2, low), high)
        if low > -LARGEST:
            return min(math.floor(low) + 1.0, high)
        return max(math.ceil(high) - 1.0, low) if high < LARGEST else 0.0


@dataclass(frozen=True, slots=True)
class Labels(Region):
    """Texts or flags: the named ones, or with ``others`` all but those."""

    named: frozenset[Value]
    others: bool = False

    def __and__(self, other: Self) -> Self:
        if self.others and other.others:
            return type(self)(self.named | other.named, True)
        if self.others:
            return type(self)(other.named - self.named)
        return type(self)(self.named - other.named if other.others else self.named & other.named)

    def __or__(self, other: Self) -> Self:
        both = type(self)(self.named, not self.others) & type(self)(other.named, not other.others)
        return type(self)(both.named, not both.others)

    @property
    def empty(self) -> bool:
        """Whether it holds no value."""
        return not self.named and not self.others

    def example(self) -> Value:
        """A value of it: the first of the named ones, or a text that is none of them."""
        if not self.others:
            return min(self.named)
        text = "other"
        while text in self.named:
            text += "_"
        return text


def _interval(low: float, high: float) -> Numbers:
    return Numbers(((max(low, -LARGEST), min(high, LARGEST)),) if low <= high else ())


def domain(field: Field) -> Region:
    """Every value that a field can take."""
    if field.type == "flag":
        return Labels(frozenset({True, False}))
    if field.type == "text":
        return Labels(frozenset(field.choices)) if field.choices else Labels(frozenset(), True)
    if field.type == "time":
        return _interval(0.0, math.nextafter(DAY, 0.0))
    return _interval(field.low, field.high)


def region(comparison: Comparison) -> Region:
    """The values of the comparison's field that fulfil it; not yet cut to the field's domain."""
    value = comparison.value
    if comparison.field.type in {"flag", "text"}:
        return Labels(frozenset({value}), comparison.operator == "!=")
    number = float(value)
    below, above = math.nextafter(number, -math.inf), math.nextafter(number, math.inf)
    parts: Iterable[tuple[float, float]] = {
        "<": [(-LARGEST, below)],
        "<=": [(-LARGEST, number)],
        ">": [(above, LARGEST)],
        ">=": [(number, LARGEST)],
        "==": [(number, number)],
        "!=": [(-LARGEST, below), (above, LARGEST)],
    }[comparison.operator]
    return Numbers(tuple((low, high) for low, high in parts if low <= high))
