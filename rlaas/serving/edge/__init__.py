"""Policies that decide where there is no platform: the export, and the platform's end of the link.

``runtime.py`` and ``link.py`` are what a device runs: they import nothing of rlaas, and are copied into every export.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "EdgeAnswer": "sync",
    "EdgeReport": "export",
    "EdgeSync": "sync",
    "Receipts": "receipts",
    "device_key": "sync",
    "edge_files": "export",
    "export_edge": "export",
    "measure_edge": "export",
}

__all__ = [
    "EdgeAnswer",
    "EdgeReport",
    "EdgeSync",
    "Receipts",
    "device_key",
    "edge_files",
    "export_edge",
    "measure_edge",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that a Gateway without devices loads neither onnx nor the lake.
    if name in _HOMES:
        return getattr(importlib.import_module(f"rlaas.serving.edge.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlaas.serving.edge' has no attribute {name!r}")
