"""``rlaas fronts``: what was found, how it looks, and which trade-off a person would take."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.front_elicitation import ask
from rlaas.cli.front_source import (
    FrontOption,
    LabelOption,
    PolicyOption,
    ScenarioArgument,
    Subject,
    find_front,
    front_store,
)
from rlaas.cli.output import JsonOption, bar, check_file, print_json, print_table, stderr
from rlaas.errors import InvalidInputError, check_choice

if TYPE_CHECKING:
    from rlaas.fronts import Candidate

__all__ = ["app"]

app = typer.Typer(help="Fronts: the candidates that training and search have found.", no_args_is_help=True)
app.command("ask")(ask)


@app.command("list")
def list_fronts(as_json: JsonOption = False) -> None:
    """List the fronts of registered versions and of searches."""
    found, problems = front_store().all()
    if as_json:
        print_json({"fronts": [stored.to_dict() for stored in found], "problems": [p.to_dict() for p in problems]})
        return
    rows = [
        (
            stored.scenario,
            stored.label,
            stored.front.version,
            len(stored.front.candidates),
            ", ".join(stored.front.names),
            stored.file or f"version {stored.policy_version}",
            datetime.datetime.fromtimestamp(stored.updated_us / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )
        for stored in found
    ]
    print_table("fronts", ("scenario", "label", "front version", "candidates", "objectives", "found in", "from"), rows)
    for problem in problems:
        stderr().print(f"{problem.where}: {problem.error.message}", style="yellow", markup=False, highlight=False)


@app.command("show")
def show(
    scenario: ScenarioArgument = None,
    front: FrontOption = None,
    policy: PolicyOption = None,
    label: LabelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the candidates of a front with their intervals, and what each mode of the scenario chooses."""
    from rlaas.optimization import front_hypervolume

    subject = find_front(scenario, file=front, policy=policy, label=label)
    found, choices = subject.front, subject.choices()
    volume = front_hypervolume(found)
    if as_json:
        print_json(
            {
                **found.to_dict(),
                "version": found.version,
                "origin": subject.origin,
                "hypervolume": volume,
                "choices": {mode: choice.candidate.name for mode, choice in choices.items()},
            }
        )
        return
    chosen: dict[str, list[str]] = {}
    for mode, choice in choices.items():
        chosen.setdefault(choice.candidate.name, []).append(mode)
    figures = [f"{o.name} [{o.unit}]" if o.unit else o.name for o in found.objectives]
    kinds = {c.kind for c in found.candidates}
    # A column that says the same of every candidate is a line of the title.
    kind = f" of kind {next(iter(kinds))}" if len(kinds) == 1 else ""
    print_table(
        f"{found.scenario}: front {found.version} from {subject.origin}: {len(found.candidates)} candidates{kind}, "
        f"hypervolume {volume:.4g}",
        ("candidate", *([] if kind else ["kind"]), *figures, "chosen by"),
        [
            (c.name, *([] if kind else [c.kind]), *_figures(c), ", ".join(chosen.get(c.name, [])) or "-")
            for c in found.candidates
        ],
    )


def _figures(candidate: Candidate) -> list[str]:
    return [
        f"{mean:.4g} ± {width:.2g}" if math.isfinite(width) else f"{mean:.4g}"
        for mean, width in zip(candidate.mean, candidate.half_width, strict=True)
    ]


@app.command("plot")
def plot(
    output: Annotated[Path, typer.Option(help="The file: .png, or .html for an interactive page.")],
    scenario: ScenarioArgument = None,
    front: FrontOption = None,
    policy: PolicyOption = None,
    label: LabelOption = None,
    kind: Annotated[str, typer.Option(help="scatter, parallel, petal, or page for all of them.")] = "page",
    pair: Annotated[str | None, typer.Option(help="Two objectives of scatter, as across,up.")] = None,
    candidate: Annotated[list[str] | None, typer.Option(help="A candidate for petal; once for each.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Evaluate the scenario's baselines, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a front with the choices of the modes: a picture, or a page that works without a network."""
    from rlaas.plots import FrontView, check_plot, write_plot

    check_plot(kind, output)
    two = _pair(pair)
    _check_belongs(kind, pair=pair is not None, candidate=bool(candidate))
    check_file(output)
    _check_place(output)
    subject = find_front(scenario, file=front, policy=policy, label=label)
    for name in two or ():
        check_choice(name, subject.front.names, field="--pair objective", error=InvalidInputError)
    names = [member.name for member in subject.front.candidates]
    for name in candidate or ():
        check_choice(name, names, field="--candidate", error=InvalidInputError)
    evaluated = _baselines(subject) if baselines else []
    view = FrontView.of(subject.front, choices=subject.choices(), baselines=evaluated)
    file = write_plot(view, kind, output, pair=two, candidates=candidate)
    if as_json:
        document: dict[str, Any] = {
            "scenario": subject.front.scenario,
            "version": subject.front.version,
            "kind": kind,
            "candidates": len(subject.front.candidates),
            "choices": dict(view.chosen),
            "baselines": [baseline.name for baseline in evaluated],
            "output": str(file),
        }
        print_json(document)
        return
    typer.echo(f"{len(subject.front.candidates)} candidates of {subject.front.scenario} in {file}")


def _check_belongs(kind: str, *, pair: bool, candidate: bool) -> None:
    for option, given, of in (("pair", pair, "scatter"), ("candidate", candidate, "petal")):
        if given and kind not in (of, "page"):
            raise InvalidInputError(f"--{option} belongs to --kind {of} or page, not to {kind}", field=option)


def _check_place(output: Path) -> None:
    # One new folder is what a person means; a longer way that does not exist is a slip of the pen.
    above = output.absolute().parent.parent
    if not above.is_dir():
        raise InvalidInputError(f"--output {output}: there is no folder {above}", field="output")


def _pair(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 2 or not all(parts):
        raise InvalidInputError(f"--pair {text!r} must be two objectives, as across,up", field="pair")
    return parts[0], parts[1]


def _baselines(subject: Subject) -> list[Candidate]:
    from rlaas.pipeline import evaluate_controller, seeds_for

    scenario = subject.scenario
    if scenario is None:
        raise InvalidInputError(
            f"--baselines needs the scenario {subject.front.scenario}, which is not installed here", field="baselines"
        )
    protocol = scenario.protocols["short"]
    seeds = seeds_for("front", 0, protocol.seeds)
    found: list[Candidate] = []
    with bar(f"baselines of {scenario.name}") as advance:
        for name, baseline in scenario.baselines.items():
            evaluation = evaluate_controller(scenario, baseline.make(), seeds, protocol)
            found.append(evaluation.candidate(name, "configuration", {}))
            advance(len(found), len(scenario.baselines))
    return found
