"""rlaas: reinforcement learning as a service for objectives that pull against each other.

``import rlaas`` loads nothing heavy: the rooms are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from rlaas.environments import register_when_loaded

__version__ = "0.1.0"

_ROOMS = frozenset(
    {
        "bundles",
        "client",
        "control",
        "decisions",
        "demo",
        "environments",
        "errors",
        "experiments",
        "fronts",
        "lake",
        "objectives",
        "optimization",
        "pipeline",
        "registry",
        "scenarios",
        "serving",
        "settings",
        "training",
        "tuning",
    }
)

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        return importlib.import_module("rlaas.client").Client
    if name in _ROOMS:
        return importlib.import_module(f"rlaas.{name}")
    raise AttributeError(f"module 'rlaas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, "Client"})


# The ids of the scenarios are known to Gymnasium whichever of the two is imported first; neither loads the other.
register_when_loaded()
