"""Whether expressions can hold together, decided exactly, with an example where they can."""

from __future__ import annotations

from collections.abc import Iterable

from rlaas.decisions.rules.expressions import And, Comparison, Expression, Or, fields_of
from rlaas.decisions.rules.regions import Region, domain, region
from rlaas.decisions.rules.schema import Field, Value
from rlaas.errors import ConfigurationError

__all__ = ["Budget", "satisfy"]

Regions = dict[str, Region]


class Budget:
    """Steps that a check may take: satisfiability with ``or`` is NP-complete, so some rules cannot be checked.

    Args:
        steps: comparisons that may be looked at.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._left = steps

    def spend(self) -> None:
        """Take one step.

        Raises:
            ConfigurationError: none is left.
        """
        self._left -= 1
        if self._left < 0:
            raise ConfigurationError(
                f"the rules are too entangled to be checked for conflicts in {self.steps:,} steps; split rules with "
                "many 'or' into several, or use fewer rules",
                field="rules",
            )


def satisfy(expressions: Iterable[Expression], budget: Budget) -> dict[str, Value] | None:
    """Values of the fields named under which all the expressions hold, or None where there are none.

    Each field has the set of values still possible; comparisons cut it, and the parts of every ``or`` are tried in
    turn. Exact over the floats, texts and flags that the fields can take.

    Args:
        expressions: in normal form (:func:`~rlaas.decisions.rules.expressions.normal_form`).
        budget: shared by all checks of one rule book.

    Raises:
        ConfigurationError: the budget is used up.
    """
    expressions = list(expressions)
    fields: dict[str, Field] = {}
    for expression in expressions:
        fields.update(fields_of(expression))
    whole: Regions = {name: domain(field) for name, field in fields.items()}
    # A stack of its own: as many alternatives as rules have would be too deep for Python's.
    states: list[tuple[list[Expression], Regions]] = [(expressions, whole)]
    while states:
        pending, regions = states.pop()
        alternatives = _cut(pending, regions, budget)
        if alternatives is None:
            continue
        if not alternatives:
            return {name: possible.example() for name, possible in regions.items()}
        smallest = min(alternatives, key=lambda either: len(either.items))
        rest = [either for either in alternatives if either is not smallest]
        states.extend(([item, *rest], dict(regions)) for item in reversed(smallest.items))
    return None


def _cut(pending: Iterable[Expression], regions: Regions, budget: Budget) -> list[Or] | None:
    """Cut ``regions`` to what holds without a choice; the choices left, or None where a field has no value left."""
    alternatives: list[Or] = []
    stack = list(pending)
    while stack:
        expression = stack.pop()
        budget.spend()
        found = _one_field(expression)
        if found is not None:
            name, possible = found
            regions[name] = regions[name] & possible
            if regions[name].empty:
                return None
        elif isinstance(expression, And):
            stack.extend(expression.items)
        elif isinstance(expression, Or):
            alternatives.append(expression)
    return alternatives


def _one_field(expression: Expression) -> tuple[str, Region] | None:
    """The values that an expression over a single field allows, so that its ``or`` needs no choice."""
    if isinstance(expression, Comparison):
        return expression.field.name, region(expression)
    if not isinstance(expression, And | Or):
        return None
    parts = [_one_field(item) for item in expression.items]
    if any(part is None or parts[0] is None or part[0] != parts[0][0] for part in parts):
        return None
    (name, result), *rest = [part for part in parts if part is not None]
    for _, other in rest:
        result = result & other if isinstance(expression, And) else result | other
    return name, result
