"""Arrow columns as arrays, whole columns at a time; what is wrong is found by masks and named by row and column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError

__all__ = ["NEEDED", "OPTIONAL", "Columns"]

NEEDED = ("observation", "action", "outcome", "next_observation", "terminated", "truncated")
"""Columns without which nothing can be fitted."""
OPTIONAL = ("decision_id", "preference", "action_propensity", "proposed_action")
"""Columns that are read where a table has them."""


Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Columns:
    """The columns of one table of rows.

    Args:
        table: rows that adjoin in a longer stream.
        first: number of the first row in that stream, for messages.

    Every method that checks raises :class:`InvalidInputError` for the first row that does not fit.
    """

    def __init__(self, table: pa.Table, first: int = 0) -> None:
        self._table, self._first = table.combine_chunks(), first

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __contains__(self, name: str) -> bool:
        return name in self._table.column_names

    def refuse(self, bad: Mask, message: str, *, field: str) -> None:
        """Raise for the first row of ``bad`` [n], if there is one; ``{row}`` in the message is replaced."""
        if not bad.any():
            return
        row = int(bad.argmax())
        known = f" (decision {self._table.column('decision_id')[row].as_py()})" if "decision_id" in self else ""
        raise InvalidInputError(message.replace("{row}", f"row {self._first + row}") + known, field=field)

    def matrix(self, name: str, width: int) -> Float:
        """A list column as numbers [n, width]: no row is null, all are finite."""
        lists = self._lists(name)
        message = f"transitions {{row}}: {name} must be {width} finite numbers"
        lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        self.refuse(lengths != width, message, field=name)
        return self._finite(lists, width, np.ones(len(self), dtype=np.bool_), name)

    def optional_matrix(self, name: str, width: int) -> tuple[Float, Mask]:
        """A list column whose rows may be null: numbers [n, width], 0 where null, and which rows are not [n]."""
        lists = self._lists(name)
        known: Mask = lists.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.fill_null(pc.list_value_length(lists), width).to_numpy(zero_copy_only=False)
        wrong = lengths != width
        held = int(lengths[wrong.argmax()]) if wrong.any() else width
        self.refuse(wrong, f"transitions {{row}}: {name} has {held} numbers; expected {width}", field=name)
        values = np.zeros((len(self), width))
        values[known] = self._finite(lists, width, known, name)
        return values, known

    def flags(self, name: str) -> Mask:
        """A column of truth values; null is false."""
        flags: Mask = pc.fill_null(self._array(name).cast(pa.bool_()), False).to_numpy(zero_copy_only=False)
        return flags

    def numbers(self, name: str) -> Float:
        """A column of numbers [n]; null is NaN."""
        return np.asarray(self._array(name).cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)

    def entries(self, name: str, keys: Sequence[str]) -> Float:
        """Entries of a map column by key [n, n_keys], NaN where a row has none of that key."""
        maps = self._array(name)
        found = np.full((len(self), len(keys)), np.nan)
        sizes = pc.fill_null(pc.list_value_length(maps.cast(_entry_lists(maps.type))), 0)
        rows = np.repeat(np.arange(len(self)), sizes.to_numpy(zero_copy_only=False))
        valid = maps.filter(maps.is_valid())
        names, values = _flat(valid)
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        place = pc.index_in(names, pa.array(list(keys), type=names.type))
        column = pc.fill_null(place, -1).to_numpy(zero_copy_only=False)
        wanted = column >= 0
        found[rows[wanted], column[wanted]] = numbers[wanted]
        return found

    def _finite(self, lists: pa.ListArray, width: int, rows: Mask, name: str) -> Float:
        """Values of the lists of ``rows`` [n], all of that width."""
        values = lists.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, width)
        bad = np.zeros(len(self), dtype=np.bool_)
        with np.errstate(over="ignore"):
            bad[rows] = ~np.isfinite(values.astype(np.float32)).all(axis=1)
        self.refuse(bad, f"transitions {{row}}: {name} must be {width} finite numbers", field=name)
        return np.asarray(values, dtype=np.float64)

    def _array(self, name: str) -> pa.Array:
        column = self._table.column(name)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _lists(self, name: str) -> pa.ListArray:
        array = self._array(name)
        kind = pa.large_list if pa.types.is_large_list(array.type) else pa.list_
        return array.cast(kind(pa.float64()))


def _entry_lists(kind: pa.DataType) -> pa.DataType:
    """A map's type as that of the list of its entries."""
    return pa.list_(pa.struct([kind.key_field, kind.item_field]))


def _flat(maps: pa.MapArray) -> tuple[pa.Array, pa.Array]:
    """Keys and values of all entries, in order."""
    # An array that is part of a larger one keeps that one's entries: its offsets tell which are its own.
    first, last = (int(maps.offsets[at].as_py()) for at in (0, -1)) if len(maps) else (0, 0)
    return maps.keys.slice(first, last - first), maps.items.slice(first, last - first)
