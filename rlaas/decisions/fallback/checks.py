"""What a fallback resolver can work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaas.errors import ConfigurationError, shown
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective

__all__ = ["check_size", "positive_age", "safe_candidate", "unusable"]


def safe_candidate(given: Candidate | Mapping[str, Any], objectives: int) -> Candidate:
    """The safe default as a candidate; one of parameters alone has no objectives.

    Raises:
        ConfigurationError: neither, or a candidate with another number of objectives.
    """
    if isinstance(given, Candidate):
        check_size(given, objectives, field="safe_default")
        return given
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"safe_default must be a Candidate or its parameters, got {shown(given)}", field="safe_default"
        )
    return Candidate(name="safe_default", kind="configuration", mean=(), half_width=(), parameters=dict(given))


def check_size(candidate: object, objectives: int, *, field: str) -> Candidate:
    """``candidate``, unless it is none or has another number of objectives.

    Raises:
        ConfigurationError: naming ``field``.
    """
    if not isinstance(candidate, Candidate) or len(candidate.mean) != objectives:
        raise ConfigurationError(
            f"{field} must be a Candidate with {objectives} objectives, got {shown(candidate)}", field=field
        )
    return candidate


def positive_age(value: float, *, field: str) -> float:
    """``value`` in seconds, above 0; infinite is allowed.

    Raises:
        ConfigurationError: naming ``field``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(f"{field} must be a number of seconds > 0, got {shown(value)}", field=field)
    return float(value)


def _signed(objectives: Sequence[Objective]) -> str:
    return ", ".join(f"{o.name} [{o.unit}] ({o.direction})" for o in objectives)


def unusable(front: Front, scenario: str, objectives: Sequence[Objective]) -> str | None:
    """Why a front is none of a scenario and its objectives (by name, unit and direction; ranges may move), or None."""
    if front.scenario != scenario:
        return f"the front is of scenario {front.scenario!r}; expected {scenario!r}"
    if not front.candidates:
        return "the front has no candidate"
    wanted = {(o.name, o.unit, o.direction) for o in objectives}
    given = {(o.name, o.unit, o.direction) for o in front.objectives}
    if wanted != given or len(front.objectives) != len(objectives):
        return f"the front has the objectives {_signed(front.objectives)}; expected {_signed(objectives)}"
    if any(len(candidate.mean) != len(objectives) for candidate in front.candidates):
        return "a candidate of the front lacks objectives"
    return None
