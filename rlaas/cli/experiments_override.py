"""``rlaas experiments create --override``: an experiment takes no override, so its versions get one beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from rlaas.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from rlaas.client import Client

__all__ = ["create_past_the_gate"]


def create_past_the_gate(client: Client, document: dict[str, Any], *, reason: str, actor: str | None) -> dict[str, Any]:
    """Begin an experiment; where the gate refuses it, let its versions through once and try again.

    What was let through is told on stderr, and stands in the history of the gate.

    Args:
        client: of the platform.
        document: the experiment.
        reason, actor: why and who.

    Returns:
        The experiment.

    Raises:
        InvalidInputError: no reason.
        ConflictError: refused for another reason than the gate.
    """
    if not reason.strip():
        raise InvalidInputError("--override must not be empty: it is what the history will say", field="override")
    try:
        made: dict[str, Any] = client.create_experiment(document)
        return made
    except ConflictError as refusal:
        if refusal.field != "override":
            raise
    policy = document["policy"]
    known = set(client.gate(policy)["served"])
    let = []
    for version in sorted({variant["version"] for variant in document["variants"]} - known):
        try:
            client.override_gate(policy, version, reason=reason, actor=actor)
        except ConflictError:  # it passes by itself
            continue
        let.append(str(version))
    made = client.create_experiment(document)
    typer.echo(f"let through once, past the gate of {policy}: version {', '.join(let)} ({reason})", err=True)
    return made
