"""``rlaas lake tables``, ``history``, ``changes``, ``query`` and ``verify``: what the lake holds."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_lines, print_table
from rlaas.errors import InvalidInputError, LakeError

if TYPE_CHECKING:
    import pyarrow as pa

    from rlaas.lake import Lake
    from rlaas.lake.verification import LogVerification

__all__ = ["at_time", "register", "rows_of"]

Table = Annotated[str, typer.Argument(help="For example silver.transitions.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``rlaas lake``."""
    app.command("tables")(tables)
    app.command("history")(history)
    app.command("changes")(changes)
    app.command("query")(query)
    app.command("verify")(verify)


def tables(as_json: JsonOption = False) -> None:
    """List the tables with their rows, versions and files."""
    from rlaas.lake.datafiles import live_files

    lake = _lake()
    found = []
    for name, version in sorted(lake.versions().items()):
        delta = lake.open(name, version=version)
        files = [] if delta is None else live_files(delta, {"tenant": lake.tenant})
        size = sum(file.size for file in files)
        rows = sum(file.rows for file in files)
        found.append({"table": name, "rows": rows, "version": version, "files": len(files), "bytes": size})
    if as_json:
        print_json(found)
        return
    print_table(
        f"lake at {lake.root}",
        ("table", "rows", "version", "files", "size"),
        [(one["table"], one["rows"], one["version"], one["files"], _size(int(str(one["bytes"])))) for one in found],
    )


def history(
    table: Table,
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest versions.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the versions of a table, newest first; read one with --version or --at where a command takes it."""
    found = _lake().history(table, limit)
    if as_json:
        print_json([dataclasses.asdict(one) | {"time": one.time.isoformat()} for one in found])
        return
    print_table(
        f"versions of {table}",
        ("version", "time (UTC)", "operation", "files", "rows added"),
        [
            (
                one.version,
                one.time.strftime("%Y-%m-%d %H:%M:%S"),
                one.operation if one.note is None else f"{one.operation}: {one.note}",
                "" if one.files_added is None else f"+{one.files_added} -{one.files_removed or 0}",
                "" if one.rows_added is None else one.rows_added,
            )
            for one in found
        ],
    )


def changes(
    table: Table,
    since: Annotated[int, typer.Option(min=-1, help="The version whose rows are known; -1 for none.")] = -1,
    as_json: JsonOption = False,
) -> None:
    """Count what changed in a table behind a version, from its change feed."""
    found = _lake().changes(table, since, columns=["date"])
    counted = Counter(
        zip(found.column("_commit_version").to_pylist(), found.column("_change_type").to_pylist(), strict=True)
    )
    rows = [{"version": key[0], "change": key[1], "rows": number} for key, number in sorted(counted.items())]
    if as_json:
        print_json(rows)
        return
    title = f"changes of {table} behind version {since}"
    print_table(title, ("version", "change", "rows"), [tuple(row.values()) for row in rows])


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over the tables of the lake.")],
    limit: Annotated[int, typer.Option(min=1, help="Stop at so many rows.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Ask a question in SQL; only the tenant's rows are there, and nothing can be changed."""
    from rlaas.lake.query import query as ask

    found, more = ask(_lake(), sql, limit=limit)
    rows = rows_of(found)
    if as_json:
        print_json({"columns": found.schema.names, "rows": rows, "truncated": more})
        return
    title = f"the first {limit} rows; --limit for more" if more else f"{len(rows)} rows"
    print_table(title, found.schema.names, [[_cell(value) for value in row.values()] for row in rows])


def verify(as_json: JsonOption = False) -> None:
    """Prove the write-ahead log against the tables: everything acknowledged is there once, or still waits."""
    from rlaas.lake import verify_log
    from rlaas.settings import load_settings

    settings = load_settings()
    found = verify_log(_lake(), settings.wal_root)
    if as_json:
        streams = {name: dataclasses.asdict(stream) for name, stream in found._asdict().items()}
        print_json({"exactly_once": found.exactly_once, **streams})
    else:
        _show(found)
    if not found.exactly_once:
        raise LakeError("log and tables disagree: rows are lost, would come twice, or a segment is damaged")


def _show(found: LogVerification) -> None:
    names = ("rows", "waiting", "committed", "refused", "duplicates", "missing", "early", "gaps", "damaged")
    rows: list[tuple[object, ...]] = []
    for stream, seen in found._asdict().items():
        values = (getattr(seen, name) for name in names)
        rows.append((stream, *(len(value) if isinstance(value, tuple) else value for value in values)))
    print_table("write-ahead log against bronze", ("stream", *names), rows)
    print_lines(
        f"{stream}: {name}: {item}"
        for stream, seen in found._asdict().items()
        for name in ("missing", "early", "gaps", "damaged")
        for item in getattr(seen, name)[:10]
    )
    if found.exactly_once:
        print_lines(["everything committed is in its table exactly once"])


def at_time(text: str | None) -> datetime | None:
    """A time of a command line; one without offset is UTC.

    Raises:
        InvalidInputError: it is no time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"--at {text!r} is no time; allowed: 2026-11-30, or 2026-11-30T12:00:00+00:00", field="at"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them: entries of a map as an object, bytes as hexadecimal, NaN and infinity as text."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, (list, dict)) else str(value)


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def _lake() -> Lake:
    from rlaas.lake import Lake
    from rlaas.settings import load_settings

    settings = load_settings()
    return Lake(settings.lake_root, settings.tenant)
