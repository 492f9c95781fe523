"""The result of comparing two arms, and the arithmetic that both designs share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import InvalidInputError

__all__ = ["Arm", "Comparison", "column", "labels", "student"]

Design = Literal["unit", "switchback"]
FloatArray = NDArray[np.float64]

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        n_units: units, or blocks of a switchback, behind the mean.
        mean: of the metric.
    """

    n_units: int
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Treatment against control.

    Attributes:
        metric: what was compared.
        design: ``unit`` or ``switchback``.
        control, treatment: names of the arms.
        arms: by name.
        effect: treatment - control, in the metric's unit.
        relative: effect / control; NaN where control is 0.
        interval: 95 % confidence interval of the effect.
        p_value: two-sided, of no effect, by the t statistic behind the interval.
        randomisation_p_value: of a switchback, by flipping the order within pairs; None for units.
        n_pairs: pairs of blocks of a switchback; None for units.
        decision: one sentence.
    """

    metric: str
    design: Design
    control: str
    treatment: str
    arms: Mapping[str, Arm]
    effect: float
    relative: float
    interval: tuple[float, float]
    p_value: float
    randomisation_p_value: float | None = None
    n_pairs: int | None = None

    @property
    def decision(self) -> str:
        """What may be said: higher, lower, or that no difference is shown."""
        low, high = self.interval
        span = f"95 % interval {low:.4g} to {high:.4g}"
        if self.p_value >= LEVEL:
            return f"no difference in {self.metric} shown between {self.treatment} and {self.control} ({span})"
        word = "higher" if self.effect > 0 else "lower"
        return f"{self.treatment} has {word} {self.metric} than {self.control} ({span})"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types; an undefined relative effect is null."""
        return {
            "metric": self.metric,
            "design": self.design,
            "control": self.control,
            "treatment": self.treatment,
            "arms": {name: {"n_units": arm.n_units, "mean": arm.mean} for name, arm in self.arms.items()},
            "effect": self.effect,
            "relative": self.relative if math.isfinite(self.relative) else None,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "randomisation_p_value": self.randomisation_p_value,
            "n_pairs": self.n_pairs,
            "decision": self.decision,
        }


def student(effect: float, standard_error: float, degrees: float) -> tuple[tuple[float, float], float]:
    """95 % interval and two-sided p-value of an effect; without any spread the interval is the effect itself."""
    if standard_error <= 0:
        return (effect, effect), 1.0 if effect == 0 else 0.0
    half = float(stats.t.ppf(1 - LEVEL / 2, degrees)) * standard_error
    return (effect - half, effect + half), float(2 * stats.t.sf(abs(effect) / standard_error, degrees))


def column(values: ArrayLike, name: str, length: int) -> FloatArray:
    """``values`` as finite numbers [length].

    Raises:
        InvalidInputError: another length, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise InvalidInputError(f"{name} has shape {array.shape}; expected ({length},), one per row", field=name)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidInputError(f"{name}[{row}] is {array[row]}; expected finite numbers", field=name)
    return array


def labels(arm: ArrayLike, control: str, treatment: str) -> NDArray[Any]:
    """Arm names [n] as text.

    Raises:
        InvalidInputError: control and treatment are the same, or one of them never occurs.
    """
    if control == treatment:
        raise InvalidInputError(f"control and treatment are both {control!r}", field="treatment")
    names = np.asarray(arm)
    if names.ndim != 1:
        raise InvalidInputError(f"arm has shape {names.shape}; expected one name per row", field="arm")
    names = names.astype(str)
    for role, name in (("control", control), ("treatment", treatment)):
        if not (names == name).any():
            found = ", ".join(sorted(set(names.tolist()))) or "(none)"
            raise InvalidInputError(f"{role} {name!r} has no row; arms found: {found}", field=role)
    return names
