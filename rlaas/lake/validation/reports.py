"""What a validation found: stored in ``quality.reports``, one row for every clause of every run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake
from rlaas.lake.validation.checks import Check
from rlaas.lake.validation.commits import retrying

__all__ = ["TableReport", "newest_reports", "store_report"]

TABLE = "quality.reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """One table, checked once.

    Attributes:
        table: that was checked.
        version: Delta version.
        rows: rows that were checked.
        quarantined: rows of them that break a rule, all of them listed in the quarantine.
        checks: every clause.
        time_us: when, UTC microseconds.
        run_id: of the run, which may have checked other tables as well.
    """

    table: str
    version: int
    rows: int
    quarantined: int
    checks: tuple[Check, ...]
    time_us: int
    run_id: str

    @property
    def passed(self) -> bool:
        """Every clause holds."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "table": self.table,
            "version": self.version,
            "rows": self.rows,
            "quarantined": self.quarantined,
            "passed": self.passed,
            "run_id": self.run_id,
            "time_us": self.time_us,
            "checks": [asdict(check) for check in self.checks],
        }


def store_report(lake: Lake, report: TableReport) -> None:
    """Append a report, once: a second attempt with the same run does nothing.

    Raises:
        LakeError: the table refused every attempt.
    """
    schema = table_spec(TABLE).schema
    rows = [
        {
            "tenant": lake.tenant,
            "date": date_of(report.time_us),
            "run_id": report.run_id,
            "time_us": report.time_us,
            "table": report.table,
            "version": report.version,
            "scenario": check.scenario,
            "rows": report.rows,
            "check": check.name,
            "passed": check.passed,
            "measured": check.measured,
            "required": check.required,
            "detail": check.detail,
        }
        for check in report.checks
    ]
    app_id = f"rlaas/{lake.tenant}/quality/{report.run_id}/{report.table}"
    make = [(1, lambda: pa.Table.from_pylist(rows, schema=schema))]
    retrying(lambda: lake.append_once(TABLE, {app_id: make}), TABLE)


def newest_reports(lake: Lake, tables: Iterable[str], scenario: str | None = None) -> dict[str, list[Check]]:
    """The clauses of the newest report of each table that has one.

    Args:
        lake: the tables.
        tables: of which.
        scenario: leave out clauses about the rows of other scenarios; None: all clauses.
    """
    wanted = list(tables)
    rows = lake.read(TABLE, filter=pc.field("table").isin(wanted))
    found: dict[str, list[Check]] = {}
    for table in wanted:
        mine = rows.filter(pc.equal(rows.column("table"), table))
        if mine.num_rows == 0:
            continue
        newest = mine.filter(pc.equal(mine.column("time_us"), pc.max(mine.column("time_us"))))
        run = newest.column("run_id")[0]
        entries = newest.filter(pc.equal(newest.column("run_id"), run)).to_pylist()
        found[table] = [
            Check(**{name: entry[{"name": "check"}.get(name, name)] for name in Check.__dataclass_fields__})
            for entry in entries
            if scenario is None or entry["scenario"] in (None, scenario)
        ]
    return found


def new_run() -> tuple[str, int]:
    """Id and time (UTC microseconds) of a run that begins now."""
    return uuid.uuid4().hex, time.time_ns() // 1000
