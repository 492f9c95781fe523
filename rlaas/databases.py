"""Databases that rlaas keeps tables of its own in: SQLite by default, PostgreSQL in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from rlaas.errors import ConfigurationError, OperatorError

__all__ = ["create_tables", "database_file", "open_database"]

_BACKENDS = ("postgresql", "sqlite")
_BUSY_MS = 15_000
_CREATE_TRIES = 20


def open_database(url: str, *, field: str, private: bool = False, pragmas: Mapping[str, str] | None = None) -> Engine:
    """The engine of a database; an SQLite file and its folder are made where they are missing.

    Args:
        url: SQLAlchemy URL.
        field: setting that it came from, for errors.
        private: only the file's owner may read it.
        pragmas: of every SQLite connection, beside a log that lets readers go on while one writes, and a queue of
            writers instead of errors.

    Raises:
        ConfigurationError: not a URL of SQLite or PostgreSQL, or its driver is not installed.
    """
    parsed = _parsed(url, field)
    file = database_file(url, field=field)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if private:
            file.touch(mode=0o600)
    try:
        engine = sa.create_engine(parsed)
    except (ImportError, NoSuchModuleError) as problem:
        raise ConfigurationError(
            f"{field}: the driver of {parsed.drivername} is not installed", field=field
        ) from problem
    if parsed.get_backend_name() == "sqlite":
        wanted = {"busy_timeout": str(_BUSY_MS), "journal_mode": "WAL", **(pragmas or {})}

        def prepare(connection: Any, _: object) -> None:
            cursor = connection.cursor()
            for name, value in wanted.items():
                cursor.execute(f"PRAGMA {name}={value}")
            cursor.close()

        sa.event.listen(engine, "connect", prepare)
    return engine


def database_file(url: str, *, field: str) -> Path | None:
    """The file of an SQLite database; None for one in memory, and for any other.

    Raises:
        ConfigurationError: see :func:`open_database`.
    """
    parsed = _parsed(url, field)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def create_tables(engine: Engine, metadata: sa.MetaData, *, what: str, field: str) -> None:
    """Make the tables that are missing; several processes may do so at once.

    Args:
        engine: of the database.
        metadata: the tables.
        what: the database, for people.
        field: setting that names it.

    Raises:
        OperatorError: the database cannot be opened or written.
    """
    for _ in range(_CREATE_TRIES):
        try:
            metadata.create_all(engine)
            return
        except DBAPIError as problem:
            if "already exists" not in str(problem):
                raise OperatorError(f"cannot open {what}: {problem.orig}", field=field) from problem
            # Another process made a table between look and leap: look again, as others may be missing still.
    raise OperatorError(f"cannot make the tables of {what}", field=field)


def _parsed(url: str, field: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as problem:
        raise ConfigurationError(f"{field} is not an SQLAlchemy URL", field=field) from problem
    backend = parsed.get_backend_name()
    if backend not in _BACKENDS:
        raise ConfigurationError(f"{field}: unknown backend {backend!r}; allowed: {', '.join(_BACKENDS)}", field=field)
    return parsed
