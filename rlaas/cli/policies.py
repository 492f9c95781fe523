"""``rlaas policies``: what is registered, which version is the champion, and how one leaves for a device."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from rlaas.cli import policies_gate
from rlaas.cli.output import JsonOption, check_folder, print_json, print_table
from rlaas.errors import InvalidInputError, check_choice

__all__ = ["app"]

app = typer.Typer(help="Registered policies and their versions.", invoke_without_command=True)
app.add_typer(policies_gate.app, name="gate")


@app.callback()
def list_policies(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every policy with its versions."""
    if context.invoked_subcommand is not None:
        return
    from rlaas.registry import Registry
    from rlaas.settings import load_settings

    registry = Registry(load_settings())
    versions = [version for name in registry.names() for version in registry.versions(name)]
    if as_json:
        print_json(
            [
                {
                    "name": v.name,
                    "version": v.version,
                    "aliases": list(v.aliases),
                    "created_us": v.created_us,
                    "metrics": dict(v.metrics),
                    "params": dict(v.params),
                    "tags": dict(v.tags),
                }
                for v in versions
            ]
        )
        return
    print_table(
        "policies",
        ("name", "version", "aliases", "kind", "created"),
        [
            (
                v.name,
                v.version,
                ", ".join(v.aliases) or "-",
                v.params.get("kind", "-"),
                datetime.datetime.fromtimestamp(v.created_us / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            )
            for v in versions
        ],
    )


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    version: Annotated[str, typer.Argument(help="Version number, or an alias such as candidate.")],
    override: Annotated[
        str | None, typer.Option(help="Why it may go live though it does not pass the policy's gate.")
    ] = None,
    actor: Annotated[str, typer.Option(help="Who; kept in the history of the gate.")] = "operator",
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion; a running platform with the same home switches within seconds."""
    from rlaas.control import ControlService
    from rlaas.control.gating import Override
    from rlaas.settings import load_settings

    word = Override(override, actor)
    service = ControlService(load_settings())
    document, record = service.promote(name, version, override=word)
    generation = record.generation if record else None
    if as_json:
        print_json({"version": document, "generation": generation})
        return
    typer.echo(f"{name} version {document['version']} is the champion (generation {generation})")


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    version: Annotated[str, typer.Option(help="Version number, or an alias.")] = "champion",
    target: Annotated[str, typer.Option(help="What it is for: edge, a device that decides on its own.")] = "edge",
    int8: Annotated[bool, typer.Option("--int8", help="Matrices in 8 bits: smaller, and not quite the same.")] = False,
    device: Annotated[str | None, typer.Option(help="Name of the device, which lets it sync; needs --url.")] = None,
    url: Annotated[str | None, typer.Option(help="Base URL of the platform as the device reaches it.")] = None,
    override: Annotated[
        str | None, typer.Option(help="Why it may go to devices though it does not pass the policy's gate.")
    ] = None,
    actor: Annotated[str, typer.Option(help="Who; kept in the history of the gate.")] = "operator",
    as_json: JsonOption = False,
) -> None:
    """Write a policy as a folder that decides without rlaas, and measure it; the policy's gate is asked first."""
    check_choice(target, ("edge",), field="target")
    if (device is None) != (url is None):
        missing = "url" if url is None else "device"
        raise InvalidInputError(f"--{missing} is missing: a device that syncs needs --device and --url", field=missing)
    check_folder(output)
    from rlaas.control import ControlService
    from rlaas.control.gating import Override
    from rlaas.serving.edge import device_key, export_edge
    from rlaas.settings import load_settings

    settings, word = load_settings(), Override(override, actor)
    control = ControlService(settings)
    link = None
    if device is not None and url is not None:
        given = settings.secret.get_secret_value().encode() if settings.secret else None
        secret = control.database.secret(given)
        link = {"device": device, "url": url, "key": device_key(secret, device, tenant=settings.tenant)}
    found = control.registry.get(name, version)
    control.devices.ask(name, found.version, word)
    report = export_edge(
        control.registry.path(name, found.version), output, policy=name, version=found.version, int8=int8, device=link
    )
    if as_json:
        print_json(report.to_dict())
        return
    latency = report.latency
    rows = [
        ("folder", str(report.folder)),
        ("size", f"{sum(report.files.values()):,} bytes, of which the model {report.files['policy.onnx']:,}"),
        ("a decision", f"{latency['median_us']:.0f} us (median), {latency['p99_us']:.0f} us (99 %), here, stored"),
        ("start", f"{latency['start_ms']:.0f} ms"),
        ("store", f"{latency['bytes_per_decision']:.0f} bytes a decision"),
    ]
    if report.agreement is not None:
        rows.append(("int8 and float", ", ".join(f"{key} {value:g}" for key, value in report.agreement.items())))
    print_table(f"{name} version {found.version}", ("what", "figure"), rows)
