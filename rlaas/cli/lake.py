"""``rlaas lake``: the tables, and what still waits in the write-ahead log."""

from __future__ import annotations

import dataclasses

import typer

from rlaas.cli import lake_datasets, lake_erase, lake_ingest, lake_look, lake_upkeep, lake_validate
from rlaas.cli.output import JsonOption, print_json

__all__ = ["app"]

app = typer.Typer(help="The lake: Delta tables and the write-ahead log.", no_args_is_help=True)
lake_erase.register(app)
lake_ingest.register(app)
lake_validate.register(app)
lake_look.register(app)
lake_upkeep.register(app)
lake_datasets.register(app)


@app.command("commit")
def commit(as_json: JsonOption = False) -> None:
    """Move what stopped producers left in the write-ahead log into the tables, and join decisions with outcomes."""
    from rlaas.lake import Committer, update_transitions
    from rlaas.lake.privacy import protected_lake
    from rlaas.settings import load_settings

    settings = load_settings()
    lake = protected_lake(settings)
    report = Committer(lake, settings.wal_root, tenant=settings.tenant).run_once()
    with lake.gate.writing():  # an erasure waits until what was read is written
        joined = update_transitions(lake)
    document = {**dataclasses.asdict(report), "transitions": joined}
    if as_json:
        print_json(document)
        return
    typer.echo(", ".join(f"{key} {value}" for key, value in document.items()))
