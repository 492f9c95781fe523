"""A search space as a unit box: what an engine that knows only real variables works on.

Each parameter has a variable in [0, 1], evenly on its own scale. One with several values cuts it into intervals, and
the engine keeps the place within the interval: polynomial mutation moves a variable by a few hundredths of its range,
so that a number rounded at every step would fall back to where it was, while a place adds the moves up until a border
is crossed. Choices that are numbers are ordered and treated alike. Others have no order that an interval could follow:
from three values on each value has a variable of its own, and the greatest wins (random keys, Bean 1994, ORSA Journal
on Computing 6(2)); uniform keys draw every value alike, and crossover hands on which values were close to winning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.tuning.space import Choice, Int, LogInt

__all__ = ["BoxEncoding", "Cells"]

FloatArray = NDArray[np.float64]
Cells = tuple[int, ...]
"""Where a point lies, one number for each parameter; points of the same cells count as one."""

RESOLUTION = 1_000
"""Cells of a parameter with more values than that: two points closer than a thousandth of every range tell nothing."""


class _Number:
    """A number on an even or logarithmic scale, one variable."""

    width = 1

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter
        self._whole = isinstance(parameter, Int | LogInt)
        # Half a step beyond both ends: else these would be drawn half as often as the numbers between them.
        margin = 0.5 if self._whole else 0.0
        self._from, self._to = self._scaled(parameter.low - margin), self._scaled(parameter.high + margin)
        self.values = parameter.high - parameter.low + 1 if self._whole else None
        if self.values is not None and self.values > RESOLUTION:
            self.values = None

    def _scaled(self, number: float) -> float:
        return math.log(number) if self._parameter.logarithmic else float(number)

    def value(self, place: FloatArray) -> Any:
        scaled = self._from + float(place[0]) * (self._to - self._from)
        number = math.exp(scaled) if self._parameter.logarithmic else scaled
        # The logarithm's way there and back may end a bit beyond the range.
        bounded = min(max(number, self._parameter.low), self._parameter.high)
        return round(bounded) if self._whole else bounded

    def cell(self, place: FloatArray) -> int:
        if self.values is not None:
            return int(self.value(place)) - int(self._parameter.low)
        return min(int(place[0] * RESOLUTION), RESOLUTION - 1)

    def place(self, cell: int, rng: np.random.Generator) -> FloatArray:
        return self._place(self._parameter.low + cell)

    def features(self, place: FloatArray) -> FloatArray:
        return self._place(self.value(place)) if self._whole else place

    def _place(self, number: float) -> FloatArray:
        return np.array([(self._scaled(number) - self._from) / (self._to - self._from)])


class _Ordered:
    """Choices along one variable."""

    width = 1

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels, self.values = labels, len(labels)

    def value(self, place: FloatArray) -> str:
        return self._labels[self.cell(place)]

    def cell(self, place: FloatArray) -> int:
        return min(int(place[0] * self.values), self.values - 1)

    def place(self, cell: int, rng: np.random.Generator) -> FloatArray:
        return np.array([(cell + 0.5) / self.values])

    def features(self, place: FloatArray) -> FloatArray:
        return np.array([(self.cell(place) + 0.5) / self.values])


class _Keyed:
    """Choices without an order, one variable for each."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels, self.values, self.width = labels, len(labels), len(labels)

    def value(self, place: FloatArray) -> str:
        return self._labels[self.cell(place)]

    def cell(self, place: FloatArray) -> int:
        return int(np.argmax(place))

    def place(self, cell: int, rng: np.random.Generator) -> FloatArray:
        keys = rng.uniform(size=self.width)
        best = int(np.argmax(keys))
        keys[[cell, best]] = keys[[best, cell]]
        return keys

    def features(self, place: FloatArray) -> FloatArray:
        marks = np.zeros(self.width)
        marks[self.cell(place)] = math.sqrt(0.5)  # two choices are as far apart as two ends of a range
        return marks


_Part = _Number | _Ordered | _Keyed


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    part: _Part
    columns: slice


class BoxEncoding:
    """The parameters of a space, by the order of their names, side by side in [0, 1]^n_var.

    Args:
        space: parameters by dotted name.

    Attributes:
        n_var: variables.
        size: points of different cells; None where a parameter has more than a thousand values.
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._slots: list[_Slot] = []
        self.n_var = 0
        for name, parameter in sorted(space.items()):  # the order of a file's lines means nothing
            part = _part(parameter)
            self._slots.append(_Slot(name, part, slice(self.n_var, self.n_var + part.width)))
            self.n_var += part.width
        counts = [slot.part.values for slot in self._slots]
        self.size = math.prod(n for n in counts if n is not None) if None not in counts else None

    def point(self, row: FloatArray) -> dict[str, Any]:
        """The values by name, choices as labels, of a row [n_var] of the box."""
        return {slot.name: slot.part.value(row[slot.columns]) for slot in self._slots}

    def cells(self, row: FloatArray) -> Cells:
        """Where the row [n_var] lies [n_parameters]."""
        return tuple(slot.part.cell(row[slot.columns]) for slot in self._slots)

    def features(self, rows: FloatArray) -> FloatArray:
        """What a model of the objectives is to know of rows [n, n_var], in [0, 1] as well [n, n_var].

        Points that a trial cannot tell apart have the same.
        """
        return np.array([np.concatenate([s.part.features(row[s.columns]) for s in self._slots]) for row in rows])

    def row(self, number: int, rng: np.random.Generator) -> FloatArray:
        """The point of that number, from 0 to ``size - 1``, as a row [n_var]; only where ``size`` is known."""
        parts = []
        for slot in self._slots:
            assert slot.part.values is not None, "a space of countless points numbers none of them"
            number, cell = divmod(number, slot.part.values)
            parts.append(slot.part.place(cell, rng))
        return np.concatenate(parts)


def _part(parameter: Any) -> _Part:
    if not isinstance(parameter, Choice):
        return _Number(parameter)
    labels = parameter.labels()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in parameter.values):
        return _Ordered([label for _, label in sorted(zip(parameter.values, labels, strict=True))])
    return _Ordered(labels) if len(labels) == 2 else _Keyed(labels)
