"""From a distance to a rate: path loss, antennas and link adaptation, as pure functions and tables."""

from __future__ import annotations

from rlaas.scenarios.network5g.propagation.antennas import best_beam_db, codebook, element_gain_db, tilt_gain_db
from rlaas.scenarios.network5g.propagation.links import (
    BLOCK_ERROR_SLOPE,
    CQI_64QAM,
    CQI_256QAM,
    CQI_LOW_RATE,
    CQI_TABLES,
    RateTable,
    block_error,
    peak_rate_mbit_s,
    rate_table,
    resource_blocks,
    slot_ms,
    thresholds_db,
)
from rlaas.scenarios.network5g.propagation.pathloss import (
    ENVIRONMENTS,
    entry_loss_db,
    environment,
    los_probability,
    path_loss_db,
)

__all__ = [
    "BLOCK_ERROR_SLOPE",
    "CQI_64QAM",
    "CQI_256QAM",
    "CQI_LOW_RATE",
    "CQI_TABLES",
    "ENVIRONMENTS",
    "RateTable",
    "best_beam_db",
    "block_error",
    "codebook",
    "element_gain_db",
    "entry_loss_db",
    "environment",
    "los_probability",
    "path_loss_db",
    "peak_rate_mbit_s",
    "rate_table",
    "resource_blocks",
    "slot_ms",
    "thresholds_db",
    "tilt_gain_db",
]
