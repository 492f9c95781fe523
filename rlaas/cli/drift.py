"""``rlaas drift``: have policies watched, see how far that is, and hold a window of the lake against a reference."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_lines, print_table
from rlaas.errors import InvalidInputError, check_choice

if TYPE_CHECKING:
    from rlaas.client import Client
    from rlaas.monitoring import DriftReport

__all__ = ["app"]

app = typer.Typer(
    help="Drift: whether what policies see, do and bring about is still what it was.", no_args_is_help=True
)

Url = Annotated[str, typer.Option(help="Base URL of the platform.")]
Policy = Annotated[str, typer.Argument(help="Name of the policy.")]
_LOCAL = "http://127.0.0.1:8000"
_SHOWN = 15


@app.command("config")
def config(
    policy: Policy,
    file: Annotated[Path | None, typer.Option(help="YAML file to watch it by; see configs/drift/.")] = None,
    url: Url = _LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Show how a policy is watched, or watch it as a file says; its baseline is learned anew then."""
    with _client(url) as client:
        if file is None:
            found = client.drift_config(policy)
        else:
            from rlaas.monitoring import load_drift_config

            found = client.configure_drift(policy, load_drift_config(file).model_dump(mode="json"))
    if as_json:
        print_json(found)
        return
    rows = [(name, value) for name, value in found["config"].items() if name != "reference"]
    rows += [(f"reference.{name}", value) for name, value in found["config"]["reference"].items()]
    print_table(f"drift of {policy}, revision {found['revision']}", ("setting", "value"), rows)


@app.command("status")
def status(policy: Policy, url: Url = _LOCAL, as_json: JsonOption = False) -> None:
    """Show what the watch of a policy is doing, and where there is most evidence."""
    with _client(url) as client:
        found = client.drift_status(policy)
    if as_json:
        print_json(found)
        return
    left = f", {found['remaining_s']:,} s of traffic to go" if found["remaining_s"] else ""
    lines = [f"{policy} version {found['version']}: {found['phase']}{left}, {len(found['streams'])} streams"]
    if found["episode"] is not None:
        lines.append(_told(found["episode"]))
    print_lines(lines)
    if found["evidence"]:
        rows = [(one["stream"], f"{one['evidence']:.2g}", f"{one['sigma']:+.2f}") for one in found["evidence"]]
        print_table("evidence (1 is the bar)", ("stream", "evidence", "shift [sigma]"), rows)


@app.command("alerts")
def alerts(
    policy: Annotated[str | None, typer.Option(help="Only of this policy.")] = None,
    state: Annotated[str | None, typer.Option(help="active or closed.")] = None,
    url: Url = _LOCAL,
    as_json: JsonOption = False,
) -> None:
    """List episodes of drift, newest first."""
    if state is not None:
        check_choice(state, ("active", "closed"), field="state", error=InvalidInputError)
    items: list[dict[str, Any]] = []
    token: str | None = None
    with _client(url) as client:
        while True:
            page = client.drift_alerts(policy=policy, state=state, page_token=token)
            items += page["items"]
            token = page["next_page_token"]
            if not token:
                break
    if as_json:
        print_json(items)
        return
    print_table(
        "episodes of drift",
        ("policy", "episode", "version", "began", "ended", "strongest", "shift [sigma]", "retraining"),
        [
            (
                one["model"],
                one["episode"],
                one["version"],
                _time(one["opened_us"]),
                "-" if one["closed_us"] is None else f"{_time(one['closed_us'])} ({one['closed_by']})",
                one["streams"][0]["stream"] if one["streams"] else "-",
                f"{one['streams'][0]['sigma']:+.2f}" if one["streams"] else "-",
                one["retrain"]["state"],
            )
            for one in items
        ],
    )


@app.command("check")
def check(
    policy: Policy,
    version: Annotated[int | None, typer.Option(help="Of the policy; default any.", min=1)] = None,
    window_s: Annotated[float, typer.Option(help="Length of the window, which ends now.", min=1)] = 3600,
    reference_s: Annotated[float, typer.Option(help="Length of the reference before it.", min=1)] = 86_400,
    until_us: Annotated[int | None, typer.Option(help="End of the window, UTC microseconds; default now.")] = None,
    level: Annotated[float, typer.Option(help="Share of findings that may be wrong.", min=1e-9, max=0.5)] = 0.01,
    control: Annotated[str, typer.Option(help="benjamini-hochberg, or holm: no wrong finding at all.")] = (
        "benjamini-hochberg"
    ),
    least_psi: Annotated[float, typer.Option(help="Least stability index that counts.", min=0)] = 0.1,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Hold the newest traffic in the lake against the traffic before it; exits with 1 where it has drifted."""
    import numpy as np

    from rlaas.lake import Lake
    from rlaas.monitoring import CheckOptions, check_window, read_traffic
    from rlaas.settings import load_settings

    check_choice(control, ("benjamini-hochberg", "holm"), field="control", error=InvalidInputError)
    settings = load_settings()
    lake = Lake(settings.lake_root, settings.tenant)
    end = time.time_ns() // 1000 if until_us is None else until_us
    middle = end - int(window_s * 1e6)
    window = read_traffic(lake, policy, middle, end, version=version)
    reference = read_traffic(lake, policy, middle - int(reference_s * 1e6), middle, version=version)
    options = CheckOptions(level=level, control=control, least_psi=least_psi)  # type: ignore[arg-type]
    report = check_window(reference, window, np.random.default_rng(seed), options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(policy, report)
    if report.drifted:
        raise typer.Exit(1)


def _print_report(policy: str, report: DriftReport) -> None:
    ordered = sorted(report.findings, key=lambda one: (not one.drifted, one.adjusted))
    rows = [
        (one.kind, one.name or "-", one.test, f"{one.adjusted:.2g}", f"{one.effect:.3g}", "yes" if one.drifted else "")
        for one in ordered[:_SHOWN]
    ]
    title = f"{policy}: {report.rows[1]:,} decisions against {report.rows[0]:,}"
    print_table(title, ("kind", "of", "test", "adjusted p", "effect", "drift"), rows)
    lines = [f"{len(ordered) - _SHOWN} more tests without drift"] if len(ordered) > _SHOWN else []
    if report.outliers is not None:
        lines.append(f"inputs out of distribution: {100 * report.outliers:.2g} %")
    lines += [f"not tested: {reason}" for reason in report.skipped]
    print_lines([*lines, "the window has drifted" if report.drifted else "no drift was found"])


def _told(episode: dict[str, Any]) -> str:
    streams = ", ".join(f"{one['stream']} {one['sigma']:+.1f} sigma" for one in episode["streams"][:3])
    retrain = episode["retrain"]["state"]
    return f"episode {episode['episode']} since {_time(episode['opened_us'])}: {streams}; retraining: {retrain}"


def _time(time_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_us / 1e6))


def _client(url: str) -> Client:
    from rlaas.client import Client

    return Client(url)
