"""The feasibility page: tables, the front against the targets, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlaas.pipeline.feasibility import FeasibilityReport, Finalist, intervals
from rlaas.scenarios.reports import Report, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["feasibility_page"]

FloatArray = NDArray[np.float64]

LISTED = 12
"""Members of the front that the table lists, those nearest to all targets."""
FARTHEST = -3.0
"""Shortfalls beyond this many ways from default to target are drawn at the edge."""


def feasibility_page(report: FeasibilityReport, extra: Sequence[Section] = ()) -> Report:
    """The report as a page.

    Args:
        report: the answer.
        extra: sections that follow, such as the scenario's capabilities.
    """
    scenario = report.scenario
    # In one line, or it would be no heading.
    options = " ".join(", ".join(f"{name}={value}" for name, value in report.options.items()).split())
    return Report(
        title=f"Feasibility of {scenario.name}" + (f" ({options})" if options else ""),
        summary=(
            report.verdict(),
            (
                f"Reference {scenario.reference_hash}. {report.budget.describe()}. Families searched: "
                f"{', '.join(report.families)}. A target is met where the one-sided Bonferroni bound of the paired "
                "bootstrap lies beyond it and the guards hold."
            ),
        ),
        sections=(_alone(report), _together(report), _front(report), *extra),
    )


def _alone(report: FeasibilityReport) -> Section:
    scenario = report.scenario
    default = intervals(scenario, report.default)
    rows = []
    for objective in scenario.objectives:
        finalist = report.finalists[report.alone[objective.name]]
        row = next((r for r in finalist.verdict.rows if r.objective == objective.name), None)
        found = intervals(scenario, finalist.evaluation)
        others = ", ".join(f"{name} {found[name]['value']:.4g}" for name in found if name != objective.name)
        rows.append(
            (
                f"{objective.name} [{objective.unit}]" if objective.unit else objective.name,
                _interval(default[objective.name]),
                _interval(found[objective.name]),
                "-" if row is None else row.target,
                "-" if row is None else ("yes" if finalist.verdict.met(row) else "no"),
                finalist.name,
                others,
                _guards(finalist),
            )
        )
    return Section(
        title="Each objective alone",
        text=("The best value found for each objective while the guards hold, whatever it costs the others.",),
        header=("objective", "default", "best", "target", "met", "controller", "the others then", "guards"),
        rows=rows,
        notes=(_parameters([report.finalists[name] for name in dict.fromkeys(report.alone.values())]),),
    )


def _together(report: FeasibilityReport) -> Section:
    rows = []
    for chosen in report.sets:
        finalist = report.finalists[chosen.finalist]
        slack = ", ".join(f"{name} {finalist.slack[name]:+.2f}" for name in chosen.targets)
        rows.append((", ".join(chosen.targets), "yes" if chosen.met else "no", finalist.name, slack, _guards(finalist)))
    closest = report.closest
    reached = ", ".join(
        f"{family}: {'no guard held' if value is None else f'{value:+.2f}'}" for family, value in report.reached.items()
    )
    table = "; ".join(
        f"{row.objective} {row.value:.3g} (bound {row.bound:.3g}, target {row.target})" for row in closest.verdict.rows
    )
    return Section(
        title="Which targets go together",
        text=(
            (
                "For every set of targets the controller with the largest smallest slack was picked on one set of "
                "seeds and judged on another. Slack 0 is the target, -1 the default, in units of the way between them."
            ),
        ),
        header=("targets", "met", "controller", "slack", "guards"),
        rows=rows,
        notes=(
            f"Closest to all: {closest.name}: {table}. Guards: {_guards(closest)}. {_parameters([closest])}",
            (
                f"Smallest slack over all targets that the searches themselves saw, on the seeds they searched on "
                f"(biased upwards): {reached}."
            ),
        ),
    )


def _front(report: FeasibilityReport) -> Section:
    scenario = report.scenario
    if report.front is None:
        return Section(title="The joint front", text=("No controller kept the guards when it was seen anew.",))
    slack, values = report.front_slack(), report.front.values()
    order = np.argsort(-slack.min(axis=1))[:LISTED]
    rows = [
        (
            report.front.candidates[i].name,
            *(float(value) for value in values[i]),
            float(slack[i].min()),
            list(scenario.targets)[int(slack[i].argmin())],
        )
        for i in order
    ]
    return Section(
        title="The joint front",
        text=(
            (
                f"{len(values)} non-dominated controllers that keep the guards, evaluated on seeds no search saw; "
                f"below, the {len(rows)} nearest to all targets."
            ),
        ),
        header=("controller", *report.front.names, "smallest slack", "in"),
        rows=rows,
        figures={"parallel": _parallel(report, slack), "pairs": _pairs(report, values)},
        notes=(
            (
                "In the first figure a line is a controller and a height of 0 a target: one that meets all targets "
                "runs above the line of targets everywhere. In the second both targets are met in the green corner."
            ),
        ),
    )


def _family(name: str) -> str:
    return name.rpartition("-")[0]


def _colours(report: FeasibilityReport) -> dict[str, str]:
    return {family: f"C{i}" for i, family in enumerate(report.families)}


def _parallel(report: FeasibilityReport, slack: FloatArray) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    targets = report.scenario.targets
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    colours, at = _colours(report), np.arange(len(targets))
    assert report.front is not None
    for candidate, line in zip(report.front.candidates, slack, strict=True):
        axes.plot(at, np.clip(line, FARTHEST, None), color=colours[_family(candidate.name)], alpha=0.35, lw=0.9)
    closest = report.closest
    axes.plot(at, [max(closest.slack[name], FARTHEST) for name in targets], color="black", lw=2)
    axes.axhline(0.0, color="tab:green", lw=1.5)
    axes.axhline(-1.0, color="grey", lw=1.0, ls="--")
    axes.set_xticks(at, [f"{t.objective}\n{t.describe()}" for t in targets.values()])
    axes.set_ylabel("slack (0 target, -1 default)")
    handles = [Line2D([], [], color=colour, label=family) for family, colour in colours.items()]
    handles += [
        Line2D([], [], color="black", lw=2, label=f"closest, judged: {closest.name}"),
        Line2D([], [], color="tab:green", label="targets"),
        Line2D([], [], color="grey", ls="--", label="default"),
    ]
    axes.legend(handles=handles, fontsize=8, loc="lower left", bbox_to_anchor=(1.0, 0.0))
    return figure


def _pairs(report: FeasibilityReport, values: FloatArray) -> Figure:
    from matplotlib.figure import Figure

    assert report.front is not None
    objectives = report.scenario.objectives
    count = len(objectives)
    figure = Figure(figsize=(2.5 * (count - 1), 2.3 * (count - 1)), layout="constrained")
    grid = figure.subplots(count - 1, count - 1, squeeze=False)
    colours = _colours(report)
    colour = [colours[_family(candidate.name)] for candidate in report.front.candidates]
    for row in range(1, count):
        for column in range(count - 1):
            axes = grid[row - 1][column]
            if column >= row:
                axes.set_visible(False)
                continue
            axes.scatter(values[:, column], values[:, row], s=10, c=colour, alpha=0.7)
            axes.plot(report.default_values[column], report.default_values[row], "k*", ms=9)
            _target_corner(axes, report, column, row)
            if row == count - 1:
                axes.set_xlabel(objectives[column].name)
            if column == 0:
                axes.set_ylabel(objectives[row].name)
            axes.tick_params(labelsize=7)
    return figure


def _target_corner(axes: Axes, report: FeasibilityReport, column: int, row: int) -> None:
    """Lines at the targets of two objectives, and the corner where both are met."""
    wanted = [_target_value(report, k) for k in (column, row)]
    names = [report.scenario.objectives[k] for k in (column, row)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = wanted
    if x is not None:
        axes.axvline(x, color="tab:green", lw=1.0)
        left, right = min(left, x), max(right, x)
    if y is not None:
        axes.axhline(y, color="tab:green", lw=1.0)
        bottom, top = min(bottom, y), max(top, y)
    if x is not None and y is not None:
        across = (x, right) if names[0].sign > 0 else (left, x)
        upward = (y, top) if names[1].sign > 0 else (bottom, y)
        axes.fill_between(across, *upward, color="tab:green", alpha=0.15, lw=0)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _target_value(report: FeasibilityReport, k: int) -> float | None:
    target = report.scenario.targets.get(report.scenario.objectives[k].name)
    if target is None:
        return None
    default = float(report.default_values[k])
    return default + target.relative * abs(default) if target.relative is not None else target.absolute


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.4g} ± {found['half_width']:.2g}"


def _guards(finalist: Finalist) -> str:
    shown = [
        f"{name} {ratio:.3f}{'' if held else ' (broken)'}" for name, (ratio, held) in finalist.verdict.guards.items()
    ]
    return ", ".join(shown) or "-"


def _parameters(finalists: Sequence[Finalist]) -> str:
    return " ".join(
        f"{finalist.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in finalist.parameters["values"].items()) + "."
        for finalist in finalists
    )
