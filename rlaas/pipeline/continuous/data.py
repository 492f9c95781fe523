"""The data stage: which versions of which tables this pipeline is about, and what lies in them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import ConfigurationError, NotFoundError
from rlaas.lake import TABLES, Lake, dataset, read_dataset
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.fingerprints import Room
from rlaas.pipeline.continuous.stage import Context, Stage

__all__ = ["DataStage", "pinned_rows", "pinned_versions"]

DOCUMENT = "data.json"


class DataStage(Stage):
    """Pins the Delta version of every table, and counts what the scenario has in it."""

    name = "data"

    def inputs(self, context: Context) -> dict[str, Any]:
        """The versions there are now (or those asked for), the tenant and the scenario whose rows count."""
        data = context.config.data
        versions: dict[str, int] = {}
        named: dict[str, dict[str, str]] = {}
        for table in data.tables:
            if table in data.datasets:
                record = dataset(context.lake, data.datasets[table])
                if record.table != table:
                    raise ConfigurationError(
                        f"data.datasets: {record.name} holds rows of {record.table}, not of {table}",
                        field="data.datasets",
                    )
                versions[table] = record.version
                named[table] = {"name": record.name, "sha256": record.sha256}
                continue
            newest = context.lake.version(table)
            if newest is None:
                raise NotFoundError(
                    f"data.tables names {table}, which holds nothing yet in {context.lake.root}; leave it out, or let "
                    "decisions and outcomes arrive first (rlaas lake tables)",
                    field="data.tables",
                )
            versions[table] = data.versions.get(table, newest)
        return {
            "config": {"data": {"last_days": data.last_days}},
            "lake": versions,
            **({"datasets": named} if named else {}),
            "rows of": {"scenario": context.scenario.name, "tenant": context.settings.tenant},
        }

    def rooms(self, context: Context) -> Iterable[Room]:
        """The lake's."""
        return (Room("rlaas.lake.tables"), Room("rlaas.lake.schemas"), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``data.json``: per table its version, rows, first and last date, and rows by policy version."""
        inputs = self.inputs(context)
        last_days = context.config.data.last_days
        tables = []
        for table, version in inputs["lake"].items():
            pin = {"table": table, "version": version, "dataset": inputs.get("datasets", {}).get(table)}
            since = _since(context.lake, pin, context.scenario.name, last_days)
            tables.append(_summary(context.lake, pin, context.scenario.name, since))
        note = "" if tables else "no table is read: everything comes from the simulator"
        write_json(folder / DOCUMENT, {"scenario": context.scenario.name, "tables": tables, "note": note})
        return {f"rows.{entry['table']}": float(entry["rows"]) for entry in tables}

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """Delta versions by table, and the datasets that were named."""
        if artefact is None:
            return {}
        named = {
            entry["table"]: entry["dataset"] for entry in artefact.read(DOCUMENT)["tables"] if entry.get("dataset")
        }
        return {"lake_versions": pinned_versions(artefact), **({"datasets": named} if named else {})}


def pinned_versions(data: Artefact) -> dict[str, int]:
    """Delta version by table that a pipeline reads."""
    return {entry["table"]: int(entry["version"]) for entry in data.read(DOCUMENT)["tables"]}


def pinned_rows(lake: Lake, data: Artefact, table: str, columns: Sequence[str] | None = None) -> pa.Table | None:
    """The rows that the data stage counted, as of the version it pinned; None for a table that it did not."""
    document = data.read(DOCUMENT)
    for entry in document["tables"]:
        if entry["table"] == table:
            return _rows(lake, entry, columns, _rows_of(table, document["scenario"], entry["since"]))
    return None


def _rows(lake: Lake, pin: Mapping[str, Any], columns: Sequence[str] | None, chosen: pc.Expression | None) -> pa.Table:
    """Rows of the version, or of the dataset, that is pinned."""
    if not pin.get("dataset"):
        return lake.read(pin["table"], columns, filter=chosen, version=pin["version"])
    rows = read_dataset(lake, pin["dataset"]["name"])
    rows = rows if chosen is None else rows.filter(chosen)
    return rows if columns is None else rows.select(list(columns))


def _rows_of(table: str, scenario: str, since: str | None) -> pc.Expression | None:
    """The scenario's rows; tables of outcomes and refused rows do not say whose they are."""
    mine = pc.field("scenario") == scenario if "scenario" in TABLES[table].schema.names else None
    if since is None:
        return mine
    recent = pc.field("date") >= since
    return recent if mine is None else mine & recent


def _since(lake: Lake, pin: Mapping[str, Any], scenario: str, last_days: int | None) -> str | None:
    """First date of the newest ``last_days`` days of what there is; None for all of it."""
    if last_days is None:
        return None
    dates = _rows(lake, pin, ["date"], _rows_of(pin["table"], scenario, None)).column("date")
    if not len(dates):
        return None
    newest = datetime.date.fromisoformat(str(pc.max(dates).as_py()))
    return (newest - datetime.timedelta(days=last_days - 1)).isoformat()


def _summary(lake: Lake, pin: Mapping[str, Any], scenario: str, since: str | None) -> dict[str, Any]:
    table = pin["table"]
    names = TABLES[table].schema.names
    columns = [name for name in ("date", "policy", "version") if name in names]
    rows = _rows(lake, pin, columns, _rows_of(table, scenario, since))
    policies: dict[str, int] = {}
    if {"policy", "version"} <= set(columns):
        counted = rows.group_by(["policy", "version"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            policies[f"{row['policy']}/{row['version']}"] = int(row["count_all"])
    dates = rows.column("date")
    return {
        **{key: value for key, value in pin.items() if value is not None},
        "rows": rows.num_rows,
        "since": since,
        "first_date": pc.min(dates).as_py() if rows.num_rows else None,
        "last_date": pc.max(dates).as_py() if rows.num_rows else None,
        "policies": dict(sorted(policies.items())),
    }
