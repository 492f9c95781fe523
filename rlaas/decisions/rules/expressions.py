"""Expressions of rules as trees: their text, their negation, and their value where some fields are unknown."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from rlaas.decisions.rules.schema import RESERVED, Field, Value, clock

__all__ = [
    "COMPARE",
    "And",
    "Comparison",
    "Expression",
    "Membership",
    "Not",
    "Operator",
    "Or",
    "evaluate",
    "fields_of",
    "joined",
    "negated",
    "normal_form",
    "quantity",
]

Operator = Literal["<", "<=", ">", ">=", "==", "!="]

COMPARE: Mapping[Operator, Callable[[Value, Value], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
OPPOSITE: Mapping[Operator, Operator] = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
WORD = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
UNIT = re.compile(r"[%‰]|[^\W\d_]+(?:/[^\W\d_]+)*")
"""Units that can be written behind a number. Of others (``EUR per 1,000 impressions``) the number stands alone."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a value of the field's type, numbers in the field's unit."""

    field: Field
    operator: Operator
    value: Value

    def __str__(self) -> str:
        name = _name(self.field.name)
        if self.value is True and self.operator == "==":
            return name
        return f"{name} {self.operator} {quantity(self.field, self.value)}"


@dataclass(frozen=True, slots=True)
class Membership:
    """A field that has one of some values."""

    field: Field
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{_name(self.field.name)} in [{', '.join(quantity(self.field, value) for value in self.values)}]"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of an expression."""

    item: Expression

    def __str__(self) -> str:
        return f"not ({self.item})" if isinstance(self.item, And | Or) else f"not {self.item}"


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more expressions; build it with :func:`joined`."""

    items: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(f"({item})" if isinstance(item, And | Or) else str(item) for item in self.items)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of two or more expressions; build it with :func:`joined`."""

    items: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(f"({item})" if isinstance(item, Or) else str(item) for item in self.items)


Expression = Comparison | Membership | Not | And | Or


def joined(kind: type[And] | type[Or], *items: Expression) -> Expression:
    """One or more expressions under one ``and`` or ``or``; those that are one already are spliced in."""
    flat = tuple(part for item in items for part in (item.items if isinstance(item, kind) else (item,)))
    return flat[0] if len(flat) == 1 else kind(flat)


def negated(expression: Expression) -> Expression:
    """The opposite, with every ``not`` pushed down into comparisons (De Morgan), so that none is left."""
    if isinstance(expression, Comparison):
        return Comparison(expression.field, OPPOSITE[expression.operator], expression.value)
    if isinstance(expression, Membership):
        return joined(And, *(Comparison(expression.field, "!=", value) for value in expression.values))
    if isinstance(expression, Not):
        return normal_form(expression.item)
    opposite: type[And] | type[Or] = Or if isinstance(expression, And) else And
    return joined(opposite, *map(negated, expression.items))


def normal_form(expression: Expression) -> Expression:
    """The same meaning without ``not`` and ``in``: comparisons under ``and`` and ``or``."""
    if isinstance(expression, Comparison):
        return expression
    if isinstance(expression, Membership):
        return joined(Or, *(Comparison(expression.field, "==", value) for value in expression.values))
    if isinstance(expression, Not):
        return negated(expression.item)
    return joined(type(expression), *map(normal_form, expression.items))


def evaluate(expression: Expression, known: Mapping[str, Value]) -> bool | None:
    """The value, or None where it hangs on a field that is not known (Kleene's strong three-valued logic, 1938).

    Args:
        expression: of any shape.
        known: values of the right types by field; fields that are absent are unknown.
    """
    if isinstance(expression, Comparison):
        value = known.get(expression.field.name)
        return None if value is None else COMPARE[expression.operator](value, expression.value)
    if isinstance(expression, Membership):
        value = known.get(expression.field.name)
        return None if value is None else value in expression.values
    if isinstance(expression, Not):
        inner = evaluate(expression.item, known)
        return None if inner is None else not inner
    decisive = isinstance(expression, Or)
    results = [evaluate(item, known) for item in expression.items]
    if decisive in results:
        return decisive
    return None if None in results else not decisive


def fields_of(expression: Expression) -> dict[str, Field]:
    """The fields that an expression names, by name, in the order of their first mention."""
    return {field.name: field for field in _mentions(expression)}


def _mentions(expression: Expression) -> Iterator[Field]:
    if isinstance(expression, Comparison | Membership):
        yield expression.field
    else:
        for item in (expression.item,) if isinstance(expression, Not) else expression.items:
            yield from _mentions(item)


def quantity(field: Field, value: Value) -> str:
    """A value of a field as rules write it, with the unit where it can be written."""
    if field.type == "flag":
        return "true" if value else "false"
    if field.type == "text":
        return '"' + "".join(map(_escaped, cast(str, value))) + '"'
    if field.type == "time":
        return clock(cast(float, value))
    number = repr(float(value)).removesuffix(".0")
    writable = UNIT.fullmatch(field.unit) and field.unit not in RESERVED
    return f"{number} {field.unit}" if writable else number


def _escaped(character: str) -> str:
    """A character of a text as rules write it; what no terminal shows goes by its code point."""
    if character in ESCAPES:
        return ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _name(name: str) -> str:
    """A field as rules write it: between backquotes where it is no plain word."""
    plain = WORD.fullmatch(name) and name not in RESERVED
    return name if plain else f"`{name}`"
