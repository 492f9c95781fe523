"""What rules may name: fields of the context, objectives, and what a candidate says about itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, StrictStr, model_validator
from pydantic import Field as Key

from rlaas.errors import ConfigurationError, RequestError, check_choice, shown
from rlaas.fronts import CandidateKind
from rlaas.objectives import Objective

__all__ = [
    "DAY",
    "ContextField",
    "Field",
    "Scope",
    "Value",
    "clock",
    "finite_number",
    "objective_scope",
    "seconds",
]

Refusal = type[RequestError]
FieldType = Literal["number", "text", "flag", "time"]
Value = float | str | bool
"""A number in its field's unit, a text, a flag, or a time of day in seconds since midnight."""

DAY = 86_400.0
PARAMETERS = "parameters."
CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
IDENTIFIER = re.compile(r"[^\W\d]\w*")
RESERVED = frozenset({"and", "or", "not", "in", "true", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A name that a rule can compare with a value.

    Attributes:
        name: as rules write it.
        type: ``number``, ``text``, ``flag`` or ``time`` (of day).
        unit: of a number; ``""`` for a dimensionless one.
        low, high: least and greatest number that it takes, both included.
        choices: texts that it takes; empty for any.
    """

    name: str
    type: FieldType
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def check(self, value: Value, *, error: Refusal = ConfigurationError) -> Value:
        """``value``, of the field's type, if the field can take it.

        Raises:
            RequestError: (of the given type) it lies outside of the range or is none of the choices.
        """
        if isinstance(value, str):
            if self.choices:
                check_choice(value, self.choices, field=f"value of {self.name}", error=error)
        elif self.type == "number" and not self.low <= value <= self.high:
            unit = f" {self.unit}" if self.unit else ""
            raise error(
                f"{self.name} = {value:g}{unit} is out of range; allowed: {self.low:g} to {self.high:g}{unit}",
                field=self.name,
            )
        return value


class ContextField(BaseModel):
    """What a rule file declares of one field of the context."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: FieldType
    unit: StrictStr = Key(default="", max_length=60, description="of a number")
    range: tuple[float, float] | None = Key(default=None, description="least and greatest number, both included")
    choices: tuple[StrictStr, ...] = Key(default=(), max_length=200, description="of a text")
    description: StrictStr = Key(default="")

    @model_validator(mode="after")
    def _fits_its_type(self) -> ContextField:
        if self.type != "number" and (self.unit or self.range is not None):
            raise ValueError(f"unit and range belong to type number, not to {self.type}")
        if self.type != "text" and self.choices:
            raise ValueError(f"choices belong to type text, not to {self.type}")
        if not all(text.isprintable() for text in (self.unit, *self.choices)):
            raise ValueError("unit and choices are printable texts on one line")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices name one twice")
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range must be two finite numbers with low < high, got [{low:g}, {high:g}]")
        return self

    def named(self, name: str) -> Field:
        """The field under its name.

        Raises:
            ConfigurationError: a name that no rule could write.
        """
        if not IDENTIFIER.fullmatch(name) or name in RESERVED:
            raise ConfigurationError(
                f"context field {shown(name)} is no name; allowed: letters, digits and _, but no digit first, and none "
                f"of {', '.join(sorted(RESERVED))}",
                field=f"context.{name}",
            )
        low, high = self.range or (-math.inf, math.inf)
        return Field(name=name, type=self.type, unit=self.unit, low=low, high=high, choices=self.choices)


class Scope:
    """The fields that one kind of expression can name.

    Args:
        fields: by name.
        parameters: whether ``parameters.<path>`` is a field too: a candidate's parameter, whose type is that of the
            first value it is compared with.
    """

    def __init__(self, fields: Iterable[Field], *, parameters: bool = False) -> None:
        self._fields = {field.name: field for field in fields}
        self._parameters: dict[str, Field] | None = {} if parameters else None

    def field(self, name: str, compared_with: FieldType) -> Field:
        """The field of a name that an expression compares with a value of some type.

        Raises:
            ConfigurationError: no such field, or a parameter that was compared with another type before.
        """
        if self._parameters is not None and name.startswith(PARAMETERS) and name not in self._fields:
            if compared_with == "time":
                raise ConfigurationError(
                    f"{name} is no time of day; allowed: a number, a text, true, false", field=name
                )
            known = self._parameters.setdefault(name, Field(name=name, type=compared_with))
            if known.type != compared_with:
                raise ConfigurationError(
                    f"{name} is compared with a {compared_with} here and with a {known.type} before", field=name
                )
            return known
        if name not in self._fields:
            allowed = [*sorted(self._fields), *([f"{PARAMETERS}<name>"] if self._parameters is not None else [])]
            raise ConfigurationError(
                f"unknown field {shown(name)}; allowed: {', '.join(allowed) or '(none)'}", field="field"
            )
        return self._fields[name]


def objective_scope(objectives: Sequence[Objective]) -> Scope:
    """What requirements can name: objectives in their units, and ``kind``, ``name``, ``seeds``, ``parameters.<path>``.

    An objective that has one of these names hides it.
    """
    own = (
        Field(name="kind", type="text", choices=get_args(CandidateKind)),
        Field(name="name", type="text"),
        Field(name="seeds", type="number", low=0),
    )
    values = (Field(name=o.name, type="number", unit=o.unit) for o in objectives)
    return Scope((*own, *values), parameters=True)


def finite_number(value: Any) -> float | None:
    """``value`` as a float, or None where it is no finite real number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        return None
    return number if math.isfinite(number) else None


def seconds(text: str, *, field: str = "time", error: type[RequestError] = ConfigurationError) -> float:
    """Seconds since midnight of ``HH:MM`` or ``HH:MM:SS``.

    Raises:
        RequestError: (of the given type) no such time.
    """
    match = CLOCK.fullmatch(text)
    hour, minute, second = (int(part or 0) for part in match.groups()) if match else (24, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        raise error(f"{shown(text)} is no time of day; allowed: 00:00 to 23:59, or with seconds HH:MM:SS", field=field)
    return float(hour * 3600 + minute * 60 + second)


def clock(moment: float) -> str:
    """A time of day as text, to the second below: ``HH:MM``, with ``:SS`` where it is no whole minute."""
    minutes, second = divmod(int(moment), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if second else "")
