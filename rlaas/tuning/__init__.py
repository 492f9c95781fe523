"""Tuning: searches over training configurations with Ray Tune, which survive their driver.

Names are loaded on first use: a process that only reads a configuration loads neither Ray nor Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names
from rlaas.tuning.config import Asha, Confirmation, Pbt, TuningConfig, TuningObjective, load_tuning_config

if TYPE_CHECKING:
    from rlaas.tuning.book import TrialRecord
    from rlaas.tuning.contenders import TrialPolicy
    from rlaas.tuning.results import Confirmed, Found, TuningResult
    from rlaas.tuning.search import tune
    from rlaas.tuning.trainable import PolicyTrainable

__all__ = [
    "Asha",
    "Confirmation",
    "Confirmed",
    "Found",
    "Pbt",
    "PolicyTrainable",
    "TrialPolicy",
    "TrialRecord",
    "TuningConfig",
    "TuningObjective",
    "TuningResult",
    "load_tuning_config",
    "tune",
]

_HOMES = {
    "Confirmed": "results",
    "Found": "results",
    "PolicyTrainable": "trainable",
    "TrialPolicy": "contenders",
    "TrialRecord": "book",
    "TuningResult": "results",
    "tune": "search",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
