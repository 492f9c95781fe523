"""Objectives, preferences, rules and modes: the vocabulary that every room shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown

__all__ = ["Direction", "Mode", "Objective", "ObjectiveVector", "Preference", "Rule", "normalise", "to_minimisation"]

Direction = Literal["minimize", "maximize"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A named, unit-bearing quantity with a direction and a frozen normalisation range.

    Attributes:
        name: identifier, for example ``latency``.
        unit: unit of its values, ``""`` for a dimensionless one.
        direction: ``minimize`` or ``maximize``.
        low, high: ends of the normalisation range in the objective's unit; ``low < high``.
            The map is affine and unclipped: the better end becomes 1, the worse end 0.
        description: one sentence.
    """

    name: str
    unit: str
    direction: Direction
    low: float
    high: float
    description: str = ""

    def __post_init__(self) -> None:
        check_choice(self.direction, ("minimize", "maximize"), field=f"{self.name}.direction")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigurationError(
                f"objective {self.name!r}: low and high must be finite with low < high, "
                f"got low={self.low!r}, high={self.high!r}",
                field=f"{self.name}.low",
            )

    @property
    def sign(self) -> float:
        """+1 for a maximised objective, -1 for a minimised one."""
        return 1.0 if self.direction == "maximize" else -1.0

    def to_dict(self) -> dict[str, Any]:
        """The objective as plain JSON types."""
        return {
            "name": self.name,
            "unit": self.unit,
            "direction": self.direction,
            "low": self.low,
            "high": self.high,
            "description": self.description,
        }


ObjectiveVector = Mapping[str, float]
"""Values by objective name, each in its objective's unit."""


def normalise(objectives: Sequence[Objective], values: ArrayLike) -> FloatArray:
    """Map objective values [..., n_objectives] to goodness: 1 at the better end of the range, 0 at the worse.

    Affine and unclipped, so sums and differences keep their meaning.
    """
    array = np.asarray(values, dtype=np.float64)
    low = np.array([o.low for o in objectives])
    high = np.array([o.high for o in objectives])
    up = np.array([o.direction == "maximize" for o in objectives])
    share = (array - low) / (high - low)
    return np.asarray(np.where(up, share, 1.0 - share))


def to_minimisation(objectives: Sequence[Objective], values: ArrayLike) -> FloatArray:
    """Objective values [..., n_objectives] with maximised columns negated, so that smaller is better everywhere."""
    return np.asarray(np.asarray(values, dtype=np.float64) * np.array([-o.sign for o in objectives]))


@dataclass(frozen=True, slots=True)
class Preference:
    """A weight vector over the objectives: non-negative, sums to 1.

    Build it with :meth:`of`, which checks and scales; ``names`` and ``weights`` have equal length.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(
        cls,
        objectives: Iterable[Objective] | Iterable[str],
        weights: Mapping[str, float] | Sequence[float] | FloatArray,
        *,
        field: str = "preference",
    ) -> Preference:
        """Check ``weights`` against ``objectives`` and scale them to sum 1.

        A mapping may leave objectives out (weight 0); a sequence must have one weight each.

        Raises:
            InvalidInputError: unknown objective, wrong length, a negative or non-finite weight, or a zero sum.
        """
        names = tuple(o.name if isinstance(o, Objective) else o for o in objectives)
        if isinstance(weights, Mapping):
            for key in weights:
                check_choice(key, names, field=f"{field} objective", error=InvalidInputError)
            pairs = [(name, weights.get(name, 0.0)) for name in names]
        else:
            if len(weights) != len(names):
                raise InvalidInputError(
                    f"{field} has {len(weights)} weights; expected {len(names)} ({', '.join(names)})", field=field
                )
            pairs = list(zip(names, weights, strict=True))
        values: list[float] = []
        for name, weight in pairs:
            if isinstance(weight, bool) or not isinstance(weight, int | float | np.floating | np.integer):
                raise InvalidInputError(f"{field}.{name} must be a number, got {weight!r}", field=f"{field}.{name}")
            try:
                value = float(weight)
            except OverflowError:  # a whole number beyond every float
                value = math.inf
            if not math.isfinite(value) or value < 0:
                raise InvalidInputError(
                    f"{field}.{name} must be finite and >= 0, got {shown(weight)}", field=f"{field}.{name}"
                )
            values.append(value)
        # Scaling by the largest first keeps the sum finite and non-zero for weights near the float limits.
        largest = max(values, default=0.0)
        if largest <= 0:
            raise InvalidInputError(f"{field} sums to 0; at least one weight must be positive", field=field)
        scaled = [value / largest for value in values]
        total = math.fsum(scaled)
        return cls(names, tuple(value / total for value in scaled))

    @classmethod
    def uniform(cls, objectives: Iterable[Objective] | Iterable[str]) -> Preference:
        """Equal weights."""
        names = tuple(o.name if isinstance(o, Objective) else o for o in objectives)
        return cls.of(names, [1.0] * len(names))

    def array(self) -> FloatArray:
        """The weights [n_objectives]."""
        return np.array(self.weights)

    def to_dict(self) -> dict[str, float]:
        """Weights by objective name."""
        return dict(zip(self.names, self.weights, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A bound on one objective that a choice has to keep, in the objective's unit."""

    objective: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ConfigurationError(
                f"rule on {self.objective!r} needs exactly one of at_most and at_least", field=self.objective
            )
        bound = self.at_most if self.at_most is not None else self.at_least
        if bound is None or not math.isfinite(bound):
            raise ConfigurationError(f"rule on {self.objective!r}: the bound must be finite", field=self.objective)

    def violation(self, value: float) -> float:
        """How far ``value`` lies beyond the bound (0 when kept), in the objective's unit."""
        if self.at_most is not None:
            return max(0.0, value - self.at_most)
        return max(0.0, float(self.at_least or 0.0) - value)

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"{self.objective} <= {self.at_most:g}"
        return f"{self.objective} >= {self.at_least:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A named preference plus the rules that a choice under it has to keep."""

    name: str
    preference: Preference
    rules: tuple[Rule, ...] = field(default=())
    description: str = ""

    def __post_init__(self) -> None:
        for rule in self.rules:
            check_choice(rule.objective, self.preference.names, field=f"mode {self.name} rule objective")
