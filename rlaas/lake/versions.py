"""The versions of a Delta table: which there are, which was current at a time, and what changed between two."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlaas.errors import InvalidInputError, LakeError, NotFoundError
from rlaas.lake.schemas import TableSpec

__all__ = ["CHANGE_COLUMNS", "TableVersion", "changes_between", "load_version", "table_versions"]

CHANGE_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")
_CHANGES = pa.schema(
    [
        pa.field("_change_type", pa.string(), nullable=False),
        pa.field("_commit_version", pa.int64(), nullable=False),
        pa.field("_commit_timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
_FEED = "delta.enableChangeDataFeed"
_ENTRY = re.compile(r"\d{20}\.json")


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A commit to a table.

    Attributes:
        version: Delta version that it made.
        time: when, UTC.
        operation: what it did: ``WRITE``, ``MERGE``, ``ADD CONSTRAINT`` ...
        note: what rlaas did with it, where it says so: ``compaction``, ``z-order``, ``moved to warm`` ...
        files_added: data files that it added, where it counts them.
        files_removed: data files that it took out, where it counts them.
        rows_added: rows in the added files of an append, where it counts them.
    """

    version: int
    time: datetime
    operation: str
    note: str | None
    files_added: int | None
    files_removed: int | None
    rows_added: int | None


def table_versions(delta: DeltaTable, limit: int | None) -> list[TableVersion]:
    """The newest commits whose entries the log still has, newest first."""
    found = []
    for entry in delta.history(limit):
        metrics: dict[str, Any] = entry.get("operationMetrics") or {}

        def counted(*names: str, metrics: dict[str, Any] = metrics) -> int | None:
            values = [metrics[name] for name in names if name in metrics]
            return int(values[0]) if values else None

        found.append(
            TableVersion(
                version=int(entry["version"]),
                time=datetime.fromtimestamp(int(entry["timestamp"]) / 1000, UTC),
                operation=str(entry.get("operation", "")),
                note=entry.get("rlaas"),
                files_added=counted("num_added_files", "numFilesAdded", "num_target_files_added"),
                files_removed=counted("num_removed_files", "numFilesRemoved", "num_target_files_removed"),
                rows_added=counted("num_added_rows", "num_target_rows_inserted"),
            )
        )
    return found


def load_version(location: str, delta: DeltaTable, *, version: int | None, at: datetime | None) -> None:
    """Let the table be as it was at a version, or at a time.

    Args:
        location: folder or URL of the table.
        delta: the table, its newest version loaded.
        version: Delta version.
        at: time with its offset; the version that was the newest then, by the times that the commits say themselves.

    Raises:
        InvalidInputError: both were given, or a time without its offset.
        NotFoundError: there was no such version, or none yet at that time.
        LakeError: its entry in the log, or that of an earlier one it needs, was cleaned away.
    """
    name = ".".join(location.rstrip("/").split("/")[-2:])
    if version is not None and at is not None:
        raise InvalidInputError("give a version or a time, not both", field="at")
    newest = int(delta.version())
    if version is not None and not 0 <= version <= newest:
        raise NotFoundError(f"table {name} has no version {version}; allowed: 0 to {newest}", field="version")
    if at is not None:
        if at.tzinfo is None:
            raise InvalidInputError(
                f"at {at.isoformat()} has no offset; allowed: 2026-11-30T12:00:00+00:00", field="at"
            )
        version = _version_at(location, name, at)
    if version is None:
        return
    try:
        delta.load_as_version(version)
    except DeltaError as problem:
        raise LakeError(f"table {name}: its log no longer reaches back to version {version}: {problem}") from problem


def _version_at(location: str, name: str, at: datetime) -> int:
    """The newest version that is not younger than a time.

    deltalake goes by the times of the log's files, which are others once a lake is copied or restored.
    """
    base, path = pa_fs.FileSystem.from_uri(f"{location}/_delta_log")
    names = (item.base_name for item in base.get_file_info(pa_fs.FileSelector(path)))
    versions = sorted(int(found[:20]) for found in names if _ENTRY.fullmatch(found))
    place = bisect_right(versions, at, key=lambda version: _time_of(base, f"{path}/{version:020d}.json"))
    if place:
        return versions[place - 1]
    oldest = _time_of(base, f"{path}/{versions[0]:020d}.json").isoformat()
    if versions[0] > 0:
        raise LakeError(f"table {name}: its log no longer reaches back to {at.isoformat()}, only to {oldest}")
    raise NotFoundError(f"table {name} did not exist at {at.isoformat()}; it was made at {oldest}", field="at")


def _time_of(base: pa_fs.FileSystem, path: str) -> datetime:
    with base.open_input_stream(path) as stream:
        for line in stream.read().splitlines():
            if line.startswith(b'{"commitInfo"'):
                return datetime.fromtimestamp(int(json.loads(line)["commitInfo"]["timestamp"]) / 1000, UTC)
    raise LakeError(f"{path} does not say when it was written")


def changes_between(spec: TableSpec, delta: DeltaTable, tenant: str, since: int) -> pa.Table:
    """The changes of a tenant's rows behind a version, up to the one that is loaded.

    Raises:
        NotFoundError: the table has not come so far.
        LakeError: the feed was not on yet, or the log or the files of a version are gone.
    """
    newest = int(delta.version())
    schema = pa.schema([*spec.schema, *_CHANGES])
    if since > newest:
        raise NotFoundError(f"table {spec.name} has no version {since}; allowed: -1 to {newest}", field="since_version")
    if delta.metadata().configuration.get(_FEED) != "true":
        raise LakeError(f"table {spec.name} has no change feed at version {newest}")
    if since == newest:
        return schema.empty_table()
    try:
        feed = delta.load_cdf(
            starting_version=since + 1, ending_version=newest, predicate=f"tenant = '{tenant}'"
        ).read_all()
    # The reader of a stream that breaks off says so in an exception of no particular class.
    except Exception as problem:
        reason = " ".join(str(problem).split())
        raise LakeError(f"table {spec.name}: changes behind version {since} cannot be read: {reason}") from problem
    found = pa.table(feed)
    # A column that the table was given later is not in the feed of a version before.
    columns = [
        found.column(field.name).cast(field.type)
        if field.name in found.column_names
        else pa.nulls(found.num_rows, field.type)
        for field in schema
        if field.name != "_commit_timestamp"
    ]
    columns.append(found.column("_commit_timestamp").cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")))
    return pa.Table.from_arrays(columns, schema=schema)
