"""The user's side of a page, and what both sides remember of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.compiled import log2
from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.choice import exit_at, logit, order_chance, pick, pleasure
from rlaas.scenarios.recsys.engine.diversity import list_diversity
from rlaas.scenarios.recsys.engine.evolution import drift, price_level, share_out
from rlaas.scenarios.recsys.engine.page import in_set
from rlaas.scenarios.recsys.engine.ranking import believe, normals
from rlaas.scenarios.recsys.engine.state import Outputs, Scratch, State
from rlaas.scenarios.recsys.engine.tables import Constants, Tables

__all__ = ["add_shocks", "respond"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_LEAST_SPENT = np.float32(0.1)
_KEPT, _NEW = np.float32(0.7), np.float32(0.3)
_MOST_PENDING = 100


@njit(cache=True, _nrt=False)
def add_shocks(tables: Tables, at: int, trend: Array, out: Array) -> None:
    """Trends with the scheduled shocks of the stream's step ``at``; rows of ``shocks`` are (from, to, topic, size)."""
    for k in range(len(trend)):
        out[k] = trend[k]
    for row in range(len(tables.shocks)):
        if tables.shocks[row, 0] <= at < tables.shocks[row, 1]:
            out[int(tables.shocks[row, 2])] += np.float32(tables.shocks[row, 3])


@njit(cache=True, _nrt=False)
def _utilities(
    slate: Array,
    tables: Tables,
    constants: Constants,
    own: Array,
    taste: Array,
    length: np.float32,
    trend: Array,
    exposure: Array,
    sensitivity: np.float32,
    level: np.float32,
    quality_i: Array,
    learned: Array,
    learned_share: np.float32,
    freshness_i: Array,
    mobile: bool,
    match: Array,
    burden: Array,
    utility: Array,
) -> None:
    """Utility of each item at its position, for a taste, trends and qualities that are true or believed.

    Writes the cosine of taste and item, the burden of the price and the utility [slate]; ``own`` [topics] is
    overwritten.
    """
    topics = len(taste)
    for k in range(topics):
        own[k] = constants.choice_trend * trend[k] - constants.choice_satiation * exposure[k]
    penalty = tables.position_j[1] if mobile else tables.position_j[0]
    for j in range(len(slate)):
        item = slate[j]
        cosine, rest = _ZERO, _ZERO
        for k in range(topics):
            cosine += taste[k] * tables.vectors_ik[item, k]
            rest += own[k] * tables.vectors_ik[item, k]
        match[j] = cosine / length
        burden[j] = sensitivity * (level * (tables.dear_i[item] + _ONE) - _ONE)
        quality = quality_i[item] + learned_share * learned[item]
        utility[j] = (
            constants.choice_match * match[j]
            + constants.choice_quality * quality
            + constants.choice_freshness * freshness_i[item]
            + rest
            - constants.choice_price * burden[j]
            - penalty[j]
        )


@njit(cache=True, _nrt=False)
def _learn_items(
    state: State, constants: Constants, prior_i: Array, e: int, slate: Array, believed: Array, position: int
) -> None:
    """One step of assumed-density filtering of each shown item's quality under the logistic click model.

    Gaussian posteriors by item: with the believed click probability p and the weight c of quality, the information
    grows by ``c^2 p (1 - p)`` and the mean moves by ``c (click - p)`` over the new information.
    """
    weight = constants.choice_quality
    for j in range(len(slate)):
        item = slate[j]
        p = believed[j]
        clicked = _ONE if j == position else _ZERO
        gained = weight * weight * p * (_ONE - p)
        information = _ONE / prior_i[item] + state.precision[e, item] + gained
        state.estimate[e, item] += weight * (clicked - p) / information
        state.precision[e, item] += gained


@njit(cache=True, _nrt=False)
def _record(
    state: State, constants: Constants, tables: Tables, e: int, slate: Array, position: int, orders: int, bought: bool
) -> int:
    """What the platform remembers of a page.

    Returns:
        Items of the slate that were not shown before in the present coverage window.
    """
    if state.window_page[e] >= constants.coverage_pages:
        state.window_page[e] = 0
        for word in range(state.covered.shape[1]):
            state.covered[e, word] = np.uint64(0)
    state.window_page[e] += 1
    uncovered = 0
    for item in slate:
        word, bit = item >> 6, np.uint64(1) << np.uint64(item & 63)
        if not in_set(state.covered[e], item):
            uncovered += 1
        state.covered[e, word] |= bit
        state.shown[e, word] |= bit
        state.shown_items[e, state.shown_count[e]] = item
        state.shown_count[e] += 1
    clicked = position >= 0
    state.page[e] += 1
    state.last_click[e] = _ONE if clicked else _ZERO
    state.last_order[e] = _ONE if orders > 0 else _ZERO
    state.orders[e] += np.float32(orders)
    state.idle[e] = _ZERO if clicked else state.idle[e] + _ONE
    for k in range(state.evidence.shape[1]):
        state.evidence[e, k] *= constants.evidence_memory
    if clicked:
        item = slate[position]
        state.clicks[e] += _ONE
        state.price_level[e] = _KEPT * state.price_level[e] + _NEW * tables.dear_i[item]
        state.recent[e, state.recent_count[e] % state.recent.shape[1]] = item
        state.recent_count[e] += 1
        gained = constants.click_evidence + (constants.order_evidence if bought else _ZERO)
        for k in range(state.evidence.shape[1]):
            state.evidence[e, k] += gained * tables.topics_ik[item, k]
    return uncovered


@njit(cache=True, _nrt=False)
def _orders(state: State, constants: Constants, e: int, bought: bool, uniform: np.float32) -> int:
    """Orders placed on this page: of this page's click, or of an earlier one within the attribution window."""
    window = state.pending.shape[1]
    here = (state.page[e]) % window
    if bought:
        delay = 0
        if window > 1:
            # Geometric: log(1 - u) / log(share that waits another page).
            delay = int(log2(_ONE - uniform) / log2(constants.order_delay))
        if delay < window:
            later = (here + delay) % window
            state.pending[e, later] = min(state.pending[e, later] + 1, _MOST_PENDING)
    placed = int(state.pending[e, here])
    state.pending[e, here] = 0
    return placed


@njit(cache=True, _nrt=False)
def respond(
    state: State,
    constants: Constants,
    tables: Tables,
    scratch: Scratch,
    out: Outputs,
    slot: int,
    e: int,
    strategy: int,
    phase: int,
) -> bool:
    """Show ``scratch.slate``: choice, order, satisfaction, patience, beliefs, drift, and the page's parts and reward.

    Returns:
        Whether the user's patience ran out.
    """
    slate, page = scratch.slate[slot], scratch.page[slot]
    utility, probability, match, burden = page[0], page[1], page[2], page[3]
    key, step, at = state.key[e], state.step[e], state.stream_step[e]
    topics = state.taste.shape[1]
    hour = np.float32(state.clock[e] % 24.0)
    day = int(state.clock[e] // 24.0) % constants.lifetime_days
    level = price_level(tables, at)
    leave = exit_at(constants.exit_utility, constants.evening, constants.evening_peak_hour, hour)
    quality_i, freshness_i = tables.quality_pi[phase], tables.freshness_pdi[phase, day]
    mobile, first_page = state.mobile[e], state.page[e] == 0

    # What the platform expected, before it knows: its lesson is the difference.
    mean, direction = scratch.sample[slot], scratch.direction[slot]
    segment = state.segment[e]
    believe(tables.prior_sk[segment], state.evidence[e], mean, direction)
    _utilities(
        slate,
        tables,
        constants,
        scratch.linear[slot],
        direction,
        _ONE,
        state.measured[e],
        state.exposure[e],
        tables.sensitivity_s[segment],
        level,
        tables.observed_pdi[phase, day],
        state.estimate[e],
        _ONE,
        freshness_i,
        mobile,
        page[2],
        page[3],
        page[4],
    )
    logit(page[4], leave, page[5])

    trend = scratch.other[slot]
    add_shocks(tables, at, state.trend[e], trend)
    square = _ZERO
    for k in range(topics):
        square += state.taste[e, k] * state.taste[e, k]
    length = np.float32(math.sqrt(square))
    _utilities(
        slate,
        tables,
        constants,
        scratch.linear[slot],
        state.taste[e],
        length,
        trend,
        state.exposure[e],
        state.sensitivity[e],
        level,
        quality_i,
        state.estimate[e],
        _ZERO,
        freshness_i,
        mobile,
        match,
        burden,
        utility,
    )
    any_click = logit(utility, leave, probability)
    choice, convert, delay, _ = streams.draw(key, step, streams.PAGE, 0)
    position = pick(probability, choice)
    clicked = position >= 0
    item = slate[position] if clicked else 0
    bought, pleased = False, _ZERO
    if clicked:
        chance = order_chance(
            constants.order_intercept,
            constants.order_match,
            constants.order_quality,
            constants.order_price,
            match[position],
            quality_i[item],
            burden[position],
        )
        bought = convert < chance
        pleased = pleasure(
            constants.satisfaction_base,
            constants.satisfaction_match,
            constants.satisfaction_quality,
            constants.satisfaction_price,
            match[position],
            quality_i[item],
            burden[position],
        )
    orders = _orders(state, constants, e, bought, delay)
    clicks, expected_orders = 1.0 if clicked else 0.0, float(orders)
    if constants.expected:
        clicks, expected_orders = float(any_click), 0.0
        for j in range(len(slate)):
            chance = order_chance(
                constants.order_intercept,
                constants.order_match,
                constants.order_quality,
                constants.order_price,
                match[j],
                quality_i[slate[j]],
                burden[j],
            )
            expected_orders += float(probability[j] * chance)

    # A page without a click is judged by how tempting it was.
    memory = constants.satisfaction_memory
    felt = pleased if clicked else any_click
    satisfaction = memory * state.satisfaction[e] + (_ONE - memory) * felt
    spent = constants.page_cost - constants.click_relief * pleased + constants.boredom * (_ONE - satisfaction)
    state.satisfaction[e] = satisfaction
    state.patience[e] -= max(spent, _LEAST_SPENT)

    _learn_items(state, constants, tables.prior_pdi[phase, day], e, slate, page[5], position)
    uncovered = _record(state, constants, tables, e, slate, position, orders, bought)
    shown = scratch.linear[slot]
    diversity = list_diversity(slate, tables.vectors_ik, shown)
    state.last_diversity[e] = diversity
    keep = constants.satiation_memory
    share = (_ONE - keep) / np.float32(len(slate))
    for k in range(topics):
        state.exposure[e, k] = keep * state.exposure[e, k] + share * shown[k]

    normals(key, step, streams.USER, topics, scratch.normal[slot])
    logits = state.logits[e]
    drift(logits, tables.centre_sk[segment], constants.taste_spread, constants.page_drift, scratch.normal[slot])
    if clicked:
        # What one enjoys one wants more of.
        for k in range(topics):
            logits[k] += constants.click_reinforcement * (tables.topics_ik[item, k] - state.taste[e, k])
    share_out(logits, state.taste[e])
    _write(tables, out, e, slate, position, orders, diversity, uncovered, first_page, strategy)
    _reward(tables, out, e, clicks, expected_orders)
    return bool(state.patience[e] <= _ZERO)


@njit(cache=True, _nrt=False)
def _write(
    tables: Tables,
    out: Outputs,
    e: int,
    slate: Array,
    position: int,
    orders: int,
    diversity: np.float32,
    uncovered: int,
    first_page: bool,
    strategy: int,
) -> None:
    """The page's parts; costs are per 1,000 impressions, so their sum is 1,000 times the money spent."""
    n = float(len(slate))
    cost = n * tables.retrieval_cost_r[strategy]
    for j in range(len(slate)):
        cost += tables.cost_i[slate[j]]
        out.slate[e, j] = slate[j]
    out.click[e] = position
    out.order[e] = orders > 0
    up, down = out.numerators[e], out.denominators[e]
    clicks, sessions = 1.0 if position >= 0 else 0.0, 1.0 if first_page else 0.0
    up[0], down[0] = clicks, n
    up[1], down[1] = float(orders), clicks
    up[2], down[2] = float(diversity), 1.0
    up[3], down[3] = cost, n
    up[4], down[4] = float(orders), sessions
    up[5], down[5] = n, sessions
    up[6], down[6] = float(uncovered), n


@njit(cache=True, _nrt=False)
def _reward(tables: Tables, out: Outputs, e: int, clicks: float, orders: float) -> None:
    """Normalised rewards whose mean over pages is the normalised objective (for cvr: near the default).

    ctr, diversity and cost are ratios per page already. A conversion rate per page is mostly 0 / 0, so its reward is
    the surplus ``orders - cvr0 * clicks`` in units of the default's clicks per page, around the default's level; a
    page without a click gets that level, which is neutral.
    """
    up, down = out.numerators[e], out.denominators[e]
    neutral, per_page = tables.levels[0], tables.levels[1]
    values = (
        clicks / down[0],
        neutral + (orders - neutral * clicks) / per_page,
        up[2] / down[2],
        up[3] / down[3],
    )
    for i in range(4):
        share = (values[i] - tables.low[i]) / tables.span[i]
        out.reward[e, i] = share if tables.upward[i] else 1.0 - share
