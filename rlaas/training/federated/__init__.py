"""Federated rounds: one policy trained at several sites whose experience stays where it is.

Names are loaded on first use: a process that only reads a configuration loads neither RLlib nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlaas.training.federated.config import (
    FederationConfig,
    PrivacySettings,
    SecureSettings,
    SiteConfig,
    load_federation_config,
)

if TYPE_CHECKING:
    from rlaas.training.federated.checkpoints import load_newest
    from rlaas.training.federated.results import FederationRun, RoundResult
    from rlaas.training.federated.runs import federate, final_figures
    from rlaas.training.federated.tracking import Tracker

__all__ = [
    "FederationConfig",
    "FederationRun",
    "PrivacySettings",
    "RoundResult",
    "SecureSettings",
    "SiteConfig",
    "Tracker",
    "federate",
    "final_figures",
    "load_federation_config",
    "load_newest",
]

_HOMES = {
    "FederationRun": "results",
    "RoundResult": "results",
    "Tracker": "tracking",
    "federate": "runs",
    "final_figures": "runs",
    "load_newest": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"rlaas.training.federated.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlaas.training.federated' has no attribute {name!r}")
