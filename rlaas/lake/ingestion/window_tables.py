"""Windows in ``silver.windows``: appended as they change, read back as the newest word on each.

Every commit adds the windows that changed, as of a position of their source, and one row that says how far the source
has come. The row with the highest revision counts; a fold is taken up again from those that are not final.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.ingestion.streams import WindowConfig
from rlaas.lake.ingestion.windows import Fold, Window
from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["TABLE", "WINDOW_COLUMNS", "load_fold", "read_windows", "window_rows"]

TABLE = "silver.windows"
_KEY = ("source", "entity", "start_us", "kind")

WINDOW_COLUMNS = pa.schema(
    [
        ("name", pa.string()),
        ("entity", pa.string()),
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("last", pa.float64()),
        ("final", pa.bool_()),
    ]
)
"""What :func:`read_windows` returns."""


def window_rows(
    tenant: str,
    name: str,
    source: str,
    revision: int,
    fold: Fold,
    changed: Mapping[tuple[str, int], tuple[Window, bool]],
) -> pa.Table:
    """Windows that changed, and how far their source has come, as rows of ``silver.windows``.

    Args:
        tenant: owner.
        name: of the windows.
        source: that the fold is of.
        revision: position of the source behind the last event that was taken in.
        fold: after that event.
        changed: what :meth:`~rlaas.lake.ingestion.windows.Fold.apply` returned.
    """
    shared = {
        "tenant": tenant,
        "name": name,
        "source": source,
        "revision": revision,
        "watermark_us": fold.watermark_us,
    }
    rows: list[dict[str, Any]] = [
        {
            **shared,
            "date": date_of(start),
            "kind": "window",
            "entity": entity,
            "start_us": start,
            "end_us": start + fold.shape.size_us,
            "count": window.count,
            "parts": window.parts,
            "minimum": window.minimum,
            "maximum": window.maximum,
            "last": window.last[2],
            "last_us": window.last[0],
            "last_receipt": window.last[1],
            "late": 0,
            "final": final,
        }
        for (entity, start), (window, final) in changed.items()
    ]
    rows.append(
        {
            **shared,
            "date": date_of(max(0, fold.newest_us)),
            "kind": "source",
            "entity": "",
            "start_us": 0,
            "end_us": 0,
            "count": fold.count,
            "parts": [],
            "last_us": fold.newest_us,
            "late": fold.late,
            "final": False,
        }
    )
    return pa.Table.from_pylist(rows, schema=table_spec(TABLE).schema)


def load_fold(lake: Lake, config: WindowConfig, source: str) -> tuple[Fold, int | None]:
    """The fold of a source as it was last committed, and the position it is of; a new one and None where there is none.

    Raises:
        LakeError: the table is damaged.
    """
    where = (pc.field("name") == config.name) & (pc.field("source") == source)
    fold, position = Fold(config.shape), None
    for row in _newest(lake.read(TABLE, filter=where)):
        if row["kind"] == "source":
            fold.newest_us, fold.count, fold.late = row["last_us"], row["count"], row["late"]
            position = int(row["revision"])
        elif not row["final"]:
            fold.windows[row["entity"], row["start_us"]] = _window(row)
    return fold, position


def read_windows(lake: Lake, name: str, *, since: str | None = None) -> pa.Table:
    """The windows of all sources together, as they are now, by entity and start.

    A window is final where every source that has it says so.

    Args:
        lake: the tables.
        name: of the windows.
        since: first day (``yyyy-mm-dd``) of their starts.

    Raises:
        LakeError: the table is damaged.
    """
    where = (pc.field("name") == name) & (pc.field("kind") == "window")
    if since is not None:
        where &= pc.field("date") >= since
    together: dict[tuple[str, int], dict[str, Any]] = {}
    parts: dict[tuple[str, int], list[float]] = {}
    newest: dict[tuple[str, int], tuple[int, str, float]] = {}
    for row in _newest(lake.read(TABLE, filter=where)):
        key = (row["entity"], row["start_us"])
        parts.setdefault(key, []).extend(row["parts"])
        newest[key] = max(newest.get(key, (-1, "", math.nan)), (row["last_us"], row["last_receipt"], row["last"]))
        known = together.get(key)
        if known is None:
            together[key] = {field: row.get(field) for field in WINDOW_COLUMNS.names}
            continue
        known["count"] += row["count"]
        known["minimum"], known["maximum"] = (
            min(known["minimum"], row["minimum"]),
            max(known["maximum"], row["maximum"]),
        )
        known["final"] = known["final"] and row["final"]
    for key, row in together.items():
        row["mean"] = math.fsum(parts[key]) / row["count"]
        row["last"] = newest[key][2]
    return pa.Table.from_pylist([together[key] for key in sorted(together)], schema=WINDOW_COLUMNS)


def _newest(rows: pa.Table) -> list[dict[str, Any]]:
    """Of each window and source the row with the highest revision."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows.to_pylist():
        key = tuple(row[name] for name in _KEY)
        if key not in found or row["revision"] > found[key]["revision"]:
            found[key] = row
    return list(found.values())


def _window(row: Mapping[str, Any]) -> Window:
    return Window(
        count=row["count"],
        parts=list(row["parts"]),
        minimum=row["minimum"],
        maximum=row["maximum"],
        last=(row["last_us"], row["last_receipt"], row["last"]),
    )
