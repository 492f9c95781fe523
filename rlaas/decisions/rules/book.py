"""Rules read, checked, and asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlaas.configfiles import read_config
from rlaas.decisions.rules.applied import Applied
from rlaas.decisions.rules.compilation import CompiledRule, RuleFile, compile_rule
from rlaas.decisions.rules.conflicts import Yielding, check_rules
from rlaas.decisions.rules.context import check_context, read_context
from rlaas.decisions.rules.expressions import evaluate
from rlaas.decisions.rules.schema import ContextField, Field, Scope, Value, objective_scope
from rlaas.errors import ConfigurationError, check_choice
from rlaas.objectives import Objective

__all__ = ["RuleBook", "load_rules"]


class RuleBook:
    """Rules that were checked together; immutable. Build it with :meth:`of` or :func:`load_rules`.

    Rules are taken by priority, higher first, and within one priority in the order of the file. What is not known of a
    context is unknown, never assumed: a rule fires only if its ``when`` holds whatever the unknown fields are worth
    (Kleene's strong three-valued logic), and those that would have needed more are reported.

    Attributes:
        fields: of the context, by name.
        rules: in the order in which they are taken.
        warnings: what is allowed but hardly meant.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        rules: Iterable[CompiledRule],
        yielding: Iterable[Yielding] = (),
        warnings: Iterable[str] = (),
    ) -> None:
        self.fields: Mapping[str, Field] = MappingProxyType(dict(fields))
        self.rules = tuple(sorted(rules, key=lambda rule: -rule.priority))
        self.warnings = tuple(warnings)
        self._yielding = tuple(yielding)

    @classmethod
    def of(
        cls,
        file: RuleFile,
        *,
        objectives: Sequence[Objective],
        modes: Collection[str],
        context: Mapping[str, ContextField] | None = None,
    ) -> RuleBook:
        """Check rules against a scenario and one another.

        Args:
            file: context and rules.
            objectives: of the scenario.
            modes: their names (a mapping by name will do).
            context: fields that the caller provides beside those that the file declares.

        Raises:
            ConfigurationError: a rule names an unknown field, mode, unit or value, or is no expression; two have one
                name; or rules are in conflict (:class:`~rlaas.decisions.rules.Conflict`). Names the rule, the key, the
                column, and what is allowed.
        """
        provided = context or {}
        for name in file.context:
            if name in provided:
                raise ConfigurationError(
                    f"context field {name!r} is provided already; leave it out", field=f"context.{name}"
                )
        fields = {name: field.named(name) for name, field in {**provided, **file.context}.items()}
        names: set[str] = set()
        for rule in file.rules:
            if rule.name in names:
                raise ConfigurationError(f"two rules are named {rule.name!r}", field=f"rules.{rule.name}.name")
            names.add(rule.name)
        when, candidates = Scope(fields.values()), objective_scope(objectives)
        rules = [compile_rule(rule, context=when, candidates=candidates, modes=modes) for rule in file.rules]
        findings = check_rules(rules, objectives)
        if findings.conflicts:
            first, *others = findings.conflicts
            more = f" (and {len(others)} more)" if others else ""
            raise ConfigurationError(first.message + more, field=f"rules.{first.rules[-1]}")
        return cls(fields, rules, findings.yielding, findings.warnings)

    def without(self, name: str) -> RuleBook:
        """The book without one rule.

        Raises:
            ConfigurationError: no such rule.
        """
        check_choice(name, [rule.name for rule in self.rules], field="rule")
        return RuleBook(self.fields, (rule for rule in self.rules if rule.name != name), self._yielding, self.warnings)

    def apply(self, context: Mapping[str, Any], *, cautious: bool = False) -> Applied:
        """What the rules say in a context.

        Args:
            context: values by declared field, numbers in the field's unit; what is absent or None is unknown. See
                :func:`~rlaas.decisions.rules.context.check_context`.
            cautious: judge candidates by the worse end of their 95 % confidence interval instead of the mean.

        Raises:
            InvalidInputError: an undeclared field, or a value that its field cannot take.
        """
        known = check_context(self.fields, context)
        fired: list[CompiledRule] = []
        unknown: dict[str, tuple[str, ...]] = {}
        for rule in self.rules:
            fires = True if rule.when is None else evaluate(rule.when, known)
            if fires:
                fired.append(rule)
            elif fires is None:
                unknown[rule.name] = tuple(name for name in rule.reads if name not in known)
        setting = [rule for rule in fired if rule.mode is not None]
        kept, yielded = self._kept([rule for rule in fired if rule.requirement is not None])
        return Applied(
            context=known,
            mode=setting[0].mode if setting else None,
            mode_rule=setting[0].name if setting else None,
            requirements=tuple(rule.requirement for rule in kept if rule.requirement is not None),
            fired=tuple(rule.name for rule in fired),
            unknown=unknown,
            shadowed=tuple(rule.name for rule in setting[1:]),
            yielded=yielded,
            cautious=cautious,
        )

    def read_context(self, texts: Mapping[str, str]) -> dict[str, Value]:
        """A context from texts, as on a command line: ``{"load": "95 %", "slice": "urllc", "time": "22:30"}``.

        Raises:
            InvalidInputError: an undeclared field, or a text that is no value of its field.
        """
        return read_context(self.fields, texts)

    def _kept(self, fired: Sequence[CompiledRule]) -> tuple[list[CompiledRule], dict[str, tuple[str, ...]]]:
        """Of rules with requirements, by priority: those that stay, and what each of the others yields to."""
        kept: list[CompiledRule] = []
        yielded: dict[str, tuple[str, ...]] = {}
        for rule in fired:
            names = {other.name for other in kept}
            to = next((y.to for y in self._yielding if y.rule == rule.name and names.issuperset(y.to)), None)
            if to is None:
                kept.append(rule)
            else:
                yielded[rule.name] = to
        return kept, yielded


def load_rules(
    path: str | Path,
    *,
    objectives: Sequence[Objective],
    modes: Collection[str],
    context: Mapping[str, ContextField] | None = None,
) -> RuleBook:
    """Read a YAML file of rules and check it against a scenario.

    Args:
        path: of the file; ``configs/rules/`` has one per shipped scenario.
        objectives: of the scenario.
        modes: their names (a mapping by name will do).
        context: fields that the caller provides beside those that the file declares.

    Raises:
        ConfigurationError: no such file, not YAML, a wrong key or value, or whatever :meth:`RuleBook.of` refuses; names
            the file, the rule, the key, the column, and what is allowed.
    """
    file = read_config(path, RuleFile)
    try:
        return RuleBook.of(file, objectives=objectives, modes=modes, context=context)
    except ConfigurationError as problem:
        raise ConfigurationError(f"{path}: {problem.message}", field=problem.field) from problem
