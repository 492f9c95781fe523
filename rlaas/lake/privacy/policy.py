"""What is personal in which column, and what becomes of it on the way into the lake."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.errors import ConfigurationError

__all__ = ["Action", "PrivacyPolicy", "TableRules", "shaped", "token_of"]

Action = Literal["keep", "mask", "tokenise", "drop"]

MASKED = "***"
TOKEN = "tok_"
_TOKEN_BYTES = 16


class TableRules(BaseModel):
    """Rules of one table.

    Attributes:
        subject: columns or paths whose first value says whose row it is; its key makes the row's tokens.
        columns: by column, or by path into a column of JSON (``context.user.email``): what becomes of the value.
        unlisted_context: what becomes of parts of a JSON column for which there is no rule.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: tuple[str, ...] = Field(default=(), description="first that has a value")
    columns: dict[str, Action] = Field(default_factory=dict)
    unlisted_context: Action = "keep"

    @property
    def changes(self) -> bool:
        """Whether any value becomes another."""
        return any(action != "keep" for action in (*self.columns.values(), self.unlisted_context))

    @property
    def tokenises(self) -> bool:
        """Whether any value becomes a token."""
        return "tokenise" in (*self.columns.values(), self.unlisted_context)


_DEFAULT = {
    "bronze.decisions": TableRules(subject=("unit", "session")),
    "bronze.events": TableRules(subject=("entity",)),
    "silver.windows": TableRules(subject=("entity",)),
}
_NOTHING = TableRules()


class PrivacyPolicy(BaseModel):
    """Rules by table of the lake.

    Attributes:
        schema_version: of this document.
        tables: by name; ``bronze.decisions`` is one row per decision, and so on. Of a table that is left out all is
            kept as it comes.
        unreadable: what becomes of a payload in quarantine that cannot be read, and so cannot be tokenised: only its
            sha256 is kept, or all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    tables: dict[str, TableRules] = Field(default_factory=dict)
    unreadable: Literal["withhold", "keep"] = "withhold"

    @model_validator(mode="after")
    def _tokens_have_a_subject(self) -> PrivacyPolicy:
        for name, rules in self.tables.items():
            if rules.tokenises and not rules.subject:
                raise ConfigurationError(
                    f"table {name} tokenises, but names no subject whose key is used; add subject: [column, ...]",
                    field=f"tables.{name}.subject",
                )
        return self

    def rules(self, table: str) -> TableRules:
        """The rules of a table."""
        return self.tables.get(table) or _DEFAULT.get(table, _NOTHING)

    @classmethod
    def nothing(cls) -> PrivacyPolicy:
        """Keep everything as it comes."""
        return cls(unreadable="keep")


def token_of(key: bytes, value: str) -> str:
    """The token of a value under a subject's key: HMAC-SHA256, cut to 128 bits (NIST SP 800-107, 5.3.4).

    Equal values of one subject have equal tokens, in whatever column, so that what could be joined still can be;
    without the key nobody can tell which value it was.
    """
    return TOKEN + hmac.digest(key, value.encode(), hashlib.sha256)[:_TOKEN_BYTES].hex()


def shaped(document: Any, rules: Mapping[str, Action], other: Action, token: Callable[[str], str], path: str) -> Any:
    """A JSON value with every part masked, tokenised or dropped as its path says; None for one that is dropped.

    A rule for a path holds for all below it that has no rule of its own.

    Args:
        document: the value.
        rules: by path; ``context.user`` and so on. Items of a list share the path of the list.
        other: where no rule holds.
        token: of a text.
        path: of the value.
    """
    if isinstance(document, Mapping):
        return {
            key: shaped(value, rules, rules.get(f"{path}.{key}", other), token, f"{path}.{key}")
            for key, value in document.items()
            if rules.get(f"{path}.{key}", other) != "drop" or _rules_below(rules, f"{path}.{key}")
        }
    if isinstance(document, list):
        return [shaped(value, rules, other, token, path) for value in document]
    if other == "keep" or document is None:
        return document
    if other == "mask":
        return MASKED
    if other == "tokenise":
        return token(document if isinstance(document, str) else json.dumps(document))
    return None


def _rules_below(rules: Mapping[str, Action], path: str) -> bool:
    return any(name.startswith(f"{path}.") for name in rules)
