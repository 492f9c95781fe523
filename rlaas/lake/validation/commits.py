"""Commits that others may get in the way of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from deltalake.exceptions import CommitFailedError

from rlaas.errors import LakeError

__all__ = ["retrying"]

Result = TypeVar("Result")
_ATTEMPTS = 8
_PAUSE_S = 0.02


def retrying(commit: Callable[[], Result], what: str) -> Result:
    """Run a commit that looks at the table anew each time, until nobody gets in between.

    Args:
        commit: opens the table, decides, commits.
        what: that it is about, for the error.

    Raises:
        LakeError: it was refused again and again.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return commit()
        except CommitFailedError as problem:
            if attempt == _ATTEMPTS - 1:
                raise LakeError(f"{what}: {_ATTEMPTS} commits refused: {problem}") from problem
            time.sleep(_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")
