"""``rlaas decide``: decisions from a running platform, or for every row of a table without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, check_folder, print_json, print_table
from rlaas.errors import BundleError, InvalidInputError, NotFoundError

__all__ = ["decide"]


_TABLE = "Offline scoring"


def decide(
    policy: Annotated[str, typer.Argument(help="Name of the policy.")],
    observation: Annotated[str | None, typer.Option(help="JSON list of numbers, or a list of such lists.")] = None,
    mode: Annotated[str | None, typer.Option(help="Mode of the policy's scenario.")] = None,
    preference: Annotated[str | None, typer.Option(help='JSON object, for example {"latency": 1}.')] = None,
    unit: Annotated[str | None, typer.Option(help="Sticky key of an experiment.")] = None,
    session: Annotated[str | None, typer.Option(help="Id of the trajectory.")] = None,
    step: Annotated[int | None, typer.Option(help="Position within the session.")] = None,
    url: Annotated[str, typer.Option(help="Base URL of the platform.")] = "http://127.0.0.1:8000",
    table: Annotated[
        str | None,
        typer.Option(help="Table of the lake, or path of Delta or Parquet, to decide for.", rich_help_panel=_TABLE),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the new Delta table.", rich_help_panel=_TABLE)] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Feature columns in the policy's order, with commas, or one of lists. Default: those named as the "
            "features, else 'observation'.",
            rich_help_panel=_TABLE,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Columns that the result keeps, with commas. Default: all.", rich_help_panel=_TABLE),
    ] = None,
    mode_column: Annotated[
        str | None, typer.Option(help="Column with the mode of each row.", rich_help_panel=_TABLE)
    ] = None,
    preference_column: Annotated[
        str | None, typer.Option(help="Column with the preference of each row.", rich_help_panel=_TABLE)
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Version number or alias. Default: champion.", rich_help_panel=_TABLE),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of a bundle instead of the registry.", rich_help_panel=_TABLE)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a running platform for a decision, or decide for every row of a table without one."""
    weights = None if preference is None else _json("preference", preference)
    live = {"observation": observation, "unit": unit, "session": session, "step": step}
    offline = {
        "table": table,
        "output": output,
        "columns": columns,
        "keep": keep,
        "mode-column": mode_column,
        "preference-column": preference_column,
        "version": version,
        "bundle": bundle,
    }
    _check_together(live, offline, {"mode": mode, "preference": preference})
    if table is not None:
        assert output is not None
        report = _score(
            policy,
            table,
            output,
            bundle=bundle,
            version=version,
            columns=_names(columns) or (),
            keep=_names(keep),
            mode=mode,
            preference=weights,
            mode_column=mode_column,
            preference_column=preference_column,
        )
        if as_json:
            print_json(report)
            return
        rows = [
            ("decided", f"{report['decided']:,}"),
            *((f"rejected: {why}", n) for why, n in report["rejected"].items()),
        ]
        print_table(f"{report['rows']:,} rows in {report['output']}", ("what", "rows"), rows)
        return
    from rlaas.client import Client

    observed = _json("observation", observation or "")
    if not isinstance(observed, list) or not observed:
        raise InvalidInputError(
            "--observation must be a JSON list of numbers, or a list of such lists", field="observation"
        )
    fields: dict[str, Any] = {"observations" if isinstance(observed[0], list) else "observation": observed}
    given = {"mode": mode, "preference": weights, "unit": unit, "session": session, "step": step}
    fields |= {name: value for name, value in given.items() if value is not None}
    with Client(url) as client:
        answer = client.decide(policy, **fields)
    if as_json:
        print_json(answer)
        return
    decisions = answer.get("decisions", [answer])
    print_table(
        f"{policy}",
        ("row", "version", "variant", "action"),
        [(row, d["version"], d["variant"], d["action"]) for row, d in enumerate(decisions)],
    )
    # Alone on its line, so that it can be copied: it goes with the outcome.
    for row, decision in enumerate(decisions):
        typer.echo(f"{row}: {decision['decision_id']}")


def _score(
    policy: str, table: str, output: Path, *, bundle: Path | None, version: str | None, **plan: Any
) -> dict[str, Any]:
    """Score a table on a Ray of its own; the report as plain JSON types."""
    from rlaas.pipeline.cluster import local_ray
    from rlaas.pipeline.scoring import Source, plan_scoring, score_table
    from rlaas.settings import load_settings

    check_folder(output)
    if plan["preference"] is not None and not isinstance(plan["preference"], dict):
        raise InvalidInputError("--preference must be a JSON object of weights by objective", field="preference")
    settings = load_settings()
    number = None
    if bundle is None:
        from rlaas.registry import CHAMPION, Registry

        registry = Registry(settings)
        number = registry.get(policy, CHAMPION if version is None else version).version
        bundle = registry.path(policy, number)
    elif not bundle.is_dir():
        raise NotFoundError(f"--bundle {bundle}: no such folder", field="bundle")
    source = Source.of(table, lake_root=settings.lake_root, tenant=settings.tenant, policy=policy)
    # What cannot work is refused before Ray starts.
    try:
        made = plan_scoring(source, output.absolute(), bundle.absolute(), policy=policy, version=number, **plan)
    except BundleError as problem:
        if number is None:  # the caller's own folder, and the caller's to mend
            raise InvalidInputError(f"--bundle {bundle} holds no sound bundle: {problem}", field="bundle") from problem
        raise
    with local_ray(), bar("decide") as advance:
        return score_table(made, progress=advance).to_dict()


def _check_together(live: dict[str, Any], offline: dict[str, Any], either: dict[str, Any]) -> None:
    """Options of one way of deciding do not go with the other; ``either`` goes with both."""
    empty = [name for name, value in {**live, **offline, **either}.items() if value == ""]
    if empty:
        raise InvalidInputError(f"--{empty[0]} is empty; give it a value, or leave it out", field=empty[0])
    if offline["table"] is None:
        if live["observation"] is None:
            raise InvalidInputError("give --observation, or --table for offline scoring", field="observation")
        wrong = [name for name, value in offline.items() if value is not None]
        if wrong:
            raise InvalidInputError(f"--{wrong[0]} goes with --table only", field=wrong[0])
        return
    wrong = [name for name, value in live.items() if value is not None]
    if wrong:
        raise InvalidInputError(f"--{wrong[0]} does not go with --table, which needs no platform", field=wrong[0])
    if offline["output"] is None:
        raise InvalidInputError("--table needs --output, the folder of the new table", field="output")
    if offline["bundle"] is not None and offline["version"] is not None:
        raise InvalidInputError("--bundle and --version exclude each other; give one of them", field="version")
    for name, value in either.items():
        if value is not None and offline[f"{name}-column"] is not None:
            raise InvalidInputError(
                f"--{name} and --{name}-column exclude each other; give one of them", field=f"{name}-column"
            )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _json(option: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InvalidInputError(f"--{option} is not JSON: {problem}", field=option) from problem
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as problem:  # Python's decoder takes NaN and Infinity, and makes one of 1e999
        raise InvalidInputError(f"--{option} holds NaN or Infinity; allowed: finite numbers", field=option) from problem
    return value
