"""Petal diagrams: one flower per candidate, one petal per objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, check_choice
from rlaas.fronts import Candidate
from rlaas.plots.style import PALETTE, plain
from rlaas.plots.view import FrontView

__all__ = ["petal", "petal_titles"]

FloatArray = NDArray[np.float64]

MOST_FLOWERS = 24
COLUMNS = 4
CELL_INCHES, FLOWER_INCHES, TITLE_INCHES = (4.4, 3.7), 2.0, 0.5
LONGEST_NAME, LONGEST_UNIT = 18, 10
LABEL_POINTS = 8
LABEL_GAP_INCHES = 0.35


def petal(view: FrontView, *, candidates: Sequence[str] | None = None) -> Figure:
    """Small multiples, one per candidate; the length of a petal is the goodness of an objective.

    The rim is the better end of the objective's frozen range, the centre the worse; what lies beyond is cut there and
    said so. Thin lines are 95 % confidence intervals.

    Args:
        view: what to show.
        candidates: names; by default the choices of the modes, and without modes the best in each objective.

    Raises:
        InvalidInputError: a name that is not on the front, or too many.
    """
    titles = petal_titles(view, candidates)
    by_name = {c.name: c for c in view.front.candidates}
    goodness = dict(zip(by_name, view.goodness(), strict=True))
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    labels = {name: _labels(view, by_name[name], goodness[name]) for name in titles}
    room = LABEL_GAP_INCHES + max(_inches(label) for of_one in labels.values() for label in of_one)
    cell = max(CELL_INCHES[0], FLOWER_INCHES + 2 * room)
    width, height = max(7.0, cell * columns), CELL_INCHES[1] * rows + TITLE_INCHES
    # Placed by hand: a layout that makes room for long labels shrinks the flowers to dots.
    figure = Figure(figsize=(width, height))
    for place, (name, title) in enumerate(titles.items()):
        middle = (place % columns + 0.5) * width / columns
        low = height - TITLE_INCHES - (place // columns + 1) * CELL_INCHES[1] + 0.6
        box = ((middle - FLOWER_INCHES / 2) / width, low / height, FLOWER_INCHES / width, FLOWER_INCHES / height)
        axis = figure.add_axes(box, projection="polar")
        _flower(axis, view, by_name[name], goodness[name], labels[name])
        heading = f"{plain(title)}\n{plain(name)}" if title else plain(name)
        figure.text(middle / width, (low + FLOWER_INCHES + 0.55) / height, heading, ha="center", fontsize=10)
    line = f"{plain(view.front.scenario, 24)}: petals reach the rim at the better end of the range"
    figure.text(0.5, 1 - 0.35 / height, line, ha="center", fontsize=12)
    return figure


def petal_titles(view: FrontView, candidates: Sequence[str] | None = None) -> dict[str, str]:
    """Whose flowers are drawn, and why: the modes that chose a candidate, or what it is best at.

    Raises:
        InvalidInputError: a name that is not on the front, or too many.
    """
    names = [c.name for c in view.front.candidates]
    chosen = view.modes_by_candidate()
    if candidates is not None:
        for name in candidates:
            check_choice(name, names, field="candidate", error=InvalidInputError)
        wanted = {name: ", ".join(chosen.get(name, [])) for name in candidates}
    elif chosen:
        wanted = {name: ", ".join(modes) for name, modes in chosen.items()}
    else:
        wanted = {}
        best = view.goodness().argmax(axis=0)
        for objective, row in zip(view.front.objectives, best, strict=True):
            before = wanted.get(names[row])
            wanted[names[row]] = f"{before}, {objective.name}" if before else f"best {objective.name}"
    if not 1 <= len(wanted) <= MOST_FLOWERS:
        raise InvalidInputError(
            f"a petal diagram shows 1 to {MOST_FLOWERS} candidates, not {len(wanted)}; name some", field="candidates"
        )
    return wanted


def _labels(view: FrontView, candidate: Candidate, goodness: FloatArray) -> list[str]:
    labels = []
    for objective, value, good in zip(view.front.objectives, candidate.mean, goodness, strict=True):
        beyond = "\nbetter than the range" if good > 1 else "\nworse than the range" if good < 0 else ""
        unit = f" {objective.unit}" if objective.unit and len(objective.unit) <= LONGEST_UNIT else ""
        labels.append(f"{plain(objective.name, LONGEST_NAME)}\n{plain(f'{value:.4g}{unit}')}{beyond}")
    return labels


def _inches(label: str) -> float:
    """Width of the longest line of a label."""
    # A line of spaces has no outline, and an infinite extent.
    widths = [TextPath((0, 0), line, size=LABEL_POINTS).get_extents().x1 / 72 for line in label.split("\n")]
    return max(width if math.isfinite(width) else 0.0 for width in widths)


def _flower(axis: Any, view: FrontView, candidate: Candidate, goodness: FloatArray, labels: list[str]) -> None:
    objectives = view.front.objectives
    m = len(objectives)
    angles = 2 * math.pi * np.arange(m) / m
    length = np.clip(goodness, 0.0, 1.0)
    colours = [PALETTE[j % len(PALETTE)] for j in range(m)]
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)
    axis.bar(angles, length, width=min(0.9 * 2 * math.pi / m, 2.0), color=colours, alpha=0.8, edgecolor="white")
    spans = np.array([o.high - o.low for o in objectives])
    widths = np.array(candidate.half_width, dtype=np.float64) / spans
    for angle, middle, width in zip(angles, goodness, widths, strict=True):
        if np.isfinite(width):
            ends = np.clip([middle - width, middle + width], 0.0, 1.0)
            axis.plot([angle, angle], ends, color="#222222", linewidth=1.2)
    axis.set_ylim(0.0, 1.0)
    axis.set_yticks([0.5, 1.0], ["", ""])
    axis.set_xticks(angles, labels, fontsize=LABEL_POINTS)
    # Centred labels at the sides would lie on the rim.
    for text, angle in zip(axis.get_xticklabels(), angles, strict=True):
        text.set_horizontalalignment(
            "left" if math.sin(angle) > 0.2 else "right" if math.sin(angle) < -0.2 else "center"
        )
    axis.grid(alpha=0.35)
