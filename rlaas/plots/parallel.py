"""Parallel coordinates: one upright axis per objective, one line per candidate (Inselberg 1985)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlaas.objectives import Objective, normalise
from rlaas.plots.style import BASELINE, CHARACTERS, KIND_STYLES, PALETTE, TITLE_POINTS, axis_label, outside_note, plain
from rlaas.plots.view import FrontView

__all__ = ["parallel"]

FloatArray = NDArray[np.float64]

FURTHEST = (-0.5, 1.5)
"""Goodness beyond which a candidate that no mode chose widens no axis."""
LONGEST_UNIT = 8
"""Characters of a unit that stands at every tick; a longer one stands in the axis' head only."""


def parallel(view: FrontView) -> Figure:
    """Candidates as lines over upright axes that share one scale: goodness, better at the top.

    Goodness is 1 at the better end of an objective's frozen range and 0 at the worse, so that up is better on every
    axis and slopes compare; ticks are labelled with the value in the objective's unit. The choices of the modes stand
    out in colour, the rest is coloured by kind.
    """
    objectives = view.front.objectives
    goodness = view.goodness()
    chosen = view.modes_by_candidate()
    places = np.arange(len(objectives), dtype=np.float64)
    figure = Figure(figsize=(max(7.5, 2.0 * len(objectives) + 1.5), 5.8), layout="constrained")
    axis = figure.add_subplot()
    for kind, (colour, _) in KIND_STYLES.items():
        rest = [i for i, c in enumerate(view.front.candidates) if c.kind == kind and c.name not in chosen]
        _lines(axis, places, goodness[rest], color=colour, alpha=0.4, linewidth=0.9, label=kind)
    baselines = normalise(objectives, view.baseline_values())
    _lines(axis, places, baselines, color=BASELINE, alpha=0.7, linewidth=0.9, linestyle=":", label="baseline")
    index = {c.name: i for i, c in enumerate(view.front.candidates)}
    for number, (name, modes) in enumerate(chosen.items()):
        colour, _ = KIND_STYLES[view.front.candidates[index[name]].kind]
        # Of colours that the kinds have not taken; with many modes the marker goes on telling them apart.
        accent = (*PALETTE[3:6], "#000000")[number % 4]
        axis.plot(
            places,
            goodness[index[name]],
            color=accent,
            linewidth=2.4,
            marker="osD^v*PX"[number % 8],
            markerfacecolor=colour,
            zorder=3,
            label=f"{plain(', '.join(modes))}: {plain(name)}",
        )
    low, high = _range(view, goodness, baselines)
    axis.set_ylim(low, high)
    axis.set_xlim(-0.45, len(objectives) - 0.75)
    axis.set_xticks(places, [axis_label(o) for o in objectives])
    axis.xaxis.tick_top()
    axis.tick_params(axis="x", length=0)
    axis.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        axis.spines[side].set_visible(False)
    for j, objective in enumerate(objectives):
        _upright(axis, float(j), objective, low, high)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    everything = np.concatenate([goodness, baselines])
    beyond = np.any((everything < low) | (everything > high), axis=1)
    names = [*(c.name for c in view.front.candidates), *(f"baseline {b.name}" for b in view.baselines)]
    outside = [names[i] for i in np.flatnonzero(beyond)]
    title = f"{plain(view.front.scenario, 24)}: {len(view.front.candidates)} candidates, up is better"
    note = outside_note(outside, int(CHARACTERS * figure.get_figwidth()))
    figure.suptitle(f"{title}\n{note}" if note else title, fontsize=TITLE_POINTS if note else None)
    return figure


def _lines(axis: Any, places: FloatArray, goodness: FloatArray, **style: Any) -> None:
    if not len(goodness):
        return
    points = np.stack([np.broadcast_to(places, goodness.shape), goodness], axis=-1)
    axis.add_collection(LineCollection(list(points), **style))
    if len(places) == 1:  # a line of one point is not seen
        axis.plot(np.zeros(len(goodness)), goodness[:, 0], "o", color=style["color"], alpha=style["alpha"])


def _range(view: FrontView, goodness: FloatArray, baselines: FloatArray) -> tuple[float, float]:
    marked = np.array([c.name in view.modes_by_candidate() for c in view.front.candidates])
    rest = np.concatenate([goodness[~marked], baselines]).ravel()
    near = rest[(rest >= FURTHEST[0]) & (rest <= FURTHEST[1])]
    shown = np.concatenate([near, goodness[marked].ravel()])
    if not len(shown):
        shown = rest
    spread, largest = float(np.ptp(shown)), float(np.abs(shown).max())
    margin = 0.05 * spread if spread > 1e-9 * largest else max(0.5, 0.05 * largest)
    return float(shown.min()) - margin, float(shown.max()) + margin


def _upright(axis: Any, x: float, objective: Objective, low: float, high: float) -> None:
    axis.axvline(x, color="#333333", linewidth=1.0, zorder=2)
    span = objective.high - objective.low
    unit = f" {objective.unit}" if objective.unit and len(objective.unit) <= LONGEST_UNIT else ""
    ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
    for goodness in ticks:
        share = goodness if objective.direction == "maximize" else 1.0 - goodness
        value = objective.low + share * span
        if abs(value) < 1e-9 * span:  # what rounding leaves of zero
            value = 0.0
        axis.plot([x - 0.015, x + 0.015], [goodness, goodness], color="#333333", linewidth=1.0, zorder=2)
        axis.annotate(
            plain(f"{value:.3g}{unit}"),
            (x, goodness),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color="#333333",
            zorder=4,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )
