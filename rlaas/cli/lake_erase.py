"""``rlaas lake erase``, ``aggregate`` and ``budget``: what the lake may tell, and what it must forget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_lines, print_table
from rlaas.errors import InvalidInputError, OperatorError

__all__ = ["aggregate", "budget", "erase", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``rlaas lake``."""
    app.command("erase")(erase)
    app.command("aggregate")(aggregate)
    app.command("budget")(budget)


def erase(
    subject: Annotated[str | None, typer.Option("--subject", help="Id of whom to erase, as it was sent.")] = None,
    verify: Annotated[Path | None, typer.Option("--verify", help="Check the signature of this report.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    also: Annotated[
        list[Path] | None, typer.Option("--also", help="Folder of tables outside the lake, an archive; repeat it.")
    ] = None,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds that running Gateways may take.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Erase a subject from tables, files, statistics, logs and databases, and sign a report.

    It may be repeated, and has to be where it was cut off. Stop nothing for it: decisions go on.
    """
    if (subject is None) == (verify is None):
        raise InvalidInputError("give either --subject or --verify", field="subject")
    from rlaas.control.lineage import models_of_tables
    from rlaas.lake.privacy import Eraser, protected_lake, verify_report
    from rlaas.settings import load_settings

    settings = load_settings()
    lake = protected_lake(settings)
    if verify is not None:
        report = verify_report(verify, lake.vault)
        if as_json:
            print_json({"valid": True, "report": report})
            return
        print_lines([f"{verify}: signed by this installation, unchanged", *_told(report)])
        return
    assert subject is not None
    eraser = Eraser(settings, lake, trained=models_of_tables(settings), also=also or (), wait_s=wait_s)
    if dry_run:
        found = eraser.look(subject)
        if as_json:
            print_json(found)
            return
        print_table("rows of the subject", ("table", "rows"), sorted(found["rows"].items()))
        print_table("files that hold the subject", ("file",), [(file,) for file in found["files"]])
        print_lines([_models(found)])
        return
    report = eraser.erase(subject)
    if as_json:
        print_json(report)
    else:
        print_lines([*_told(report), f"report: {eraser.latest_report(subject)}"])
    if not report["clean"]:
        hits = report["scan"]["hits"]
        raise OperatorError(
            f"{len(hits)} files still hold the subject, the first is {hits[0]}; remove them (a model or a document of "
            "the registry by its own command) and erase again",
            field="subject",
        )


def aggregate(
    analyst: Annotated[str, typer.Option("--analyst", help="Whose budget pays.")],
    epsilon: Annotated[float, typer.Option("--epsilon", help="Privacy loss of the answer.")],
    statistic: Annotated[str, typer.Option("--statistic", help="count, sum or mean.")] = "count",
    table: Annotated[str, typer.Option("--table", help="Table of the lake.")] = "silver.transitions",
    column: Annotated[str | None, typer.Option("--column", help="Numbers; outcome.latency for one of a map.")] = None,
    low: Annotated[float | None, typer.Option("--low", help="Values below are clamped to it.")] = None,
    high: Annotated[float | None, typer.Option("--high", help="Values above are clamped to it.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Column to group by.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="A group to answer for; repeat it.")] = None,
    mechanism: Annotated[str, typer.Option("--mechanism", help="laplace or gaussian.")] = "laplace",
    delta: Annotated[float, typer.Option("--delta", help="Of the Gaussian mechanism.")] = 0.0,
    subject: Annotated[str, typer.Option("--subject-column", help="Says whose a row is.")] = "unit",
    per_subject: Annotated[int, typer.Option("--per-subject", help="Rows of a subject that count.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Count, sum or average under differential privacy; the analyst's budget pays for it."""
    from rlaas.lake import Lake
    from rlaas.lake.privacy import Budget, Query
    from rlaas.lake.privacy import aggregate as ask
    from rlaas.settings import load_settings

    if (low is None) != (high is None):
        raise InvalidInputError("give --low and --high together", field="bounds")
    settings = load_settings()
    query = Query(
        table=table,
        statistic=statistic,  # type: ignore[arg-type]
        column=column,
        bounds=None if low is None or high is None else (low, high),
        by=by,
        groups=tuple(group or ()),
        epsilon=epsilon,
        delta=delta,
        mechanism=mechanism,  # type: ignore[arg-type]
        subject=subject,
        per_subject=per_subject,
    )
    lake, ledger = Lake(settings.lake_root, settings.tenant), Budget(settings.state_database, settings.tenant)
    answer = ask(lake, ledger, analyst, query)
    if as_json:
        print_json(answer)
        return
    found: Any = answer["answer"]
    rows = found.items() if isinstance(found, dict) else [("all", found)]
    print_table(f"{statistic} of {column or 'rows'}", ("group", "answer"), [(key, f"{v:.6g}") for key, v in rows])
    print_lines([f"noise: {mechanism}, scale {answer['scale']:.6g}; epsilon left: {answer['epsilon_left']:g}"])


def budget(
    analyst: Annotated[str | None, typer.Option("--analyst", help="One analyst, with the questions asked.")] = None,
    grant: Annotated[float | None, typer.Option("--grant", help="Epsilon that the analyst may spend in all.")] = None,
    delta: Annotated[float, typer.Option("--delta", help="Delta that goes with the grant.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Show what analysts may still learn, or grant it."""
    from rlaas.lake.privacy import Budget
    from rlaas.settings import load_settings

    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    ledger = Budget(settings.state_database, settings.tenant)
    if grant is not None:
        if analyst is None:
            raise InvalidInputError("--grant needs --analyst", field="analyst")
        ledger.grant(analyst, epsilon=grant, delta=delta)
    accounts = ledger.accounts() if analyst is None else [ledger.account(analyst)]
    entries = [] if analyst is None else ledger.entries(analyst)
    if as_json:
        print_json({"accounts": [_fields(one) for one in accounts], "entries": [_fields(one) for one in entries]})
        return
    rows = [(one.analyst, one.epsilon_limit, one.epsilon_left, one.delta_limit, one.delta_left) for one in accounts]
    print_table("budgets", ("analyst", "epsilon", "left", "delta", "left"), rows)
    if entries:
        asked = [(one.epsilon, one.delta, one.state, one.query.get("statistic", ""), one.answer) for one in entries]
        print_table("questions", ("epsilon", "delta", "state", "statistic", "answer"), asked)


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _told(report: dict[str, Any]) -> list[str]:
    scan = report["scan"]
    rows = ", ".join(f"{table} {count}" for table, count in sorted(report["rows"].items())) or "none"
    verdict = "clean" if report["clean"] else "NOT CLEAN"
    return [
        f"subject {report['subject'][:16]}..., erasure {report['number']}: {verdict}",
        f"rows removed: {rows}",
        f"files removed: {report['files_removed']}; keys destroyed: {report['keys_destroyed']}",
        f"scanned: {scan['files']} files, {scan['bytes']} bytes; holding the subject: {len(scan['hits'])}",
        *([f"not scanned: {', '.join(report['not_scanned'])}"] if report["not_scanned"] else []),
        _models(report),
        *(
            f"dataset {one['name']}: {one['rows']} rows left out, now {one['replaced_by'] or '(nothing left)'}"
            for one in report["datasets"]
        ),
    ]


def _models(found: dict[str, Any]) -> str:
    trained, unknown = ", ".join(found["models"]) or "none", ", ".join(found["models_unknown"])
    more = f"; nobody can say any more of: {unknown}" if unknown else ""
    return f"models made from data that held the subject: {trained}{more}"
