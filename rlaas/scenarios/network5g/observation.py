"""What a cell sees: features in roughly [0, 1], its own and those of its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW

__all__ = ["OBSERVATION_NAMES", "observation_space", "observe"]

Float64Array = NDArray[np.float64]

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
    "interference",  # mean interference over noise, dB / 50
    "latency_embb",  # r / (1 + r), r the delay over the default's
    "latency_urllc",
    "latency_mmtc",
    "satisfaction",  # of its users in the trailing second, 1 without users
    "own_off",
)
NEIGHBOUR_NAMES = ("neighbours_use", "neighbours_users", "neighbours_backlog", "neighbours_off")
TIME_NAMES = ("hour_sin", "hour_cos")
SETTING_NAMES = tuple(f"own_{name}" for name in ACTION_NAMES)
OBSERVATION_NAMES = OWN_NAMES + NEIGHBOUR_NAMES + SETTING_NAMES + TIME_NAMES


def observation_space() -> spaces.Box:
    """The observation of one cell: a float32 box, [0, 1] but for the clock's [-1, 1]."""
    low = np.zeros(len(OBSERVATION_NAMES), dtype=np.float32)
    low[-len(TIME_NAMES) :] = -1.0
    return spaces.Box(low, np.ones(len(OBSERVATION_NAMES), dtype=np.float32), dtype=np.float32)


def observe(
    own: Mapping[str, Float64Array],
    actions: Float64Array,
    hour: Float64Array,
    neighbours: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Observations [envs, cells, n_features] float32, clipped to the space.

    Args:
        own: features [envs, cells] by name, all of ``OWN_NAMES``.
        actions: settings in force [envs, cells, n_components], in physical units.
        hour: hour of the day [envs].
        neighbours: indices [cells, n_neighbours].
    """
    envs, cells = own["use_total"].shape
    users = (own["users_embb"] + own["users_urllc"] + own["users_mmtc"]) / 3.0
    around = [
        values[:, neighbours].sum(axis=-1) / neighbours.shape[1]
        for values in (own["use_total"], users, own["backlog_embb"], own["own_off"])
    ]
    angle = 2.0 * np.pi * hour / 24.0
    clock = [np.broadcast_to(value[:, None], (envs, cells)) for value in (np.sin(angle), np.cos(angle))]
    features = np.empty((envs, cells, len(OBSERVATION_NAMES)), dtype=np.float32)
    first = len(OWN_NAMES)
    for i, name in enumerate(OWN_NAMES):
        features[..., i] = own[name]
    for i, values in enumerate(around):
        features[..., first + i] = values
    first += len(NEIGHBOUR_NAMES)
    features[..., first : first + len(ACTION_NAMES)] = (actions - LOW) / (HIGH - LOW)
    for i, values in enumerate(clock):
        features[..., first + len(ACTION_NAMES) + i] = values
    np.clip(features[..., : -len(TIME_NAMES)], 0.0, 1.0, out=features[..., : -len(TIME_NAMES)])
    return features
