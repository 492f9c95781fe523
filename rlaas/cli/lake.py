"""``rlaas lake``: the tables, and what still waits in the write-ahead log."""

from __future__ import annotations

import dataclasses

import typer

from rlaas.cli.output import JsonOption, print_json, print_table

__all__ = ["app"]

app = typer.Typer(help="The lake: Delta tables and the write-ahead log.", no_args_is_help=True)


@app.command("tables")
def tables(as_json: JsonOption = False) -> None:
    """List the tables with their rows and versions."""
    from rlaas.lake import Lake
    from rlaas.settings import load_settings

    settings = load_settings()
    lake = Lake(settings.lake_root, settings.tenant)
    rows = [(name, lake.count(name), version) for name, version in sorted(lake.versions().items())]
    if as_json:
        print_json([{"table": name, "rows": count, "version": version} for name, count, version in rows])
        return
    print_table(f"lake at {settings.lake_root}", ("table", "rows", "version"), rows)


@app.command("commit")
def commit(as_json: JsonOption = False) -> None:
    """Move what stopped producers left in the write-ahead log into the tables, and join decisions with outcomes."""
    from rlaas.lake import Committer, Lake, update_transitions
    from rlaas.settings import load_settings

    settings = load_settings()
    lake = Lake(settings.lake_root, settings.tenant)
    report = Committer(lake, settings.wal_root, tenant=settings.tenant).run_once()
    joined = update_transitions(lake)
    document = {**dataclasses.asdict(report), "transitions": joined}
    if as_json:
        print_json(document)
        return
    typer.echo(", ".join(f"{key} {value}" for key, value in document.items()))
