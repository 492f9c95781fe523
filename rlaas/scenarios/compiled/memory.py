"""Access to memory that says more than an index does: what never overlaps, and what will be needed soon."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rlaas.scenarios.apart import separate
from rlaas.scenarios.compiled.kernels import inner

__all__ = ["REGIONS", "fetch_ahead", "region", "separate"]

REGIONS = 8
_LINE_BYTES = 64


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to ``array[row, column]``; indices are neither checked nor counted from the end."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, arguments[1:3], wraparound=False)


def _scopes(builder: Any) -> list[Any]:
    module = builder.module
    domain = module.add_metadata([ir.MetaDataString(module, __name__)])
    return [module.add_metadata([ir.MetaDataString(module, f"region {i}"), domain]) for i in range(REGIONS)]


def _mark(builder: Any, access: Any, number: int) -> Any:
    """Say which region an access belongs to, and that it touches none of the others."""
    scopes = _scopes(builder)
    access.set_metadata("alias.scope", builder.module.add_metadata([scopes[number]]))
    access.set_metadata("noalias", builder.module.add_metadata(scopes[:number] + scopes[number + 1 :]))
    return access


def region(number: int) -> tuple[Any, Any]:
    """Functions that load and store numbers of two-dimensional arrays that overlap with no other region's.

    A compiler that cannot know so checks, before each run of a vectorised loop, that none of the arrays it reads
    overlaps one that it writes, which takes longer than a loop over eight cells. Within a function an array, or a row
    of it, has to be reached either through one region or by plain indexing, never through two regions.

    Args:
        number: of the region, 0 to ``REGIONS - 1``.

    Returns:
        ``load(array, row, column)`` and ``store(array, row, column, value)``; indices are neither checked nor counted
        from the end.
    """

    @intrinsic
    def load(_typing: Any, array: Any, _row: Any, _column: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _place(context, builder, signature, arguments)
            return _mark(builder, builder.load(place), number)

        return array.dtype(array, types.int64, types.int64), generate

    @intrinsic
    def store(_typing: Any, array: Any, _row: Any, _column: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _place(context, builder, signature, arguments)
            _mark(builder, builder.store(arguments[3], place), number)
            return context.get_dummy_value()

        return types.none(array, types.int64, types.int64, array.dtype), generate

    return load, store


@intrinsic
def _prefetch(_typing: Any, array: Any, _offset: Any) -> Any:
    """Ask for the cache line that holds a byte of an array; never faults, whatever the offset."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(builder.bitcast(data, byte), [arguments[1]])
        wanted = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        read, keep, data_cache = number(0), number(3), number(1)
        builder.call(wanted, [place, read, keep, data_cache])
        return context.get_dummy_value()

    return types.none(array, types.int64), generate


@inner
def fetch_ahead(array, row):  # type: ignore[no-untyped-def]
    """Bring a row of an array into the cache before it is needed; nothing happens for a row beyond the end."""
    stride = array.strides[0]
    if row < array.shape[0]:
        for offset in range(row * stride, (row + 1) * stride, _LINE_BYTES):
            _prefetch(array, offset)
