"""``rlaas lineage``: where something comes from, and what came from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaas.cli.output import JsonOption, check_file, print_json, print_lines

__all__ = ["app"]

app = typer.Typer(help="Lineage: which data made which policy made which decision.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Lineage: which data made which policy made which decision."""


@app.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A decision id, policy:NAME@VERSION, TABLE@VERSION, front:SCENARIO, experiment:ID, run:ID, ...",
        ),
    ],
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Steps away at most; default all.")] = None,
    decisions: Annotated[int, typer.Option("--decisions", min=0, help="Newest decisions shown of each policy.")] = 5,
    dot: Annotated[Path | None, typer.Option("--dot", help="Write the graph for Graphviz into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Walk both ways from something: what it came from, and what came from it."""
    from rlaas.control.lineage import trace
    from rlaas.lake.lineage import tree_lines
    from rlaas.settings import load_settings

    if dot is not None:
        check_file(dot)
    found = trace(load_settings(), name, sampled=decisions, depth=depth)
    if dot is not None:
        dot.write_text(found.graph.to_dot(), encoding="utf-8")
    if as_json:
        print_json(found.to_dict())
        return
    print_lines(
        [
            "comes from",
            *(f"  {line}" for line in tree_lines(found.came_from)),
            "went into",
            *(f"  {line}" for line in tree_lines(found.went_into)),
        ]
    )
