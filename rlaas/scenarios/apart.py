"""Arrays that lie far from each other, and stay so where an environment is copied or pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["arrays_apart", "is_apart", "separate", "set_apart"]

_LINE_BYTES = 64
_GUARD_BYTES = 4096
_AROUND_BYTES = 2 * _GUARD_BYTES + _LINE_BYTES


def separate(shape: int | tuple[int, ...], dtype: Any = np.float64, fill: Any = 0) -> NDArray[Any]:
    """An array that lies far from every other, on a cache line's boundary.

    Compiled loops check whether the arrays they read and write overlap and take another way where they seem to. The
    check is a rough one: arrays that merely lie close fail it. Where memory happens to be allocated would then decide
    in which order sums are rounded.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    memory = np.zeros(size + _AROUND_BYTES, dtype=np.uint8)
    first = _GUARD_BYTES + -(memory.ctypes.data + _GUARD_BYTES) % _LINE_BYTES
    array: NDArray[Any] = memory[first : first + size].view(kind).reshape(shape)
    if fill:
        array[...] = fill
    return array


def is_apart(array: Any) -> bool:
    """Whether an array came from :func:`separate`, whole."""
    memory = getattr(array, "base", None)
    if not isinstance(array, np.ndarray) or not isinstance(memory, np.ndarray) or memory.dtype != np.uint8:
        return False
    if memory.nbytes != array.nbytes + _AROUND_BYTES:
        return False
    # NumPy does not say where an array without elements lies.
    before = array.ctypes.data - memory.ctypes.data if array.size else _GUARD_BYTES
    return _GUARD_BYTES <= before < _GUARD_BYTES + _LINE_BYTES


def arrays_apart(owner: Any) -> list[NDArray[Any]]:
    """The arrays of :func:`separate` that an object holds, each once.

    They are looked for in its attributes, in tuples, lists and dictionaries there, and in the attributes of objects
    whose class is of rlaas or of the owner's package; scenarios, which are read only, are left out.
    """
    found: dict[int, NDArray[Any]] = {}

    def keep(array: NDArray[Any]) -> NDArray[Any]:
        if is_apart(array):
            found[id(array)] = array
        return array

    _Walk(owner, keep).attributes(owner)
    return list(found.values())


def set_apart(owner: Any, arrays: list[NDArray[Any]]) -> None:
    """Replace these arrays, wherever an object holds them, by equal ones that are apart.

    An array that is apart already stays: then the object shares it with another.
    """
    wanted = {id(array): array for array in arrays if not is_apart(array)}
    ready: dict[int, NDArray[Any]] = {}

    def replace(array: NDArray[Any]) -> NDArray[Any]:
        if id(array) not in wanted:
            return array
        if id(array) not in ready:
            ready[id(array)] = separate(array.shape, array.dtype)
            ready[id(array)][...] = array
        return ready[id(array)]

    _Walk(owner, replace).attributes(owner)


class _Walk:
    """Goes through what an object holds and puts ``visit(array)`` in the place of every array."""

    def __init__(self, owner: Any, visit: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._roots = {"rlaas", type(owner).__module__.partition(".")[0]}
        self._visit = visit
        # By identity, with what was there: it must live as long as its number is remembered.
        self._seen: dict[int, tuple[Any, Any]] = {}

    def attributes(self, holder: Any) -> None:
        """Go through the attributes of an object."""
        for name, value in vars(holder).items():
            if name != "scenario":
                # Not by setattr: frozen objects hold arrays too. The key is there, so the dictionary keeps its size.
                new = self._value(value)
                if new is not value:
                    vars(holder)[name] = new

    def _value(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._visit(value)
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        self._seen[id(value)] = (value, value)
        if isinstance(value, tuple):
            parts = [self._value(part) for part in value]
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                # A named tuple takes its fields one by one. What stands in two places has to stay one object there.
                same = type(value)._make(parts) if hasattr(value, "_make") else tuple(parts)
                self._seen[id(value)] = (value, same)
                return same
        elif isinstance(value, list):
            value[:] = [self._value(part) for part in value]
        elif isinstance(value, dict):
            for key, part in value.items():
                value[key] = self._value(part)
        elif hasattr(value, "__dict__") and not isinstance(value, type) and self._ours(value):
            self.attributes(value)
        return value

    def _ours(self, value: Any) -> bool:
        return type(value).__module__.partition(".")[0] in self._roots
