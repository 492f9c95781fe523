"""Writing a picture of a front to a file: the ending says whether it is a PNG or a page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from rlaas.errors import InvalidInputError, check_choice
from rlaas.files import write_bytes
from rlaas.plots.page import VIEWS, page
from rlaas.plots.parallel import parallel
from rlaas.plots.petal import petal
from rlaas.plots.scatter import scatter
from rlaas.plots.view import FrontView

__all__ = ["KINDS", "check_plot", "write_plot"]

KINDS = ("page", "parallel", "petal", "scatter")
DPI = 130


def check_plot(kind: str, output: Path) -> None:
    """Refuse a kind and a file that do not go together, before any work.

    Raises:
        InvalidInputError: an unknown kind or ending; names the allowed ones.
    """
    check_choice(kind, KINDS, field="kind", error=InvalidInputError)
    allowed = (".html",) if kind == "page" else (".html", ".png")
    if output.suffix.lower() not in allowed:
        raise InvalidInputError(
            f"output {output.name!r} must end in {' or '.join(allowed)} for kind {kind}", field="output"
        )


def write_plot(
    view: FrontView,
    kind: str,
    output: Path,
    *,
    pair: tuple[str, str] | None = None,
    candidates: Sequence[str] | None = None,
) -> Path:
    """Draw and write in one piece; folders that are missing are made.

    Args:
        view: what to show.
        kind: ``scatter``, ``parallel``, ``petal``, or ``page`` for all three on one interactive page.
        output: ``.png``, or ``.html`` for an interactive page of that kind alone.
        pair: objectives of ``scatter``; a page begins with them.
        candidates: whose petals are drawn.

    Returns:
        The file.

    Raises:
        InvalidInputError: what :func:`check_plot`, :func:`scatter` and :func:`petal` refuse.
    """
    check_plot(kind, output)
    if output.suffix.lower() == ".html":
        content = page(view, views=VIEWS if kind == "page" else (kind,), pair=pair, candidates=candidates).encode()
    else:
        draw: dict[str, Callable[[], Figure]] = {
            "scatter": lambda: scatter(view, pair=pair),
            "parallel": lambda: parallel(view),
            "petal": lambda: petal(view, candidates=candidates),
        }
        picture = io.BytesIO()
        # The version of the drawing library in the file would make equal pictures differ.
        draw[kind]().savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
        content = picture.getvalue()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, content)
    return output
