"""``rlaas deployments``: what a running platform serves, and how a new version takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    _say(found, partial(list_screen, url), as_json)


@app.command("show")
def show(deployment: Deployment, url: Url = LOCAL, as_json: JsonOption = False) -> None:
    """Show one: its variants, what each Gateway has loaded, the pool, and the rollout that is running."""
    with Client(url) as client:
        found = client.deployment_status(deployment)
    _say(found, deployment_screen, as_json)


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
    override: Annotated[
        str | None, typer.Option(help="Why versions may go live though they do not pass the policy's gate.")
    ] = None,
    actor: Actor = ACTOR,
    url: Url = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Serve a policy, or give its deployment the next generation."""
    if (version is None) == (variant is None):
        raise InvalidInputError("give exactly one of --version and --variant", field="version")
    if option and strategy is None:
        raise InvalidInputError("--set is for a strategy; give --strategy too", field="strategy")
    if override is not None and not override.strip():
        raise InvalidInputError("--override must not be empty: it is what the history will say", field="override")
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
            override=override,
            actor=actor,
        )
        found = client.deployment_status(found["id"])
    _say(found, deployment_screen, as_json)


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
    text = f"the pool goes to {replicas} Gateway{'s' if replicas > 1 else ''}; rlaas deployments show tells"
    _say(found, lambda _: typer.echo(text), as_json)


@app.command("delete")
def delete(deployment: Deployment, url: Url = LOCAL, as_json: JsonOption = False) -> None:
    """Serve its policy no longer; the registry keeps the versions."""
    with Client(url) as client:
        found = client.delete_deployment(deployment)
    _say(found, lambda _: typer.echo(f"{deployment} is served no longer"), as_json)


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
    _say(found, lambda rollouts: rollouts_screen(deployment, rollouts, events), as_json)


def _steering(name: str, call: str, text: str) -> None:
    """Add a command that gives the running rollout, or the one that --rollout names, an order."""

    @app.command(name, help=text)
    def steer(
        deployment: Deployment,
        reason: Reason,
        rollout: Number = None,
        actor: Actor = ACTOR,
        url: Url = LOCAL,
        as_json: JsonOption = False,
    ) -> None:
        def order(client: Client) -> dict[str, Any]:
            number = rollout
            if number is None:
                running = client.deployment_status(deployment)["rollout"]
                if running is None:
                    raise NotFoundError(f"no rollout of {deployment!r} is running; --rollout names an earlier one")
                number = int(running["number"])
            found: dict[str, Any] = getattr(client, call)(deployment, number, reason=reason, actor=actor)
            return found

        _ordered(order, reason, url, as_json)


def _switching(name: str, call: str, text: str) -> None:
    """Add a command that says which version of a blue-green rollout answers."""

    @app.command(name, help=text)
    def switch(
        deployment: Deployment, reason: Reason, actor: Actor = ACTOR, url: Url = LOCAL, as_json: JsonOption = False
    ) -> None:
        _ordered(lambda client: getattr(client, call)(deployment, reason=reason, actor=actor), reason, url, as_json)


_steering("promote", "promote_rollout", "End a rollout: the new version serves alone.")
_steering("rollback", "rollback_rollout", "End a rollout: back to what was served before.")
_steering("pause", "pause_rollout", "Keep a rollout at its step; harm still ends it.")
_steering("resume", "resume_rollout", "Let a paused rollout go on.")
_switching("switch", "switch", "Have the new version of a blue-green rollout answer.")
_switching("switch-back", "switch_back", "Have the old version of a blue-green rollout answer again.")


def _ordered(order: Callable[[Client], dict[str, Any]], reason: str, url: str, as_json: bool) -> None:
    if not reason.strip():
        raise InvalidInputError("--reason must not be empty: it is what the history will say", field="reason")
    with Client(url) as client:
        found = order(client)
    _say(found, action_line, as_json)


def _say(found: Any, screen: Callable[[Any], object], as_json: bool) -> None:
    """What the platform answered: as JSON, or as ``screen`` writes it for a person."""
    if as_json:
        print_json(found)
    else:
        screen(found)


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
