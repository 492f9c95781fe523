"""``rlaas federate``: one policy trained at several sites, from a config file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, print_json, print_table

__all__ = ["federate"]


def federate(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/federated/.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start at round 1 even if an earlier run can go on.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, instead of a local one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one policy at several sites whose data stays there, and register it as a candidate.

    An interrupted federation goes on after its last finished round when the same command is given again.
    """
    from rlaas.pipeline import local_ray, run_federation
    from rlaas.settings import load_settings
    from rlaas.training.federated import load_federation_config

    loaded = load_federation_config(config)
    with local_ray(address), bar("federate") as advance:
        report = run_federation(loaded, load_settings(), afresh=fresh, progress=advance)
    if as_json:
        print_json(report)
        return
    print_table(f"federation {loaded.name}", _COLUMNS, _rows(report["rounds"]))
    if report["stopped"]:
        typer.echo(f"stopped after round {len(report['rounds'])}: {report['stopped']}")
    policy = report["policy"]
    registered = f"registered as {policy['name']} version {policy['version']} ({loaded.alias})"
    typer.echo(f"{registered}; bundle in {report['bundle']}")


_COLUMNS = ("round", "sites", "left out", "decisions", "moved", "epsilon", "seconds")


def _rows(rounds: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    return [
        [
            result["number"],
            ", ".join(result["sites"]),
            "; ".join(f"{name} ({why})" for name, why in result["left_out"].items()) or "none",
            f"{result['decisions']:,.0f}" if result["decisions"] else "not told",
            f"{result['moved']:.3g}",
            "no privacy" if result["epsilon"] is None else f"{result['epsilon']:.3g} at delta {result['delta']:g}",
            f"{result['seconds']:.1f}",
        ]
        for result in rounds
    ]
