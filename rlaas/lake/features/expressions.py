"""Expressions over the columns of a table: ``outcome.latency / 1e3``, ``observation[2]``, ``policy == 'network5g'``.

Python's own grammar, of which the parts below are taken and nothing is ever executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown

__all__ = ["Expression", "column_at"]

Floats = NDArray[np.float64]
_LONGEST = 1000
_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_GRAMMAR = "columns (a, a.key, a[0]), numbers, texts, + - * / **, comparisons, and, or, not, " + ", ".join(
    f"{name}()" for name in sorted(_FUNCTIONS)
)


class Expression:
    """A parsed expression.

    Args:
        text: as written.
        field: what an error names.

    Attributes:
        columns: that it reads, by name.

    Raises:
        ConfigurationError: not of the grammar.
    """

    def __init__(self, text: str, *, field: str) -> None:
        self.text, self._field = text, field
        self.columns: frozenset[str] = frozenset()
        if len(text) > _LONGEST:
            raise self._wrong(f"has {len(text)} characters; at most {_LONGEST} are allowed")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
            raise self._wrong(f"is no expression; allowed: {_GRAMMAR}") from problem
        names: set[str] = set()
        self._check(self._tree, names)
        self.columns = frozenset(names)

    def path(self) -> tuple[str, tuple[str | int, ...]]:
        """Column and steps of an expression that is nothing but a path.

        Raises:
            ConfigurationError: it is more than that.
        """
        found = _path_of(self._tree)
        if found is None:
            raise self._wrong("must be a path: a column, a.key or a[0]")
        return found

    def numbers(self, table: pa.Table) -> Floats:
        """Value for each row float64 [n]; NaN where it is not known.

        Raises:
            ConfigurationError: a column that is not there, or texts where numbers are needed.
        """
        with np.errstate(all="ignore"):
            found = self._value(self._tree, table)
            if isinstance(found, pa.Array | str):
                raise self._wrong("is a text, not a number")
            return np.broadcast_to(np.asarray(found, dtype=np.float64), (table.num_rows,)).copy()

    def holds(self, table: pa.Table) -> NDArray[np.bool_]:
        """Whether it is true, for each row [n]; what is not known is not true."""
        found = self.numbers(table)
        return np.asarray((found != 0) & ~np.isnan(found))

    def _check(self, node: ast.AST, names: set[str]) -> None:
        path = _path_of(node)
        if path is not None:
            names.add(path[0])
            return
        match node:
            case ast.BinOp() if type(node.op) in _BINARY:
                parts: list[ast.expr] = [node.left, node.right]
            case ast.Compare() if len(node.ops) == 1 and type(node.ops[0]) in _BINARY:
                parts = [node.left, node.comparators[0]]
            case ast.UnaryOp() if isinstance(node.op, ast.USub | ast.Not):
                parts = [node.operand]
            case ast.BoolOp():
                parts = node.values
            case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS and not node.keywords:
                wanted = 2 if name in ("minimum", "maximum") else 1
                if len(node.args) != wanted:
                    raise self._wrong(f"gives {name}() {len(node.args)} arguments; it takes {wanted}")
                parts = node.args
            case ast.Constant(value=value) if isinstance(value, bool | int | float | str):
                parts = []
            case _:
                raise self._wrong(f"has something that is not allowed; allowed: {_GRAMMAR}")
        for part in parts:
            self._check(part, names)

    def _value(self, node: ast.AST, table: pa.Table) -> Any:
        path = _path_of(node)
        if path is not None:
            return column_at(table, path, field=self._field)
        match node:
            case ast.Constant(value=value):
                return value if isinstance(value, str) else float(cast("float", value))
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._number(left, table), self._number(right, table))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._compared(op, self._value(left, table), self._value(right, table))
            case ast.UnaryOp(op=op, operand=operand):
                value = self._number(operand, table)
                return np.where(np.isnan(value), np.nan, value == 0) if isinstance(op, ast.Not) else -value
            case ast.BoolOp(op=op, values=values):
                parts = [np.nan_to_num(self._number(part, table)) != 0 for part in values]
                return (np.logical_and if isinstance(op, ast.And) else np.logical_or).reduce(
                    np.broadcast_arrays(*parts)
                )
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return _FUNCTIONS[name](*(self._number(part, table) for part in arguments))
        raise AssertionError("unreachable: the tree was checked")

    def _number(self, node: ast.AST, table: pa.Table) -> Any:
        value = self._value(node, table)
        if isinstance(value, pa.Array | str):
            raise self._wrong("computes with a text")
        return np.asarray(value, dtype=np.float64)

    def _compared(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        texts = isinstance(left, pa.Array | str), isinstance(right, pa.Array | str)
        if any(texts):
            if not all(texts) or not isinstance(op, ast.Eq | ast.NotEq):
                raise self._wrong("compares a text with a number, or for order; allowed: text == text, text != text")
            same = pc.equal(left, right) if not isinstance(left, str) or not isinstance(right, str) else left == right
            if isinstance(same, bool):
                return float(same == isinstance(op, ast.Eq))
            found = _floats(same)
            return found if isinstance(op, ast.Eq) else 1.0 - found
        unknown = np.isnan(left) | np.isnan(right)
        return np.where(unknown, np.nan, _BINARY[type(op)](left, right))

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._field} {shown(self.text, str)!r} {what}", field=self._field)


def column_at(table: pa.Table, path: tuple[str, tuple[str | int, ...]], *, field: str) -> Any:
    """What a path leads to: float64 [n] with NaN for nulls, or an Arrow array of texts.

    Raises:
        ConfigurationError: the column is not there, or has no such parts.
    """
    name, steps = path
    check_choice(name, table.column_names, field=f"{field} column")
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    for place, step in enumerate(steps):
        kind = column.type
        if isinstance(step, int) and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            column = _element(column, step)
        elif isinstance(step, str) and pa.types.is_map(kind):
            column = pc.map_lookup(column, step, "first")
        elif isinstance(step, str) and pa.types.is_struct(kind) and kind.get_field_index(step) >= 0:
            column = pc.struct_field(column, step)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = _from_json(column, steps[place:])
            break
        else:
            raise ConfigurationError(f"{field}: {kind} of column {name!r} has no part {step!r}", field=field)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ConfigurationError(f"{field}: column {name!r} is {kind}; allowed: numbers, booleans, texts", field=field)
    return _floats(column)


def _path_of(node: ast.AST) -> tuple[str, tuple[str | int, ...]] | None:
    steps: list[str | int] = []
    while True:
        match node:
            case ast.Name(id=name):
                return name, tuple(reversed(steps))
            case ast.Attribute(value=inner, attr=name):
                steps.append(name)
            case ast.Subscript(value=inner, slice=ast.Constant(value=key)) if isinstance(key, str) or (
                type(key) is int and key >= 0
            ):
                steps.append(key)
            case _:
                return None
        node = inner


def _element(column: pa.Array, index: int) -> pa.Array:
    """The element of each list; null where the list is shorter."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    wanted = offsets[:-1] + index
    missing = (wanted >= offsets[1:]) | ~column.is_valid().to_numpy(zero_copy_only=False)
    return column.values.take(pa.array(np.where(missing, 0, wanted), mask=missing))


def _from_json(column: pa.Array, steps: tuple[str | int, ...]) -> pa.Array:
    """What JSON texts hold at a path: numbers where all of them are, otherwise texts; null where there is nothing."""
    found: list[Any] = []
    for text in column.to_pylist():
        value: Any = None
        if text is not None:
            try:
                value = msgspec.json.decode(text)
                for step in steps:
                    value = value[step]
            except (msgspec.DecodeError, LookupError, TypeError):
                value = None
        found.append(value if isinstance(value, bool | int | float | str) else None)
    if all(value is None or not isinstance(value, str) for value in found):
        return pa.array([None if value is None else float(value) for value in found], pa.float64())
    return pa.array([None if value is None else _text(value) for value in found], pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _floats(column: pa.Array) -> Floats:
    numbers = column.cast(pa.float64(), safe=False) if not pa.types.is_boolean(column.type) else column.cast(pa.uint8())
    return np.asarray(numbers.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
