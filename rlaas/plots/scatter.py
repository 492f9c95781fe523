"""Pairs of objectives as scatter plots with confidence intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, check_choice
from rlaas.fronts import Candidate
from rlaas.plots.style import (
    ACCENT,
    CHARACTERS,
    KIND_STYLES,
    TITLE_POINTS,
    axis_label,
    baseline_markers,
    outside_note,
    plain,
)
from rlaas.plots.view import FrontView

__all__ = ["scatter"]

FloatArray = NDArray[np.float64]

MOST_OBJECTIVES = 8
"""Objectives of a matrix of pairs; beyond, its panels are too many to read."""
PANEL_INCHES = (3.1, 2.6)


def scatter(view: FrontView, *, pair: tuple[str, str] | None = None) -> Figure:
    """Every pair of objectives as a lower-triangular matrix of panels, or one pair alone.

    Kinds of candidates and baselines differ in marker and in colour. Bars are the 95 % confidence intervals of the
    means; a candidate of one seed has none. The choices of the modes are ringed and numbered. What lies too far out for
    the axes (see :meth:`FrontView.limits`) is named in the caption.

    Args:
        view: what to show.
        pair: objectives of the horizontal and the vertical axis.

    Raises:
        InvalidInputError: fewer than two objectives, more than a matrix can show, or an unknown or repeated one.
    """
    panels, columns = _panels(view, pair)
    limits = view.limits()
    rows = -(-max(place for place, _ in panels) // columns)
    legend_rows = 0.25 * (2 + (len(view.baselines) + len(view.chosen)) / 3)
    wide, high = (2.4 * PANEL_INCHES[0], 2.2 * PANEL_INCHES[1]) if pair else PANEL_INCHES
    figure = Figure(figsize=(max(7.5, wide * columns), high * rows + legend_rows + 0.6), layout="constrained")
    outside: dict[str, None] = {}
    bottom = {place % columns: place for place, _ in panels}
    for place, (x, y) in panels:
        axis = figure.add_subplot(rows, columns, place)
        _panel(axis, view, x, y)
        axis.set_xlim(*limits[x])
        axis.set_ylim(*limits[y])
        if beyond := view.outside(x, y):
            axis.set_title(f"{len(beyond)} outside", fontsize=8, loc="right")
            outside.update(dict.fromkeys(beyond))
        if bottom[place % columns] == place:
            axis.set_xlabel(axis_label(view.front.objectives[x]))
        if place % columns == 1 or columns == 1:
            axis.set_ylabel(axis_label(view.front.objectives[y]))
        axis.grid(alpha=0.25)
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    title = f"{plain(view.front.scenario, 24)}: {len(view.front.candidates)} candidates, means and 95 % intervals"
    note = outside_note(list(outside), int(CHARACTERS * figure.get_figwidth()))
    figure.suptitle(f"{title}\n{note}" if note else title, fontsize=TITLE_POINTS if note else None)
    return figure


def _panels(view: FrontView, pair: tuple[str, str] | None) -> tuple[list[tuple[int, tuple[int, int]]], int]:
    """Place (from 1, row by row) and objectives (x, y) of each panel, and the number of columns."""
    names = list(view.front.names)
    if pair is not None:
        for name in pair:
            check_choice(name, names, field="objective of the pair", error=InvalidInputError)
        if pair[0] == pair[1]:
            raise InvalidInputError(f"the pair names {pair[0]!r} twice; expected two objectives", field="pair")
        return [(1, (names.index(pair[0]), names.index(pair[1])))], 1
    m = len(names)
    if m < 2:
        raise InvalidInputError(f"a scatter plot needs two objectives; the front has {', '.join(names)}", field="front")
    if m > MOST_OBJECTIVES:
        raise InvalidInputError(
            f"a matrix of pairs shows at most {MOST_OBJECTIVES} objectives; the front has {m}: name a pair of "
            f"{', '.join(names)}",
            field="pair",
        )
    return [((y - 1) * (m - 1) + x + 1, (x, y)) for y in range(1, m) for x in range(y)], m - 1


def _panel(axis: Any, view: FrontView, x: int, y: int) -> None:
    for kind, (colour, marker) in KIND_STYLES.items():
        members = [c for c in view.front.candidates if c.kind == kind]
        if members:
            _points(axis, members, x, y, label=kind, color=colour, fmt=marker, markersize=5, alpha=0.85)
    for baseline, (colour, marker) in zip(view.baselines, baseline_markers(), strict=False):
        label = f"baseline {plain(baseline.name)}"
        _points(axis, [baseline], x, y, label=label, color=colour, fmt=marker, markersize=7, alpha=0.9)
    by_name = {c.name: c for c in view.front.candidates}
    for number, (name, modes) in enumerate(view.modes_by_candidate().items(), 1):
        mean = by_name[name].mean
        axis.plot(
            mean[x],
            mean[y],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=ACCENT,
            markeredgewidth=1.8,
            zorder=4,
            label=f"{number}  {plain(', '.join(modes))}: {plain(name)}",
        )
        axis.annotate(
            str(number),
            (mean[x], mean[y]),
            xytext=(7, 7),
            textcoords="offset points",
            color="#8a3a00",
            fontsize=10,
            fontweight="bold",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )


def _points(axis: Any, members: list[Candidate], x: int, y: int, **style: Any) -> None:
    axis.errorbar(
        [c.mean[x] for c in members],
        [c.mean[y] for c in members],
        xerr=_bars([c.half_width[x] for c in members]),
        yerr=_bars([c.half_width[y] for c in members]),
        elinewidth=0.6,
        **style,
    )


def _bars(half_widths: list[float]) -> FloatArray:
    """Lengths of the bars; an unknown interval has none."""
    return np.where(np.isfinite(half_widths), half_widths, 0.0)
