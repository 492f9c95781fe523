"""Files that a crash leaves as they were or as they should be, and nothing in between; and proof that they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["folder_below", "sha256_of", "sync", "write_bytes", "write_text"]


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` in one piece, on the disk when this returns (its name, after :func:`sync`)."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8."""
    write_bytes(path, text.encode())


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_below(root: Path, path: str) -> Path | None:
    """The folder that a caller's ``path`` names below ``root``; None for any other place, and where there is none.

    Elsewhere a route would read the server's files on behalf of whoever reaches the port.
    """
    top = root.resolve()
    try:
        folder = (top / path).resolve()
        return folder if folder.is_relative_to(top) and folder.is_dir() else None
    except (OSError, ValueError):  # longer than a path may be, or with a zero in it
        return None
