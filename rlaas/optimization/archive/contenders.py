"""What may become a candidate of the front, and how sure one wants to be of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.fronts import CANDIDATE_KINDS, CandidateKind

__all__ = ["Contender", "check_confidence", "check_count", "check_seeds", "check_tolerance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What can be evaluated and may become a candidate of the front.

    Attributes:
        name: unique within its archive.
        kind: ``policy``, ``configuration`` or ``hyperparameters``.
        parameters: what reproduces it, as in :class:`rlaas.fronts.Candidate`.
    """

    name: str
    kind: CandidateKind
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidInputError(f"a contender's name must be text, got {shown(self.name)}", field="name")
        check_choice(self.kind, CANDIDATE_KINDS, field="contender kind", error=InvalidInputError)

    def to_dict(self) -> dict[str, Any]:
        """The contender as plain JSON types."""
        return {"name": self.name, "kind": self.kind, "parameters": dict(self.parameters)}


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds as plain whole numbers.

    Raises:
        InvalidInputError: one that is not a whole number >= 0, or occurs twice.
    """
    numbers: dict[int, None] = {}
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InvalidInputError(f"seeds must be whole numbers >= 0, got {shown(seed)}", field="seeds")
        if int(seed) in numbers:
            raise InvalidInputError(f"seed {seed} occurs twice", field="seeds")
        numbers[int(seed)] = None
    return tuple(numbers)


def check_confidence(confidence: float) -> float:
    """``confidence`` if it is one.

    Raises:
        InvalidInputError: not a number in (0.5, 1).
    """
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.5 < confidence < 1:
        raise InvalidInputError(f"confidence must be a number in (0.5, 1), got {shown(confidence)}", field="confidence")
    return float(confidence)


def check_tolerance(tolerance: float) -> float:
    """``tolerance`` if it is one.

    Raises:
        InvalidInputError: not a finite number >= 0.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < np.inf:
        raise InvalidInputError(f"tolerance must be a finite number >= 0, got {shown(tolerance)}", field="tolerance")
    return float(tolerance)


def check_count(value: int, *, field: str, at_least: int) -> int:
    """``value`` if it is a whole number from ``at_least`` on.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise InvalidInputError(f"{field} must be a whole number >= {at_least}, got {shown(value)}", field=field)
    return int(value)
