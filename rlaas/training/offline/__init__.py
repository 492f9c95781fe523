"""Fitting policies from what the lake has logged: reading, rewards, methods, fitting.

Names are loaded on first use: a process that only reads a configuration loads neither Arrow nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlaas.training.offline.config import (
    FitSettings,
    OfflineConfig,
    RewardSettings,
    SourceSettings,
    load_offline_config,
)

if TYPE_CHECKING:
    from rlaas.training.offline.fitting import fit_offline
    from rlaas.training.offline.source import LoggedTable, open_source

__all__ = [
    "FitSettings",
    "LoggedTable",
    "OfflineConfig",
    "RewardSettings",
    "SourceSettings",
    "fit_offline",
    "load_offline_config",
    "open_source",
]

_HOMES = {"LoggedTable": "source", "fit_offline": "fitting", "open_source": "source"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"rlaas.training.offline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlaas.training.offline' has no attribute {name!r}")
