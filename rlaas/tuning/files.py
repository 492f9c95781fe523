"""Writing files so that a crash leaves the old one or the new one, and nothing in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["sync", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one piece."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as JSON in one piece; a figure that is no number becomes null."""
    write_text(path, json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Bring a file or a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
