"""``rlaas fit``: a policy from what was logged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaas.cli.output import JsonOption, bar, print_json

__all__ = ["fit"]


def fit(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/offline/.")],
    as_json: JsonOption = False,
) -> None:
    """Fit a policy to a table of the lake and register it as a candidate; nothing is evaluated."""
    from rlaas.pipeline import local_ray, plan_fit, run_fit
    from rlaas.settings import load_settings
    from rlaas.training import load_offline_config

    loaded, settings = load_offline_config(config), load_settings()
    # What cannot work is refused before Ray starts.
    plan_fit(loaded, settings)
    with local_ray(), bar("fit") as advance:
        _, version, report = run_fit(loaded, settings, progress=advance)
    if as_json:
        print_json(report)
        return
    source = report["source"]
    typer.echo(
        f"fitted {report['method']} to {report['rows']:,} rows of {source['table']} version {source['table_version']}, "
        f"registered as {version.name} version {version.version} (candidate); bundle in {report['bundle']}"
    )
    for line in report["unknown"]:
        typer.echo(f"not known: {line}")
