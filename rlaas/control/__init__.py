"""The control plane: what is live, who decides it, and the Serve application that ties the processes together.

The state database alone says what is live; the registry's aliases mirror it.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ControlService": "service",
    "StateDatabase": "state",
    "build_application": "application",
    "check_home": "application",
    "check_port": "ports",
    "start_platform": "application",
    "stop_platform": "application",
}

__all__ = [
    "ControlService",
    "StateDatabase",
    "build_application",
    "check_home",
    "check_port",
    "start_platform",
    "stop_platform",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that the database can be read without loading Ray.
    if name in _HOMES:
        return getattr(importlib.import_module(f"rlaas.control.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlaas.control' has no attribute {name!r}")
