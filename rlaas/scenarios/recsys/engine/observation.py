"""What the platform sees: profile, behaviour of the session, context, features of the candidate pool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import circle, inner, log2
from rlaas.scenarios.recsys.engine.evolution import calendar
from rlaas.scenarios.recsys.engine.ranking import believe
from rlaas.scenarios.recsys.engine.state import EVIDENCE, EXPOSURE, MEASURED, State
from rlaas.scenarios.recsys.engine.tables import CHEAP, FRESH, POPULAR, PRIOR_TASTE, Tables
from rlaas.scenarios.recsys.reference import SEGMENTS

__all__ = ["OBSERVATION_BOUND", "observation_names", "observe"]

Array = NDArray[Any]

OBSERVATION_BOUND = 5.0
"""Features are scaled to about one and clipped here."""

_BOUND = np.float32(OBSERVATION_BOUND)
_TYPICAL_CTR = np.float32(0.4)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_DAY = np.float32(1.0 / 24.0)
_HALF_LN_2 = np.float32(0.5 * math.log(2.0))
_IDLE = np.float32(0.2)


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


@inner
def observe(state: State, tables: Tables, e: int, mean: Array, direction: Array, out: Array) -> None:
    """Write the features of environment ``e`` by :func:`observation_names`; nothing hidden enters.

    ``mean`` and ``direction`` [topics] are overwritten.
    """
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    topics, segment = by_topic.shape[1], stream.segment
    believe(tables.interests[PRIOR_TASTE, segment], by_topic[EVIDENCE], _ONE, mean, direction)
    known = _ZERO
    for k in range(topics):
        known += by_topic[EVIDENCE, k]
    day, hour = calendar(stream.clock, constants.lifetime_days)
    cosine, sine = circle(hour * _DAY)
    page = np.float32(stream.page)
    for s in range(SEGMENTS):
        out[s] = _ONE if s == segment else _ZERO
    at = SEGMENTS
    out[at] = _ONE if stream.visits > 1 else _ZERO
    # Half of log(1 + earlier visits).
    out[at + 1] = _HALF_LN_2 * log2(np.float32(stream.visits))
    out[at + 2], out[at + 3] = sine, cosine
    out[at + 4] = np.float32(stream.mobile)
    out[at + 5] = page / np.float32(constants.episode_steps)
    out[at + 6] = known / (known + constants.prior_strength)
    out[at + 7] = (stream.clicks + _TYPICAL_CTR) / (page + _ONE)
    out[at + 8] = stream.orders / (stream.clicks + _ONE)
    out[at + 9] = stream.last_click
    out[at + 10] = stream.last_order
    out[at + 11] = stream.idle * _IDLE
    out[at + 12] = stream.price_level
    out[at + 13] = stream.last_diversity
    popular, fresh, cheap = _ZERO, _ZERO, _ZERO
    pools = tables.pools[day]
    for k in range(topics):
        popular += direction[k] * pools[POPULAR, k]
        fresh += direction[k] * pools[FRESH, k]
        cheap += direction[k] * pools[CHEAP, k]
    out[at + 14], out[at + 15], out[at + 16] = popular, fresh, cheap
    at += 17
    for k in range(topics):
        out[at + k] = mean[k]
        out[at + topics + k] = by_topic[EXPOSURE, k]
        out[at + 2 * topics + k] = by_topic[MEASURED, k]
    for f in range(len(out)):
        out[f] = min(max(out[f], -_BOUND), _BOUND)
