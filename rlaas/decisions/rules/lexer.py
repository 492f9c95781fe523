"""Words of an expression: where each begins, what it is, and what it is worth."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from rlaas.decisions.rules.expressions import UNIT, WORD
from rlaas.decisions.rules.schema import RESERVED, seconds
from rlaas.errors import ConfigurationError, shown

__all__ = ["LONGEST", "Token", "fault", "tokens"]

Kind = Literal["name", "number", "text", "flag", "time", "sign", "end"]

LONGEST = 2_000
"""Characters of an expression at most: one that is longer is several rules."""

PATTERN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<time>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?![0-9:]))
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?)
    | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | `(?P<quoted>[^`\n]+)`
    | (?P<sign><=|>=|==|!=|[<>()\[\],])
    """,
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
ESCAPED = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word of an expression.

    Attributes:
        kind: ``sign`` for operators, brackets and the words ``and``, ``or``, ``not``, ``in``.
        column: of its first character, from 1.
        text: as written; of a name or a text what it stands for.
        number: of a number, exact.
        unit: of a number, ``""`` for none.
    """

    kind: Kind
    column: int
    text: str
    number: Fraction = Fraction(0)
    unit: str = ""

    @property
    def moment(self) -> float:
        """Of a time, seconds since midnight."""
        return seconds(self.text)


def fault(column: int, message: str) -> ConfigurationError:
    """An error at a column."""
    return ConfigurationError(f"column {column}: {message}", field="expression")


def tokens(text: str) -> list[Token]:
    """The words of an expression, and one of kind ``end`` behind them.

    Raises:
        ConfigurationError: a character that begins no word, a text without end, or more than :data:`LONGEST`
            characters.
    """
    if len(text) > LONGEST:
        raise fault(LONGEST + 1, f"the expression has {len(text)} characters; allowed: {LONGEST}")
    found: list[Token] = []
    position = 0
    while position < len(text):
        token, position = _next(text, position)
        if token is not None:
            found.append(token)
    return [*found, Token(kind="end", column=len(text) + 1, text="")]


def _next(text: str, start: int) -> tuple[Token | None, int]:
    """The word that begins at a position (None for space), and the position behind it."""
    column = start + 1
    word = WORD.match(text, start)
    if word:
        return _word(word.group(), column), word.end()
    match = PATTERN.match(text, start)
    if match is None:
        if text[start] in "\"'`":
            raise fault(column, f"what {text[start]} opens is never closed; texts and names end on their own line")
        hint = "; did you mean ==?" if text[start] == "=" else ""
        raise fault(column, f"unexpected {shown(text[start])}{hint}")
    group, written = match.lastgroup, match.group()
    if group == "space":
        return None, match.end()
    if group == "number":
        unit = UNIT.match(text, _behind_space(text, match.end()))
        label = unit.group() if unit and unit.group() not in RESERVED else ""
        token = Token(kind="number", column=column, text=written, number=Fraction(written), unit=label)
        return token, unit.end() if unit and label else match.end()
    if group == "text":
        return Token(kind="text", column=column, text=_unescaped(written[1:-1], column)), match.end()
    if group == "quoted":
        return Token(kind="name", column=column, text=match.group("quoted")), match.end()
    return Token(kind="time" if group == "time" else "sign", column=column, text=written), match.end()


def _word(word: str, column: int) -> Token:
    if word in {"true", "false"}:
        return Token(kind="flag", column=column, text=word)
    return Token(kind="sign" if word in RESERVED else "name", column=column, text=word)


def _behind_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _unescaped(body: str, column: int) -> str:
    def character(match: re.Match[str]) -> str:
        written = match.group(1)
        if written in ESCAPED:
            return ESCAPED[written]
        point = int(written[1:], 16) if len(written) > 1 else -1
        if not 0 <= point <= sys.maxunicode or 0xD800 <= point < 0xE000:  # surrogates are halves of characters
            allowed = ", ".join(f"\\{escape}" for escape in [*ESCAPED, "uXXXX", "UXXXXXXXX"])
            raise fault(column + 1 + match.start(), f"unknown escape {match.group()}; allowed: {allowed}")
        return chr(point)

    return ESCAPE.sub(character, body)
