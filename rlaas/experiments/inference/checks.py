"""What the monitors share: sides, results, checks of their options and of a state that is read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.experiments.comparison import numeric

__all__ = [
    "SIDES",
    "Side",
    "Standing",
    "checked_counts",
    "checked_level",
    "checked_number",
    "checked_side",
    "checked_values",
    "opened",
    "packed",
]

FloatArray = NDArray[np.float64]

Side = Literal["two-sided", "greater", "less"]

SIDES: tuple[Side, ...] = ("two-sided", "greater", "less")
"""Alternatives to the null: the quantity differs from it, is above it or is below it."""

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What may be said at this moment, after however many looks.

    Attributes:
        n: observations so far, of all arms.
        estimate: of the quantity; NaN where nothing is known.
        low, high: confidence sequence at 1 - alpha, valid at all times together; infinite where it says nothing, and
            on the open side of a one-sided one.
        log_e: logarithm of the e-value against the null now. An e-value averages at most 1 under the null.
        p_value: always valid: 1 / the largest e-value seen, at most 1.
    """

    n: int
    estimate: float
    low: float
    high: float
    log_e: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite or unknown is null."""
        return {
            "n": self.n,
            "estimate": _finite(self.estimate),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "log_e": self.log_e,
            "p_value": self.p_value,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def checked_level(value: Any, field: str = "alpha") -> float:
    """A number in (0, 1).

    Raises:
        InvalidInputError: it is not.
    """
    number = checked_number(value, field)
    if not 0 < number < 1:
        raise InvalidInputError(f"{field} is {shown(value)}; expected a number in (0, 1)", field=field)
    return number


def checked_number(value: Any, field: str, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """A finite number, above ``above`` and at least ``least``.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidInputError(f"{field} is {shown(value)}; expected a number", field=field)
    try:
        number = float(value)
    except OverflowError as error:
        raise InvalidInputError(f"{field} is beyond what a float holds", field=field) from error
    if not math.isfinite(number) or number <= above or number < least:
        bound = f" above {above:g}" if above > -math.inf else f" of at least {least:g}" if least > -math.inf else ""
        raise InvalidInputError(f"{field} is {shown(value)}; expected a finite number{bound}", field=field)
    return number


def checked_side(value: str) -> Side:
    """One of :data:`SIDES`.

    Raises:
        InvalidInputError: it is not.
    """
    check_choice(value, SIDES, field="alternative", error=InvalidInputError)
    return value  # type: ignore[return-value]


def checked_values(values: ArrayLike, field: str, low: float = -math.inf, high: float = math.inf) -> FloatArray:
    """Finite numbers [n] in [low, high]; a single number is one observation.

    Raises:
        InvalidInputError: no numbers, not one-dimensional, or a value outside.
    """
    array = np.atleast_1d(numeric(values, field))
    if array.ndim != 1:
        raise InvalidInputError(f"{field} has shape {array.shape}; expected one value per observation", field=field)
    wrong = ~(np.isfinite(array) & (array >= low) & (array <= high))
    if wrong.any():
        row = int(wrong.argmax())
        allowed = "finite numbers" if low == -math.inf else f"{low:g} to {high:g}"
        raise InvalidInputError(f"{field}[{row}] is {array[row]}; expected {allowed}", field=field)
    return array


def checked_counts(values: ArrayLike, field: str, length: int) -> NDArray[np.int64]:
    """Whole numbers >= 0 [length].

    Raises:
        InvalidInputError: they are not.
    """
    array = numeric(values, field)
    if array.shape != (length,):
        raise InvalidInputError(f"{field} has shape {array.shape}; expected ({length},)", field=field)
    if not ((array >= 0) & (array == np.floor(array)) & (array < 2**53)).all():
        raise InvalidInputError(f"{field} must hold whole numbers >= 0, got {shown(values)}", field=field)
    return array.astype(np.int64)


def packed(kind: str, options: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """A monitor as one JSON object; floats come back bit for bit from the text that ``json`` writes."""
    return {"schema_version": SCHEMA_VERSION, "kind": kind, "options": dict(options), "state": dict(state)}


def opened(
    document: Any, kind: str, options: tuple[str, ...], state: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and state of a stored monitor.

    Raises:
        InvalidInputError: another kind or schema version, or other keys.
    """
    if not isinstance(document, Mapping) or document.get("kind") != kind:
        raise InvalidInputError(f"expected the state of a {kind!r}, got {shown(document)}", field="kind")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InvalidInputError(
            f"schema_version {shown(version)} is not supported; expected {SCHEMA_VERSION}", field="schema_version"
        )
    found = []
    for part, keys in (("options", options), ("state", state)):
        fields = document.get(part)
        if not isinstance(fields, Mapping) or set(fields) != set(keys):
            raise InvalidInputError(
                f"{part} of a {kind!r} must hold {', '.join(keys)}, got {shown(fields)}", field=part
            )
        found.append(dict(fields))
    return found[0], found[1]
