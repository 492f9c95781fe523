"""``rlaas experiments``: declare, watch and stop experiments of a running platform, and plan the next one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_table
from rlaas.errors import InvalidInputError, check_choice

if TYPE_CHECKING:
    from rlaas.client import Client

__all__ = ["app"]

app = typer.Typer(help="Experiments: which of several versions is better.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Base URL of the platform.")]
Id = Annotated[str, typer.Argument(help="Id of the experiment.")]
_LOCAL = "http://127.0.0.1:8000"


@app.command("create")
def create(
    file: Annotated[Path, typer.Argument(help="YAML or JSON; see docs/experiments.md.")],
    override: Annotated[
        str | None,
        typer.Option(help="Why versions may be tried that do not pass the policy's gate; each is let through once."),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Who overrides; kept in the history of the gate.")] = None,
    url: Url = _LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Declare an experiment and begin it."""
    document = _read(file)
    with _client(url) as client:
        if override is None:
            made = client.create_experiment(document)
        else:
            from rlaas.cli.experiments_override import create_past_the_gate

            made = create_past_the_gate(client, document, reason=override, actor=actor)
    if as_json:
        print_json(made)
        return
    typer.echo(f"experiment {made['id']} of {made['policy']} is {made['state']}")


@app.command("list")
def list_experiments(url: Url = _LOCAL, as_json: JsonOption = False) -> None:
    """List the experiments, newest first."""
    items: list[dict[str, Any]] = []
    token: str | None = None
    with _client(url) as client:
        while True:
            page = client.experiments(page_token=token)
            items += page["items"]
            token = page["next_page_token"]
            if not token:
                break
    if as_json:
        print_json(items)
        return
    from rlaas.cli.experiments_screen import day

    print_table(
        "experiments",
        ("id", "policy", "state", "design", "started", "decision"),
        [
            (
                one["id"],
                one["policy"],
                one["state"],
                one["design"],
                day(one["start_us"]),
                "-" if one["verdict"] is None else _decided(one["verdict"]),
            )
            for one in items
        ],
    )


@app.command("show")
def show(experiment: Id, url: Url = _LOCAL, as_json: JsonOption = False) -> None:
    """Show what was declared, and what has happened."""
    with _client(url) as client:
        found = client.experiment(experiment)
    if as_json:
        print_json(found)
        return
    from rlaas.cli.experiments_screen import print_experiment

    print_experiment(found)


@app.command("result")
def result(
    experiment: Id,
    url: Url = _LOCAL,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take in what is new in the lake first.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is known, and what to do."""
    with _client(url) as client:
        page = client.analyse_experiment(experiment) if fresh else client.experiment_result(experiment)
    if as_json:
        print_json(page)
        return
    from rlaas.cli.experiments_screen import print_result

    print_result(page)


@app.command("stop")
def stop(
    experiment: Id,
    decision: Annotated[str, typer.Option(help="ship, keep (the control), or none (what was before).")],
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
    variant: Annotated[str | None, typer.Option(help="Which to ship, where there are several treatments.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who.")] = None,
    url: Url = _LOCAL,
    as_json: JsonOption = False,
) -> None:
    """End an experiment, and serve what was decided."""
    check_choice(decision, ("ship", "keep", "none"), field="decision", error=InvalidInputError)
    with _client(url) as client:
        ended = client.stop_experiment(experiment, decision, reason=reason, variant=variant, actor=actor)
    if as_json:
        print_json(ended)
        return
    typer.echo(f"experiment {ended['id']} is {ended['state']}: {_decided(ended['verdict'])}")


@app.command("power")
def power(
    effect: Annotated[float | None, typer.Option(help="Difference to find, in the metric's unit.")] = None,
    deviation: Annotated[float | None, typer.Option(help="Standard deviation of a unit's value, for a mean.")] = None,
    base: Annotated[float | None, typer.Option(help="The control's proportion, for a proportion.")] = None,
    units: Annotated[int | None, typer.Option(help="Units per variant: what do they find?")] = None,
    variants: Annotated[int, typer.Option(help="Variants, the control included.", min=2, max=8)] = 2,
    probability: Annotated[float, typer.Option("--power", help="Probability of finding it.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Probability of finding something where nothing is.")] = 0.05,
    per_day: Annotated[float | None, typer.Option(help="New units a day, of all traffic.")] = None,
    share: Annotated[float, typer.Option(help="Share of the traffic in the experiment.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """How many units an experiment needs, how long it takes, and what it can find; needs no platform."""
    if (deviation is None) == (base is None):
        raise InvalidInputError(
            "give --deviation for a mean or --base for a proportion, one of them", field="deviation"
        )
    if (effect is None) == (units is None):
        raise InvalidInputError("give --effect to get the units, or --units to get the effect", field="effect")
    from rlaas.cli.experiments_plan import plan

    found = plan(
        effect=effect,
        deviation=deviation,
        base=base,
        units=units,
        variants=variants,
        power=probability,
        alpha=alpha,
        per_day=per_day,
        share=share,
    )
    if as_json:
        print_json(found)
        return
    from rlaas.cli.experiments_screen import print_plan

    print_plan(found)


def _client(url: str) -> Client:
    from rlaas.client import Client

    return Client(url)


def _read(file: Path) -> dict[str, Any]:
    """The document of a file, refused here where nothing has to be asked to know that it is wrong."""
    from rlaas.configfiles import read_yaml
    from rlaas.control.experiments import parse_document

    document = read_yaml(file, field="file")
    try:
        return parse_document(document).model_dump(mode="json")
    except InvalidInputError as problem:
        raise InvalidInputError(f"{file}: {problem.message}", field=problem.field) from problem


def _decided(verdict: dict[str, Any]) -> str:
    return f"{verdict['decision']} {verdict['variant']}" if verdict["variant"] else str(verdict["decision"])
