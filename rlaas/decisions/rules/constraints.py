"""Requirements as vectorised constraints: G(x) <= 0 exactly where a candidate keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.rules.expressions import COMPARE, And, Comparison, Expression, Or
from rlaas.decisions.rules.schema import PARAMETERS, Field, finite_number
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective

__all__ = ["CEILING", "LEAST", "Columns", "Requirement"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LEAST = 1e-9
"""What a broken comparison counts at least, in normalisation ranges: so much does ``latency < 2`` miss at exactly 2."""

CEILING = 1e100
"""What a comparison counts at most, so that sums over requirements stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """One number per candidate, as the interval [low, high] in which it is taken to lie.

    Attributes:
        low, high: ends [n]; equal where the number is taken at its word.
        known: false where there is no such number [n].
        span: what counts as 1, in the number's unit.
    """

    low: FloatArray
    high: FloatArray
    known: BoolArray
    span: float = 1.0


class Columns:
    """What requirements read of n candidates side by side.

    Args:
        objectives: of the columns of ``low`` and ``high``.
        low, high: ends of the interval of each objective value [n, n_objectives].
        candidates: who they are; None where there are only values.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        low: FloatArray,
        high: FloatArray,
        candidates: Sequence[Candidate] | None = None,
    ) -> None:
        self._objectives = {objective.name: (i, objective) for i, objective in enumerate(objectives)}
        self._low = low
        self._high = high
        self._candidates = candidates

    @classmethod
    def of_front(cls, front: Front, *, cautious: bool = False) -> Columns:
        """Of the candidates of a front, by their means.

        Args:
            front: candidates with their objective values.
            cautious: judge by the worse end of the 95 % confidence interval, ``mean`` plus or minus ``half_width``. An
                interval that is not finite (one seed) shows nothing, and keeps no bound.
        """
        means = front.values().reshape(len(front.candidates), len(front.objectives))
        if not cautious:
            return cls(front.objectives, means, means, front.candidates)
        widths = np.array([c.half_width for c in front.candidates], dtype=np.float64).reshape(means.shape)
        widths = np.where(np.isfinite(widths) & (widths >= 0), widths, np.nan)
        return cls(front.objectives, means - widths, means + widths, front.candidates)

    @classmethod
    def of_values(cls, objectives: Sequence[Objective], values: FloatArray) -> Columns:
        """Of objective values [n, n_objectives] in their units, as a search has them.

        Raises:
            InvalidInputError: values of another shape.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(objectives):
            raise InvalidInputError(
                f"values have shape {array.shape}; expected [n, {len(objectives)}]: one column per objective",
                field="values",
            )
        return cls(objectives, array, array)

    def __len__(self) -> int:
        return len(self._low)

    def numeric(self, field: Field) -> Numeric:
        """The numbers of a field.

        Raises:
            InvalidInputError: no such objective, or in another unit.
        """
        if field.name in self._objectives:
            column, objective = self._objectives[field.name]
            if objective.unit != field.unit:
                raise InvalidInputError(
                    f"a rule has {field.name} in {field.unit or 'no unit'}; the candidates have it in "
                    f"{objective.unit or 'no unit'}",
                    field=field.name,
                )
            low, high = self._low[:, column], self._high[:, column]
            known = np.isfinite(low) & np.isfinite(high)
            return Numeric(low=low, high=high, known=known, span=objective.high - objective.low)
        numbers = [finite_number(value) for value in self._own(field)]
        values = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
        return Numeric(low=values, high=values, known=np.isfinite(values))

    def fulfils(self, comparison: Comparison) -> tuple[BoolArray, BoolArray]:
        """Which candidates fulfil a comparison of a text or flag [n], and of which that is known [n]."""
        kind = bool if comparison.field.type == "flag" else str
        values = self._own(comparison.field)
        known = np.array([isinstance(v, kind) for v in values], dtype=bool)
        compare = COMPARE[comparison.operator]
        kept = [is_known and compare(v, comparison.value) for v, is_known in zip(values, known, strict=True)]
        return np.array(kept, dtype=bool), known

    def _own(self, field: Field) -> list[Any]:
        """What each candidate says of a field that is no objective; None where it says nothing."""
        read = OWN.get(field.name)
        if read is None and not field.name.startswith(PARAMETERS):
            raise InvalidInputError(
                f"a rule names the objective {field.name}; the candidates have {', '.join(self._objectives)}",
                field=field.name,
            )
        if self._candidates is None:
            raise InvalidInputError(
                f"a rule names {field.name}, which only the candidates of a front have; allowed here: "
                f"{', '.join(self._objectives)}",
                field=field.name,
            )
        if read is not None:
            return [read(candidate) for candidate in self._candidates]
        path = field.name.removeprefix(PARAMETERS).split(".")
        return [_parameter(candidate.parameters, path) for candidate in self._candidates]


OWN: Mapping[str, Callable[[Candidate], Any]] = {
    "kind": lambda candidate: candidate.kind,
    "name": lambda candidate: candidate.name,
    "seeds": lambda candidate: len(candidate.seeds),
}


def _parameter(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one rule demands of candidates.

    Attributes:
        rule: name of the rule.
        keeps: what has to hold, in normal form; of a ``forbid`` the opposite of what is forbidden.
        text: as the rule says it, ``require latency < 2 ms`` or ``forbid kind == "configuration"``.
    """

    rule: str
    keeps: Expression
    text: str

    def constraint(self, columns: Columns) -> FloatArray:
        """G [n]: ``<= 0`` exactly where a candidate is known to keep the requirement.

        A comparison of an objective counts how far it is missed (above 0) or how much room is left (below 0), in units
        of the objective's normalisation range; of a parameter or the number of seeds in their own unit; a text or flag
        counts 1 or -1. A broken comparison counts at least :data:`LEAST`, one whose value is unknown counts 1. ``and``
        is the largest of its parts, ``or`` the least.

        Raises:
            InvalidInputError: the candidates lack an objective, or have it in another unit.
        """
        return _measure(self.keeps, columns)


def _measure(expression: Expression, columns: Columns) -> FloatArray:
    if isinstance(expression, And):
        return np.asarray(np.maximum.reduce([_measure(item, columns) for item in expression.items]))
    if isinstance(expression, Or):
        return np.asarray(np.minimum.reduce([_measure(item, columns) for item in expression.items]))
    if not isinstance(expression, Comparison):
        raise TypeError(f"a requirement holds comparisons, and, or; got {type(expression).__name__}")
    if expression.field.type != "number":
        kept, known = columns.fulfils(expression)
        return np.where(kept & known, -1.0, 1.0)
    numeric = columns.numeric(expression.field)
    with np.errstate(over="ignore", invalid="ignore"):
        kept, amount = _missed(expression, numeric.low, numeric.high)
        share = np.clip(np.nan_to_num(amount / numeric.span, nan=0.0), -CEILING, CEILING)
    measured = np.where(kept, np.minimum(share, 0.0), np.maximum(share, LEAST))
    return np.where(numeric.known, measured, 1.0)


def _missed(comparison: Comparison, low: FloatArray, high: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Whether every number of [low, high] fulfils the comparison, and by how much the worst of them misses it."""
    bound = float(comparison.value)
    if comparison.operator in {"<", "<="}:
        return (high < bound if comparison.operator == "<" else high <= bound), high - bound
    if comparison.operator in {">", ">="}:
        return (low > bound if comparison.operator == ">" else low >= bound), bound - low
    if comparison.operator == "==":
        return (low == bound) & (high == bound), np.maximum(np.abs(low - bound), np.abs(high - bound))
    return (high < bound) | (low > bound), np.minimum(high - bound, bound - low)
