"""``rlaas policies``: what is registered, and which version is the champion."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from rlaas.cli.output import JsonOption, print_json, print_table

__all__ = ["app"]

app = typer.Typer(help="Registered policies and their versions.", invoke_without_command=True)


@app.callback()
def list_policies(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every policy with its versions."""
    if context.invoked_subcommand is not None:
        return
    from rlaas.registry import Registry
    from rlaas.settings import load_settings

    registry = Registry(load_settings())
    versions = [version for name in registry.names() for version in registry.versions(name)]
    if as_json:
        print_json(
            [
                {
                    "name": v.name,
                    "version": v.version,
                    "aliases": list(v.aliases),
                    "created_us": v.created_us,
                    "metrics": dict(v.metrics),
                    "params": dict(v.params),
                    "tags": dict(v.tags),
                }
                for v in versions
            ]
        )
        return
    print_table(
        "policies",
        ("name", "version", "aliases", "kind", "created"),
        [
            (
                v.name,
                v.version,
                ", ".join(v.aliases) or "-",
                v.params.get("kind", "-"),
                datetime.datetime.fromtimestamp(v.created_us / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            )
            for v in versions
        ],
    )


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    version: Annotated[str, typer.Argument(help="Version number, or an alias such as candidate.")],
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion; a running platform with the same home switches within seconds."""
    from rlaas.control import ControlService
    from rlaas.settings import load_settings

    service = ControlService(load_settings())
    document, record = service.promote(name, version)
    generation = record.generation if record else None
    if as_json:
        print_json({"version": document, "generation": generation})
        return
    typer.echo(f"{name} version {document['version']} is the champion (generation {generation})")
