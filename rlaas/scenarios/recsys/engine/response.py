"""The user's side of a page, and what both sides remember of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import inner, log2
from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.choice import exit_at, logit, order_chance, pick, pleasure
from rlaas.scenarios.recsys.engine.diversity import list_diversity
from rlaas.scenarios.recsys.engine.evolution import add_shocks, calendar, drift, price_level, share_out
from rlaas.scenarios.recsys.engine.page import DIRECTION, LINEAR, MEAN, OTHER, in_set
from rlaas.scenarios.recsys.engine.ranking import believe
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
    WIDTH,
    Outputs,
    Scratch,
    State,
)
from rlaas.scenarios.recsys.engine.tables import CENTRE, FRESHNESS, OBSERVED, PRIOR, PRIOR_TASTE, Tables

__all__ = ["respond"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_ABSENT = np.float32(-1e30)
_LEAST_SPENT = np.float32(0.1)
_KEPT, _NEW = np.float32(0.7), np.float32(0.3)
# Rows of Scratch.page.
_UTILITY, _PROBABILITY, _MATCH, _BURDEN, _QUALITY, _BELIEVED, _EXPECTED, _REST = range(8)


@inner(inline=False)
def _utilities(
    page: Array,
    row: int,
    slate: Array,
    vectors: Array,
    tables: Tables,
    taste: Array,
    scale: np.float32,
    trend: Array,
    exposure: Array,
    sensitivity: np.float32,
    level: np.float32,
    freshness: Array,
    penalty: Array,
) -> None:
    """Utility of each item at its position, for a taste, trends and qualities that are true or believed.

    Reads the quality of each item from its row of ``page`` [8, WIDTH] and writes the cosine of taste and item, the
    burden of the price, and the utilities into ``row``.

    Args:
        page: rows as named above.
        row: of the utilities.
        slate: items [slate].
        vectors: theirs [topics, WIDTH].
        tables: prices and weights.
        taste: [topics]; ``scale`` is 1 over its length.
        scale: see there.
        trend, exposure: [topics].
        sensitivity: to the price.
        level: factor on prices.
        freshness: of all items.
        penalty: of the positions [slate].
    """
    constants = tables.constants[0]
    match, burden, rest, utility = page[_MATCH], page[_BURDEN], page[_REST], page[row]
    for j in range(WIDTH):
        match[j] = _ZERO
        rest[j] = _ZERO
    for k in range(len(taste)):
        weight, own = taste[k] * scale, constants.choice_trend * trend[k] - constants.choice_satiation * exposure[k]
        column = vectors[k]
        for j in range(WIDTH):
            match[j] += weight * column[j]
            rest[j] += own * column[j]
    for j in range(len(slate)):
        item = slate[j]
        burden[j] = sensitivity * (level * (tables.dear[item] + _ONE) - _ONE)
        rest[j] += constants.choice_freshness * freshness[item] - penalty[j]
    for j in range(WIDTH):
        value = constants.choice_match * match[j] + constants.choice_quality * page[_QUALITY, j] + rest[j]
        utility[j] = value - constants.choice_price * burden[j] if j < len(slate) else _ABSENT


@inner
def _learn_items(weight: np.float32, by_item: Array, prior: Array, slate: Array, expected: Array, click: int) -> None:
    """One step of assumed-density filtering of each shown item's quality under the logistic click model.

    Gaussian posteriors by item: with the expected click probability p and the weight c of quality, the information
    grows by ``c^2 p (1 - p)`` and the mean moves by ``c (click - p)`` over the new information.
    """
    for j in range(len(slate)):
        item = slate[j]
        p = expected[j]
        clicked = _ONE if j == click else _ZERO
        gained = weight * weight * p * (_ONE - p)
        precision = by_item[PRECISION, item] + gained
        by_item[ESTIMATE, item] += weight * (clicked - p) * prior[item] / (_ONE + prior[item] * precision)
        by_item[PRECISION, item] = precision


@inner
def _record(state: State, coverage_pages: int, e: int, slate: Array) -> int:
    """Put the slate into the sets.

    Returns:
        Items of the slate that were not shown before in the present coverage window.
    """
    stream, sets = state.streams[e], state.sets[e]
    if stream.window_page >= coverage_pages:
        stream.window_page = 0
        for word in range(sets.shape[1]):
            sets[COVERED, word] = np.uint64(0)
    stream.window_page += 1
    uncovered = 0
    for item in slate:
        word, bit = item >> 6, np.uint64(1) << np.uint64(item & 63)
        uncovered += 0 if in_set(sets[COVERED], item) else 1
        sets[COVERED, word] |= bit
        sets[SHOWN, word] |= bit
        state.shown_items[e, stream.shown_count] = item
        stream.shown_count += 1
    return uncovered


@inner
def _remember(state: State, tables: Tables, e: int, item: int, bought: bool, uniform: np.float32) -> int:
    """What the platform remembers of the answer: a click on ``item`` or none (-1), and orders as they are placed.

    An order is placed on the page of its click or within the attribution window after it, on a page of the same
    session; only then does the platform know of it.

    Returns:
        Orders placed on this page.
    """
    constants, stream, pending = tables.constants[0], state.streams[e], state.pending[e]
    evidence, window, page = state.by_topic[e, EVIDENCE], len(state.pending[e]), stream.page
    for k in range(len(evidence)):
        evidence[k] *= constants.evidence_memory
    if item >= 0:
        stream.clicks += _ONE
        stream.idle = _ZERO
        stream.price_level = _KEPT * stream.price_level + _NEW * tables.dear[item]
        stream.recent[stream.recent_count % len(stream.recent)] = item
        stream.recent_count += 1
        for k in range(len(evidence)):
            evidence[k] += constants.click_evidence * tables.topics_ik[item, k]
    else:
        stream.idle += _ONE
    # The place of the page ``window`` pages ago: whatever was to come of that one has come.
    here, delay = page % window, 0
    if window > 1:
        # Geometric: log(1 - u) / log(share that waits another page).
        delay = int(log2(_ONE - uniform) / log2(constants.order_delay))
    pending[here, 0] = item if bought and delay < window else -1
    pending[here, 1] = page + delay if delay < window else -1
    placed = 0
    for place in range(window):
        ordered = pending[place, 0]
        if ordered >= 0 and pending[place, 1] == page:
            placed += 1
            pending[place, 0] = -1
            for k in range(len(evidence)):
                evidence[k] += constants.order_evidence * tables.topics_ik[ordered, k]
    stream.orders += np.float32(placed)
    stream.last_click = _ONE if item >= 0 else _ZERO
    stream.last_order = _ONE if placed > 0 else _ZERO
    return placed


@inner
def respond(
    state: State, tables: Tables, scratch: Scratch, out: Outputs, slot: int, e: int, strategy: int, phase: int
) -> bool:
    """Show ``scratch.slate``: choice, order, satisfaction, patience, beliefs, drift, and the page's parts and reward.

    Returns:
        Whether the user's patience ran out.
    """
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    slate, page, vectors = scratch.slate[slot, 0], scratch.page[slot], scratch.page_vectors[slot]
    topics, own = len(vectors), scratch.topics[slot]
    key, step, at, segment = stream.key, stream.step, stream.stream_step, stream.segment
    day, hour = calendar(stream.clock, constants.lifetime_days)
    daily, quality, estimate = tables.daily[phase, day], tables.quality[phase], state.by_item[e, ESTIMATE]
    level, penalty = price_level(tables, at), tables.position[stream.mobile]
    leave = exit_at(constants.exit_utility, constants.evening, constants.evening_peak_hour, hour)
    for j in range(len(slate)):
        item = slate[j]
        for k in range(topics):
            vectors[k, j] = tables.vectors_ik[item, k]

    # What the platform expected, before it knows: its lesson is the difference.
    for j in range(len(slate)):
        page[_QUALITY, j] = daily[OBSERVED, slate[j]] + estimate[slate[j]]
    believe(tables.interests[PRIOR_TASTE, segment], by_topic[EVIDENCE], _ONE, own[MEAN], own[DIRECTION])
    believed = tables.segments[segment].sensitivity
    taste, trend, exposure = by_topic[TASTE], own[OTHER], by_topic[EXPOSURE]
    _utilities(
        page,
        _BELIEVED,
        slate,
        vectors,
        tables,
        own[DIRECTION],
        _ONE,
        by_topic[MEASURED],
        exposure,
        believed,
        level,
        daily[FRESHNESS],
        penalty,
    )
    logit(page[_BELIEVED], leave, page[_EXPECTED])

    add_shocks(tables, at, by_topic[TREND], trend)
    square = _ZERO
    for k in range(topics):
        square += taste[k] * taste[k]
    for j in range(len(slate)):
        page[_QUALITY, j] = quality[slate[j]]
    scale = _ONE / np.float32(math.sqrt(square))
    _utilities(
        page,
        _UTILITY,
        slate,
        vectors,
        tables,
        taste,
        scale,
        trend,
        exposure,
        stream.sensitivity,
        level,
        daily[FRESHNESS],
        penalty,
    )
    any_click = logit(page[_UTILITY], leave, page[_PROBABILITY])
    choice, convert, delay, _ = streams.draw(key, step, streams.PAGE, 0)
    click = pick(page[_PROBABILITY, : len(slate)], choice)
    item = slate[click] if click >= 0 else -1
    bought, felt = False, any_click
    pleased = _ZERO
    if click >= 0:
        bought = convert < _chance(tables, page, click)
        pleased = pleasure(
            constants.satisfaction_base,
            constants.satisfaction_match,
            constants.satisfaction_quality,
            constants.satisfaction_price,
            page[_MATCH, click],
            page[_QUALITY, click],
            page[_BURDEN, click],
        )
        # A page without a click is judged by how tempting it was.
        felt = pleased
    first_page = stream.page == 0
    orders = _remember(state, tables, e, item, bought, delay)
    clicks, expected_orders = 1.0 if click >= 0 else 0.0, float(orders)
    if constants.expected:
        clicks = float(any_click)
        if constants.attribution_pages == 0:
            # Whether an order that comes pages later comes within the session depends on all that follows: then
            # those that are placed count.
            expected_orders = 0.0
            for j in range(len(slate)):
                expected_orders += float(page[_PROBABILITY, j] * _chance(tables, page, j))

    memory = constants.satisfaction_memory
    satisfaction = memory * stream.satisfaction + (_ONE - memory) * felt
    spent = constants.page_cost - constants.click_relief * pleased + constants.boredom * (_ONE - satisfaction)
    stream.satisfaction = satisfaction
    stream.patience -= max(spent, _LEAST_SPENT)

    _learn_items(constants.choice_quality, state.by_item[e], daily[PRIOR], slate, page[_EXPECTED], click)
    uncovered = _record(state, constants.coverage_pages, e, slate)
    stream.page += 1
    shown = own[LINEAR]
    keep = constants.satiation_memory
    share = (_ONE - keep) / np.float32(len(slate))
    for k in range(topics):
        total = _ZERO
        for j in range(WIDTH):
            total += vectors[k, j]
        shown[k] = total
        exposure[k] = keep * exposure[k] + share * total
    diversity = list_diversity(len(slate), shown)
    stream.last_diversity = diversity

    normal, logits = scratch.normal[slot], by_topic[LOGITS]
    streams.normals(key, step, streams.USER, topics, normal)
    drift(logits, tables.interests[CENTRE, segment], constants.taste_spread, constants.page_drift, normal)
    if click >= 0:
        # What one enjoys one wants more of.
        for k in range(topics):
            logits[k] += constants.click_reinforcement * (tables.topics_ik[item, k] - taste[k])
    share_out(logits, taste)
    _write(tables, out, e, slate, page, click, orders, diversity, uncovered, first_page, strategy)
    _reward(tables, out, e, clicks, expected_orders)
    out.patience[e, stream.page] = stream.patience
    return bool(stream.patience <= _ZERO)


@inner
def _chance(tables: Tables, page: Array, position: int) -> np.float32:
    """Probability that a click on this position becomes an order."""
    constants = tables.constants[0]
    chance: np.float32 = order_chance(
        constants.order_intercept,
        constants.order_match,
        constants.order_quality,
        constants.order_price,
        page[_MATCH, position],
        page[_QUALITY, position],
        page[_BURDEN, position],
    )
    return chance


@inner
def _write(
    tables: Tables,
    out: Outputs,
    e: int,
    slate: Array,
    page: Array,
    click: int,
    orders: int,
    diversity: np.float32,
    uncovered: int,
    first_page: bool,
    strategy: int,
) -> None:
    """The page's parts; costs are per 1,000 impressions, so their sum is 1,000 times the money spent."""
    n = float(len(slate))
    cost = n * tables.strategies[strategy].cost
    for j in range(len(slate)):
        cost += tables.cost[slate[j]]
        out.slate[e, j] = slate[j]
        out.page[e, 0, j] = page[_UTILITY, j]
        out.page[e, 1, j] = page[_PROBABILITY, j]
    out.click[e] = click
    out.order[e] = orders > 0
    up, down = out.numerators[e], out.denominators[e]
    clicks, sessions = 1.0 if click >= 0 else 0.0, 1.0 if first_page else 0.0
    up[0], down[0] = clicks, n
    up[1], down[1] = float(orders), clicks
    up[2], down[2] = float(diversity), 1.0
    up[3], down[3] = cost, n
    up[4], down[4] = float(orders), sessions
    up[5], down[5] = n, sessions
    up[6], down[6] = float(uncovered), n


@inner
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
        objective = tables.objectives[i]
        share = (values[i] - objective.low) / objective.span
        out.reward[e, i] = share if objective.upward else 1.0 - share
