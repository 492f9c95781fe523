"""Where in time the rows of ``bronze`` lie, by the keys that the join looks for.

Delta finds a row by its time (days are folders, files know their first and last time), not by a session or by the
caller's id of an outcome. This index answers ``(key) -> (time, row)`` from SQLite B-trees, so that a look-up costs the
same whatever the table holds. Keys are 64-bit hashes: what is found is a candidate, which the rows themselves confirm.

It is a cache of an append-only table and says up to which version it was filled, in the same transaction: it can be
ahead of the join or behind it, and it can be deleted. The join then fills it again from three columns of each table.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import LakeError
from rlaas.lake.segments import Stream

__all__ = ["DECISION_KEYS", "OUTCOME_KEYS", "Found", "KeyIndex", "row_keys"]

DECISION_KEYS = ("receipt_id", "producer", "decision_id", "time_us", "policy", "session", "step")
OUTCOME_KEYS = ("receipt_id", "producer", "decision_id", "outcome_id", "revision", "received_us")

Found = set[tuple[int, int]]
"""Time (UTC microseconds) and row key (:func:`row_keys`) of every candidate."""

_AT_ONCE = 100_000
"""Rows that become Python objects at the same time."""
_VERSION = 2
_SCHEMA = """
CREATE TABLE position (stream TEXT PRIMARY KEY, table_id TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (key INTEGER, time_us INTEGER, row INTEGER, PRIMARY KEY (key, time_us, row)) WITHOUT ROWID;
CREATE TABLE steps (key INTEGER, time_us INTEGER, row INTEGER, PRIMARY KEY (key, time_us, row)) WITHOUT ROWID;
CREATE TABLE revisions (key INTEGER, time_us INTEGER, row INTEGER, PRIMARY KEY (key, time_us, row)) WITHOUT ROWID;
CREATE TABLE outcomes (key INTEGER, time_us INTEGER, row INTEGER, PRIMARY KEY (key, time_us, row)) WITHOUT ROWID;
CREATE TABLE waiting (time_us INTEGER, row INTEGER, key INTEGER, PRIMARY KEY (time_us, row)) WITHOUT ROWID;
CREATE INDEX waiting_for ON waiting (key);
"""


class KeyIndex:
    """The index of one tenant's ``bronze``, in one SQLite file.

    Args:
        path: the file; made, with its folder, where it is missing or of another version.

    As a context manager it lets go of the file at the end, and an error of SQLite's inside becomes a ``LakeError``.

    Raises:
        LakeError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA cache_size = -65536")
            with self._transaction():
                if self._db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                    self._drop()
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {_VERSION}")
        except (OSError, sqlite3.Error) as problem:
            raise _unusable(path, problem) from problem

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise _unusable(self.path, error) from error

    def position(self, stream: Stream, table_id: str) -> int:
        """Version of the table up to which the stream is indexed; -1 for nothing, or for another table's rows."""
        row = self._db.execute("SELECT table_id, version FROM position WHERE stream = ?", (stream,)).fetchone()
        return -1 if row is None or row[0] != table_id else int(row[1])

    def add(self, rows: Mapping[Stream, pa.Table], positions: Mapping[Stream, tuple[str, int]]) -> None:
        """Index rows; those that are known already make no difference.

        Args:
            rows: by stream, with the columns ``DECISION_KEYS`` and ``OUTCOME_KEYS`` at least.
            positions: by stream, id and version of the table that are then covered.
        """
        with self._transaction():
            # Decisions first: an outcome then sees whether the one it belongs to is there.
            adds: dict[Stream, Callable[[pa.Table], None]] = {
                "decisions": self._add_decisions,
                "outcomes": self._add_outcomes,
            }
            for stream, add in adds.items():
                if stream in rows:
                    for first in range(0, rows[stream].num_rows, _AT_ONCE):
                        add(rows[stream].slice(first, _AT_ONCE))
            for stream, (table_id, version) in positions.items():
                # Another update may have come farther meanwhile.
                reached = max(version, self.position(stream, table_id))
                self._db.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", (stream, table_id, reached))

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction():
            for table in ("position", "decisions", "steps", "revisions", "outcomes", "waiting"):
                self._db.execute(f"DELETE FROM {table}")

    def decisions(self, ids: Iterable[str]) -> Found:
        """Decisions by ``decision_id``."""
        return self._find("decisions", _hashes(ids))

    def repeated(self, ids: Iterable[str]) -> Found:
        """The same, of those only that have more than one row."""
        question = (
            "SELECT time_us, row FROM decisions WHERE key IN (SELECT value FROM json_each(?) AS asked "
            "WHERE (SELECT COUNT(*) FROM decisions WHERE key = asked.value) > 1)"
        )
        return set(self._db.execute(question, (json.dumps(_hashes(ids)),)))

    def steps(self, places: Iterable[tuple[str, str, int]]) -> Found:
        """Decisions by policy, session and step."""
        return self._find("steps", _hashes(f"{policy}\0{session}\0{step}" for policy, session, step in places))

    def revisions(self, keys: Iterable[tuple[str, int]]) -> Found:
        """Outcomes by ``outcome_id`` and ``revision``."""
        return self._find("revisions", _hashes(f"{outcome}\0{revision}" for outcome, revision in keys))

    def outcomes(self, ids: Iterable[str]) -> Found:
        """Outcomes by ``decision_id``."""
        return self._find("outcomes", _hashes(ids))

    def answered(self, ids: Iterable[str]) -> set[str]:
        """Those of the decisions that an outcome names, and a few besides whose hash is one's of them."""
        names = list(ids)
        keys = _hashes(names)
        question = (
            "SELECT value FROM json_each(?) AS asked WHERE EXISTS (SELECT 1 FROM outcomes WHERE key = asked.value)"
        )
        found = {key for (key,) in self._db.execute(question, (json.dumps(keys),))}
        return {name for name, key in zip(names, keys, strict=True) if key in found} if found else set()

    def waiting(self, start_us: int, stop_us: int) -> Found:
        """Outcomes without a decision that arrived in ``[start_us, stop_us)``."""
        question = "SELECT time_us, row FROM waiting WHERE time_us >= ? AND time_us < ?"
        return set(self._db.execute(question, (start_us, stop_us)))

    def _find(self, table: str, keys: Sequence[int]) -> Found:
        if not keys:
            return set()
        # The order is forced: SQLite cannot know how few keys are asked for.
        question = f"SELECT t.time_us, t.row FROM json_each(?) AS asked CROSS JOIN {table} AS t ON t.key = asked.value"
        return set(self._db.execute(question, (json.dumps(list(set(keys))),)))

    def _add_decisions(self, rows: pa.Table) -> None:
        columns = {name: rows.column(name).to_pylist() for name in ("decision_id", "time_us")}
        keys, times, own = _hashes(columns["decision_id"]), columns["time_us"], row_keys(rows)
        self._insert("decisions", zip(keys, times, own, strict=True))
        placed = [
            (f"{policy}\0{session}\0{step}", time_us, row)
            for policy, session, step, time_us, row in zip(
                *(rows.column(name).to_pylist() for name in ("policy", "session", "step")), times, own, strict=True
            )
            if session is not None and step is not None
        ]
        if placed:
            places, placed_times, placed_own = zip(*placed, strict=True)
            self._insert("steps", zip(_hashes(places), placed_times, placed_own, strict=True))
        if self._db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is not None:
            self._db.execute("DELETE FROM waiting WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(keys),))

    def _add_outcomes(self, rows: pa.Table) -> None:
        columns = {name: rows.column(name).to_pylist() for name in OUTCOME_KEYS}
        keys, times, own = _hashes(columns["decision_id"]), columns["received_us"], row_keys(rows)
        self._insert("outcomes", zip(keys, times, own, strict=True))
        groups = zip(columns["outcome_id"], columns["revision"], strict=True)
        self._insert("revisions", zip(_hashes(f"{name}\0{number}" for name, number in groups), times, own, strict=True))
        self._db.executemany(
            "INSERT OR IGNORE INTO waiting SELECT ?, ?, ?3 WHERE NOT EXISTS (SELECT 1 FROM decisions WHERE key = ?3)",
            zip(times, own, keys, strict=True),
        )

    def _insert(self, table: str, rows: Iterable[tuple[int, int, int]]) -> None:
        self._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", rows)

    def _drop(self) -> None:
        for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            self._db.execute(f"DROP TABLE {name}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _unusable(path: Path, problem: Exception) -> LakeError:
    return LakeError(f"index of the join {path}: {problem}; it is a cache and may be deleted")


def row_keys(rows: pa.Table) -> list[int]:
    """What tells a row from every other of its table: a hash of its receipt and its producer."""
    return _hashes(pc.binary_join_element_wise(rows.column("receipt_id"), rows.column("producer"), "\0").to_pylist())


def _hashes(texts: Iterable[str]) -> list[int]:
    """64 bits of each text: SipHash with pandas' fixed key, a tenth of what one call for each costs."""
    texts = list(texts)
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    found: list[int] = pd.util.hash_array(values, categorize=False).view(np.int64).tolist()
    return found
