"""``rlaas resolve``: choosing from a front by mode, weights or rules, and saying why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rlaas.cli.front_source import FrontOption, LabelOption, PolicyOption, Subject, find_front, installed
from rlaas.cli.output import JsonOption, print_json, print_lines, print_table
from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.scenarios import Scenario

# The methods and the rules take a second to import, which a command about something else should not pay.
if TYPE_CHECKING:
    from rlaas.decisions import Border, Choice
    from rlaas.decisions.rules import Applied, RuleBook
    from rlaas.fronts import Front
    from rlaas.objectives import Mode

__all__ = ["resolve"]

WEIGHTS = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    mode: Mode
    choice: Choice
    borders: tuple[Border, ...]


def resolve(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or module:attribute.")],
    more_context: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", hidden=True)] = None,
    mode: Annotated[str | None, typer.Option(help="One mode; default: all of them.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights instead of a mode, as latency=.6,energy=.4; the rest is 0.")
    ] = None,
    method: Annotated[str, typer.Option(help="topsis, weighted_sum, vikor, knee, lexicographic or nash.")] = "topsis",
    front: FrontOption = None,
    policy: PolicyOption = None,
    label: LabelOption = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="YAML file; see configs/rules/. A mode it sets goes before --mode; --weights stand."),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="What the rules look at, as load=0.95 slice=urllc.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="The whole certificate, and the borders to modes.")
    ] = False,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Choose nothing: show what each rule does to the front, the own rules of the mode included. excludes: "
            "candidates that break it; alone: those of them that every other rule would keep.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose one candidate of a front for each mode, and say why."""
    from rlaas.control.mode_choice import requested_mode
    from rlaas.decisions import METHODS

    check_choice(method, METHODS, field="method", error=InvalidInputError)
    texts = _pairs([*(context or []), *(more_context or [])], context)
    _check_together(mode=mode, weights=weights, rules=rules, context=texts, dry=dry)
    numbers = None if weights is None else _weights(weights)
    loaded = installed(scenario)
    if loaded is None and numbers is None:
        from rlaas.scenarios import load

        loaded = load(scenario)  # refuses, naming those that are installed
    if mode is not None and loaded is not None:
        check_choice(mode, loaded.modes, field="mode")
    book = None if rules is None else _book(rules, loaded)
    values = {} if book is None else book.read_context(texts)
    subject = find_front(scenario, file=front, policy=policy, label=label, loaded=loaded)

    def mode_under(applied: Applied | None) -> Mode:
        return requested_mode(
            subject.front.objectives,
            subject.modes,
            mode=mode,
            preference=numbers,
            by_rules=None if applied is None else applied.mode,
            primary=None if loaded is None else loaded.primary_mode,
            name=WEIGHTS,
        )

    if dry and book is not None:
        _dry_run(book, subject.front, values, method, mode_under, as_json, asked=mode, weighed=numbers is not None)
        return
    applied = None if book is None else book.apply(values)
    every = mode is None and numbers is None and applied is None
    modes = list(subject.modes.values()) if every else [mode_under(applied)]
    resolved = [_resolve(subject, one, method, applied, explain) for one in modes]
    if as_json:
        print_json(_finite({one.mode.name: _document(subject.front, one, applied, explain) for one in resolved}))
    elif explain:
        Console().print(_screen(subject, resolved, _rule_lines(applied, asked=mode, weighed=numbers is not None)))
    else:
        _print(subject, resolved, _rule_lines(applied, asked=mode, weighed=numbers is not None))


def _check_together(
    *, mode: str | None, weights: str | None, rules: Path | None, context: Mapping[str, str], dry: bool
) -> None:
    if mode is not None and weights is not None:
        raise ConfigurationError("--mode and --weights exclude each other; give one", field="weights")
    if rules is None and (context or dry):
        option = "--dry-run" if dry else "--context"
        raise ConfigurationError(f"{option} is about rules; name a file with --rules", field="rules")


def _pairs(texts: Iterable[str], context: list[str] | None) -> dict[str, str]:
    """``name=value`` texts; those behind the first follow ``--context`` without an option of their own."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if context is None or not separator or not name:
            raise InvalidInputError(
                f"unexpected argument {text[:80]!r}; what the rules look at is given as --context name=value",
                field="context",
            )
        if name in found:
            raise InvalidInputError(f"--context {name} is given twice", field=f"context.{name}")
        found[name] = value
    return found


def _weights(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not separator or not name:
            raise InvalidInputError(
                f"--weights {text[:80]!r}: {part[:80]!r} must be objective=number, separated by commas", field=WEIGHTS
            )
        if name in found:
            raise InvalidInputError(f"--weights names {name!r} twice", field=f"{WEIGHTS}.{name}")
        try:
            found[name] = float(value)
        except ValueError as problem:
            raise InvalidInputError(
                f"--weights {name}={value[:80]}: expected a number", field=f"{WEIGHTS}.{name}"
            ) from problem
    return found


def _book(path: Path, scenario: Scenario | None) -> RuleBook:
    if scenario is None:
        raise InvalidInputError(
            "--rules needs an installed scenario, whose modes and objectives they name", field="rules"
        )
    from rlaas.decisions.rules import load_rules

    return load_rules(path, objectives=scenario.objectives, modes=scenario.modes)


def _resolve(subject: Subject, mode: Mode, method: str, applied: Applied | None, explain: bool) -> _Resolved:
    from rlaas.decisions import border
    from rlaas.decisions import resolve as resolve_front

    choice = resolve_front(subject.front, mode=mode, method=method, rules=applied)
    others = [other for name, other in subject.modes.items() if name != mode.name] if explain else []
    borders = tuple(border(subject.front, mode, other, method, rules=applied) for other in others)
    return _Resolved(mode=mode, choice=choice, borders=borders)


def _document(front: Front, resolved: _Resolved, applied: Applied | None, explain: bool) -> dict[str, Any]:
    candidate = resolved.choice.candidate
    document: dict[str, Any] = {
        "candidate": candidate.name,
        "kind": candidate.kind,
        "parameters": dict(candidate.parameters),
        "objectives": candidate.objectives(front.names),
        "certificate": resolved.choice.certificate.to_dict(),
    }
    if applied is not None:
        document["rules"] = applied.to_dict()
    if explain:
        document["borders"] = [found.to_dict() for found in resolved.borders]
    return document


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for: a method may score a candidate minus infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(subject: Subject, resolved: list[_Resolved], rule_lines: list[str]) -> None:
    front = subject.front
    print_table(
        f"{front.scenario}: {len(front.candidates)} candidates",
        ("mode", "candidate", *(f"{o.name} [{o.unit}]" if o.unit else o.name for o in front.objectives)),
        [
            (one.mode.name, one.choice.candidate.name, *(f"{value:.4g}" for value in one.choice.candidate.mean))
            for one in resolved
        ],
    )
    print_lines(f"{one.mode.name}: {one.choice.certificate.why}" for one in resolved)
    print_lines(rule_lines)


def _screen(subject: Subject, resolved: list[_Resolved], rule_lines: list[str]) -> RenderableType:
    front = subject.front
    parts: list[RenderableType] = [
        Text(f"{front.scenario}: {len(front.candidates)} candidates, front {front.version} from {subject.origin}"),
        *(Text(line) for line in rule_lines),
    ]
    for one in resolved:
        parts += ["", Text(f"{one.mode.name}: {one.choice.candidate.name}", style="bold"), _values(front, one)]
        lines = [*one.choice.certificate.lines(), *map(str, one.borders)]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in lines]
    return Group(*parts)


def _values(front: Front, resolved: _Resolved) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 2))
    for column in ("objective", "value", "weight"):
        table.add_column(column, justify="left" if column == "objective" else "right")
    candidate, weights = resolved.choice.candidate, resolved.mode.preference.to_dict()
    for objective, mean, width in zip(front.objectives, candidate.mean, candidate.half_width, strict=True):
        interval = f" ± {width:.2g}" if math.isfinite(width) else ""
        value = f"{mean:.4g}{interval} {objective.unit}".rstrip()
        table.add_row(Text(objective.name), Text(value), f"{weights.get(objective.name, 0.0):.3g}")
    return table


def _rule_lines(applied: Applied | None, *, asked: str | None, weighed: bool) -> list[str]:
    if applied is None:
        return []
    lines = [f"rules that fired: {', '.join(applied.fired) or 'none'}"]
    lines += _mode_lines(applied, asked=asked, weighed=weighed)
    lines += [f"rule {name} is open: the context lacks {', '.join(f)}" for name, f in applied.unknown.items()]
    lines += [f"rule {name} yields to {', '.join(others)}" for name, others in applied.yielded.items()]
    return lines


def _mode_lines(applied: Applied, *, asked: str | None, weighed: bool) -> list[str]:
    """What became of the mode that a rule sets, beside ``--mode`` (asked) or ``--weights`` (weighed)."""
    if applied.mode is None:
        return []
    if weighed:
        return [f"rule {applied.mode_rule} asks for mode {applied.mode}; set aside: explicit weights stand"]
    if asked not in (None, applied.mode):
        return [f"asked for mode {asked}; rule {applied.mode_rule} took {applied.mode}"]
    return [f"rule {applied.mode_rule} sets mode {applied.mode}"]


def _dry_run(
    book: RuleBook,
    front: Front,
    values: Mapping[str, Any],
    method: str,
    mode_under: Callable[[Applied], Mode],
    as_json: bool,
    *,
    asked: str | None,
    weighed: bool,
) -> None:
    from rlaas.decisions import resolve as resolve_front
    from rlaas.decisions.rules import HEADINGS, dry_run

    def choose(of: Front, applied: Applied) -> str:
        return resolve_front(of, mode=mode_under(applied), method=method, rules=applied).candidate.name

    tried = dry_run(book, front, values, choose=choose, mode=mode_under)
    if as_json:
        print_json(_finite({"dry_run": tried.to_dict()}))
        return
    run, rows = tried.runs[0], tried.rows()
    # What a rule does and why is a sentence each; a table with them would not fit a terminal.
    narrow = [i for i, heading in enumerate(HEADINGS) if heading not in ("context", "does", "why")]
    rule, does, why = (HEADINGS.index(heading) for heading in ("rule", "does", "why"))
    print_table(
        f"{front.scenario}: {len(run.feasible)} of {run.candidates} candidates keep the rules; choice {run.choice}",
        [HEADINGS[i] for i in narrow],
        [[row[i] for i in narrow] for row in rows],
    )
    print_lines(f"{row[rule]}: {row[does]}; {row[why]}" for row in rows)
    print_lines(_mode_lines(book.apply(values), asked=asked, weighed=weighed))
    print_lines(f"note: {warning}" for warning in tried.warnings)
