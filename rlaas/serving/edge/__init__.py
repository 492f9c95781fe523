"""Policies that decide where there is no platform: the export, and the platform's end of the link.

``runtime.py`` and ``link.py`` are what a device runs: they import nothing of rlaas, and are copied into every export.
"""

from __future__ import annotations

from rlaas.lazy import lazy_names

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

# Lazy, so that a Gateway without devices loads neither onnx nor the lake.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
