"""Columns of numbers on disk, apart by entity, so that one part at a time fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spill"]


class Spill:
    """Numbered parts of rows with a code; rows with the same code are in the same part, in the order they came.

    Args:
        folder: for the files; exists.
        name: of them.
        parts: how many.
        columns: names, the first is that of the code; those that begin with ``value`` are float64, the others int64.
    """

    def __init__(self, folder: Path, name: str, parts: int, columns: Sequence[str]) -> None:
        self._paths = [{column: folder / f"{name}-{part}-{column}" for column in columns} for part in range(parts)]
        self._files: list[list[BinaryIO]] = [[path.open("wb") for path in paths.values()] for paths in self._paths]

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def add(self, columns: Sequence[NDArray[Any]]) -> None:
        """Put rows away, given as columns [n] in the order of their names."""
        parts = len(self._files)
        if parts == 1:
            for file, column in zip(self._files[0], columns, strict=True):
                np.ascontiguousarray(column).tofile(file)
            return
        part = (columns[0] % parts).astype(np.uint8)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=parts)).tolist()
        for place, column in enumerate(columns):
            rows = column[order]
            for files, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
                rows[start:end].tofile(files[place])

    def close(self) -> None:
        """No more rows."""
        for files in self._files:
            for file in files:
                file.close()

    def read(self, part: int, column: str) -> NDArray[Any]:
        """A column of a part, once closed."""
        return np.fromfile(self._paths[part][column], np.float64 if column.startswith("value") else np.int64)
