"""Threads for kernels that release the interpreter lock: chunks of environments, no shared state."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

from rlaas.errors import ConfigurationError

__all__ = ["Workers", "default_threads"]


def default_threads() -> int:
    """Threads a scenario uses unless told: ``OMP_NUM_THREADS`` where it is set (Ray does), else the cores at hand."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # The process is part of the key: a forked child inherits the executor but none of its threads.
    return ThreadPoolExecutor(threads, thread_name_prefix=f"rlaas-scenario-{process}")


class Workers:
    """Runs a kernel over chunks of environments.

    Args:
        environments: how many there are.
        threads: how many threads to use; None for :func:`default_threads`.
        smallest: fewest environments worth a thread of their own.

    Raises:
        ConfigurationError: fewer than one thread.
    """

    def __init__(self, environments: int, threads: int | None = None, smallest: int = 8) -> None:
        wanted = default_threads() if threads is None else threads
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise ConfigurationError(f"threads must be a whole number >= 1 or None, got {wanted!r}", field="threads")
        count = max(1, min(wanted, environments // smallest))
        edges = [environments * i // count for i in range(count + 1)]
        self.chunks = tuple(pairwise(edges))

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Call ``kernel(first, last, *arguments)`` for every chunk and wait for all of them."""
        (first, last), *others = self.chunks
        if not others:
            kernel(first, last, *arguments)
            return
        pool = _pool(len(others), os.getpid())
        pending = [pool.submit(kernel, begin, end, *arguments) for begin, end in others]
        kernel(first, last, *arguments)
        for future in pending:
            future.result()
