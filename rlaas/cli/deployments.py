"""``rlaas deployments``: what a running platform serves, and how a new version takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from rlaas.cli.deployments_screen import action_line, deployment_screen, list_screen, rollouts_screen
from rlaas.cli.output import JsonOption, print_json
from rlaas.client import Client
from rlaas.errors import InvalidInputError, NotFoundError

__all__ = ["app"]

app = typer.Typer(help="What a running platform serves, and how new versions take over.", no_args_is_help=True)

Deployment = Annotated[str, typer.Argument(help="Id of the deployment, or its policy.")]
Url = Annotated[str, typer.Option(help="Base URL of the platform.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]
Actor = Annotated[str, typer.Option(help="Who; default: $USER.")]
Number = Annotated[int | None, typer.Option("--rollout", help="Which; default: the running one.", min=1)]
LOCAL = "http://127.0.0.1:8000"
ACTOR = os.environ.get("USER") or "operator"


@app.command("list")
def list_deployments(url: Url = LOCAL, as_json: JsonOption = False) -> None:
    """List what is live."""
    with Client(url) as client:
        found = list(_all(client.deployments))
    if as_json:
        print_json(found)
    else:
        list_screen(url, found)


@app.command("show")
def show(deployment: Deployment, url: Url = LOCAL, as_json: JsonOption = False) -> None:
    """Show one: its variants, what each Gateway has loaded, the pool, and the rollout that is running."""
    with Client(url) as client:
        found = client.deployment_status(deployment)
    if as_json:
        print_json(found)
    else:
        deployment_screen(found)


@app.command("create")
def create(
    policy: Annotated[str, typer.Argument(help="Name of the policy.")],
    version: Annotated[int | None, typer.Option(help="The one version that shall serve.", min=1)] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="NAME=VERSION:WEIGHT instead of --version; repeat it to split.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="canary, blue_green or shadow; default: the version takes over at once.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Field of the strategy, as steps=[0.1,0.5] or analysis.errors=0.05; may be repeated."
        ),
    ] = None,
    fallback: Annotated[
        int | None, typer.Option(help="Version that answers while another keeps failing.", min=1)
    ] = None,
    min_replicas: Annotated[int | None, typer.Option(help="Gateways at least; the pool is shared.", min=1)] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Gateways at most.", min=1)] = None,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Serve a policy, or give its deployment the next generation."""
    if (version is None) == (variant is None):
        raise InvalidInputError("give exactly one of --version and --variant", field="version")
    if option and strategy is None:
        raise InvalidInputError("--set is for a strategy; give --strategy too", field="strategy")
    variants = [_variant(text) for text in variant or [f"champion={version}:1"]]
    document = None if strategy is None else {"kind": strategy, **_options(option or [])}
    with Client(url) as client:
        found = client.create_deployment(
            policy,
            variants,
            strategy=document,
            fallback=fallback,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
        )
        found = client.deployment_status(found["id"])
    if as_json:
        print_json(found)
    else:
        deployment_screen(found)


@app.command("scale")
def scale(
    deployment: Deployment,
    replicas: Annotated[int, typer.Argument(help="Gateways.", min=1, max=1000)],
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Set the number of Gateways, which all deployments share; bounds: create with --min-replicas, --max-replicas."""
    with Client(url) as client:
        found = client.scale_deployment(deployment, replicas)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"the pool goes to {replicas} Gateway{'s' if replicas > 1 else ''}; rlaas deployments show tells")


@app.command("delete")
def delete(deployment: Deployment, url: Url = LOCAL, as_json: JsonOption = False) -> None:
    """Serve its policy no longer; the registry keeps the versions."""
    with Client(url) as client:
        found = client.delete_deployment(deployment)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{deployment} is served no longer")


@app.command("rollouts")
def rollouts(
    deployment: Deployment,
    events: Annotated[int, typer.Option(help="Show the events of so many of the latest.", min=0)] = 1,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Show every rollout, newest first, and what happened in the latest."""
    with Client(url) as client:
        found = list(_all(lambda **more: client.rollouts(deployment, **more)))
    if as_json:
        print_json(found)
    else:
        rollouts_screen(deployment, found, events)


@app.command("promote")
def promote(
    deployment: Deployment,
    reason: Reason,
    rollout: Number = None,
    actor: Actor = ACTOR,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """End a rollout: the new version serves alone."""
    _steer("promote_rollout", deployment, rollout, reason, actor, url, as_json)


@app.command("rollback")
def rollback(
    deployment: Deployment,
    reason: Reason,
    rollout: Number = None,
    actor: Actor = ACTOR,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """End a rollout: back to what was served before."""
    _steer("rollback_rollout", deployment, rollout, reason, actor, url, as_json)


@app.command("pause")
def pause(
    deployment: Deployment,
    reason: Reason,
    rollout: Number = None,
    actor: Actor = ACTOR,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Keep a rollout at its step; harm still ends it."""
    _steer("pause_rollout", deployment, rollout, reason, actor, url, as_json)


@app.command("resume")
def resume(
    deployment: Deployment,
    reason: Reason,
    rollout: Number = None,
    actor: Actor = ACTOR,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Let a paused rollout go on."""
    _steer("resume_rollout", deployment, rollout, reason, actor, url, as_json)


@app.command("switch")
def switch(
    deployment: Deployment, reason: Reason, actor: Actor = ACTOR, url: Url = LOCAL, as_json: JsonOption = False
) -> None:
    """Have the new version of a blue-green rollout answer."""
    _switch("switch", deployment, reason, actor, url, as_json)


@app.command("switch-back")
def switch_back(
    deployment: Deployment, reason: Reason, actor: Actor = ACTOR, url: Url = LOCAL, as_json: JsonOption = False
) -> None:
    """Have the old version of a blue-green rollout answer again."""
    _switch("switch_back", deployment, reason, actor, url, as_json)


def _steer(call: str, deployment: str, number: int | None, reason: str, actor: str, url: str, as_json: bool) -> None:
    _check(reason)
    with Client(url) as client:
        if number is None:
            running = client.deployment_status(deployment)["rollout"]
            if running is None:
                raise NotFoundError(f"no rollout of {deployment!r} is running; --rollout names an earlier one")
            number = int(running["number"])
        found = getattr(client, call)(deployment, number, reason=reason, actor=actor)
    _say(found, as_json)


def _switch(call: str, deployment: str, reason: str, actor: str, url: str, as_json: bool) -> None:
    _check(reason)
    with Client(url) as client:
        found = getattr(client, call)(deployment, reason=reason, actor=actor)
    _say(found, as_json)


def _check(reason: str) -> None:
    if not reason.strip():
        raise InvalidInputError("--reason must not be empty: it is what the history will say", field="reason")


def _say(rollout: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(rollout)
    else:
        action_line(rollout)


def _all(read: Any) -> Iterator[dict[str, Any]]:
    """Every item of every page."""
    token = None
    while True:
        page = read(page_token=token)
        yield from page["items"]
        token = page["next_page_token"]
        if token is None:
            return


def _variant(text: str) -> dict[str, Any]:
    name, equals, rest = text.partition("=")
    version, _, weight = rest.partition(":")
    try:
        if not (name and equals):
            raise ValueError
        return {"name": name, "version": int(version), "weight": float(weight) if weight else 1.0}
    except ValueError:
        message = f"--variant {text!r} must be NAME=VERSION:WEIGHT, for example new=2:0.1"
        raise InvalidInputError(message, field="variant") from None


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """Fields of a strategy; a name with dots goes into the objects that it names."""
    document: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (path and equals):
            raise InvalidInputError(f"--set {text!r} must be FIELD=VALUE, for example step_s=60", field="set")
        *above, name = path.split(".")
        place = document
        for key in above:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise InvalidInputError(f"--set {text!r}: {key} has a value already", field="set")
        try:
            place[name] = json.loads(value)
        except ValueError:  # a word without quotes
            place[name] = value
    return document
