"""Rules as a YAML file says them, and what becomes of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from rlaas.decisions.rules.constraints import Requirement
from rlaas.decisions.rules.expressions import Expression, fields_of, negated, normal_form
from rlaas.decisions.rules.lexer import LONGEST
from rlaas.decisions.rules.schema import ContextField, Scope
from rlaas.decisions.rules.syntax import parse
from rlaas.errors import ConfigurationError, check_choice

__all__ = ["MOST_RULES", "CompiledRule", "RuleConfig", "RuleFile", "Then", "compile_rule"]

MOST_RULES = 200
"""Rules of a book at most: every pair is checked for conflicts."""


class Then(BaseModel):
    """What a rule sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: StrictStr = Field(description="name of a mode of the scenario")


class RuleConfig(BaseModel):
    """One rule: when it applies, and the one thing that it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrictStr = Field(min_length=1, max_length=80, pattern=r"^\w[\w.-]*$", description="unique")
    priority: StrictInt = Field(default=0, ge=-1_000_000, le=1_000_000, description="higher ones go first")
    when: StrictStr | None = Field(default=None, max_length=LONGEST, description="over the context; without it, always")
    then: Then | None = Field(default=None, description="the mode to take")
    require: StrictStr | None = Field(default=None, max_length=LONGEST, description="what a candidate has to keep")
    forbid: StrictStr | None = Field(default=None, max_length=LONGEST, description="what no candidate may be")
    note: StrictStr = Field(default="", max_length=LONGEST, description="why, for whoever reads it later")

    @model_validator(mode="after")
    def _does_one_thing(self) -> RuleConfig:
        effects = [key for key in ("then", "require", "forbid") if getattr(self, key) is not None]
        if len(effects) != 1:
            raise ValueError(
                f"rule {self.name!r} needs exactly one of then, require, forbid; it has {', '.join(effects) or 'none'}"
            )
        return self


class RuleFile(BaseModel):
    """A file of rules: the context that they read, and the rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: StrictInt = Field(ge=1, le=1, description="of the format: 1")
    context: dict[StrictStr, ContextField] = Field(default_factory=dict, max_length=200)
    rules: tuple[RuleConfig, ...] = Field(max_length=MOST_RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """A rule that was checked against the fields and modes it names.

    Attributes:
        name: unique within its book.
        priority: higher ones go first.
        when: as written; None for always.
        condition: ``when`` in normal form: nothing for always, otherwise one expression.
        mode: that it sets, or None.
        requirement: that it makes, or None.
        note: of its author.
    """

    name: str
    priority: int
    when: Expression | None
    condition: tuple[Expression, ...]
    mode: str | None
    requirement: Requirement | None
    note: str = ""

    @property
    def effect(self) -> str:
        """What it does, as text: ``mode emergency``, ``require latency < 2 ms``, ``forbid kind == "policy"``."""
        return self.requirement.text if self.requirement is not None else f"mode {self.mode}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of the context that it reads, in the order of their first mention."""
        return () if self.when is None else tuple(fields_of(self.when))


def compile_rule(rule: RuleConfig, *, context: Scope, candidates: Scope, modes: Collection[str]) -> CompiledRule:
    """Check a rule and bring it into the form that is evaluated.

    Args:
        rule: as the file says it.
        context: what ``when`` can name.
        candidates: what ``require`` and ``forbid`` can name.
        modes: names that ``then`` can set.

    Raises:
        ConfigurationError: an unknown field, mode, unit or value, or an expression that is none; names the rule, the
            key, the column and what is allowed.
    """
    when = None if rule.when is None else _parsed(rule, "when", rule.when, context)
    mode = None
    requirement = None
    if rule.then is not None:
        try:
            mode = check_choice(rule.then.mode, modes, field="mode")
        except ConfigurationError as problem:
            raise _of_rule(rule, "then.mode", problem) from problem
    elif rule.require is not None:
        wanted = _parsed(rule, "require", rule.require, candidates)
        requirement = Requirement(rule=rule.name, keeps=normal_form(wanted), text=f"require {wanted}")
    elif rule.forbid is not None:
        unwanted = _parsed(rule, "forbid", rule.forbid, candidates)
        requirement = Requirement(rule=rule.name, keeps=negated(unwanted), text=f"forbid {unwanted}")
    return CompiledRule(
        name=rule.name,
        priority=rule.priority,
        when=when,
        condition=() if when is None else (normal_form(when),),
        mode=mode,
        requirement=requirement,
        note=rule.note,
    )


def _parsed(rule: RuleConfig, key: str, text: str, scope: Scope) -> Expression:
    try:
        return parse(text, scope)
    except ConfigurationError as problem:
        raise _of_rule(rule, key, problem) from problem


def _of_rule(rule: RuleConfig, key: str, problem: ConfigurationError) -> ConfigurationError:
    return ConfigurationError(f"rule {rule.name!r}: {key}: {problem.message}", field=f"rules.{rule.name}.{key}")
