"""The context that rules are asked in: values by field, checked, with what is absent left unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.decisions.rules.lexer import tokens
from rlaas.decisions.rules.schema import DAY, Field, Value, finite_number, seconds
from rlaas.decisions.rules.units import in_unit
from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown

__all__ = ["check_context", "read_context"]


def check_context(fields: Mapping[str, Field], context: Mapping[str, Any]) -> dict[str, Value]:
    """The known values of a context; fields that are absent or None are unknown and left out.

    Args:
        fields: declared ones by name.
        context: a number, a text, a boolean, or for a time of day ``"HH:MM"``, ``"HH:MM:SS"`` or seconds since
            midnight.

    Raises:
        InvalidInputError: an undeclared name, or a value of the wrong type, not finite, or out of range.
    """
    if not isinstance(context, Mapping):
        raise InvalidInputError(f"context must be a mapping of field to value, got {shown(context)}", field="context")
    known: dict[str, Value] = {}
    for name, value in context.items():
        check_choice(name, fields, field="context field", error=InvalidInputError)
        if value is not None:
            known[name] = _context_value(fields[name], value)
    return known


def _context_value(field: Field, value: Any) -> Value:
    where = f"context.{field.name}"
    if field.type == "flag":
        if not isinstance(value, bool):
            raise InvalidInputError(f"{where} must be true or false, got {shown(value)}", field=where)
        return value
    if field.type == "text":
        if not isinstance(value, str):
            raise InvalidInputError(f"{where} must be a text, got {shown(value)}", field=where)
        return field.check(value, error=InvalidInputError)
    if field.type == "time" and isinstance(value, str):
        return seconds(value, field=where, error=InvalidInputError)
    number = finite_number(value)
    if number is None:
        raise InvalidInputError(f"{where} must be a finite number, got {shown(value)}", field=where)
    if field.type == "time" and not 0 <= number < DAY:
        raise InvalidInputError(
            f"{where} is {number:g}; allowed: HH:MM, or seconds since midnight from 0 to below {DAY:g}", field=where
        )
    return field.check(number, error=InvalidInputError)


def read_context(fields: Mapping[str, Field], texts: Mapping[str, str]) -> dict[str, Value]:
    """The values of a context given as texts: ``{"load": "95 %", "slice": "urllc", "alarm": "true", "time": "22:30"}``.

    Args:
        fields: declared ones by name.
        texts: numbers with or without a unit that converts into the field's.

    Raises:
        InvalidInputError: an undeclared name, or a text that is no value of its field.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        check_choice(name, fields, field="context field", error=InvalidInputError)
        values[name] = _read(fields[name], text)
    return check_context(fields, values)


def _read(field: Field, text: str) -> Any:
    where = f"context.{field.name}"
    if field.type == "number":
        try:
            words = tokens(text)
            if [word.kind for word in words] == ["number", "end"]:
                return in_unit(words[0].number, words[0].unit, field.unit)
        except ConfigurationError as problem:
            raise InvalidInputError(f"{where} is {shown(text)}: {problem.message}", field=where) from problem
        raise InvalidInputError(f"{where} must be a number with or without a unit, got {shown(text)}", field=where)
    if field.type == "flag":
        return check_choice(text, ("true", "false"), field=where, error=InvalidInputError) == "true"
    return text
