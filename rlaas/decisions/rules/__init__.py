"""Declarative rules: typed expressions in YAML that set modes and constrain candidates; nothing is ever ``eval``-ed."""

from rlaas.decisions.rules.applied import Applied
from rlaas.decisions.rules.book import RuleBook, load_rules
from rlaas.decisions.rules.compilation import CompiledRule, RuleConfig, RuleFile, Then
from rlaas.decisions.rules.conflicts import Conflict, Findings, Yielding, check_rules
from rlaas.decisions.rules.constraints import Requirement
from rlaas.decisions.rules.dry_run import HEADINGS, ContextRun, DryRun, RuleRun, dry_run
from rlaas.decisions.rules.schema import ContextField, Field, Scope, objective_scope
from rlaas.decisions.rules.syntax import parse

__all__ = [
    "HEADINGS",
    "Applied",
    "CompiledRule",
    "Conflict",
    "ContextField",
    "ContextRun",
    "DryRun",
    "Field",
    "Findings",
    "Requirement",
    "RuleBook",
    "RuleConfig",
    "RuleFile",
    "RuleRun",
    "Scope",
    "Then",
    "Yielding",
    "check_rules",
    "dry_run",
    "load_rules",
    "objective_scope",
    "parse",
]
