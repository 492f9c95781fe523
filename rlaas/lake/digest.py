"""One number that says what some rows are, whatever files and batches they lie in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.schemas import TableSpec

__all__ = ["in_order", "rows_sha256"]

_ROWS_AT_ONCE = 65_536


def in_order(spec: TableSpec, rows: pa.Table) -> pa.Table:
    """The rows in the one order that depends on nothing but what they say.

    By the columns that order the table, then by all the others that can be compared (lists and maps cannot).
    """
    first = [name for name in spec.order_by if name in rows.column_names]
    comparable = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
    keys = [*first, *(name for name in comparable if name not in first)]
    return rows.sort_by([(name, "ascending") for name in keys]) if keys else rows


def rows_sha256(rows: pa.Table) -> str:
    """SHA-256 (hex) of the rows in the order given: names and types of the columns, and every value.

    Values are hashed as numbers of fixed width in little-endian order and texts by their lengths and bytes, so neither
    how Arrow happened to cut or pad its buffers nor what lies below a null counts. ``-0.0`` differs from ``0.0``; every
    NaN is the same.
    """
    digest = hashlib.sha256()
    for field in rows.schema:
        digest.update(f"{field.name}:{field.type}\n".encode())
    for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
        part = rows.slice(start, _ROWS_AT_ONCE)
        for column in part.columns:
            _update(digest, column.combine_chunks())
    return digest.hexdigest()


def _update(digest: Any, values: pa.Array) -> None:
    kind = values.type
    digest.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_map(kind):
        # Sorted when they are written, see :mod:`~rlaas.lake.rows`.
        _update(digest, values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        digest.update(pc.fill_null(pc.list_value_length(values), 0).cast(pa.int64()).to_numpy().astype("<i8").tobytes())
        _update(digest, values.drop_null().flatten())
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            _update(digest, pc.struct_field(values, [place]))
    elif pa.types.is_floating(kind):
        numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False).astype("<f8")
        digest.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
    elif pa.types.is_boolean(kind):
        digest.update(np.packbits(pc.fill_null(values, False).to_numpy(zero_copy_only=False)).tobytes())
    elif pa.types.is_integer(kind):
        digest.update(pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        raw = pc.fill_null(values.cast(pa.large_binary()), b"")
        digest.update(pc.binary_length(raw).to_numpy().astype("<i8").tobytes())
        # All of the texts, one behind the other: the buffer between the first and the last offset.
        offsets = np.frombuffer(raw.buffers()[1], dtype="<i8")[raw.offset : raw.offset + len(raw) + 1]
        if len(raw):
            digest.update(memoryview(raw.buffers()[2])[offsets[0] : offsets[-1]] if raw.buffers()[2] else b"")
    elif pa.types.is_timestamp(kind):
        _update(digest, values.cast(pa.int64()))
    elif not pa.types.is_null(kind):
        raise TypeError(f"rows of type {kind} cannot be hashed")
