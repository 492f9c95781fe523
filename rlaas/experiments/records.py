"""What an experiment logs, a unit's exposures and outcomes, and what is made of it: entries and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlaas.errors import InvalidInputError, shown

__all__ = ["AuditRecord", "Entry", "Exposure", "Outcome", "check_exposure", "check_outcome"]

Reason = Literal["late outcome", "late exposure", "two arms", "no exposure"]

LARGEST = 1e100
"""Size of a value or covariate: sums of squares of many stay within floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """A unit met a variant.

    Attributes:
        unit: sticky key.
        arm: variant that it met.
        time_us: when, UTC, microseconds since the epoch.
        received_us: when the record came in.
        attributes: of the unit, for segments.
        covariates: of the unit from before the exposure, for CUPED.
        propensity: probability with which the unit got this arm, in (0, 1]; None where it was not logged.
    """

    unit: str
    arm: str
    time_us: int
    received_us: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    covariates: Mapping[str, float] = field(default_factory=dict)
    propensity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Values observed for a unit; a higher revision of the same id replaces a lower one, in whole.

    Attributes:
        outcome_id: names the outcome within its unit.
        unit: whose it is.
        time_us: when it happened, UTC, microseconds since the epoch. A record from before the unit's first exposure is
            left out, whatever it corrects.
        received_us: when the record came in.
        values: by name; none at all takes an earlier revision back.
        revision: from 0; of two records with the same one the first received counts.
    """

    outcome_id: str
    unit: str
    time_us: int
    received_us: int
    values: Mapping[str, float]
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A unit with its final value.

    Attributes:
        unit, arm: who, and which variant.
        exposed_us: first exposure, UTC, microseconds since the epoch.
        numerator: value of the unit; of a ratio its numerator.
        denominator: of a ratio; 1 otherwise.
        values: single values within the window, of a quantile metric; empty otherwise.
        attributes, covariates, propensity: of the unit's first exposure.
    """

    unit: str
    arm: str
    exposed_us: int
    numerator: float
    denominator: float = 1.0
    values: tuple[float, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    covariates: Mapping[str, float] = field(default_factory=dict)
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record that changed nothing, and why: too late, a unit seen in two arms, or an outcome of nobody."""

    reason: Reason
    record: Exposure | Outcome


def check_exposure(exposure: Exposure) -> None:
    """Refuse what would break the order or the sums later, far from where it came from.

    Raises:
        InvalidInputError: a name that is no text, a time that is no whole number, a covariate that is no number of
            reasonable size, or a propensity outside (0, 1].
    """
    _check(exposure, ("unit", "arm"), ("time_us", "received_us"), exposure.covariates, "covariates")
    share = exposure.propensity
    if share is not None and (not isinstance(share, int | float) or not 0 < share <= 1):
        raise InvalidInputError(f"propensity must be in (0, 1], got {shown(share)}", field="propensity")


def check_outcome(outcome: Outcome) -> None:
    """The same for an outcome.

    Raises:
        InvalidInputError: a name that is no text, a time or revision that is no whole number, or a value that is no
            number of reasonable size.
    """
    wholes = ("time_us", "received_us", "revision")
    _check(outcome, ("unit", "outcome_id"), wholes, outcome.values, "values")


def _check(
    record: Exposure | Outcome,
    texts: tuple[str, ...],
    wholes: tuple[str, ...],
    numbers: Mapping[str, float],
    numbers_name: str,
) -> None:
    for name in texts:
        if not isinstance(getattr(record, name), str):
            raise InvalidInputError(f"{name} must be text, got {shown(getattr(record, name))}", field=name)
    for name in wholes:
        value = getattr(record, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"{name} must be a whole number, got {shown(value)}", field=name)
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= LARGEST:
            raise InvalidInputError(
                f"{numbers_name}.{name} must be a number of size at most {LARGEST:g}, got {shown(number)}",
                field=f"{numbers_name}.{name}",
            )
