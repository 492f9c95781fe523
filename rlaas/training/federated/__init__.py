"""Federated rounds: one policy trained at several sites whose experience stays where it is.

Names are loaded on first use: a process that only reads a configuration loads neither RLlib nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
