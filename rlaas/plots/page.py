"""One self-contained page of a front: linked plots, bounds, a table; no network, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from rlaas.errors import InvalidInputError, check_choice
from rlaas.fronts import Candidate
from rlaas.objectives import normalise
from rlaas.plots.petal import petal_titles
from rlaas.plots.style import ACCENT, BASELINE, KIND_STYLES, PALETTE, one_line
from rlaas.plots.view import FrontView

__all__ = ["VIEWS", "page"]

VIEWS = ("scatter", "parallel", "petal")

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
# What could end the script element, open a comment in it, or be taken for an entity.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(
    view: FrontView,
    *,
    views: Sequence[str] = VIEWS,
    pair: tuple[str, str] | None = None,
    candidates: Sequence[str] | None = None,
) -> str:
    """The page as HTML.

    Everything lies within: style, script, and the front as JSON that no name in it can break out of. A content
    security policy forbids every other script and every request.

    Args:
        view: what to show.
        views: parts of the page: ``scatter``, ``parallel``, ``petal``; the bounds and the table are always there.
        pair: objectives that the scatter plot begins with.
        candidates: whose petals are drawn; by default as in :func:`rlaas.plots.petal`.

    Raises:
        InvalidInputError: an unknown view, objective or candidate.
    """
    for name in views:
        check_choice(name, VIEWS, field="view", error=InvalidInputError)
    for name in pair or ():
        check_choice(name, view.front.names, field="objective of the pair", error=InvalidInputError)
    room = files("rlaas.plots") / "web"
    style, script = ((room / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    document = page_document(view, views=views, pair=pair, candidates=candidates)
    parts = {
        "title": html.escape(f"{one_line(view.front.scenario, 80)}: {len(view.front.candidates)} candidates"),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "data": embedded(document),
    }
    template = (room / "page.html").read_text(encoding="utf-8")
    # In one pass: a name that looks like a placeholder stays a name.
    return _PLACEHOLDER.sub(lambda found: parts[found.group(1)], template)


def page_document(
    view: FrontView,
    *,
    views: Sequence[str] = VIEWS,
    pair: tuple[str, str] | None = None,
    candidates: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What the script of the page reads, as plain JSON types; what is not finite is null."""
    front = view.front
    names = front.names
    modes = view.modes_by_candidate()
    # A first pair is wanted even of a front with one objective.
    first = pair or (names[0], names[min(1, len(names) - 1)])
    baselines = normalise(front.objectives, view.baseline_values())
    document = {
        "scenario": front.scenario,
        "reference_hash": front.reference_hash,
        "views": list(views),
        "pair": [names.index(name) for name in first],
        "objectives": [o.to_dict() for o in front.objectives],
        "candidates": [
            {
                **_row(candidate, goodness.tolist()),
                "modes": modes.get(candidate.name, []),
                "parameters": dict(candidate.parameters),
            }
            for candidate, goodness in zip(front.candidates, view.goodness(), strict=True)
        ],
        "baselines": [_row(b, goodness.tolist()) for b, goodness in zip(view.baselines, baselines, strict=True)],
        "modes": [{"name": m, "candidate": c, "why": view.reasons[m]} for m, c in view.chosen.items()],
        "flowers": [list(pair) for pair in petal_titles(view, candidates).items()] if "petal" in views else [],
        "style": {
            "kinds": {kind: list(look) for kind, look in KIND_STYLES.items()},
            "palette": list(PALETTE),
            "accent": ACCENT,
            "baseline": BASELINE,
        },
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def embedded(document: Any) -> str:
    """JSON that may stand within a script element, whatever the texts in it are.

    ASCII only, so that U+2028, U+2029 and lone surrogates are escapes too; ``<``, ``>`` and ``&`` are escaped, so that
    neither ``</script>`` nor ``<!--`` can occur.
    """
    return json.dumps(document, allow_nan=False, ensure_ascii=True, separators=(",", ":")).translate(_ESCAPES)


def _row(candidate: Candidate, goodness: list[float]) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "mean": list(candidate.mean),
        "half_width": list(candidate.half_width),
        "goodness": goodness,
        "seeds": len(candidate.seeds),
    }


def _plain(value: Any) -> Any:
    """The value in JSON types: arrays as lists, what is not finite as null, anything else as its text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):  # half of a surrogate pair is no text that a browser could show
        return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(str(value))


def _hash(content: str) -> str:
    """Source expression of a content security policy for one inline element (W3C CSP Level 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
