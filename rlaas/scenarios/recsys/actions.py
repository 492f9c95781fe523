"""The discrete actions: retrieval strategy x ranking preset x diversity x exploration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown

__all__ = ["ActionTable"]

IntArray = NDArray[np.int64]


class ActionTable:
    """Numbers of the actions and their four parts.

    Attributes:
        sizes: number of choices of each part.
        n: number of actions.
        parts: choice of each part by action [n, 4].
    """

    def __init__(self, sizes: tuple[int, int, int, int]) -> None:
        self.sizes = sizes
        self.n = int(np.prod(sizes))
        self.parts: IntArray = np.stack(np.unravel_index(np.arange(self.n), sizes), axis=1).astype(np.int64)

    def index(self, retrieval: int, ranking: int, diversity: int, exploration: int) -> int:
        """The action with these parts."""
        return int(np.ravel_multi_index((retrieval, ranking, diversity, exploration), self.sizes))

    def check(self, actions: Any, rows: int) -> IntArray:
        """Actions [rows] as whole numbers; the array itself where it is one of int64 already.

        Raises:
            InvalidInputError: wrong shape, no whole numbers, or out of range; names ``action`` and what is allowed.
        """
        allowed = f"whole numbers from 0 to {self.n - 1}"
        try:
            array = np.asarray(actions)
        except Exception as error:  # ragged, or an array of another library that does not convert
            raise InvalidInputError(
                f"action must be an array ({rows},) of {allowed}, got {shown(actions)}", field="action"
            ) from error
        if isinstance(actions, np.ma.MaskedArray):
            raise InvalidInputError(f"action is masked; expected ({rows},) {allowed}", field="action")
        if array.shape != (rows,):
            raise InvalidInputError(f"action has shape {array.shape}; expected ({rows},) {allowed}", field="action")
        if not np.issubdtype(array.dtype, np.integer):
            raise InvalidInputError(
                f"action must be {allowed}, got {array.dtype} {str(array.ravel()[0])[:40]}", field="action"
            )
        if array.min() < 0 or array.max() >= self.n:
            wrong = int(np.flatnonzero((array < 0) | (array >= self.n))[0])
            raise InvalidInputError(f"action must be {allowed}, got {array[wrong]} in row {wrong}", field="action")
        return np.ascontiguousarray(array, dtype=np.int64)
