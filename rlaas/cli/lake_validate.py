"""``rlaas lake validate``: tables held to their contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Exit

from rlaas.cli.output import JsonOption, print_json, print_lines, print_table

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate)


def validate(
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/lake/validation.yaml.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold tables to their contracts: bad rows are listed in quarantine, reports are kept, and 1 is the exit status."""
    from rlaas.lake.privacy import protected_lake
    from rlaas.lake.validation import load_validation_config
    from rlaas.lake.validation import validate as run
    from rlaas.settings import load_settings

    loaded = None if config is None else load_validation_config(config)
    lake = protected_lake(load_settings())
    with lake.gate.writing():  # an erasure waits until what was read is written
        reports = run(lake, loaded, tables=table or ())
    passed = all(report.passed for report in reports)
    if as_json:
        print_json({"passed": passed, "tables": [report.to_dict() for report in reports]})
    else:
        for report in reports:
            checks = sorted(report.checks, key=lambda check: check.passed)
            print_table(
                f"{report.table} version {report.version}: {report.rows:,} rows, {report.quarantined:,} in quarantine",
                ("check", "scenario", "", "measured", "required"),
                [
                    (
                        check.name,
                        check.scenario or "",
                        "ok" if check.passed else "BROKEN",
                        "" if check.measured is None else f"{check.measured:.4g}",
                        check.required,
                    )
                    for check in checks
                ],
            )
            print_lines(f"{report.table} {check.name}: {check.detail}" for check in checks if check.detail)
        if not reports:
            print_lines(["no table that has a contract holds anything yet"])
    if not passed:
        raise Exit(1)
