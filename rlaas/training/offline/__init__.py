"""Fitting policies from what the lake has logged: reading, rewards, methods, fitting.

Names are loaded on first use: a process that only reads a configuration loads neither Arrow nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
