"""What a deployment says about safe actions: its shield, and the action that answers when no version can."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from rlaas.decisions.rules import ContextField

__all__ = ["PREVIOUS", "ActionBounds", "ActionValue", "Forbidden", "Shield", "ShieldRule"]

PREVIOUS = "previous_action"
"""Entry of a request's context with the action that the caller took last."""

_MOST_RULES = 200
_LONGEST = 2_000
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]


def _action(value: Any) -> int | tuple[float, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value
    ):
        return tuple(float(one) for one in value)
    raise ValueError("expected a choice (a whole number >= 0), or a list with a finite number for each component")


# Any: a union would name its branches in the paths of errors, and warn whenever it is written.
ActionValue = Annotated[Any, PlainValidator(_action, json_schema_input_type=Whole | list[Number])]
"""An action as answers hold it: a choice (int), or a number for each component (tuple of float)."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionBounds(_Document):
    """Bounds of an action in a box, one for each component; null where the component has none."""

    low: tuple[Number | None, ...] | None = None
    high: tuple[Number | None, ...] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ActionBounds:
        if self.low is None and self.high is None:
            raise ValueError("bounds need low, high or both")
        return self


class Forbidden(_Document):
    """Choices that are never answered, and the one that is answered in their place."""

    choices: tuple[Whole, ...] = Field(min_length=1, max_length=100_000)
    substitute: Whole
    component: Whole = Field(default=0, description="of an action of several choices")

    @model_validator(mode="after")
    def _leads_out(self) -> Forbidden:
        if self.substitute in self.choices:
            raise ValueError(f"substitute {self.substitute} is itself forbidden")
        return self


class ShieldRule(_Document):
    """Tighter bounds, or one fixed action, while a condition holds."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^\w[\w.-]*$", description="unique")
    when: str = Field(max_length=_LONGEST, description="over the policy's features and the shield's context")
    bounds: ActionBounds | None = None
    action: ActionValue | None = None
    priority: int = Field(default=0, strict=True, ge=-1_000_000, le=1_000_000, description="of fixed actions")

    @model_validator(mode="after")
    def _does_one_thing(self) -> ShieldRule:
        if (self.bounds is None) == (self.action is None):
            raise ValueError(f"rule {self.name!r} needs exactly one of bounds and action")
        return self


class Shield(_Document):
    """What every answer of a deployment keeps, whatever its policy chose.

    Applied in this order, so that the later wins where two cannot both hold: forbidden choices, ``max_change``, bounds
    (the shield's own and those of the rules that fire), fixed actions.
    """

    bounds: ActionBounds | None = Field(default=None, description="within the action space")
    max_change: tuple[Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None, ...] | None = Field(
        default=None, description="from step to step of a session, for each component in its unit; null: any"
    )
    forbidden: tuple[Forbidden, ...] = ()
    context: dict[str, ContextField] = Field(
        default_factory=dict, max_length=200, description="of a request, that rules may read"
    )
    rules: tuple[ShieldRule, ...] = Field(default=(), max_length=_MOST_RULES)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing ever."""
        return self.bounds is None and self.max_change is None and not self.forbidden and not self.rules
