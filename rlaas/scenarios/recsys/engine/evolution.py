"""What moves by itself or with a page: tastes, trends, arrivals, the ages of items."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.compiled import exp2, log2, sigmoid
from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.ranking import normals
from rlaas.scenarios.recsys.engine.state import State
from rlaas.scenarios.recsys.engine.tables import Constants, Tables

__all__ = ["arrive", "drift", "evolve_trend", "open_session", "phase_of", "price_level", "reborn", "renew", "share_out"]

Array = NDArray[Any]

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_LOG2_E = np.float32(math.log2(math.e))
_LN_2 = np.float32(math.log(2.0))
_HOURS = 24.0


@njit(cache=True, _nrt=False)
def share_out(logits: Array, shares: Array) -> None:
    """Softmax of ``logits`` into ``shares``."""
    peak = logits[0]
    for value in logits:
        peak = max(peak, value)
    total = _ZERO
    for k in range(len(logits)):
        shares[k] = exp2((logits[k] - peak) * _LOG2_E)
        total += shares[k]
    for k in range(len(logits)):
        shares[k] /= total


@njit(cache=True, _nrt=False)
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


@njit(cache=True, _nrt=False)
def _erlang(key: np.uint64, step: int, index: int, shape: int) -> np.float32:
    """Gamma number with a whole shape up to 8 and the mean 1: the logarithm of a product of uniform numbers."""
    a, b, c, d = streams.draw(key, step, streams.PERSON, 2 * index)
    e, f, g, h = streams.draw(key, step, streams.PERSON, 2 * index + 1)
    numbers = (a, b, c, d, e, f, g, h)
    total = _ZERO
    for i in range(shape):
        total -= log2(_ONE - numbers[i])
    return np.float32(total * _LN_2 / np.float32(shape))


@njit(cache=True, _nrt=False)
def open_session(state: State, e: int, new: bool) -> None:
    """The platform's side of a session that begins; a new user is known by segment only."""
    for word in range(state.shown.shape[1]):
        state.shown[e, word] = np.uint64(0)
    state.shown_count[e] = 0
    state.page[e] = 0
    state.clicks[e] = _ZERO
    state.orders[e] = _ZERO
    state.last_click[e] = _ZERO
    state.last_order[e] = _ZERO
    state.idle[e] = _ZERO
    state.last_diversity[e] = _ZERO
    for k in range(state.exposure.shape[1]):
        state.exposure[e, k] = _ZERO
    for w in range(state.pending.shape[1]):
        state.pending[e, w] = 0
    if new:
        state.price_level[e] = _ZERO
        state.recent_count[e] = 0
        for k in range(state.evidence.shape[1]):
            state.evidence[e, k] = _ZERO


@njit(cache=True, _nrt=False)
def _admit(state: State, constants: Constants, tables: Tables, e: int, new: bool, normal: Array) -> None:
    key, step = state.key[e], state.step[e]
    topics = state.taste.shape[1]
    normals(key, step, streams.USER, topics, normal)
    a, b, _, _ = streams.draw(key, step, streams.SEGMENT, 0)
    goodwill = constants.returning_patience_base + constants.returning_patience_satisfaction * state.satisfaction[e]
    if new:
        segment = 0
        for edge in tables.segment_edge_s:
            segment += a >= edge
        state.user[e] += 1
        state.visits[e] = 1
        state.segment[e] = segment
        for k in range(topics):
            state.logits[e, k] = tables.centre_sk[segment, k] + constants.taste_spread * normal[k]
        luck = _erlang(key, step, 0, constants.sensitivity_shape)
        state.sensitivity[e] = tables.sensitivity_s[segment] * luck
        state.satisfaction[e] = constants.satisfaction_start
        goodwill = _ONE
    else:
        segment = state.segment[e]
        state.visits[e] += 1
        drift(state.logits[e], tables.centre_sk[segment], constants.taste_spread, constants.session_drift, normal)
    share_out(state.logits[e], state.taste[e])
    luck = _erlang(key, step, 1, constants.patience_shape)
    state.patience[e] = tables.patience_s[segment] * luck * goodwill
    state.mobile[e] = b < constants.mobile_share
    open_session(state, e, new)


@njit(cache=True, _nrt=False)
def arrive(state: State, constants: Constants, tables: Tables, e: int, first: bool, normal: Array) -> None:
    """The next session: the same user again, or a new one; ``first`` begins a stream.

    A satisfied user is more likely to return, sooner and with more patience; a new one starts from nothing.
    """
    key, step = state.key[e], state.step[e]
    if first:
        a, b, _, _ = streams.draw(key, step, streams.BEGIN, 0)
        state.user[e] = -1
        state.clock[e] = _HOURS * (math.floor(a * constants.lifetime_days) + b)
        _admit(state, constants, tables, e, True, normal)
        return
    a, b, _, _ = streams.draw(key, step, streams.ARRIVAL, 0)
    satisfaction = state.satisfaction[e]
    returning = a < sigmoid(constants.return_intercept + constants.return_satisfaction * satisfaction)
    gap = constants.arrival_gap_hours
    if returning:
        gap = constants.return_gap_hours * (np.float32(1.3) - satisfaction)
    before = int(state.clock[e] // _HOURS)
    state.clock[e] -= float(log2(_ONE - b) * _LN_2 * gap)
    reborn(state, constants, tables, e, before)
    _admit(state, constants, tables, e, not returning, normal)


@njit(cache=True, _nrt=False)
def reborn(state: State, constants: Constants, tables: Tables, e: int, before: int) -> None:
    """Forget what feedback said about the items that came out since the day ``before``."""
    days = min(int(state.clock[e] // _HOURS) - before, int(constants.lifetime_days))
    for ahead in range(1, days + 1):
        day = (before + ahead) % constants.lifetime_days
        for place in range(tables.born_start[day], tables.born_start[day + 1]):
            item = tables.born_items[place]
            state.estimate[e, item] = _ZERO
            state.precision[e, item] = _ZERO


@njit(cache=True, _nrt=False)
def evolve_trend(state: State, constants: Constants, e: int, first: bool, normal: Array) -> None:
    """An autoregression with rare shocks of one topic's popularity, whatever is done; ``first`` draws its law."""
    key, step = state.key[e], state.step[e]
    topics = state.trend.shape[1]
    normals(key, step, streams.TREND, topics, normal)
    if first:
        rest = _ONE - constants.trend_persistence * constants.trend_persistence
        width = constants.trend_noise / np.float32(math.sqrt(rest))
        for k in range(topics):
            state.trend[e, k] = width * normal[k]
        return
    a, b, _, _ = streams.draw(key, step, streams.SHOCK, 0)
    for k in range(topics):
        state.trend[e, k] = constants.trend_persistence * state.trend[e, k] + constants.trend_noise * normal[k]
    if a < constants.shock_probability:
        state.trend[e, int(b * np.float32(topics))] += constants.shock_size


@njit(cache=True, _nrt=False)
def phase_of(tables: Tables, at: int) -> int:
    """Which version of the catalogue holds at the stream's step ``at``."""
    phase = 0
    for p in range(1, len(tables.phase_from_p)):
        if at >= tables.phase_from_p[p]:
            phase = p
    return phase


@njit(cache=True, _nrt=False)
def price_level(tables: Tables, at: int) -> np.float32:
    """Factor on all prices at the stream's step ``at``; rows of ``prices`` are (from, to, factor)."""
    level = _ONE
    for row in range(len(tables.prices)):
        if tables.prices[row, 0] <= at < tables.prices[row, 1]:
            level *= np.float32(tables.prices[row, 2])
    return level


@njit(cache=True, _nrt=False)
def renew(state: State, tables: Tables, e: int, phase: int) -> None:
    """Forget what feedback said about the items that a new phase replaced, on its first step."""
    if phase == 0 or state.stream_step[e] != tables.phase_from_p[phase]:
        return
    for i in range(state.estimate.shape[1]):
        if tables.quality_pi[phase, i] != tables.quality_pi[phase - 1, i]:
            state.estimate[e, i] = _ZERO
            state.precision[e, i] = _ZERO
