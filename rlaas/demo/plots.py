"""Plots of the main job: front, learning curves, arms; each as PNG and on one HTML page."""

from __future__ import annotations

import html
import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from rlaas.demo.results import LoopResult
from rlaas.objectives import normalise

__all__ = ["write_plots"]

# Okabe & Ito (2008): told apart with any colour vision.
POLICY, CONFIGURATION, BASELINE, ACCENT = "#0072B2", "#E69F00", "#555555", "#D55E00"


def write_plots(result: LoopResult, folder: Path) -> list[Path]:
    """Write ``front``, ``learning`` and ``arms`` as ``.png`` and ``.html`` into ``folder``; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "rlaas"
    written: list[Path] = []
    pictures: Mapping[str, tuple[str, Figure]] = {
        "front": ("The front: policies, configurations, baselines", _front(result)),
        "learning": ("Learning curves", _learning(result)),
        "arms": ("The experiment's arms", _arms(result)),
    }
    for name, (title, figure) in pictures.items():
        png, page = folder / f"{name}.png", folder / f"{name}.html"
        figure.savefig(png, dpi=130)
        svg = io.StringIO()
        figure.savefig(svg, format="svg")
        page.write_text(_page(f"rlaas {result.scenario.name}: {title}", svg.getvalue(), _rows(result, name)))
        written += [png, page]
    return written


def _front(result: LoopResult) -> Figure:
    objectives = result.scenario.objectives
    pairs = list(itertools.combinations(range(len(objectives)), 2))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(max(9.0, 4.4 * columns), 3.6 * rows + 0.4), layout="constrained")
    groups: list[tuple[str, str, str, list[Any]]] = [
        ("configuration", CONFIGURATION, "s", [c for c in result.evaluated.candidates if c.kind == "configuration"]),
        ("policy at a preference", POLICY, "o", [c for c in result.evaluated.candidates if c.kind == "policy"]),
    ]
    on_front = {c.name for c in result.front.candidates}
    means = [c.mean for c in result.evaluated.candidates] + [e.mean().tolist() for e in result.baselines.values()]
    for index, (i, j) in enumerate(pairs):
        axis = figure.add_subplot(rows, columns, index + 1)
        for label, colour, marker, members in groups:
            for kept in (False, True):
                chosen = [c for c in members if (c.name in on_front) == kept]
                if chosen:
                    axis.errorbar(
                        [c.mean[i] for c in chosen],
                        [c.mean[j] for c in chosen],
                        xerr=[c.half_width[i] for c in chosen],
                        yerr=[c.half_width[j] for c in chosen],
                        fmt=marker,
                        color=colour,
                        markerfacecolor=colour if kept else "none",
                        elinewidth=0.5,
                        markersize=5,
                        alpha=0.9 if kept else 0.5,
                        label=label + (" on the front" if kept else ", dominated"),
                    )
        for (name, evaluation), marker in zip(result.baselines.items(), itertools.cycle("x+^v*d"), strict=False):
            mean = evaluation.mean()
            axis.plot(mean[i], mean[j], marker, color=BASELINE, label=f"baseline {name}", linestyle="none")
        _frame(axis, [(m[i], m[j]) for m in means], (objectives[i], objectives[j]))
        axis.set_xlabel(_label(objectives[i]))
        axis.set_ylabel(_label(objectives[j]))
        axis.grid(alpha=0.25)
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"{result.scenario.name}: means and 95 % intervals over {result.protocol.seeds} seeds")
    return figure


def _frame(axis: Any, points: list[tuple[float, float]], objectives: tuple[Any, Any]) -> None:
    """Keep one candidate that gave an objective up altogether from squeezing all others into a corner."""
    limits = []
    for k, objective in enumerate(objectives):
        reach = 0.5 * (objective.high - objective.low)
        near = [p[k] for p in points if objective.low - reach <= p[k] <= objective.high + reach]
        ends = (min(near), max(near)) if near else (objective.low, objective.high)
        margin = 0.06 * (ends[1] - ends[0]) or reach
        limits.append((ends[0] - margin, ends[1] + margin))
    axis.set_xlim(*limits[0])
    axis.set_ylim(*limits[1])
    outside = sum(not (limits[0][0] <= x <= limits[0][1] and limits[1][0] <= y <= limits[1][1]) for x, y in points)
    if outside:
        axis.set_title(f"{outside} far outside, not shown", fontsize=8, loc="right")


def _label(objective: Any) -> str:
    unit = f" [{objective.unit}]" if objective.unit else ""
    return f"{objective.name}{unit} ({'lower' if objective.direction == 'minimize' else 'higher'} is better)"


def _learning(result: LoopResult) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    curve = result.training.curve
    left.plot([p["step"] for p in curve], [p["reward"] for p in curve], color=POLICY)
    # One outage while exploring must not flatten the rest of the curve.
    rewards = np.array([p["reward"] for p in curve])
    low = float(np.quantile(rewards, 0.05)) - 0.1 * float(np.ptp(np.quantile(rewards, [0.05, 1.0])))
    left.set_ylim(bottom=max(low, float(rewards.min()) - 0.05))
    left.set_xlabel("decisions")
    left.set_ylabel("weighted normalised reward per step")
    left.set_title(f"{result.algorithm.upper()} in the scenario, preferences sampled")
    # The first epochs fit the value function alone.
    offline = [p for p in result.offline.curve if "policy_loss" in p]
    right.plot([p["step"] for p in offline], [p["policy_loss"] for p in offline], color=ACCENT)
    right.set_xlabel("epochs")
    right.set_ylabel("policy loss")
    right.set_title("fitted from silver.transitions alone")
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return figure


def _arms(result: LoopResult) -> Figure:
    comparison = result.served.comparison
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    arms = list(comparison.arms)
    left.bar(arms, [comparison.arms[a].mean for a in arms], color=[BASELINE, POLICY][: len(arms)], width=0.5)
    left.set_ylabel(f"{comparison.metric} at {result.scenario.primary_mode}")
    left.set_title(f"{comparison.design} split")
    low, high = comparison.interval
    right.errorbar(
        [comparison.effect], [0], xerr=[[comparison.effect - low], [high - comparison.effect]], fmt="o", color=POLICY
    )
    right.axvline(0, color=BASELINE, linewidth=1)
    right.set_yticks([])
    right.set_xlabel("effect (challenger - champion), 95 % interval")
    right.set_title(f"p = {comparison.p_value:.3g}")
    return figure


def _rows(result: LoopResult, name: str) -> list[list[str]]:
    names = list(result.front.names)
    if name == "front":
        goodness = normalise(result.scenario.objectives, result.front.values()).mean(axis=1)
        order = np.argsort(-goodness)
        return [
            ["candidate", "kind", *names],
            *(
                [
                    result.front.candidates[i].name,
                    result.front.candidates[i].kind,
                    *(
                        f"{m:.4g} ± {h:.2g}"
                        for m, h in zip(
                            result.front.candidates[i].mean, result.front.candidates[i].half_width, strict=True
                        )
                    ),
                ]
                for i in order
            ),
        ]
    if name == "learning":
        metrics = {**result.training.metrics}
        return [["metric", "value"], *([key, f"{value:.5g}"] for key, value in metrics.items())]
    comparison = result.served.comparison
    return [
        ["arm", "units", "mean"],
        *([name, str(arm.n_units), f"{arm.mean:.5g}"] for name, arm in comparison.arms.items()),
    ]


def _page(title: str, svg: str, rows: list[list[str]]) -> str:
    picture = svg[svg.index("<svg") :]
    head, *body = rows
    table = (
        "<table><thead><tr>"
        + "".join(f"<th>{html.escape(c)}</th>" for c in head)
        + "</tr></thead><tbody>"
        + "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in body)
        + "</tbody></table>"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
</style></head><body><h1>{html.escape(title)}</h1>
{picture}
{table}
</body></html>
"""
