"""Compiled entry points whose disk cache notices every change of the code behind them.

Numba keeps what it compiled beside the source and throws it away when *that file* changes. A kernel that calls
functions of other files would go on running their old code. So an entry point's cache carries a digest of the whole
scenarios package instead, and what it calls needs no cache of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["entry_point", "inner"]

# Divisions do not raise and sums may be regrouped: what loops need to be vectorised. Kernels neither make nor keep
# arrays, so counting references to those they are given (half of the time of a step) is left out.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
    "_nrt": False,
}


@cache
def _digest() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def inner(function: Callable[..., Any] | None = None, *, inline: bool = True, no_nan: bool = False) -> Any:
    """Compile ``function`` for calls from other compiled functions; it needs no cache of its own.

    Args:
        function: what to compile; None returns a decorator.
        inline: False leaves inlining to the compiler: for what is large and called from several places.
        no_nan: its arguments are never NaN, which lets searches for extremes be vectorised.
    """
    options = {**_OPTIONS, "fastmath": {*_OPTIONS["fastmath"], "nnan"}} if no_nan else _OPTIONS
    decorate = njit(forceinline=inline, **options)
    return decorate if function is None else decorate(function)


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile ``function`` on its first call, without the interpreter lock, cached on disk.

    The cache lies in ``__pycache__`` beside the source, or in ``NUMBA_CACHE_DIR``, or in the user's cache directory
    where neither can be written.
    """
    compiled = njit(nogil=True, cache=True, **_OPTIONS)(function)
    compiled._cache._cache_file._source_stamp = _digest()
    return compiled
