"""``rlaas decide``: one decision from a running platform."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, print_json, print_table
from rlaas.errors import InvalidInputError

__all__ = ["decide"]


def decide(
    policy: Annotated[str, typer.Argument(help="Name of the deployed policy.")],
    observation: Annotated[str, typer.Option(help="JSON list of numbers, or a list of such lists.")],
    mode: Annotated[str | None, typer.Option(help="Mode of the policy's scenario.")] = None,
    preference: Annotated[str | None, typer.Option(help='JSON object, for example {"latency": 1}.')] = None,
    unit: Annotated[str | None, typer.Option(help="Sticky key of an experiment.")] = None,
    session: Annotated[str | None, typer.Option(help="Id of the trajectory.")] = None,
    step: Annotated[int | None, typer.Option(help="Position within the session.")] = None,
    url: Annotated[str, typer.Option(help="Base URL of the platform.")] = "http://127.0.0.1:8000",
    as_json: JsonOption = False,
) -> None:
    """Ask a running platform for a decision."""
    from rlaas.client import Client

    rows = _json("observation", observation)
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError(
            "--observation must be a JSON list of numbers, or a list of such lists", field="observation"
        )
    fields: dict[str, Any] = {"observations" if isinstance(rows[0], list) else "observation": rows}
    if mode is not None:
        fields["mode"] = mode
    if preference is not None:
        fields["preference"] = _json("preference", preference)
    given = {"unit": unit, "session": session, "step": step}
    fields |= {name: value for name, value in given.items() if value is not None}
    with Client(url) as client:
        answer = client.decide(policy, **fields)
    if as_json:
        print_json(answer)
        return
    decisions = answer.get("decisions", [answer])
    print_table(
        f"{policy}",
        ("decision", "version", "variant", "action"),
        [(d["decision_id"], d["version"], d["variant"], d["action"]) for d in decisions],
    )


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as problem:
        raise InvalidInputError(f"--{option} is not JSON: {problem}", field=option) from problem
