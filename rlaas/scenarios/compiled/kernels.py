"""Compiled entry points whose disk cache notices every change of the code behind them.

Numba keeps what it compiled beside the source and throws it away when *that file* changes. A kernel that calls
functions of other files would go on running their old code. So an entry point's cache carries a digest of the whole
scenarios package instead, and what it calls needs no cache of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

__all__ = ["entry_point", "inner"]

# Divisions do not raise and sums may be regrouped: what loops need to be vectorised. Kernels neither make nor keep
# arrays, so counting references to those they are given (half of the time of a step) is left out. A wrapper holds a
# whole copy of what it wraps, which takes as long to compile again; that for C is never called.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
    "_nrt": False,
    "no_cfunc_wrapper": True,
}
_INNER: dict[str, Any] = {"nopython": True, "boundscheck": None, "no_cpython_wrapper": True}


@cache
def _digest() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Inner(CPUDispatcher):
    """A function compiled for compiled callers only: half of the time is the wrapper that Python calls.

    Where Python does call one, as tests do, it is compiled once more, with the wrapper.
    """

    def __call__(self, *args: Any) -> Any:
        return self._from_python(*args)

    @cached_property
    def _from_python(self) -> Any:
        options = {name: value for name, value in self.targetoptions.items() if name not in _INNER}
        return njit(**options)(self.py_func)


def inner(function: Callable[..., Any] | None = None, *, inline: bool = True, no_nan: bool = False) -> Any:
    """Compile ``function`` for calls from other compiled functions; it needs no cache of its own.

    Args:
        function: what to compile; None returns a decorator.
        inline: False leaves inlining to the compiler: for what is large and called from several places.
        no_nan: its arguments are never NaN, which lets searches for extremes be vectorised.
    """
    options = {**_OPTIONS, "fastmath": {*_OPTIONS["fastmath"], "nnan"}} if no_nan else _OPTIONS

    def decorate(function: Callable[..., Any]) -> Any:
        return _Inner(function, targetoptions={**_INNER, "forceinline": inline, **options})

    return decorate if function is None else decorate(function)


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile ``function`` on its first call, without the interpreter lock, cached on disk.

    The cache lies in ``__pycache__`` beside the source, or in ``NUMBA_CACHE_DIR``, or in the user's cache directory
    where neither can be written. Of processes that start at the same time, as the workers of a training run do, one
    compiles, and the others wait for it.
    """
    compiled = njit(nogil=True, cache=True, **_OPTIONS)(function)
    compiled._cache._cache_file._source_stamp = _digest()
    compile_now, folder = compiled.compile, Path(compiled._cache.cache_path)

    def compile_once(signature: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        # Numba's own lock first: threads of this process would otherwise wait for each other's.
        name = f"{function.__module__}.{function.__name__}.lock"
        with global_compiler_lock, (folder / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_now(signature)

    compiled.compile = compile_once
    return compiled
