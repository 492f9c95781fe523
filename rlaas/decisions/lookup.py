"""Switching modes by a lookup: choices made beforehand, swapped as a whole when the front changes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlaas.decisions.contest import Requirements
from rlaas.decisions.methods import Method, method_named
from rlaas.decisions.resolver import Choice, resolve
from rlaas.errors import InvalidInputError, check_choice
from rlaas.fronts import Front
from rlaas.objectives import Mode

__all__ = ["RULE_SETS", "Resolver"]

RULE_SETS = 256
"""Sets of prepared rules whose choices are kept, per front; the oldest goes first."""

Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """All that answers come from: replaced, never changed, but for choices that are added under other rules."""

    front: Front
    modes: Mapping[str, Mode]
    choices: Mapping[str, Choice]
    under_rules: dict[Key, Choice] = field(default_factory=dict)


class Resolver:
    """Choices from one front under named modes, each with its certificate, ready before anybody asks.

    Safe to use from many threads: readers take one reference to an immutable state and never wait; writers prepare
    a new state aside and swap it in, one at a time. A writer that fails leaves the old state.

    Args:
        front: candidates with their objective values.
        modes: by name; their objectives must be the front's.
        method, normalisation, disagreement: as for :func:`rlaas.decisions.resolve`.

    Raises:
        InvalidInputError: no mode, a mode under another name than its own, or what
            :func:`rlaas.decisions.resolve` refuses.
    """

    def __init__(
        self,
        front: Front,
        modes: Mapping[str, Mode],
        *,
        method: str | Method = "topsis",
        normalisation: str = "range",
        disagreement: Mapping[str, float] | None = None,
    ) -> None:
        if isinstance(method, str):
            method = method_named(method, normalisation=normalisation, disagreement=disagreement)
        if not modes:
            raise InvalidInputError("a resolver needs at least one mode", field="modes")
        for name, mode in modes.items():
            if name != mode.name:
                raise InvalidInputError(f"mode {mode.name!r} stands under the name {name!r}", field="modes")
        self._method = method
        self._writing = threading.Lock()
        self._adding = threading.Lock()
        self._prepared = self._prepare(front, modes)

    @property
    def front(self) -> Front:
        """The front that choices come from."""
        return self._prepared.front

    @property
    def modes(self) -> tuple[str, ...]:
        """Names of the modes."""
        return tuple(self._prepared.modes)

    def choose(self, mode: str, *, rules: Requirements | None = None) -> Choice:
        """The choice under a mode: a lookup, no scoring.

        With prepared ``rules`` the first question under a set of them (told apart by its description) scores and
        keeps the answer; every later one is a lookup too.

        Raises:
            InvalidInputError: an unknown mode, or requirements that do not fit the front.
        """
        prepared = self._prepared
        choice = prepared.choices.get(mode) if isinstance(mode, str) else None
        if choice is None:
            check_choice(mode, prepared.modes, field="mode", error=InvalidInputError)
        texts = () if rules is None else tuple(rules.describe())
        if not texts and choice is not None:
            return choice
        found = prepared.under_rules.get((mode, texts))
        if found is None:
            found = resolve(prepared.front, mode=prepared.modes[mode], method=self._method, rules=rules)
            with self._adding:
                if len(prepared.under_rules) >= RULE_SETS:
                    prepared.under_rules.pop(next(iter(prepared.under_rules)))
                prepared.under_rules[mode, texts] = found
        return found

    def replace(self, front: Front) -> None:
        """Choose from another front from now on; answers come from the old one until all choices are made.

        Raises:
            InvalidInputError: what :func:`rlaas.decisions.resolve` refuses; the old front stays.
        """
        with self._writing:
            self._prepared = self._prepare(front, self._prepared.modes)

    def set_mode(self, mode: Mode) -> Choice:
        """Add a mode, or replace the one of its name (such as one whose weights follow the context).

        Raises:
            InvalidInputError: what :func:`rlaas.decisions.resolve` refuses; the old mode stays.
        """
        with self._writing:
            old = self._prepared
            choice = resolve(old.front, mode=mode, method=self._method)
            with self._adding:
                kept = {key: found for key, found in old.under_rules.items() if key[0] != mode.name}
            self._prepared = _Prepared(
                front=old.front,
                modes={**old.modes, mode.name: mode},
                choices={**old.choices, mode.name: choice},
                under_rules=kept,
            )
            return choice

    def _prepare(self, front: Front, modes: Mapping[str, Mode]) -> _Prepared:
        choices = {name: resolve(front, mode=mode, method=self._method) for name, mode in modes.items()}
        return _Prepared(front=front, modes=dict(modes), choices=choices)
