"""What the platform sees: profile, behaviour of the session, context, features of the candidate pool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.recsys.engine.ranking import believe
from rlaas.scenarios.recsys.engine.state import Scratch, State
from rlaas.scenarios.recsys.engine.tables import Constants, Tables
from rlaas.scenarios.recsys.reference import SEGMENTS

__all__ = ["OBSERVATION_BOUND", "observation_names", "observe"]

Array = NDArray[Any]

OBSERVATION_BOUND = 5.0
"""Features are scaled to about one and clipped here."""

_BOUND = np.float32(OBSERVATION_BOUND)
_TYPICAL_CTR = np.float32(0.4)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def observation_names(topics: int) -> tuple[str, ...]:
    """Names of the observation's features, in order."""
    by_topic = [f"{{}}_{topic}" for topic in range(topics)]
    return (
        *(f"segment_{segment}" for segment in range(SEGMENTS)),
        "returning",
        "visits",
        "hour_sin",
        "hour_cos",
        "mobile",
        "page",
        "confidence",
        "session_click_rate",
        "session_order_rate",
        "last_click",
        "last_order",
        "pages_since_click",
        "price_level",
        "last_diversity",
        "popular_match",
        "fresh_match",
        "cheap_match",
        *(name.format("taste") for name in by_topic),
        *(name.format("shown") for name in by_topic),
        *(name.format("trend") for name in by_topic),
    )


@njit(cache=True, _nrt=False)
def observe(
    state: State, constants: Constants, tables: Tables, scratch: Scratch, slot: int, e: int, out: Array
) -> None:
    """Write the features of environment ``e`` by :func:`observation_names`; nothing hidden enters."""
    topics = state.taste.shape[1]
    segment = state.segment[e]
    mean, direction = scratch.sample[slot], scratch.direction[slot]
    believe(tables.prior_sk[segment], state.evidence[e], mean, direction)
    known = _ZERO
    for k in range(topics):
        known += state.evidence[e, k]
    hour = np.float32(state.clock[e] % 24.0)
    angle = np.float32(2.0 * math.pi / 24.0) * hour
    day = int(state.clock[e] // 24.0) % constants.lifetime_days
    page = np.float32(state.page[e])
    for s in range(SEGMENTS):
        out[s] = _ONE if s == segment else _ZERO
    at = SEGMENTS
    out[at] = _ONE if state.visits[e] > 1 else _ZERO
    out[at + 1] = np.float32(math.log1p(np.float32(state.visits[e] - 1))) * np.float32(0.5)
    out[at + 2] = np.float32(math.sin(angle))
    out[at + 3] = np.float32(math.cos(angle))
    out[at + 4] = _ONE if state.mobile[e] else _ZERO
    out[at + 5] = page / np.float32(constants.episode_steps)
    out[at + 6] = known / (known + constants.prior_strength)
    out[at + 7] = (state.clicks[e] + _TYPICAL_CTR) / (page + _ONE)
    out[at + 8] = state.orders[e] / (state.clicks[e] + _ONE)
    out[at + 9] = state.last_click[e]
    out[at + 10] = state.last_order[e]
    out[at + 11] = state.idle[e] * np.float32(0.2)
    out[at + 12] = state.price_level[e]
    out[at + 13] = state.last_diversity[e]
    popular, fresh, cheap = _ZERO, _ZERO, _ZERO
    for k in range(topics):
        popular += direction[k] * tables.popular_dk[day, k]
        fresh += direction[k] * tables.fresh_dk[day, k]
        cheap += direction[k] * tables.cheap_k[k]
    out[at + 14], out[at + 15], out[at + 16] = popular, fresh, cheap
    at += 17
    for k in range(topics):
        out[at + k] = mean[k]
        out[at + topics + k] = state.exposure[e, k]
        out[at + 2 * topics + k] = state.measured[e, k]
    for f in range(len(out)):
        out[f] = min(max(out[f], -_BOUND), _BOUND)
