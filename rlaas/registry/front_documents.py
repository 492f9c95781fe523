"""Fronts from JSON: read, and checked for everything that those who show or serve them take for granted."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaas.errors import InvalidInputError, RequestError, shown
from rlaas.fronts import Front

__all__ = ["parse_front", "read_front"]

LARGEST_FILE = 64 * 2**20
"""Bytes beyond which a file is no front: 20,000 candidates take a tenth of it."""


def read_front(path: Path) -> Front:
    """A front from a JSON file.

    Raises:
        InvalidInputError: no such file, not JSON, or no front; names the file and the part.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidInputError(f"{path} is longer than {LARGEST_FILE} bytes; that is no front", field="front")
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InvalidInputError(f"{path}: {problem.strerror or problem}", field="front") from problem
    except (ValueError, RecursionError) as problem:
        raise InvalidInputError(f"{path} is not JSON: {problem}", field="front") from problem
    try:
        return parse_front(document)
    except RequestError as problem:
        raise InvalidInputError(f"{path} holds no front: {problem.message}", field=problem.field) from problem


def parse_front(document: Any) -> Front:
    """A front from its JSON document, as a file or a request holds it.

    Raises:
        InvalidInputError: a missing or malformed part, named.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError("a front is a JSON object with schema_version, scenario, objectives and candidates")
    front = Front.from_dict(document)
    _check(front)
    return front


def _check(front: Front) -> None:
    """What ``Front.from_dict`` takes on trust, since it is mostly given what ``to_dict`` wrote.

    Candidates are not sorted out again: a front may keep one that another dominates by its mean alone, where the
    intervals leave it open.
    """
    _check_text(front.scenario, field="scenario")
    if not front.candidates:
        raise InvalidInputError(f"the front of {front.scenario} has no candidate", field="candidates")
    _check_names([o.name for o in front.objectives], field="objectives")
    _check_names([c.name for c in front.candidates], field="candidates")
    for objective in front.objectives:
        _check_text(objective.unit or "-", field="unit")
        _check_text(objective.description or "-", field="description")
    for candidate in front.candidates:
        if len(candidate.mean) != len(front.objectives):
            raise InvalidInputError(
                f"candidate {shown(candidate.name)} has {len(candidate.mean)} objectives; "
                f"expected {len(front.objectives)}",
                field="mean",
            )
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in candidate.mean):
            raise InvalidInputError(f"candidate {shown(candidate.name)}: mean holds numbers only", field="mean")
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in candidate.half_width):
            raise InvalidInputError(
                f"candidate {shown(candidate.name)}: half_width holds numbers >= 0, or null", field="half_width"
            )
        if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in candidate.seeds):
            raise InvalidInputError(f"candidate {shown(candidate.name)}: seeds are whole numbers", field="seeds")
        if not isinstance(candidate.parameters, Mapping):
            raise InvalidInputError(f"candidate {shown(candidate.name)}: parameters are an object", field="parameters")
    # A parameter without a JSON form (NaN) is refused here, and not by whoever asks for the version later.
    _ = front.version


def _check_names(names: Sequence[Any], *, field: str) -> None:
    if not names:
        raise InvalidInputError(f"a front needs {field}", field=field)
    seen: set[str] = set()
    for name in names:
        _check_text(name, field=field)
        if name in seen:
            raise InvalidInputError(f"the name {shown(name)} occurs twice among the {field}", field=field)
        seen.add(name)


def _check_text(text: Any, *, field: str) -> None:
    # Names are printed on terminals, which control characters steer and half a surrogate pair cannot be written to.
    if not isinstance(text, str) or not text or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise InvalidInputError(
            f"{field}: expected text of at least one character without control characters, got {shown(text)}",
            field=field,
        )
