"""``rlaas policies gate``: what new versions of a policy have to pass before they get live traffic."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_lines, print_table
from rlaas.errors import InvalidInputError, RequestError

if TYPE_CHECKING:
    from rlaas.control.gating import GateDeclaration, GateService

__all__ = ["app"]

app = typer.Typer(help="What new versions have to pass before they get live traffic.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the policy.")]
Version = Annotated[int, typer.Argument(help="Version number.", min=1)]
Actor = Annotated[str, typer.Option(help="Who; kept in the history.")]


@app.command("declare")
def declare(
    name: Name,
    file: Annotated[Path, typer.Argument(help="YAML or JSON; see docs/rollouts.md.")],
    actor: Actor = "operator",
    as_json: JsonOption = False,
) -> None:
    """Declare by what versions are judged from now on."""
    gate = _gates().declare(name, _read(file), actor=actor)
    if as_json:
        print_json(gate)
        return
    typer.echo(
        f"versions of {name} are judged by {gate['gate']['declaration']['estimator']} on {gate['gate']['metric']}"
    )


@app.command("show")
def show(name: Name, as_json: JsonOption = False) -> None:
    """Show what is declared."""
    found = _gates().describe(name)
    if as_json:
        print_json(found)
        return
    gate = found["gate"]
    if gate is None:
        typer.echo(f"{name} has no gate: every version goes live that is told to")
        return
    declared = gate["declaration"]
    of = "rows" if declared["horizon"] is None else "sessions"
    least = f"{declared['min_effective_sample_size']:g} and {declared['min_effective_share']:.0%} of the {of}"
    reference = declared["reference"]
    rows = [
        ("judged", f"{gate['metric']}, {declared['better']} is better"),
        ("estimator", f"{declared['estimator']}, interval at {declared['confidence']:g}"),
        ("against", "what was logged" if reference == "logged" else f"{reference:g}"),
        ("accepted", f"worse by {declared['margin']:g} at most"),
        (f"effective {of}", f"at least {least}"),
        ("unlogged choices", f"at most {declared['max_unlogged']:.0%}"),
        ("log", f"of {_days(declared['window_s'])}, the newest row at most {_days(declared['max_age_s'])} old"),
        ("declared", f"{_time(gate['declared_us'])} by {gate['actor']}"),
        ("served already", ", ".join(map(str, found["served"])) or "-"),
    ]
    print_table(f"gate of {name}", ("what", "is"), rows)


@app.command("judge")
def judge(
    name: Name,
    version: Version,
    explore: Annotated[bool, typer.Option("--explore", help="It would sample from its distribution.")] = False,
    epsilon: Annotated[float, typer.Option(help="Share of uniform actions while it explores.", min=0, max=1)] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Show what the gate would say of a version now; nothing goes live."""
    report = _gates().judge(name, version, explore=explore, epsilon=epsilon)
    if as_json:
        print_json(report)
        return
    verdict, rows = report["verdict"], report["rows"]
    left = ", ".join(f"{count:,} {reason}" for reason, count in rows["left_out"].items())
    print_lines(
        [
            f"{verdict['subject']} {verdict['reason']}.",
            f"{rows['counted']:,} of {rows['read']:,} decisions count{f' ({left})' if left else ''}.",
        ]
    )
    print_table(
        "estimators", ("estimator", "value", "interval", "effective", "agrees"), [*map(_line, verdict["lines"])]
    )


@app.command("history")
def history(name: Name, as_json: JsonOption = False) -> None:
    """Show declarations, judgements and overrides, newest first."""
    events = _gates().history(name)
    if as_json:
        print_json(events)
        return
    print_table(
        f"gate of {name}",
        ("when", "who", "what", "version", "why"),
        [(_time(e["time_us"]), e["actor"], _what(e), e["version"] or "-", e["reason"] or "-") for e in events],
    )


@app.command("override")
def override(
    name: Name,
    version: Version,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
    actor: Actor = "operator",
    as_json: JsonOption = False,
) -> None:
    """Let a version through once, beforehand: for an experiment, a deployment or an edge export to come."""
    from rlaas.control.gating import Override

    event = _gates().promise(name, version, Override(reason, actor))
    if as_json:
        print_json(event)
        return
    typer.echo(
        f"version {version} of {name} may go live once, though the gate says: {event['report']['verdict']['outcome']}"
    )


@app.command("remove")
def remove(name: Name, actor: Actor = "operator", as_json: JsonOption = False) -> None:
    """Let every version through from now on."""
    _gates().remove(name, actor=actor)
    if as_json:
        print_json({"deleted": {"policy": name}})
        return
    typer.echo(f"{name} has no gate any more")


def _gates() -> GateService:
    from rlaas.control import ControlService
    from rlaas.settings import load_settings

    gates: GateService = ControlService(load_settings()).gates
    return gates


def _read(file: Path) -> GateDeclaration:
    from pydantic import ValidationError

    from rlaas.configfiles import read_yaml
    from rlaas.control.gating import GateDeclaration
    from rlaas.serving.live import validation_error

    document = read_yaml(file, field="file")
    try:
        return GateDeclaration.model_validate(document)
    except ValidationError as problem:
        found: RequestError = validation_error(problem, source=str(file))
        if problem.errors()[0]["type"] == "extra_forbidden":
            allowed = ", ".join(GateDeclaration.model_fields)
            found = InvalidInputError(f"{found.message}; allowed: {allowed}", field=found.field)
        raise found from problem


def _what(event: dict[str, Any]) -> str:
    return f"{event['kind']} (edge)" if event["edge"] else str(event["kind"])


def _line(line: dict[str, Any]) -> tuple[str, str, str, str, str]:
    if line["refused"] is not None:
        return line["estimator"], "-", line["refused"], "-", "-"
    agrees = {None: "decides", True: "yes", False: "NO"}[line["agrees"]]
    effective = f"{line['effective_sample_size']:,.0f} of {line['n']:,}"
    return line["estimator"], f"{line['value']:.4g}", f"{line['low']:.4g} to {line['high']:.4g}", effective, agrees


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.3g} days"


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
