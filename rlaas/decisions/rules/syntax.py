r"""From text to a typed expression, by recursive descent.

The language, loosest binding first::

    expression = both ("or" both)*
    both       = opposite ("and" opposite)*
    opposite   = "not"* atom
    atom       = "(" expression ")" | flag | comparison | range | membership
    comparison = field op value | value op field          op: < <= > >= == !=
    range      = value < field < value                    each < may be <=; or both may be > or >=
    membership = field ["not"] "in" "[" value ("," value)* "]"
    value      = number [unit] | "text" | 'text' | true | false | HH:MM[:SS]
    field      = a name, dotted for parameters; between backquotes where it is no plain word

Every field has a type and every value has to fit it, so that an expression that parses can be evaluated on anything
that the schema allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, cast

from rlaas.decisions.rules.expressions import And, Comparison, Expression, Membership, Not, Operator, Or, joined
from rlaas.decisions.rules.lexer import Token, fault, tokens
from rlaas.decisions.rules.schema import FieldType, Scope, Value
from rlaas.decisions.rules.units import in_unit
from rlaas.errors import ConfigurationError, shown

__all__ = ["DEEPEST", "parse"]

DEEPEST = 40
"""Parentheses and ``not`` inside one another at most."""

MIRRORED: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
UPWARDS = ({"<", "<="}, {">", ">="})
VALUE_KINDS: dict[str, FieldType] = {"number": "number", "text": "text", "flag": "flag", "time": "time"}
EXAMPLES: dict[FieldType, str] = {
    "number": "a number",
    "text": 'a text between "quotation marks"',
    "flag": "true or false",
    "time": "a time of day such as 22:00",
}


def parse(text: str, scope: Scope) -> Expression:
    """The expression that a text writes.

    Args:
        text: in the language of this module.
        scope: the fields that it may name.

    Raises:
        ConfigurationError: anything else than a well-typed expression; names the column and what is allowed there.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"an expression is a text, got {shown(text)}", field="expression")
    return _Parser(tokens(text), scope).whole()


class _Parser:
    def __init__(self, words: list[Token], scope: Scope) -> None:
        self._words = words
        self._scope = scope
        self._position = 0
        self._depth = 0

    def whole(self) -> Expression:
        result = self._expression()
        if self._word.kind != "end":
            self._unexpected("and, or, or the end")
        return result

    @property
    def _word(self) -> Token:
        return self._words[self._position]

    def _takes(self, *signs: str) -> bool:
        """Whether the next word is one of these; if so, it is read."""
        found = self._word.kind == "sign" and self._word.text in signs
        self._position += found
        return found

    def _unexpected(self, allowed: str) -> NoReturn:
        found = "the end" if self._word.kind == "end" else shown(self._word.text)
        raise fault(self._word.column, f"unexpected {found}; expected {allowed}")

    def _expression(self) -> Expression:
        return self._series("or", Or, lambda: self._series("and", And, self._opposite))

    def _series(self, word: str, kind: type[And] | type[Or], item: Callable[[], Expression]) -> Expression:
        items = [item()]
        while self._takes(word):
            items.append(item())
        return joined(kind, *items)

    def _opposite(self) -> Expression:
        column = self._word.column
        if not self._takes("not"):
            return self._atom()
        return Not(self._deeper(column, self._opposite))

    def _deeper(self, column: int, inner: Callable[[], Expression]) -> Expression:
        self._depth += 1
        if self._depth > DEEPEST:
            raise fault(column, f"more than {DEEPEST} parentheses and nots inside one another")
        result = inner()
        self._depth -= 1
        return result

    def _atom(self) -> Expression:
        column = self._word.column
        if self._takes("("):
            result = self._deeper(column, self._expression)
            if not self._takes(")"):
                self._unexpected("and, or, or ) to close the one at column " + str(column))
            return result
        first = self._operand()
        if first.kind == "name":
            if self._takes("in"):
                return self._membership(first)
            if self._takes("not"):
                if not self._takes("in"):
                    self._unexpected("in")
                return Not(self._membership(first))
        chain = [first]
        signs: list[Token] = []
        while self._word.kind == "sign" and self._word.text in MIRRORED:
            signs.append(self._word)
            self._position += 1
            chain.append(self._operand())
        return self._chain(chain, signs)

    def _operand(self) -> Token:
        word = self._word
        if word.kind != "name" and word.kind not in VALUE_KINDS:
            self._unexpected("a field, a value, not, or (")
        self._position += 1
        return word

    def _membership(self, name: Token) -> Expression:
        if not self._takes("["):
            self._unexpected("[ and the values that are allowed")
        values = [self._operand()]
        while self._takes(","):
            values.append(self._operand())
        if not self._takes("]"):
            self._unexpected(", or ]")
        comparisons = [self._comparison(name, "==", value, value.column) for value in values]
        return Membership(comparisons[0].field, tuple(dict.fromkeys(c.value for c in comparisons)))

    def _chain(self, chain: list[Token], signs: list[Token]) -> Expression:
        operators = [cast(Operator, sign.text) for sign in signs]
        names = [word.kind == "name" for word in chain]
        if names == [True]:
            flag = Token(kind="flag", column=chain[0].column, text="true")
            return self._comparison(chain[0], "==", flag, chain[0].column)
        if names == [True, False]:
            return self._comparison(chain[0], operators[0], chain[1], signs[0].column)
        if names == [False, True]:
            return self._comparison(chain[1], MIRRORED[operators[0]], chain[0], signs[0].column)
        if names == [False, True, False]:
            if not any(set(operators) <= way for way in UPWARDS):
                raise fault(signs[1].column, "a range needs two of < and <=, or two of > and >=")
            return joined(
                And,
                self._comparison(chain[1], MIRRORED[operators[0]], chain[0], signs[0].column),
                self._comparison(chain[1], operators[1], chain[2], signs[1].column),
            )
        if not any(names):
            raise fault(chain[0].column, f"{shown(chain[0].text)} is compared with no field")
        raise fault(
            chain[0].column,
            "a comparison is one field and one value (texts stand between quotes), or a field between two values "
            "(1 < field <= 2)",
        )

    def _comparison(self, name: Token, operator: Operator, value: Token, column: int) -> Comparison:
        if value.kind not in VALUE_KINDS:
            raise fault(value.column, f"{shown(value.text)} is a name; expected a value (texts stand between quotes)")
        kind = VALUE_KINDS[value.kind]
        try:
            field = self._scope.field(name.text, kind)
        except ConfigurationError as problem:
            raise fault(name.column, problem.message) from problem
        if field.type != kind:
            raise fault(value.column, f"{field.name} takes {EXAMPLES[field.type]}, not {EXAMPLES[kind]}")
        if field.type in {"text", "flag"} and operator not in {"==", "!="}:
            raise fault(column, f"{field.name} is a {field.type}: it has no order; allowed: ==, !=, in")
        try:
            return Comparison(field, operator, field.check(_value(value, field.unit)))
        except ConfigurationError as problem:
            raise fault(value.column, problem.message) from problem


def _value(word: Token, unit: str) -> Value:
    if word.kind == "number":
        return in_unit(word.number, word.unit, unit)
    if word.kind == "time":
        return word.moment
    return word.text == "true" if word.kind == "flag" else word.text
