"""Who an experiment is for: small typed predicates over the attributes of a unit.

A rule is a :class:`Condition`, or :class:`AllOf` / :class:`AnyOf` of rules. It is total: an attribute that is missing,
null, or of a kind that the operator does not compare makes every condition false but ``exists: false``, and never
raises. So a negation does not let in a unit of which nothing is known.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    field_validator,
    model_validator,
)

__all__ = ["AllOf", "AnyOf", "Condition", "Matcher", "Scalar", "TargetingRule", "matcher"]

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
"""What an attribute is compared with: a truth value, a number or a text, as in JSON."""

Matcher = Callable[[Mapping[str, Any]], bool]
Operator = Literal["equals", "not_equals", "in", "not_in", "less", "at_most", "greater", "at_least", "exists"]

MAX_DEPTH = 8
"""Levels of ``all`` and ``any`` within one another."""

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "less": operator.lt,
    "at_most": operator.le,
    "greater": operator.gt,
    "at_least": operator.ge,
}


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Document):
    """One attribute compared with a value.

    ``equals`` and ``not_equals`` take a scalar, ``in`` and ``not_in`` a list of them, the four orders a finite number,
    ``exists`` true or false. Numbers equal numbers (1 is 1.0), but neither a truth value nor a text.
    """

    attribute: str = Field(min_length=1, max_length=128)
    operator: Operator
    value: Scalar | tuple[Scalar, ...]

    @model_validator(mode="after")
    def _value_fits(self) -> Condition:
        kind, value = self.operator, self.value
        if kind in ("in", "not_in"):
            if not isinstance(value, tuple) or not 1 <= len(value) <= 10_000:
                raise ValueError(f"value of operator {kind!r} must be a list of 1 to 10,000 scalars")
        elif isinstance(value, tuple):
            raise ValueError(f"value of operator {kind!r} must be a scalar, not a list")
        elif kind == "exists" and not isinstance(value, bool):
            raise ValueError("value of operator 'exists' must be true or false")
        elif kind in _ORDER and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"value of operator {kind!r} must be a number")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"value must be finite, got {one}")
        return self


class AllOf(_Document):
    """True where every rule of the list is."""

    all: tuple[TargetingRule, ...] = Field(min_length=1, max_length=100)

    @field_validator("all")
    @classmethod
    def _shallow(cls, value: tuple[TargetingRule, ...]) -> tuple[TargetingRule, ...]:
        return _checked_depth(value)


class AnyOf(_Document):
    """True where at least one rule of the list is."""

    any: tuple[TargetingRule, ...] = Field(min_length=1, max_length=100)

    @field_validator("any")
    @classmethod
    def _shallow(cls, value: tuple[TargetingRule, ...]) -> tuple[TargetingRule, ...]:
        return _checked_depth(value)


def _kind(value: Any) -> str:
    """Which rule a document is, by its key: errors then name the field within it and not every alternative."""
    for key, kind in (("all", "all"), ("any", "any")):
        if (key in value) if isinstance(value, Mapping) else hasattr(value, key):
            return kind
    return "condition"


TargetingRule = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated[AllOf, Tag("all")] | Annotated[AnyOf, Tag("any")],
    Discriminator(_kind),
]
"""A condition, all of several rules, or any of them."""

AllOf.model_rebuild()
AnyOf.model_rebuild()


def matcher(rule: Condition | AllOf | AnyOf) -> Matcher:
    """The rule as a function of a unit's attributes; built once, called for every unit."""
    if isinstance(rule, Condition):
        return _condition(rule)
    parts = tuple(matcher(part) for part in (rule.all if isinstance(rule, AllOf) else rule.any))
    if len(parts) == 1:
        return parts[0]
    wanted = isinstance(rule, AnyOf)

    def match(attributes: Mapping[str, Any]) -> bool:
        for part in parts:  # all(...) over a generator costs twice as much
            if part(attributes) is wanted:
                return wanted
        return not wanted

    return match


def _condition(rule: Condition) -> Matcher:
    name, value = rule.attribute, rule.value
    if rule.operator == "exists":
        wanted = value is True
        return lambda attributes: (attributes.get(name) is not None) is wanted
    if rule.operator in _ORDER:
        compare = _ORDER[rule.operator]

        def ordered(attributes: Mapping[str, Any]) -> bool:
            found = attributes.get(name)
            return isinstance(found, int | float) and not isinstance(found, bool) and bool(compare(found, value))

        return ordered
    negated = rule.operator in ("not_equals", "not_in")
    given = value if isinstance(value, tuple) else (value,)
    # Apart by kind: in Python alone True would be 1.
    texts = frozenset(one for one in given if isinstance(one, str))
    truths = frozenset(one for one in given if isinstance(one, bool))
    numbers = frozenset(one for one in given if isinstance(one, int | float) and not isinstance(one, bool))

    def among(attributes: Mapping[str, Any]) -> bool:
        found = attributes.get(name)
        if isinstance(found, str):
            return (found in texts) is not negated
        if isinstance(found, bool):
            return (found in truths) is not negated
        # A NaN equals nothing and differs from nothing: it is as good as missing.
        if isinstance(found, int | float) and found == found:  # noqa: PLR0124
            return (found in numbers) is not negated
        return False

    return among


def _checked_depth(rules: tuple[Any, ...]) -> tuple[Any, ...]:
    if _depth(rules) >= MAX_DEPTH:
        raise ValueError(f"all and any may stand within one another at most {MAX_DEPTH} levels deep")
    return rules


def _depth(rules: tuple[Any, ...]) -> int:
    """Levels of all and any below."""
    inner = [rule.all if isinstance(rule, AllOf) else rule.any for rule in rules if not isinstance(rule, Condition)]
    return max((1 + _depth(part) for part in inner), default=0)
