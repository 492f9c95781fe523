"""How everything looks on every picture: colours, markers, and text that no name can break."""

from __future__ import annotations

import itertools
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from matplotlib.font_manager import FontProperties, findfont, get_font

from rlaas.objectives import Objective

__all__ = [
    "ACCENT",
    "BASELINE",
    "CHARACTERS",
    "KIND_STYLES",
    "PALETTE",
    "TITLE_POINTS",
    "axis_label",
    "baseline_markers",
    "better",
    "one_line",
    "outside_note",
    "plain",
]

# Okabe & Ito (2008): told apart with any colour vision. The marker says the same again.
KIND_STYLES: dict[str, tuple[str, str]] = {
    "policy": ("#0072B2", "o"),
    "configuration": ("#E69F00", "s"),
    "hyperparameters": ("#009E73", "D"),
}
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
BASELINE, ACCENT = "#555555", "#D55E00"

LONGEST = 40
TITLE_POINTS, CHARACTERS = 10, 11
"""Size of a title with a note below it, and characters of it that go on an inch."""
MOST_NAMES = 12
"""Candidates outside of a picture that are named; of the rest their number is said."""
MISSING = "\N{WHITE SQUARE}"


def better(objective: Objective) -> str:
    """Which way is up."""
    return f"{'lower' if objective.direction == 'minimize' else 'higher'} is better"


def axis_label(objective: Objective) -> str:
    """Name, unit and direction."""
    unit = f" [{objective.unit}]" if objective.unit else ""
    return f"{plain(objective.name + unit)}\n({better(objective)})"


def one_line(text: str, longest: int = LONGEST) -> str:
    """Text without line breaks and control characters, and short."""
    words = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(text)).split()
    line = " ".join(words)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def plain(text: str, longest: int = LONGEST) -> str:
    """Text for a figure: on one line, short, not taken for a formula, every glyph in the font."""
    known = "".join(c if _drawable(c) else MISSING for c in one_line(text, longest))
    return known.replace("$", r"\$")


def outside_note(names: Sequence[str], characters: int) -> str:
    """A caption that says how many lie outside the picture, and which; empty where none does.

    Args:
        names: of those outside.
        characters: of a line.
    """
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    told = ", ".join(plain(name) for name in names[:MOST_NAMES])
    return "\n".join(textwrap.wrap(f"{len(names)} outside the picture: {told}{more}", characters))


@cache
def _font() -> Any:
    return get_font(findfont(FontProperties()))


def _drawable(character: str) -> bool:
    return bool(_font().get_char_index(ord(character)))


def baseline_markers() -> Iterator[tuple[str, str]]:
    """Marker and grey of one baseline after the other."""
    return itertools.cycle(itertools.product((BASELINE, "#999999"), "x+^v*d<>Ph"))
