"""The last word on every answer: bounds, rates of change, forbidden choices and rules; compiled at load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BoxAction, BundleManifest, ChoicesAction, DiscreteAction
from rlaas.errors import InvalidInputError
from rlaas.serving.shield_rules import Mask, Rule, Rules
from rlaas.serving.shield_spec import ActionBounds, Forbidden, Shield, ShieldRule

__all__ = ["ActiveShield", "action_of"]

FloatArray = NDArray[np.float64]
Action = BoxAction | DiscreteAction | ChoicesAction


@dataclass(frozen=True, slots=True)
class ActiveShield:
    """A shield that was checked against the policy it guards.

    Attributes:
        bounds: least and greatest [2, n_actions], infinite where there are none; None for choices.
        max_change: from step to step [n_actions], infinite where any is allowed; None where nothing is limited.
        substitutes: what each choice becomes, by component; None where none is forbidden.
        rules: None where there are none.
    """

    bounds: FloatArray | None
    max_change: FloatArray | None
    substitutes: tuple[NDArray[np.int64], ...] | None
    rules: Rules | None

    @classmethod
    def of(cls, shield: Shield, manifest: BundleManifest) -> ActiveShield:
        """Check a shield against a policy.

        Raises:
            InvalidInputError: bounds of another length or beyond the action space, an unknown choice or name, or rules
                that contradict one another; names the field.
        """
        action = manifest.action
        if isinstance(action, BoxAction):
            if shield.forbidden:
                raise InvalidInputError("shield.forbidden is for policies that choose", field="shield.forbidden")
            bounds: FloatArray | None = _bounds(shield.bounds, action, "shield.bounds")
        else:
            for name in ("bounds", "max_change"):
                if getattr(shield, name) is not None:
                    raise InvalidInputError(f"shield.{name} is for actions in a box", field=f"shield.{name}")
            bounds = None
        substitutes = None if isinstance(action, BoxAction) else _substitutes(shield.forbidden, action)
        own = cls(bounds, _changes(shield, action), substitutes, None)
        if not shield.rules:
            return own
        rules = Rules.compile(
            shield,
            manifest.observation.names,
            lambda rule: own._rule_bounds(rule, action),
            lambda rule: own._rule_action(rule, action),
        )
        return cls(bounds, own.max_change, substitutes, rules)

    def apply(
        self,
        rows: NDArray[Any],
        actions: NDArray[Any],
        context: Mapping[str, Any] | None = None,
        previous: FloatArray | None = None,
    ) -> NDArray[Any]:
        """What is answered [n, ...] instead of what was chosen; the same array where nothing has to change.

        Args:
            rows: observations [n, n_features].
            actions: chosen ones [n, n_actions], or [n].
            context: of the request.
            previous: actions of the step before [n, n_actions], NaN where unknown.

        Raises:
            InvalidInputError: the context does not say what a rule hangs on.
        """
        fired = self.rules.fired(rows, context) if self.rules is not None else []
        result = actions if self.substitutes is None else _substituted(actions, self.substitutes)
        if self.bounds is not None:
            result = self._within(result, self.bounds, fired, previous)
        for rule, mask in fired:
            if rule.action is not None:
                where = mask if result.ndim == 1 else mask[:, None]
                result = np.where(where, rule.action, result)
        return result if (result != actions).any() else actions

    def check(self, action: NDArray[Any], field: str) -> None:
        """Raise if the shield's own bounds, or its forbidden choices, rule an action [n_actions] out.

        Raises:
            InvalidInputError: they do; names ``field``.
        """
        if self.bounds is not None:
            if ((action < self.bounds[0]) | (action > self.bounds[1])).any():
                raise InvalidInputError(f"{field} lies outside shield.bounds", field=field)
        elif self.substitutes is not None:
            for choice, table in zip(action.tolist(), self.substitutes, strict=True):
                if table[choice] != choice:
                    raise InvalidInputError(f"{field}: choice {choice} is in shield.forbidden", field=field)

    def _within(
        self, actions: FloatArray, bounds: FloatArray, fired: Sequence[tuple[Rule, Mask]], previous: FloatArray | None
    ) -> FloatArray:
        low, high = bounds
        if previous is not None and self.max_change is not None:
            free = np.isnan(previous)
            least = np.where(free, -np.inf, previous - self.max_change)
            most = np.where(free, np.inf, previous + self.max_change)
            actions = np.minimum(np.maximum(actions, least), most)
        for rule, mask in fired:
            if rule.bounds is not None:
                low = np.where(mask[:, None], np.maximum(low, rule.bounds[0]), low)
                high = np.where(mask[:, None], np.minimum(high, rule.bounds[1]), high)
        return np.asarray(np.minimum(np.maximum(actions, low), high))

    def _rule_bounds(self, rule: ShieldRule, action: Action) -> FloatArray:
        where = f"shield.rules.{rule.name}.bounds"
        if not isinstance(action, BoxAction) or self.bounds is None:
            raise InvalidInputError(f"{where} is for actions in a box; fix an action", field=where)
        low, high = _bounds(rule.bounds, action, where)
        low, high = np.maximum(low, self.bounds[0]), np.minimum(high, self.bounds[1])
        apart = np.flatnonzero(low > high)
        if len(apart):
            raise InvalidInputError(
                f"{where} has nothing in common with shield.bounds in component {apart[0]}", field=where
            )
        return np.stack([low, high])

    def _rule_action(self, rule: ShieldRule, action: Action) -> NDArray[Any]:
        where = f"shield.rules.{rule.name}.action"
        found = action_of(rule.action, action, where)
        self.check(found, where)
        return found


def action_of(value: Any, action: Action, field: str) -> NDArray[Any]:
    """An action of the space, as float64 [n_actions] of a box, or int64 [n_components].

    Raises:
        InvalidInputError: it is none; says what is allowed.
    """
    if isinstance(action, DiscreteAction):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < action.n:
            raise InvalidInputError(f"{field} must be a choice from 0 to {action.n - 1}", field=field)
        return np.array([value], dtype=np.int64)
    width = len(action.low) if isinstance(action, BoxAction) else len(action.sizes)
    if not isinstance(value, list | tuple) or len(value) != width:
        raise InvalidInputError(f"{field} must have {width} components, as the policy's actions have", field=field)
    array = np.array(value, dtype=np.float64)
    least = np.array(action.low) if isinstance(action, BoxAction) else np.zeros(width)
    most = np.array(action.high) if isinstance(action, BoxAction) else np.array(action.sizes) - 1.0
    wrong = np.flatnonzero(~((array >= least) & (array <= most)))
    if len(wrong):
        i = wrong[0]
        raise InvalidInputError(f"{field}[{i}] is {array[i]:g}; allowed: {least[i]:g} to {most[i]:g}", field=field)
    if isinstance(action, BoxAction):
        return array
    if (array != np.floor(array)).any():
        raise InvalidInputError(f"{field} must hold whole numbers", field=field)
    return array.astype(np.int64)


def _bounds(bounds: ActionBounds | None, action: BoxAction, field: str) -> FloatArray:
    """Both ends [2, n_actions], infinite where there are none."""
    ends: list[FloatArray] = []
    for name, free in (("low", -np.inf), ("high", np.inf)):
        given = None if bounds is None else getattr(bounds, name)
        if given is not None and len(given) != len(action.low):
            raise InvalidInputError(
                f"{field}.{name} has {len(given)} components; expected {len(action.low)}", field=f"{field}.{name}"
            )
        values = given or (None,) * len(action.low)
        ends.append(np.array([free if value is None else value for value in values]))
        outside = [
            i for i, value in enumerate(values) if value is not None and not action.low[i] <= value <= action.high[i]
        ]
        if outside:
            i = outside[0]
            raise InvalidInputError(
                f"{field}.{name}[{i}] is {values[i]:g}, beyond the action space; allowed: {action.low[i]:g} to "
                f"{action.high[i]:g}",
                field=f"{field}.{name}",
            )
    crossed = np.flatnonzero(ends[0] > ends[1])
    if len(crossed):
        raise InvalidInputError(f"{field}.low is above high in component {crossed[0]}", field=field)
    return np.stack(ends)


def _changes(shield: Shield, action: Action) -> FloatArray | None:
    given = shield.max_change
    if given is None or not isinstance(action, BoxAction):
        return None
    if len(given) != len(action.low):
        raise InvalidInputError(
            f"shield.max_change has {len(given)} components; expected {len(action.low)}", field="shield.max_change"
        )
    return np.array([np.inf if value is None else value for value in given])


def _substitutes(
    forbidden: Sequence[Forbidden], action: DiscreteAction | ChoicesAction
) -> tuple[NDArray[np.int64], ...] | None:
    if not forbidden:
        return None
    sizes = (action.n,) if isinstance(action, DiscreteAction) else action.sizes
    tables = [np.arange(size, dtype=np.int64) for size in sizes]
    seen: set[int] = set()
    for index, entry in enumerate(forbidden):
        where = f"shield.forbidden.{index}"
        if entry.component >= len(sizes) or entry.component in seen:
            told = "is forbidden twice" if entry.component in seen else f"is unknown; allowed: 0 to {len(sizes) - 1}"
            raise InvalidInputError(f"{where}.component {entry.component} {told}", field=f"{where}.component")
        seen.add(entry.component)
        size = sizes[entry.component]
        for name, values in (("choices", entry.choices), ("substitute", (entry.substitute,))):
            if max(values) >= size:
                raise InvalidInputError(
                    f"{where}.{name}: choice {max(values)} is unknown; allowed: 0 to {size - 1}",
                    field=f"{where}.{name}",
                )
        tables[entry.component][list(entry.choices)] = entry.substitute
    return tuple(tables)


def _substituted(actions: NDArray[Any], tables: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    if actions.ndim == 1:
        return np.asarray(tables[0][actions])
    return np.stack([table[actions[:, i]] for i, table in enumerate(tables)], axis=1)
