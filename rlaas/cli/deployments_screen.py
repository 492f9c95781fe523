"""What ``rlaas deployments`` shows: figures that fit 80 columns."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from rlaas.cli.output import print_lines, print_table

__all__ = ["action_line", "deployment_screen", "list_screen", "rollouts_screen"]

Document = Mapping[str, Any]

_METRICS = {"errors": "errors", "latency": "slow", "reward": "1 - utility"}


def list_screen(url: str, deployments: Sequence[Document]) -> None:
    """A row for each deployment."""
    rows = [(found["policy"], found["generation"], _served(found), found["id"]) for found in deployments]
    print_table(f"live at {url}", ("policy", "generation", "versions", "id"), rows)


def deployment_screen(found: Document) -> None:
    """One deployment with everything that belongs to it."""
    ready = "every Gateway has loaded it" if found["ready"] else "not loaded by every Gateway yet"
    print_lines([f"{found['policy']} ({found['id']}), generation {found['generation']}: {ready}"])
    print_table(
        "variants",
        ("variant", "version", "share", "explores", "shadow"),
        [
            (
                v["name"],
                v["version"],
                f"{100 * found['weights'][v['name']]:g} %",
                "yes" if v["explore"] else "-",
                "yes" if v["shadow"] else "-",
            )
            for v in found["variants"]
        ],
    )
    print_table(
        "Gateways",
        ("replica", "generation", "heard of", "trouble"),
        [
            (r["replica"].rpartition("#")[2], r["generation"], f"{r['silent_s']:.1f} s ago", r["error"] or "-")
            for r in found["replicas"]
        ],
    )
    bounds = found["autoscaling"]
    print_lines(
        [
            "pool: as configured" if bounds is None else f"pool: {_between(bounds)}",
            f"fallback: {'none' if found['fallback'] is None else 'version ' + str(found['fallback'])}",
        ]
    )
    if found["rollout"] is not None:
        _rollout(found["rollout"])


def rollouts_screen(deployment: str, rollouts: Sequence[Document], events: int) -> None:
    """A row for each rollout, and what happened in the latest ``events`` of them."""
    print_table(
        f"rollouts of {deployment}",
        ("rollout", "kind", "versions", "state", "began", "took"),
        [
            (
                found["number"],
                found["kind"],
                f"{found['from_version']} to {found['to_version']}",
                _state(found),
                _time(found["started_us"]),
                "-" if found["ended_us"] is None else f"{(found['ended_us'] - found['started_us']) / 1e6:.0f} s",
            )
            for found in rollouts
        ],
    )
    for found in rollouts[:events]:
        print_table(
            f"rollout {found['number']}",
            ("time", "who", "what", "step", "why"),
            [
                (_time(event["time_us"]), event["actor"], event["kind"], event["step"], event["reason"])
                for event in found["events"]
            ],
        )
        judged = next((event["evidence"] for event in reversed(found["events"]) if event["evidence"]), None)
        evidence = judged or found.get("evidence")
        if evidence:
            _evidence(evidence)


def action_line(rollout: Document) -> None:
    """What an operator's action led to."""
    event = rollout["events"][-1]
    print_lines([f"rollout {rollout['number']} of {rollout['policy']}: {event['kind']}; it is {_state(rollout)} now"])


def _rollout(found: Document) -> None:
    steps = found["strategy"].get("steps")
    where = f", step {found['step'] + 1} of {len(steps)} ({100 * steps[found['step']]:g} %)" if steps else ""
    judged = f", {found['decisions']} decisions at it: {found['verdict']}" if "verdict" in found else ""
    versions = f"from version {found['from_version']} to {found['to_version']}"
    print_lines([f"rollout {found['number']}: {found['kind']} {versions}, {_state(found)}{where}{judged}"])
    if found.get("evidence"):
        _evidence(found["evidence"])


def _evidence(evidence: Mapping[str, Document]) -> None:
    needed = next(iter(evidence.values()))
    print_table(
        f"mean losses, and e-values: harm needs {needed['harm_needed']:g}, no harm {needed['no_harm_needed']:g}",
        ("metric", "new", "of", "stable", "of", "margin", "harm", "no harm", "says"),
        [
            (
                _METRICS.get(name, name),
                _figure(found["canary_loss"]),
                found["canary_count"],
                _figure(found["stable_loss"]),
                found["stable_count"],
                _figure(found["margin"]),
                f"{found['harm']:.3g}",
                f"{found['no_harm']:.3g}",
                str(found["says"]).replace("_", " "),
            )
            for name, found in evidence.items()
        ],
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _served(found: Document) -> str:
    serving = [v for v in found["variants"] if v["weight"] > 0]
    idle = [f"{v['version']} ({'shadow' if v['shadow'] else 'warm'})" for v in found["variants"] if v["weight"] == 0]
    if len(serving) == 1:
        return ", ".join([str(serving[0]["version"]), *idle])
    return ", ".join([*(f"{v['version']} ({100 * found['weights'][v['name']]:g} %)" for v in serving), *idle])


def _state(rollout: Document) -> str:
    return str(rollout["state"]).replace("_", " ") + (" (held)" if rollout["held"] else "")


def _between(bounds: Document) -> str:
    least, most = bounds["min_replicas"], bounds["max_replicas"]
    return f"{least} Gateway{'s' if least > 1 else ''}" if least == most else f"{least} to {most} Gateways"


def _time(us: int) -> str:
    return datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
