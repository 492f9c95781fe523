"""Takes a subject out of SQLite databases: the rows, and the pages that rows have left."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from rlaas.errors import RetryableError
from rlaas.lake.privacy.needles import Needles

__all__ = ["clean_database"]

_BUSY_MS = 15_000


def clean_database(file: Path, needles: Needles, *, delete_rows: bool) -> int:
    """Rewrite a database without the subject.

    Args:
        file: of an SQLite database; others may go on using it.
        needles: what goes.
        delete_rows: take out whole rows (of a store that is made from the lake); otherwise a random label takes the
            place of the subject, so that documents and counts stay whole.

    Returns:
        Number of cells (or rows) that spoke of the subject.

    Raises:
        RetryableError: somebody else holds the database.
    """
    beside = [file, file.with_name(f"{file.name}-wal")]
    if not any(needles.inside(path.read_bytes()) for path in beside if path.exists()):
        return 0
    label = f"erased-{secrets.token_hex(8)}".encode()
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY_MS / 1000, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("BEGIN IMMEDIATE")
            changed = sum(_clean_table(connection, table, needles, label, delete_rows) for table in _tables(connection))
            connection.execute("COMMIT")
            # Also where nothing changed: what was deleted earlier may still lie in a free page or in the log.
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as problem:
        raise RetryableError(f"{file} cannot be rewritten now: {problem}; try again", field="subject") from problem
    return changed


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in rows]


def _clean_table(connection: sqlite3.Connection, table: str, needles: Needles, label: bytes, delete_rows: bool) -> int:
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    changed = 0
    for column in columns:
        place = f'"{table}" WHERE "{column}" = ?'
        found = [
            value
            for (value,) in connection.execute(f'SELECT DISTINCT "{column}" FROM "{table}"')
            if _speaks_of(value, needles)
        ]
        for value in found:
            if delete_rows or value in needles.decisions:
                changed += connection.execute(f"DELETE FROM {place}", (value,)).rowcount
                continue
            plain = value.encode() if isinstance(value, str) else value
            made = needles.replaced(plain, label)
            changed += connection.execute(
                f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?',
                (made.decode() if isinstance(value, str) else made, value),
            ).rowcount
    return changed


def _speaks_of(value: object, needles: Needles) -> bool:
    if isinstance(value, str):
        return value in needles.decisions or needles.said_in(value.encode())
    return isinstance(value, bytes) and needles.said_in(value)
