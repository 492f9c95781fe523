"""``rlaas lake datasets``: name rows for ever, and compare what was named."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rlaas.cli.lake_look import at_time
from rlaas.cli.output import JsonOption, print_json, print_lines, print_table

if TYPE_CHECKING:
    from rlaas.lake.dataset_diff import DatasetDiff
    from rlaas.lake.datasets import Dataset
    from rlaas.lake.distribution import ColumnShift
    from rlaas.lake.privacy import ProtectedLake

__all__ = ["app", "register"]

app = typer.Typer(help="Named datasets: the same rows for ever.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the dataset.")]


def register(lake: typer.Typer) -> None:
    """Add the commands to ``rlaas lake``."""
    lake.add_typer(app, name="datasets")


@app.command("create")
def create(
    name: Name,
    table: Annotated[str, typer.Option(help="Table that the rows are of.")],
    version: Annotated[int | None, typer.Option(min=0, help="Its Delta version; default the newest.")] = None,
    at: Annotated[str | None, typer.Option(help="Or the version that was the newest at this time.")] = None,
    condition: Annotated[str | None, typer.Option("--filter", help="SQL condition over the columns.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Only this column; repeat it.")] = None,
    note: Annotated[str, typer.Option(help="Kept with the record.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Name some rows of a table; a name is never given to other rows."""
    from rlaas.lake.datasets import create_dataset

    made = create_dataset(
        _lake(), name, table, version=version, at=at_time(at), condition=condition, columns=column, note=note
    )
    _print(made, as_json)


@app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets."""
    from rlaas.lake.datasets import datasets

    found = datasets(_lake())
    if as_json:
        print_json([one.document() for one in found])
        return
    print_table(
        "datasets",
        ("name", "table", "version", "rows", "sha256", "created (UTC)", "filter"),
        [
            (
                one.name,
                one.table,
                one.version,
                one.rows if one.gone is None else f"gone: {one.gone}",
                one.sha256[:12],
                _time(one.created_us),
                one.filter or "",
            )
            for one in found
        ],
    )


@app.command("show")
def show(
    name: Name,
    verify: Annotated[bool, typer.Option("--verify", help="Read the rows and compare their hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the record of a dataset."""
    from rlaas.lake.datasets import dataset, read_dataset

    lake = _lake()
    found = dataset(lake, name)
    if verify:
        read_dataset(lake, name)
    _print(found, as_json, verified=verify)


@app.command("diff")
def diff(
    left: Annotated[str, typer.Argument(help="Name of the first.")],
    right: Annotated[str, typer.Argument(help="Name of the second.")],
    top: Annotated[int, typer.Option(min=1, help="Show so many of the columns that shifted most.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare two datasets: rows, columns, and the distribution of every column."""
    from rlaas.lake.dataset_diff import diff_datasets

    found = diff_datasets(_lake(), left, right)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    print_lines(_sentences(found))
    print_table(
        f"the {min(top, len(found.shifts))} of {len(found.shifts)} columns that shifted most",
        ("column", "psi", "mean", "median", "values", "nulls"),
        [_row(shift) for shift in found.shifts[:top]],
    )


def _sentences(found: DatasetDiff) -> list[str]:
    sizes = f"{found.left}: {found.rows[0]} rows; {found.right}: {found.rows[1]} rows"
    lines = [f"{sizes}; {found.added} added, {found.removed} removed, {found.changed} changed"]
    for what, names in (("added", found.columns_added), ("removed", found.columns_removed)):
        if names:
            lines.append(f"columns {what}: {', '.join(names)}")
    if found.types_changed:
        lines.append(f"types changed: {'; '.join(found.types_changed)}")
    return lines


def _row(shift: ColumnShift) -> tuple[str, ...]:
    numeric = any(value is not None for value in shift.mean)
    left, right = (None if part is None else part[1] for part in shift.quantiles)
    return (
        shift.column,
        f"{shift.psi:.3f}",
        f"{_number(shift.mean[0])} -> {_number(shift.mean[1])}" if numeric else "",
        f"{_number(left)} -> {_number(right)}" if numeric else "",
        f"{shift.distinct[0]} -> {shift.distinct[1]}",
        f"{shift.nulls[0]:.0%} -> {shift.nulls[1]:.0%}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print(record: Dataset, as_json: bool, *, verified: bool = False) -> None:
    if as_json:
        print_json(record.document() | ({"verified": True} if verified else {}))
        return
    lines = [
        f"{record.name}: {record.rows} rows of {record.table} version {record.version}"
        + (f" where {record.filter}" if record.filter else ""),
        f"sha256 {record.sha256}" + (" (verified)" if verified else ""),
        f"columns: {', '.join(record.columns)}",
        f"created {_time(record.created_us)} UTC" + (f": {record.note}" if record.note else ""),
    ]
    if record.replaces:
        lines.append(f"made from {record.replaces} by leaving out rows")
    if record.gone:
        lines.append(f"the rows are gone: {record.gone}")
    print_lines(lines)


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _lake() -> ProtectedLake:
    from rlaas.lake.privacy import protected_lake
    from rlaas.settings import load_settings

    return protected_lake(load_settings())
