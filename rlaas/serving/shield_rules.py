"""Conditions of a shield: compiled for rows of observations, and checked against one another.

The language is that of :mod:`rlaas.decisions.rules.syntax`, over the features of the policy's observation, as the
network sees them, and the context fields that the shield declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.rules import Field, Scope, parse
from rlaas.decisions.rules.context import check_context
from rlaas.decisions.rules.expressions import (
    COMPARE,
    And,
    Comparison,
    Expression,
    Or,
    fields_of,
    normal_form,
    quantity,
)
from rlaas.decisions.rules.satisfy import Budget, satisfy
from rlaas.decisions.rules.schema import Value
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.serving.shield_spec import PREVIOUS, Shield, ShieldRule

__all__ = ["Mask", "Rule", "Rules", "fields_of_shield"]

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Condition = Callable[[Sequence[Any], Mapping[str, Value], bool], Any]
"""Columns (numbers of one row, or arrays [n]), known context, and what a comparison with an unknown field counts as.

The answer is a bool for all rows, or a mask [n].
"""

STEPS = 1_000_000
"""Of the search for conflicts."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was checked against the policy.

    Attributes:
        name: unique.
        priority: of fixed actions: the highest of those that fire together is taken.
        expression: in normal form.
        condition: the same, compiled.
        reads: context fields that it reads.
        bounds: least and greatest [2, n_actions], infinite where there are none; None with an action.
        action: that is answered [n_actions] or [1]; None with bounds.
    """

    name: str
    priority: int
    expression: Expression
    condition: Condition
    reads: tuple[str, ...]
    bounds: FloatArray | None
    action: NDArray[Any] | None


class Rules:
    """The rules of a shield.

    Args:
        rules: as :meth:`compile` makes them, by ascending priority.
        context: declared fields by name.
    """

    def __init__(self, rules: Sequence[Rule], context: Mapping[str, Field]) -> None:
        self._rules = tuple(rules)
        self._context = context

    def fired(self, rows: NDArray[Any], context: Mapping[str, Any] | None) -> list[tuple[Rule, Mask]]:
        """The rules that hold for some of the rows, by ascending priority, with where they do [n].

        Args:
            rows: observations [n, n_features].
            context: of the request; entries that the shield does not declare are the caller's own.

        Raises:
            InvalidInputError: a declared entry is of the wrong type or range, or one is missing on which it hangs
                whether a rule holds: what cannot be judged is not answered.
        """
        given = {name: value for name, value in (context or {}).items() if name in self._context}
        known = check_context(self._context, given) if given else {}
        # Plain numbers for one row: an order of magnitude cheaper than arrays of one.
        columns: Any = rows[0].tolist() if len(rows) == 1 else rows.T.astype(np.float64)
        found: list[tuple[Rule, Mask]] = []
        for rule in self._rules:
            holds = rule.condition(columns, known, False)
            missing = [name for name in rule.reads if name not in known]
            if missing and np.any(rule.condition(columns, known, True) != holds):
                raise InvalidInputError(
                    f"context.{missing[0]} is needed: rule {rule.name!r} of the shield hangs on it",
                    field=f"context.{missing[0]}",
                )
            if holds is not False and np.any(holds):
                found.append((rule, holds if isinstance(holds, np.ndarray) else np.full(len(rows), True)))
        return found

    @classmethod
    def compile(
        cls,
        shield: Shield,
        features: Sequence[str],
        bounds: Callable[[ShieldRule], FloatArray],
        action: Callable[[ShieldRule], NDArray[Any]],
    ) -> Rules:
        """Check and compile the rules of a shield.

        Args:
            shield: the document.
            features: names of the policy's observation.
            bounds: those of a rule within the shield's own [2, n_actions].
            action: the fixed one of a rule, checked.

        Raises:
            InvalidInputError: an unknown name, no expression, two rules of one name, one that can never fire, or two
                that can fire together and not both hold; names the rule.
        """
        fields = fields_of_shield(shield, features)
        scope = Scope(fields.values())
        position = {name: index for index, name in enumerate(features)}
        rules: list[Rule] = []
        for rule in shield.rules:
            where = f"shield.rules.{rule.name}"
            if any(other.name == rule.name for other in rules):
                raise InvalidInputError(f"two rules of the shield are named {rule.name!r}", field=f"{where}.name")
            try:
                expression = normal_form(parse(rule.when, scope))
            except ConfigurationError as problem:
                raise InvalidInputError(f"{where}.when: {problem.message}", field=f"{where}.when") from problem
            rules.append(
                Rule(
                    name=rule.name,
                    priority=rule.priority,
                    expression=expression,
                    condition=_compiled(expression, position),
                    reads=tuple(name for name in fields_of(expression) if name not in position),
                    bounds=None if rule.bounds is None else bounds(rule),
                    action=None if rule.action is None else action(rule),
                )
            )
        _check_together(rules)
        return cls(sorted(rules, key=lambda rule: rule.priority), {name: fields[name] for name in shield.context})


def fields_of_shield(shield: Shield, features: Sequence[str]) -> dict[str, Field]:
    """What conditions can name: features, whose values are any number, and the declared context.

    Raises:
        InvalidInputError: a context field that is a feature, is reserved, or has no proper name.
    """
    fields = {name: Field(name=name, type="number") for name in features}
    for name, declared in shield.context.items():
        where = f"shield.context.{name}"
        if name in fields or name == PREVIOUS:
            taken = "a feature of the policy" if name in fields else "reserved for the caller's last action"
            raise InvalidInputError(f"{where} is {taken}; take another name", field=where)
        try:
            fields[name] = declared.named(name)
        except ConfigurationError as problem:
            raise InvalidInputError(f"shield.{problem.message}", field=where) from problem
    return fields


def _compiled(expression: Expression, position: Mapping[str, int]) -> Condition:
    if isinstance(expression, Comparison):
        name, value, compare = expression.field.name, expression.value, COMPARE[expression.operator]
        column = position.get(name)

        def one(columns: Sequence[Any], known: Mapping[str, Value], open_: bool) -> Any:
            if column is not None:
                return compare(columns[column], value)
            return compare(known[name], value) if name in known else open_

        return one
    assert isinstance(expression, And | Or)  # the normal form has nothing else
    parts = [_compiled(item, position) for item in expression.items]
    conjunction = isinstance(expression, And)

    def whole(columns: Sequence[Any], known: Mapping[str, Value], open_: bool) -> Any:
        result = parts[0](columns, known, open_)
        for part in parts[1:]:
            result = result & part(columns, known, open_) if conjunction else result | part(columns, known, open_)
        return result

    return whole


def _check_together(rules: Sequence[Rule]) -> None:
    """Refuse rules that can never fire, and pairs that can fire together and not both hold.

    Pairs are enough: intervals of which every two meet have a point in common (Helly 1923), component by component.
    """
    budget = Budget(STEPS)
    try:
        for rule in rules:
            if satisfy([rule.expression], budget) is None:
                where = f"shield.rules.{rule.name}.when"
                raise InvalidInputError(f"{where}: no observation and context fulfils it", field=where)
        for one, other in combinations(rules, 2):
            clash = _clash(one, other)
            witness = satisfy([one.expression, other.expression], budget) if clash else None
            if witness is not None:
                fields = {**fields_of(one.expression), **fields_of(other.expression)}
                example = ", ".join(f"{name} = {quantity(fields[name], value)}" for name, value in witness.items())
                raise InvalidInputError(
                    f"rules {one.name!r} and {other.name!r} of the shield fire together, for example where {example}, "
                    f"but {clash}",
                    field=f"shield.rules.{other.name}",
                )
    except ConfigurationError as problem:
        raise InvalidInputError(f"shield.rules: {problem.message}", field="shield.rules") from problem


def _clash(one: Rule, other: Rule) -> str:
    """Why two rules cannot both hold; empty if they can."""
    if one.action is not None and other.action is not None:
        if one.priority == other.priority and not np.array_equal(one.action, other.action):
            return "fix different actions at the same priority; give one a higher priority"
        return ""
    if one.bounds is not None and other.bounds is not None:
        apart = np.flatnonzero(np.maximum(one.bounds[0], other.bounds[0]) > np.minimum(one.bounds[1], other.bounds[1]))
        return f"their bounds have nothing in common in component {apart[0]}" if len(apart) else ""
    fixed, bounded = (one, other) if one.action is not None else (other, one)
    outside = bounded.bounds is not None and bool(
        ((fixed.action < bounded.bounds[0]) | (fixed.action > bounded.bounds[1])).any()
    )
    return f"the action of {fixed.name!r} lies outside the bounds of {bounded.name!r}" if outside else ""
