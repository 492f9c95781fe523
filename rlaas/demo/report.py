"""What the main job says at the end: one table, a summary document, the URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlaas.demo.results import LoopResult

__all__ = ["print_report", "summarise"]


def summarise(result: LoopResult, seconds: float) -> dict[str, Any]:
    """The content of ``summary.json``: plain JSON types, non-finite numbers as null."""
    names = result.front.names
    served = result.served
    standings = {one.name: one for one in result.evaluated.standings}
    return {
        "schema_version": 1,
        "scenario": result.scenario.name,
        "reference_hash": result.scenario.reference_hash,
        "protocol": result.protocol.describe(),
        "seconds": round(seconds, 1),
        "stages": dict(result.seconds),
        "front": {
            "size": len(result.front.candidates),
            "policies": sum(c.kind == "policy" for c in result.front.candidates),
            "undecided": len(result.evaluated.undecided()),
            "hypervolume": result.volumes.union,
            "policies_hypervolume": result.volumes.policies,
            "configurations_hypervolume": result.volumes.configurations,
            "baseline_hypervolume": result.volumes.baselines,
            "candidates": [
                {
                    "name": c.name,
                    "kind": c.kind,
                    "standing": standings[c.name].status,
                    "objectives": c.objectives(names),
                    "half_width": dict(zip(names, map(_finite, c.half_width), strict=True)),
                    "seeds": len(c.seeds),
                }
                for c in result.front.candidates
            ],
        },
        "race": result.evaluated.race.to_dict(),
        "resolved": {
            mode: {
                "candidate": choice.candidate.name,
                "objectives": choice.candidate.objectives(names),
                "why": choice.certificate.why,
            }
            for mode, choice in result.choices.items()
        },
        "policy": {
            "name": result.policy.name,
            "version": result.policy.version,
            "champion_before": result.champion.version,
            "promoted": served.promoted,
            "from_table": result.offline_version.version,
        },
        "training": {name: _finite(value) for name, value in result.training.metrics.items()},
        "experiment": {
            "arms": {name: {"n_units": arm.n_units, "mean": arm.mean} for name, arm in served.comparison.arms.items()},
            "metric": served.comparison.metric,
            "design": served.comparison.design,
            "effect": served.comparison.effect,
            "interval": list(served.comparison.interval),
            "p_value": served.comparison.p_value,
            "decision": served.comparison.decision,
        },
        "decisions": {
            "acknowledged": served.decisions.acknowledged,
            "in_bronze": served.decisions.in_bronze,
            "duplicates": served.decisions.duplicates,
        },
        "outcomes": {
            "acknowledged": served.outcomes.acknowledged,
            "in_bronze": served.outcomes.in_bronze,
            "duplicates": served.outcomes.duplicates,
            "sent": served.traffic.outcomes_sent,
            "corrected": served.traffic.corrections,
        },
        "transitions": served.transitions.num_rows,
        "columns": {
            name: dict(zip(names, (_finite(v) for v in evaluation.mean().tolist()), strict=True))
            for name, evaluation in result.columns.items()
        },
        "targets": result.verdicts[result.ours].to_dict(),
        "guards": {
            name: {"relative_to_default": _finite(value), "held": held}
            for name, (value, held) in result.verdicts[result.ours].guards.items()
        },
    }


def _standings_line(result: LoopResult) -> str:
    """Of how many candidates it is known, and with what confidence, whether they belong to the front."""
    race, undecided = result.evaluated.race, len(result.evaluated.undecided())
    dominated = sum(one.status == "dominated" for one in race.standings)
    return (
        f"[bold]Dominance[/] (paired tests on {len(race.seeds)} worlds, {race.confidence * 100:g} % over all pairs; "
        f"differences within {race.tolerance * 100:g} % of a range do not count): {dominated} of "
        f"{len(race.standings)} candidates are shown to be dominated; of the front's {len(result.front.candidates)}, "
        f"{undecided} are undecided: no candidate is shown to dominate them, nor that none does"
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def print_report(console: Console, result: LoopResult, summary: Mapping[str, Any], urls: Mapping[str, str]) -> None:
    """Print the result for a person."""
    served = result.served
    console.print()
    console.print(_objectives_table(result))
    console.print(_targets_line(result))
    console.print()
    console.print(_modes_table(result))
    for mode, choice in result.choices.items():
        console.print(f"[bold]{mode}[/]: {escape(choice.certificate.why)}", highlight=False)
    console.print()
    volumes = result.volumes
    console.print(
        f"[bold]Front[/]: {len(result.front.candidates)} candidates; hypervolume policies {volumes.policies:.3f}, "
        f"configurations {volumes.configurations:.3f}, union {volumes.union:.3f}, baselines {volumes.baselines:.3f}"
    )
    console.print(_standings_line(result))
    comparison = served.comparison
    low, high = comparison.interval
    arms = ", ".join(
        f"{name} {arm.mean:.4f} ({arm.n_units} {'blocks' if comparison.design == 'switchback' else 'users'})"
        for name, arm in comparison.arms.items()
    )
    console.print(
        f"[bold]Experiment[/] ({comparison.design}, utility at {result.scenario.primary_mode}): {arms}; "
        f"effect {comparison.effect:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}], p = {comparison.p_value:.3g}. "
        + escape(comparison.decision)
    )
    console.print(
        f"[bold]Registry[/]: {result.policy.name} version {result.champion.version} (best static configuration), "
        f"version {result.policy.version} (policy{', promoted to champion' if served.promoted else ''}), "
        f"version {result.offline_version.version} (fitted from the table alone)"
    )
    console.print(
        f"[bold]Lake[/]: {served.decisions.acknowledged:,} decisions acknowledged, {served.decisions.in_bronze:,} in "
        f"bronze, {served.decisions.duplicates} duplicates; {served.outcomes.acknowledged:,} outcomes acknowledged "
        f"({served.traffic.outcomes_sent:,} sent, late, repeated and out of order), {served.outcomes.in_bronze:,} in "
        f"bronze, {served.outcomes.duplicates} duplicates; {served.transitions.num_rows:,} rows in silver.transitions"
    )
    latencies = np.array(served.traffic.latencies_ms)
    console.print(
        f"[bold]HTTP[/]: {len(latencies):,} decide requests, median {np.median(latencies):.1f} ms, "
        f"p99 {np.quantile(latencies, 0.99):.1f} ms; outcomes included {served.traffic.seconds:.0f} s"
    )
    slowest = sorted(result.seconds.items(), key=lambda item: -item[1])[:4]
    console.print(
        f"[bold]Time[/]: {summary['seconds']:.0f} s in all ("
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest)
        + ")"
    )
    for name, url in urls.items():
        console.print(f"[bold]{name}[/]: {url}", soft_wrap=True)


def _objectives_table(result: LoopResult) -> Table:
    scenario = result.scenario
    names = result.front.names
    table = Table(
        title=f"{scenario.name}: objectives by candidate ({result.protocol.describe()}; "
        f"reference {scenario.reference_hash})",
        title_justify="left",
    )
    table.add_column("candidate", overflow="fold")
    for objective in scenario.objectives:
        arrow = "min" if objective.direction == "minimize" else "max"
        unit = f" {objective.unit}" if objective.unit else ""
        table.add_column(f"{objective.name}\n[dim]{arrow}{unit}[/]", justify="right", overflow="fold")
    table.add_column("targets\nmet", justify="right")
    default = result.columns[scenario.default_baseline].mean()
    for name, evaluation in result.columns.items():
        mean, half = evaluation.mean(), evaluation.half_width()
        cells = []
        for k, _ in enumerate(names):
            change = "" if name == scenario.default_baseline else f" [dim]{_change(mean[k], default[k])}[/]"
            cells.append(f"{mean[k]:.4g} ± {half[k]:.2g}{change}")
        verdict = result.verdicts.get(name)
        met = "" if verdict is None else f"{sum(verdict.met(r) for r in verdict.rows)}/{len(verdict.rows)}"
        style = "bold" if name == result.ours else ""
        table.add_row(escape(name), *cells, met, style=style)
    return table


def _change(value: float, default: float) -> str:
    return f"{(value - default) / abs(default) * 100:+.0f} %" if default else ""


def _targets_line(result: LoopResult) -> str:
    verdict = result.verdicts[result.ours]
    parts = []
    for row in verdict.rows:
        relative = row.target.endswith("%")
        value = f"{row.value * 100:+.1f} %" if relative else f"{row.value:.3f}"
        bound = f"{row.bound * 100:+.1f} %" if relative else f"{row.bound:.3f}"
        mark = "[green]met[/]" if verdict.met(row) else "[red]not met[/]"
        parts.append(f"{row.objective} {row.target}: {value} (bound {bound}) {mark}")
    guards = ", ".join(
        f"{name} {value:.3f} of the default's ({'held' if held else '[red]broken[/]'})"
        for name, (value, held) in verdict.guards.items()
    )
    return (
        f"[bold]Targets[/] of {escape(result.ours)} (seeds pooled): "
        + "; ".join(parts)
        + (f". Guards: {guards}" if guards else "")
    )


def _modes_table(result: LoopResult) -> Table:
    table = Table(title="Resolved by mode (TOPSIS)", title_justify="left")
    table.add_column("mode", overflow="fold")
    table.add_column("candidate", overflow="fold")
    for name in result.front.names:
        table.add_column(name, justify="right", overflow="fold")
    for mode, choice in result.choices.items():
        table.add_row(mode, escape(choice.candidate.name), *(f"{value:.4g}" for value in choice.candidate.mean))
    return table
