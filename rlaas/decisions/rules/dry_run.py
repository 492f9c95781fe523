"""What rules would do to a front in given contexts, before anything depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.contest import preference_weights, rule_gaps
from rlaas.decisions.rules.applied import Applied
from rlaas.decisions.rules.book import RuleBook
from rlaas.decisions.rules.compilation import CompiledRule
from rlaas.decisions.rules.expressions import quantity
from rlaas.fronts import Front
from rlaas.objectives import Mode

__all__ = ["HEADINGS", "Choose", "ContextRun", "DryRun", "ModeUnder", "RuleRun", "Status", "dry_run"]

FloatArray = NDArray[np.float64]

Choose = Callable[[Front, Applied], str | None]
"""The name of the candidate that is chosen under some rules; None for no choice."""

ModeUnder = Callable[[Applied], Mode]
"""The mode that is chosen by under some rules: theirs, or the caller's own where they set none."""

Status = Literal["active", "idle", "unknown", "shadowed", "yielded"]

HEADINGS = ("context", "rule", "status", "does", "why", "excludes", "alone", "room", "short by", "changes the choice")
"""Of the rows of :meth:`DryRun.rows`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRun:
    """One rule in one context.

    Attributes:
        rule: its name; of a mode's own rule ``<mode>/<objective>``.
        status: ``active``; ``idle``: its ``when`` is false; ``unknown``: the context says too little; ``shadowed``: it
            fired, but a rule of higher priority set the mode; ``yielded``: it fired, but cannot be kept together with
            rules of higher priority.
        effect: what it does, as text.
        why: the reason for the status.
        excludes: candidates that break it; None unless it is an active requirement, as with the next three.
        only_it: of those, candidates that keep every other active requirement and the own rules of the mode: without
            the rule they would compete. The rule *binds* where there are any.
        room: how near the nearest of the candidates that keep it comes to breaking it, in the unit of
            :meth:`~rlaas.decisions.rules.Requirement.constraint`; None where no candidate keeps it.
        shortfall: how far the nearest of those that break it misses it; None where none does.
        changes_choice: whether another candidate would be chosen without the rule; None where nobody chose, or the rule
            is idle or unknown.
    """

    rule: str
    status: Status
    effect: str
    why: str
    excludes: int | None = None
    only_it: int | None = None
    room: float | None = None
    shortfall: float | None = None
    changes_choice: bool | None = None

    @property
    def binds(self) -> bool:
        """Whether it excludes a candidate that nothing else excludes."""
        return bool(self.only_it)

    def to_dict(self) -> dict[str, Any]:
        """The run of the rule as plain JSON types."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "binds": self.binds}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRun:
    """All rules in one context.

    Attributes:
        applied: what the rules say.
        candidates: of the front.
        feasible: names of those that keep every active requirement and the own rules of the mode.
        choice: what was chosen; None where nobody chose.
        rules: one entry per rule, in order of priority.
        mode: that was chosen by; None where nobody said.
        own_rules: one entry per rule that the mode brings with it.
    """

    applied: Applied
    candidates: int
    feasible: tuple[str, ...]
    choice: str | None
    rules: tuple[RuleRun, ...]
    mode: str | None = None
    own_rules: tuple[RuleRun, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The run of the context as plain JSON types."""
        return {
            "applied": self.applied.to_dict(),
            "candidates": self.candidates,
            "feasible": list(self.feasible),
            "choice": self.choice,
            "rules": [rule.to_dict() for rule in self.rules],
            "mode": self.mode,
            "own_rules": [rule.to_dict() for rule in self.own_rules],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A book of rules tried on a front.

    Attributes:
        scenario: of the front.
        runs: one per context, in their order.
        warnings: of the book.
    """

    scenario: str
    runs: tuple[ContextRun, ...]
    warnings: tuple[str, ...]

    def never_fired(self) -> tuple[str, ...]:
        """Rules that fired in none of the contexts."""
        fired = {name for run in self.runs for name in run.applied.fired}
        return tuple(rule.rule for rule in self.runs[0].rules if rule.rule not in fired) if self.runs else ()

    def rows(self) -> list[tuple[str, ...]]:
        """Texts for a table under :data:`HEADINGS`, one row per context and rule; contexts by number from 1.

        The own rules of the mode come last.
        """
        return [
            (
                str(number),
                rule.rule,
                rule.status,
                rule.effect,
                rule.why,
                _count(rule.excludes),
                _count(rule.only_it),
                _figure(rule.room),
                _figure(rule.shortfall),
                "" if rule.changes_choice is None else ("yes" if rule.changes_choice else "no"),
            )
            for number, run in enumerate(self.runs, start=1)
            for rule in (*run.rules, *run.own_rules)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The dry run as plain JSON types."""
        return {
            "scenario": self.scenario,
            "runs": [run.to_dict() for run in self.runs],
            "never_fired": list(self.never_fired()),
            "warnings": list(self.warnings),
        }


def dry_run(
    book: RuleBook,
    front: Front,
    contexts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    choose: Choose | None = None,
    mode: ModeUnder | None = None,
    cautious: bool = False,
) -> DryRun:
    """Try rules on a front, changing nothing.

    Args:
        book: the rules.
        front: candidates that they judge.
        contexts: one, or several.
        choose: called once per context, and once more without each rule that fired, to see whether the choice hangs on
            it; leave it out and that is not said.
        mode: the mode under what the rules say, whose own rules every choice keeps, too; leave it out and only the
            book counts.
        cautious: judge candidates by the worse end of their 95 % confidence interval instead of the mean; the own rules
            of a mode are judged by the mean, as :func:`rlaas.decisions.resolve` does.

    Raises:
        InvalidInputError: a context that does not fit the book, a front without an objective that a rule names, or a
            mode over other objectives than the front's.
    """
    several = [contexts] if isinstance(contexts, Mapping) else contexts
    runs = tuple(_run(book, front, context, choose, mode, cautious) for context in several)
    return DryRun(scenario=front.scenario, runs=runs, warnings=book.warnings)


def _run(
    book: RuleBook,
    front: Front,
    context: Mapping[str, Any],
    choose: Choose | None,
    mode_under: ModeUnder | None,
    cautious: bool,
) -> ContextRun:
    applied = book.apply(context, cautious=cautious)
    mode = None if mode_under is None else mode_under(applied)
    limits = np.hstack([applied.constraints(front), _own_limits(front, mode)])
    choice = None if choose is None else choose(front, applied)
    columns = {requirement.rule: column for column, requirement in enumerate(applied.requirements)}
    rules = []
    for rule in book.rules:
        status, why = _status(book, rule, applied)
        changes = None
        if choose is not None and rule.name in applied.fired:
            changes = choose(front, book.without(rule.name).apply(context, cautious=cautious)) != choice
        figures = _figures(limits, columns[rule.name]) if rule.name in columns else {}
        rules.append(
            RuleRun(rule=rule.name, status=status, effect=rule.effect, why=why, changes_choice=changes, **figures)
        )
    kept = np.all(limits <= 0, axis=1).tolist()
    return ContextRun(
        applied=applied,
        candidates=len(front.candidates),
        feasible=tuple(c.name for c, is_kept in zip(front.candidates, kept, strict=True) if is_kept),
        choice=choice,
        rules=tuple(rules),
        mode=None if mode is None else mode.name,
        own_rules=() if mode is None else _own_runs(mode, limits, len(columns)),
    )


def _own_limits(front: Front, mode: Mode | None) -> FloatArray:
    """Limits [n_candidates, n_rules] of the own rules of a mode."""
    if mode is None:
        return np.empty((len(front.candidates), 0))
    preference_weights(front, mode.preference, f"mode {mode.name!r}")  # refuses one over other objectives
    return rule_gaps(front, front.values(), mode.rules)


def _own_runs(mode: Mode, limits: FloatArray, first: int) -> tuple[RuleRun, ...]:
    return tuple(
        RuleRun(
            rule=f"{mode.name}/{rule.objective}",
            status="active",
            effect=f"require {rule}",
            why=f"an own rule of the mode {mode.name}",
            **_figures(limits, first + r),
        )
        for r, rule in enumerate(mode.rules)
    )


def _status(book: RuleBook, rule: CompiledRule, applied: Applied) -> tuple[Status, str]:
    known = [(name, applied.context[name]) for name in rule.reads if name in applied.context]
    values = ", ".join(f"{name} = {quantity(book.fields[name], value)}" for name, value in known)
    seen = f" with {values}" if known else ""
    if rule.name in applied.unknown:
        return "unknown", f"{rule.when} is open{seen}: the context lacks {', '.join(applied.unknown[rule.name])}"
    if rule.name not in applied.fired:
        return "idle", f"{rule.when} is false{seen}"
    if rule.name in applied.shadowed:
        return "shadowed", f"{applied.mode_rule} goes first and sets the mode {applied.mode}"
    if rule.name in applied.yielded:
        return "yielded", f"cannot be kept together with {', '.join(applied.yielded[rule.name])}"
    return "active", "always" if rule.when is None else f"{rule.when} is true{seen}"


def _figures(limits: FloatArray, column: int) -> dict[str, Any]:
    own = limits[:, column]
    broken = own > 0
    others_kept = (np.delete(limits, column, axis=1) <= 0).all(axis=1)
    return {
        "excludes": int(broken.sum()),
        "only_it": int((broken & others_kept).sum()),
        "room": float(-own[~broken].max()) + 0.0 if (~broken).any() else None,
        "shortfall": float(own[broken].min()) if broken.any() else None,
    }


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
