"""Validates tables of the lake: a report of each, and every bad row listed in its quarantine with every reason.

The listing is a function of what the table holds: it is replaced, day by day, with what the run found. A second run
therefore doubles nothing, and a row that has come right (an outcome whose decision turned up) leaves it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import check_choice
from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake
from rlaas.lake.validation.checks import Check, share_check
from rlaas.lake.validation.columns import BoolArray
from rlaas.lake.validation.commits import retrying
from rlaas.lake.validation.config import VALIDATED, TableContract, ValidationConfig
from rlaas.lake.validation.reports import TableReport, new_run, store_report
from rlaas.lake.validation.rules import Finding, findings
from rlaas.lake.validation.tables import Worlds, arrival_column, key_column, rules_of
from rlaas.lake.validation.volume import check_volume
from rlaas.scenarios import Scenario

__all__ = ["STAGE", "validate"]

STAGE = "validate"


def validate(
    lake: Lake,
    config: ValidationConfig | None = None,
    *,
    tables: Sequence[str] = (),
    scenarios: Mapping[str, Scenario] | None = None,
    now_us: int | None = None,
) -> list[TableReport]:
    """Check tables, list their bad rows in ``quarantine.*`` and store the reports in ``quality.reports``.

    Args:
        lake: the tables.
        config: what they are held to; default :class:`ValidationConfig`.
        tables: which; default every one of :data:`VALIDATED` that exists.
        scenarios: scenarios that are not installed, by name.
        now_us: present time, UTC microseconds; default the clock's.

    Raises:
        ConfigurationError: a table without a contract, or options that a scenario does not have.
        LakeError: a table is damaged, or refused every attempt.
    """
    chosen = config or ValidationConfig()
    for table in tables:
        check_choice(table, VALIDATED, field="table")
    run_id, started_us = new_run()
    worlds = Worlds(chosen.scenarios, scenarios)
    reports = []
    for table in tables or VALIDATED:
        if not tables and lake.version(table) is None:
            continue
        report = _validate(lake, table, chosen, worlds, run_id, started_us if now_us is None else now_us)
        store_report(lake, report)
        reports.append(report)
    return reports


def _validate(
    lake: Lake, table: str, config: ValidationConfig, worlds: Worlds, run_id: str, now_us: int
) -> TableReport:
    spec, contract = table_spec(table), config.of(table)
    version = lake.version(table)
    since = None if version is None else _since(lake, table, version, config.last_days)
    where = None if since is None else pc.field("date") >= since
    rows = lake.read(table, filter=where, version=version).combine_chunks()
    found = findings(spec, rows, rules_of(table, rows, lake, worlds, contract, config, now_us))
    bad = np.zeros(rows.num_rows, dtype=np.bool_)
    for finding in found:
        bad |= finding.offence.bad
    _list(lake, table, _quarantined(lake, table, rows, found, np.flatnonzero(bad).tolist()), since)
    checks = [
        Check(
            name="rows",
            passed=rows.num_rows >= contract.min_rows,
            measured=float(rows.num_rows),
            required=f"at least {contract.min_rows}",
        ),
        *(
            _rule_check(table, rows, finding, contract.max_bad, scenario, mine)
            for scenario, mine in _by_scenario(rows)
            for finding in found
        ),
        *_table_checks(lake, table, rows, contract, now_us),
    ]
    return TableReport(
        table=table,
        version=-1 if version is None else version,
        rows=rows.num_rows,
        quarantined=int(bad.sum()),
        checks=tuple(checks),
        time_us=now_us,
        run_id=run_id,
    )


def _since(lake: Lake, table: str, version: int, last_days: int | None) -> str | None:
    """First of the newest ``last_days`` days of what there is; None for all of it."""
    if last_days is None:
        return None
    dates = lake.read(table, ["date"], version=version).column("date")
    if not len(dates):
        return None
    newest = datetime.date.fromisoformat(str(pc.max(dates).as_py()))
    return (newest - datetime.timedelta(days=last_days - 1)).isoformat()


def _by_scenario(rows: pa.Table) -> list[tuple[str | None, BoolArray]]:
    """Rows of each scenario, where rows say theirs: what one gets wrong must not stop another's promotion."""
    if "scenario" not in rows.column_names or not rows.num_rows:
        return [(None, np.ones(rows.num_rows, dtype=np.bool_))]
    column = rows.column("scenario")
    return [(name, pc.equal(column, name).to_numpy().astype(np.bool_)) for name in column.unique().to_pylist()]


def _rule_check(
    table: str, rows: pa.Table, finding: Finding, allowed: float, scenario: str | None, mine: BoolArray
) -> Check:
    bad = finding.offence.bad & mine
    detail = ""
    if bad.any():
        row = int(bad.argmax())
        detail = f"{key_column(table)} {rows.column(key_column(table))[row].as_py()}: {finding.offence.text(row)}"
    share = float(bad.sum() / max(1, mine.sum()))
    required = finding.required + (f", but for at most {allowed:.4g} of the rows" if allowed else "")
    return share_check(finding.name, share, allowed, required, detail=detail, scenario=scenario)


def _table_checks(lake: Lake, table: str, rows: pa.Table, contract: TableContract, now_us: int) -> list[Check]:
    checks = []
    for column, least in contract.complete.items():
        there = float(pc.mean(rows.column(column).is_valid().cast(pa.float64())).as_py() or 0.0)
        if rows.num_rows:
            required = f"a value in at least {least:.4g} of the rows"
            checks.append(share_check(f"complete.{column}", 1.0 - there, 1.0 - least, required, flipped=True))
    if contract.max_age_s is not None:
        newest = pc.max(rows.column(arrival_column(table))).as_py()
        age = None if newest is None else (now_us - newest) / 1e6
        checks.append(
            Check(
                name="fresh",
                passed=age is not None and age <= contract.max_age_s,
                measured=age,
                required=f"a row of the last {contract.max_age_s:g} s",
                detail="" if age is not None else "there are no rows",
            )
        )
    if contract.volume is not None:
        column = arrival_column(table)
        first = date_of(max(0, now_us - (contract.volume.days + 3) * 86_400_000_000))
        times = lake.read(table, [column], filter=pc.field("date") >= first).column(column).to_numpy()
        checks.append(check_volume(times, now_us, contract.volume))
    return checks


def _quarantined(lake: Lake, table: str, rows: pa.Table, found: Sequence[Finding], index: Sequence[int]) -> pa.Table:
    """Rows of the quarantine for the rows at ``index``."""
    schema = table_spec(_quarantine_of(table)).schema
    listed = []
    for at, row in zip(index, rows.take(pa.array(index, type=pa.int64())).to_pylist(), strict=True):
        reasons = [finding.offence.text(at) for finding in found if finding.offence.bad[at]]
        listed.append(
            {
                "tenant": lake.tenant,
                "stage": STAGE,
                "date": row["date"],
                "time_us": row[arrival_column(table)],
                "producer": row.get("producer") or table,
                "receipt_id": str(row[key_column(table)]),
                "reason": "; ".join(reasons),
                "payload": json.dumps({name: _plain(value) for name, value in row.items()}).encode(),
            }
        )
    return pa.Table.from_pylist(listed, schema=schema)


def _plain(value: Any) -> Any:
    """A map column's value as an object."""
    return dict(value) if isinstance(value, list) and value and isinstance(value[0], tuple) else value


def _list(lake: Lake, table: str, listed: pa.Table, since: str | None) -> None:
    """Make the listing of the days since ``since`` say ``listed``."""
    name = _quarantine_of(table)
    spec = table_spec(name)
    mine = pc.field("stage") == STAGE
    where = f"tenant = '{lake.tenant}' AND stage = '{STAGE}'"
    if since is not None:
        mine &= pc.field("date") >= since
        where += f" AND date >= '{since}'"

    def commit() -> None:
        if not listed.num_rows and lake.version(name) is None:
            return
        delta = lake.open_or_create(name)
        there = lake.read_open(spec, delta, filter=mine)
        order = [(column, "ascending") for column in (*spec.order_by, "reason", "payload")]
        if not there.sort_by(order).equals(listed.sort_by(order)):
            lake.replace(delta, listed, where)

    retrying(commit, name)


def _quarantine_of(table: str) -> str:
    return f"quarantine.{table.partition('.')[2]}"
