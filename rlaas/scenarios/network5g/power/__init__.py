"""Power models of cells: EARTH, TR 38.864, and ones fitted to measured base stations."""

from __future__ import annotations

from rlaas.scenarios.network5g.power.models import (
    POWER_MODELS,
    ROW_COLUMNS,
    PowerModel,
    energy_j,
    power_model,
    sleep_shares,
    switch_j,
)

__all__ = ["POWER_MODELS", "ROW_COLUMNS", "PowerModel", "energy_j", "power_model", "sleep_shares", "switch_j"]
