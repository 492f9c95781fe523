"""What moves by itself or with a page: tastes, trends, arrivals, the ages of items."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import exp2, inner, log2, sigmoid
from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.state import (
    COVERED,
    ESTIMATE,
    EVIDENCE,
    EXPOSURE,
    LOGITS,
    MEASURED,
    PRECISION,
    SHOWN,
    TASTE,
    TREND,
    State,
)
from rlaas.scenarios.recsys.engine.tables import CENTRE, Tables

__all__ = [
    "add_shocks",
    "arrive",
    "begin",
    "calendar",
    "drift",
    "evolve_trend",
    "phase_of",
    "price_level",
    "renew",
    "share_out",
]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_SOONER = np.float32(1.3)
_LOG2_E = np.float32(math.log2(math.e))
_LN_2 = np.float32(math.log(2.0))
_HOURS = 24.0


@inner
def calendar(clock: float, lifetime_days: int) -> tuple[int, np.float32]:
    """Day in the life of the catalogue, and hour of the day, at ``clock`` hours."""
    days = int(clock / _HOURS)
    return days % lifetime_days, np.float32(clock - _HOURS * days)


@inner(inline=False, no_nan=True)
def share_out(logits: Array, shares: Array) -> None:
    """Softmax of ``logits`` into ``shares``."""
    peak = logits[0]
    for k in range(len(logits)):
        peak = logits[k] if logits[k] > peak else peak
    total = _ZERO
    for k in range(len(logits)):
        shares[k] = exp2((logits[k] - peak) * _LOG2_E)
        total += shares[k]
    scale = _ONE / total
    for k in range(len(logits)):
        shares[k] *= scale


@inner
def drift(logits: Array, centre: Array, spread: np.float32, size: np.float32, normal: Array) -> None:
    """One step of an Ornstein-Uhlenbeck walk around ``centre`` that keeps the standard deviation ``spread``.

    Args:
        logits, centre: [topics].
        spread: stationary standard deviation.
        size: standard deviation of the step.
        normal: standard normal numbers [topics or more].
    """
    share = size / spread
    keep = np.float32(math.sqrt(max(_ONE - share * share, _ZERO)))
    for k in range(len(logits)):
        logits[k] = centre[k] + keep * (logits[k] - centre[k]) + size * normal[k]


@inner(inline=False)
def _erlang(key: np.uint64, step: int, index: int, shape: int) -> np.float32:
    """Gamma number with a whole shape up to 8 and the mean 1: the logarithm of a product of uniform numbers."""
    a, b, c, d = streams.draw(key, step, streams.PERSON, 2 * index)
    e, f, g, h = streams.draw(key, step, streams.PERSON, 2 * index + 1)
    total = _ZERO
    for number, value in enumerate((a, b, c, d, e, f, g, h)):
        if number < shape:
            total -= log2(_ONE - value)
    return np.float32(total * _LN_2 / np.float32(shape))


@inner
def _open_session(state: State, e: int, new: bool) -> None:
    """The platform's side of a session that begins; a new user is known by segment only."""
    stream, by_topic, sets = state.streams[e], state.by_topic[e], state.sets[e]
    for word in range(sets.shape[1]):
        sets[SHOWN, word] = np.uint64(0)
    stream.shown_count = 0
    stream.page = 0
    stream.clicks = _ZERO
    stream.orders = _ZERO
    stream.last_click = _ZERO
    stream.last_order = _ZERO
    stream.idle = _ZERO
    stream.last_diversity = _ZERO
    for k in range(by_topic.shape[1]):
        by_topic[EXPOSURE, k] = _ZERO
    for w in range(state.pending.shape[1]):
        state.pending[e, w, 0] = -1
    if new:
        stream.price_level = _ZERO
        stream.recent_count = 0
        for k in range(by_topic.shape[1]):
            by_topic[EVIDENCE, k] = _ZERO


@inner
def _admit(state: State, tables: Tables, e: int, new: bool, normal: Array) -> None:
    """A user opens a session: a new one drawn from the population, or the last one after a time."""
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    key, step = stream.key, stream.step
    topics = by_topic.shape[1]
    streams.normals(key, step, streams.USER, topics, normal)
    a, b, _, _ = streams.draw(key, step, streams.SEGMENT, 0)
    goodwill = constants.returning_patience_base + constants.returning_patience_satisfaction * stream.satisfaction
    size = constants.session_drift
    if new:
        segment = 0
        for edge in range(len(tables.segments) - 1):
            segment += 1 if a >= tables.segments[edge].edge else 0
        stream.user += 1
        stream.visits = 0
        stream.segment = segment
        luck = _erlang(key, step, 0, constants.sensitivity_shape)
        stream.sensitivity = tables.segments[segment].sensitivity * luck
        stream.satisfaction = constants.satisfaction_start
        goodwill = _ONE
        # From the middle of the segment, as wide as the population.
        size = constants.taste_spread
        for k in range(topics):
            by_topic[LOGITS, k] = tables.interests[CENTRE, segment, k]
    segment = stream.segment
    stream.visits += 1
    drift(by_topic[LOGITS], tables.interests[CENTRE, segment], constants.taste_spread, size, normal)
    share_out(by_topic[LOGITS], by_topic[TASTE])
    luck = _erlang(key, step, 1, constants.patience_shape)
    stream.patience = tables.segments[segment].patience * luck * goodwill
    stream.mobile = 1 if b < constants.mobile_share else 0
    _open_session(state, e, new)


@inner
def begin(state: State, tables: Tables, e: int, normal: Array) -> None:
    """A new world for a stream: nothing learned, trends that have been measured for long, a first day and hour."""
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    stream.stream_step = 0
    stream.window_page = 0
    for word in range(state.sets.shape[2]):
        state.sets[e, COVERED, word] = np.uint64(0)
    for i in range(state.by_item.shape[2]):
        state.by_item[e, ESTIMATE, i] = _ZERO
        state.by_item[e, PRECISION, i] = _ZERO
    topics = by_topic.shape[1]
    streams.normals(stream.key, stream.step, streams.TREND, topics, normal)
    rest = _ONE - constants.trend_persistence * constants.trend_persistence
    width = constants.trend_noise / np.float32(math.sqrt(rest))
    for k in range(topics):
        by_topic[TREND, k] = width * normal[k]
        by_topic[MEASURED, k] = by_topic[TREND, k]
    a, b, _, _ = streams.draw(stream.key, stream.step, streams.BEGIN, 0)
    stream.user = -1
    stream.clock = _HOURS * (math.floor(a * np.float32(constants.lifetime_days)) + b)


@inner
def arrive(state: State, tables: Tables, e: int, first: bool, normal: Array) -> None:
    """The next session: the same user again, or a new one; ``first`` begins a stream.

    A satisfied user is more likely to return, sooner and with more patience; a new one starts from nothing.
    """
    constants, stream = tables.constants[0], state.streams[e]
    new = first
    if not first:
        a, b, _, _ = streams.draw(stream.key, stream.step, streams.ARRIVAL, 0)
        satisfaction = stream.satisfaction
        new = a >= sigmoid(np.float32(constants.return_intercept + constants.return_satisfaction * satisfaction))
        gap = constants.arrival_gap_hours if new else constants.return_gap_hours * (_SOONER - satisfaction)
        before = int(stream.clock / _HOURS)
        stream.clock -= float(log2(_ONE - b) * _LN_2 * gap)
        _reborn(state, tables, e, before)
    _admit(state, tables, e, new, normal)


@inner
def _reborn(state: State, tables: Tables, e: int, before: int) -> None:
    """Forget what feedback said about the items that came out since the day ``before``."""
    life = tables.constants[0].lifetime_days
    days = min(int(state.streams[e].clock / _HOURS) - before, life)
    for ahead in range(1, days + 1):
        day = (before + ahead) % life
        for place in range(tables.born_start[day], tables.born_start[day + 1]):
            item = tables.born_items[place]
            state.by_item[e, ESTIMATE, item] = _ZERO
            state.by_item[e, PRECISION, item] = _ZERO


@inner
def evolve_trend(state: State, tables: Tables, e: int, normal: Array, now: Array) -> None:
    """An autoregression with rare shocks of one topic's popularity, whatever is done; it is measured with a lag.

    ``normal`` and ``now`` [topics] are overwritten.
    """
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    topics = by_topic.shape[1]
    trend, measured = by_topic[TREND], by_topic[MEASURED]
    streams.normals(stream.key, stream.step, streams.TREND, topics, normal)
    a, b, _, _ = streams.draw(stream.key, stream.step, streams.SHOCK, 0)
    for k in range(topics):
        trend[k] = constants.trend_persistence * trend[k] + constants.trend_noise * normal[k]
    if a < constants.shock_probability:
        trend[int(b * np.float32(topics))] += constants.shock_size
    add_shocks(tables, stream.stream_step, trend, now)
    for k in range(topics):
        measured[k] = constants.trend_lag * measured[k] + (_ONE - constants.trend_lag) * now[k]


@inner
def add_shocks(tables: Tables, at: int, trend: Array, out: Array) -> None:
    """Trends with the scheduled shocks of the stream's step ``at``; rows of ``shocks`` are (from, to, topic, size)."""
    for k in range(len(trend)):
        out[k] = trend[k]
    for row in range(len(tables.shocks)):
        if tables.shocks[row, 0] <= at < tables.shocks[row, 1]:
            out[int(tables.shocks[row, 2])] += np.float32(tables.shocks[row, 3])


@inner
def phase_of(tables: Tables, at: int) -> int:
    """Which version of the catalogue holds at the stream's step ``at``."""
    phase = 0
    for p in range(1, len(tables.phase_from)):
        if at >= tables.phase_from[p]:
            phase = p
    return phase


@inner
def price_level(tables: Tables, at: int) -> np.float32:
    """Factor on all prices at the stream's step ``at``; rows of ``prices`` are (from, to, factor)."""
    level = _ONE
    for row in range(len(tables.prices)):
        if tables.prices[row, 0] <= at < tables.prices[row, 1]:
            level *= np.float32(tables.prices[row, 2])
    return level


@inner
def renew(state: State, tables: Tables, e: int, phase: int) -> None:
    """Forget what feedback said about the items that a new phase replaced, on its first step."""
    if phase == 0 or state.streams[e].stream_step != tables.phase_from[phase]:
        return
    for i in range(state.by_item.shape[2]):
        if tables.quality[phase, i] != tables.quality[phase - 1, i]:
            state.by_item[e, ESTIMATE, i] = _ZERO
            state.by_item[e, PRECISION, i] = _ZERO
