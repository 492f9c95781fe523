"""``rlaas lake compact``, ``retain`` and ``training``: files in shape, old rows in their place, rows ready to train."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from rlaas.cli.output import JsonOption, print_json, print_table
from rlaas.errors import InvalidInputError

__all__ = ["register"]

Tables = Annotated[list[str] | None, typer.Argument(help="Only these tables; default all there are.")]
Config = Annotated[Path | None, typer.Option(help="YAML; see configs/lake/housekeeping.yaml.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``rlaas lake``."""
    app.command("compact")(compact)
    app.command("retain")(retain)
    app.command("training")(training)


def compact(
    tables: Tables = None,
    config: Config = None,
    due: Annotated[bool, typer.Option("--due", help="Only what the plan says is due.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Merge small files, sort days that ended, delete files that no version needs, write a checkpoint."""
    from rlaas.lake.lifecycle import load_lake_plan
    from rlaas.lake.maintenance import maintain
    from rlaas.lake.privacy import protected_lake
    from rlaas.settings import load_settings

    plan = load_lake_plan(config)
    reports = maintain(protected_lake(load_settings()), plan.maintenance, tables=tables or None, force=not due)
    if as_json:
        print_json([dataclasses.asdict(report) for report in reports])
        return
    print_table(
        "upkeep",
        ("table", "files", "merged", "days sorted", "deleted", "checkpoint"),
        [
            (one.table, one.files, one.merged, one.sorted_days, one.deleted, "yes" if one.checkpoint else "no")
            for one in reports
        ],
    )


def retain(
    tables: Tables = None,
    config: Config = None,
    today: Annotated[str | None, typer.Option(help="UTC day that ages are counted to; default today.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Move rows to the storage class of their age (hot, warm, cold), and remove those that are too old for the last."""
    from rlaas.lake.lifecycle import load_lake_plan
    from rlaas.lake.privacy import protected_lake
    from rlaas.lake.retention import retain as run
    from rlaas.settings import load_settings

    plan = load_lake_plan(config)
    reports = run(protected_lake(load_settings()), plan.retention, tables=tables or None, today=_day(today))
    if as_json:
        print_json([dataclasses.asdict(report) for report in reports])
        return
    print_table(
        "retention",
        ("table", "to warm", "to cold", "removed", "thrown away"),
        [dataclasses.astuple(report) for report in reports],
    )


def training(
    scenario: Annotated[str, typer.Argument(help="Scenario whose ready-to-train rows are brought up to date.")],
    objective: Annotated[
        list[str] | None, typer.Option(help="Order of the reward vector; repeat it. Default the scenario's own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring gold.<scenario>_training to what silver.transitions says, from its change feed."""
    from rlaas import scenarios
    from rlaas.lake.gold import update_training
    from rlaas.lake.privacy import protected_lake
    from rlaas.settings import load_settings

    name, order = scenario, list(objective or ())
    if not order:
        loaded = scenarios.load(scenario)
        name, order = loaded.name, [one.name for one in loaded.objectives]
    done = update_training(protected_lake(load_settings()), name, order)
    if as_json:
        print_json(dataclasses.asdict(done) | {"objectives": order})
        return
    typer.echo(
        f"{done.table}: {done.rows} rows ({done.how}: {done.written} written, {done.removed} removed), "
        f"as silver.transitions version {done.source_version}; reward = {', '.join(order)}"
    )


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"--today {text!r} is no day; allowed: 2026-11-30", field="today") from None
