"""The result of comparing two arms, and the arithmetic that both designs share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import InvalidInputError, shown

__all__ = ["Arm", "Comparison", "column", "identities", "labels", "numeric", "student"]

Design = Literal["unit", "switchback"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

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
        InvalidInputError: no numbers, another length, or a value that is not finite.
    """
    array = numeric(values, name)
    if array.shape != (length,):
        raise InvalidInputError(f"{name} has shape {array.shape}; expected ({length},), one per row", field=name)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidInputError(f"{name}[{row}] is {array[row]}; expected finite numbers", field=name)
    return array


def numeric(values: ArrayLike, name: str) -> FloatArray:
    """``values`` as an array of float64 of any shape; null becomes NaN.

    Raises:
        InvalidInputError: ragged, masked or complex, or anything that is no number.
    """
    if isinstance(values, np.ma.MaskedArray):  # as an array it would show what the mask hides
        raise InvalidInputError(f"{name} is masked; expected plain numbers, fill it first", field=name)
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return np.asarray(array, dtype=np.float64)
    except Exception as error:  # other libraries' arrays raise whatever they like when they cannot be converted
        raise InvalidInputError(
            f"{name} must hold numbers in a regular array, got {shown(values)}", field=name
        ) from error
    raise InvalidInputError(f"{name} must hold numbers, got {array.dtype}", field=name)


def identities(values: ArrayLike, name: str, length: int) -> IntArray:
    """Running number [length] of who each row belongs to; equal values share one.

    Raises:
        InvalidInputError: not one value per row, a missing one (None, NaN, NaT: rows of unknown units would become one
            unit), or values that cannot be told apart.
    """
    # By way of objects: numpy would make the text "nan" of a NaN among names, and one unit of 1 and "1".
    given = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if given.shape != (length,):
        raise InvalidInputError(f"{name} has shape {given.shape}; expected ({length},), one per row", field=name)
    if given.dtype.kind == "O":
        missing, codes = _named(given.tolist(), name)
    else:
        missing = np.isnat(given) if given.dtype.kind in "mM" else given != given  # noqa: PLR0124 - NaN
        codes = np.asarray(np.unique(given, return_inverse=True)[1], dtype=np.int64)
    if missing.any():
        raise InvalidInputError(
            f"{name} is missing in {int(missing.sum())} of {length} rows, such as {int(missing.argmax())}; every row "
            "needs the name of its unit",
            field=name,
        )
    return codes


def _named(values: list[Any], name: str) -> tuple[NDArray[np.bool_], IntArray]:
    """Which of the objects are missing, and the running number of each."""
    first: dict[Any, int] = {}
    try:
        missing = np.array([bool(value is None or value != value) for value in values])  # noqa: PLR0124
        codes = np.array([first.setdefault(value, len(first)) for value in values], dtype=np.int64)
    except (TypeError, ValueError) as error:  # a list, or a null that will not say whether it equals itself
        raise InvalidInputError(f"{name} must hold text or numbers without nulls", field=name) from error
    try:  # sorted where they can be, as numpy does: what is drawn by these numbers must not depend on the rows' order
        order = {value: rank for rank, value in enumerate(sorted(first))}
    except TypeError:
        return missing, codes
    return missing, np.array([order[value] for value in first], dtype=np.int64)[codes]


def labels(arm: ArrayLike, control: str, treatment: str) -> NDArray[Any]:
    """Arm names [n] as text.

    Raises:
        InvalidInputError: control and treatment are no text or the same, or one of them never occurs.
    """
    for role, name in (("control", control), ("treatment", treatment)):
        if not isinstance(name, str):
            raise InvalidInputError(f"{role} is {shown(name)}; expected the name of an arm as text", field=role)
    if control == treatment:
        raise InvalidInputError(f"control and treatment are both {control!r}", field="treatment")
    try:
        names = np.asarray(arm)
    except Exception as error:  # ragged, or an array of another library that does not convert
        raise InvalidInputError(f"arm must hold one name per row, got {shown(arm)}", field="arm") from error
    if names.ndim != 1:
        raise InvalidInputError(f"arm has shape {names.shape}; expected one name per row", field="arm")
    names = names.astype(str)
    for role, name in (("control", control), ("treatment", treatment)):
        if not (names == name).any():
            found = ", ".join(sorted(set(names.tolist()))) or "(none)"
            raise InvalidInputError(f"{role} {name!r} has no row; arms found: {found}", field=role)
    return names
