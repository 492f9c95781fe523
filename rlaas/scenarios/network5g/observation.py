"""What a cell sees: features in roughly [0, 1], its own and those of its neighbours."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from rlaas.scenarios.network5g.control import ACTION_NAMES

__all__ = ["NEIGHBOUR_NAMES", "OBSERVATION_NAMES", "OWN_NAMES", "TIME_NAMES", "observation_space"]

OWN_NAMES = (
    "use_total",  # share of all resource blocks and time
    "use_embb",  # share of the slice's own blocks
    "use_urllc",
    "use_mmtc",
    "offered_embb",  # offered traffic over three times its mean
    "offered_urllc",
    "offered_mmtc",
    "backlog_embb",  # x / (1 + x) of the backlog in seconds of the slice's capacity
    "backlog_mmtc",
    "users_embb",  # users over three times the mean per cell
    "users_urllc",
    "users_mmtc",
    "active_embb",  # share of eMBB users with data
    "efficiency_embb",  # mean spectral efficiency over the highest
    "efficiency_urllc",
    "efficiency_mmtc",
    "weak_users",  # share of users below CQI 4
    "edge_users",  # share of users whose best neighbour is within 3 dB of a handover
    "interference",  # mean interference over noise, dB / 50
    "block_errors",  # mean block error rate of eMBB
    "latency_embb",  # r / (1 + r), r the delay over the default's
    "latency_urllc",
    "latency_mmtc",
    "satisfaction",  # of its users in the trailing second, 1 without users
    "own_off",
    "forecast_leaving",  # users expected to leave within the horizon over the mean number of users
    "forecast_arriving",  # users expected to arrive, likewise
    "forecast_use",  # slow average of the use, moved by who leaves and arrives
)
NEIGHBOUR_NAMES = ("neighbours_use", "neighbours_users", "neighbours_backlog", "neighbours_off", "neighbours_forecast")
TIME_NAMES = ("hour_sin", "hour_cos")
SETTING_NAMES = tuple(f"own_{name}" for name in ACTION_NAMES)
OBSERVATION_NAMES = OWN_NAMES + NEIGHBOUR_NAMES + SETTING_NAMES + TIME_NAMES


def observation_space() -> spaces.Box:
    """The observation of one cell: a float32 box, [0, 1] but for the clock's [-1, 1]."""
    low = np.zeros(len(OBSERVATION_NAMES), dtype=np.float32)
    low[-len(TIME_NAMES) :] = -1.0
    return spaces.Box(low, np.ones(len(OBSERVATION_NAMES), dtype=np.float32), dtype=np.float32)
