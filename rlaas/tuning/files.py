"""Documents of a search as JSON, in which a figure may be no number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaas.files import write_text

__all__ = ["write_json"]


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as JSON in one piece; a figure that is no number becomes null."""
    write_text(path, json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
