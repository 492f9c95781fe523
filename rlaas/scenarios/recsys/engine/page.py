"""The platform's side of a page: from an action to a slate of ten distinct items.

Exploration works on what retrieval and ranking believe:

- ``none``: means of the posteriors.
- ``uniform``: each position is replaced with a small probability by an item of the whole catalogue.
- ``linucb``: mean plus a width times the posterior standard deviation of user taste and item quality.
- ``thompson``: a taste sampled from the user's posterior (linear Thompson sampling).
- ``bernoulli``: item qualities sampled from their posteriors under click / no click feedback.
- ``top_two``: two joint samples; at half of the positions the second decides (Russo 2016, arXiv 1602.08448).
- ``active``: some positions ask where the posterior variance is largest, the others use means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.diversity import determinantal, marginal_relevance
from rlaas.scenarios.recsys.engine.evolution import price_level
from rlaas.scenarios.recsys.engine.ranking import (
    believe,
    gather,
    normals,
    rank,
    sample_taste,
    to_unit_range,
    uncertain,
)
from rlaas.scenarios.recsys.engine.retrieval import add_linear, collaborate, neighbours, select, spread_of
from rlaas.scenarios.recsys.engine.state import Scratch, State
from rlaas.scenarios.recsys.engine.tables import EXPLORATIONS, RULES, Constants, Tables

__all__ = ["build_slate", "in_set"]

Array = NDArray[Any]

_UNIFORM, _LINUCB, _THOMPSON, _BERNOULLI, _TOP_TWO, _ACTIVE = (
    EXPLORATIONS.index(name) for name in ("uniform", "linucb", "thompson", "bernoulli", "top_two", "active")
)
_DEMOGRAPHIC, _COLLABORATIVE, _NEIGHBOURS = (
    RULES.index(name) for name in ("demographic", "collaborative", "neighbours")
)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(inline="always", cache=True, _nrt=False)
def in_set(words: Array, item: int) -> bool:
    """Whether a bitset holds the item."""
    return bool((words[item >> 6] >> np.uint64(item & 63)) & np.uint64(1))


@njit(cache=True, _nrt=False)
def _replace(state: State, constants: Constants, e: int, slate: Array) -> None:
    """Uniform exploration: an item that is in the slate or was shown in this session replaces nothing."""
    items = state.estimate.shape[1]
    for block in range((len(slate) + 3) // 4):
        coins = streams.draw(state.key[e], state.step[e], streams.COIN, block)
        tickets = streams.draw(state.key[e], state.step[e], streams.TICKET, block)
        for i in range(4):
            position = 4 * block + i
            if position >= len(slate) or coins[i] >= constants.uniform_rate:
                continue
            item = min(int(tickets[i] * np.float32(items)), items - 1)
            if in_set(state.shown[e], item):
                continue
            known = False
            for other in slate:
                known |= other == item
            if not known:
                slate[position] = item


@njit(cache=True, _nrt=False)
def _retrieve(
    state: State,
    constants: Constants,
    tables: Tables,
    scratch: Scratch,
    slot: int,
    e: int,
    phase: int,
    day: int,
    strategy: int,
    exploration: int,
    total: np.float32,
    length: np.float32,
    taste: Array,
) -> None:
    """Fill ``scratch.chosen`` and ``scratch.score``."""
    score, linear = scratch.score[slot], scratch.linear[slot]
    match, quality, rule = tables.match_r[strategy], tables.quality_r[strategy], tables.rule_r[strategy]
    for k in range(len(linear)):
        linear[k] = match * taste[k] + tables.trend_r[strategy] * state.measured[e, k]
    base = tables.retrieval_pdri[phase, day, strategy]
    for i in range(len(score)):
        score[i] = base[i] + quality * state.estimate[e, i]
    add_linear(score, linear, tables.vectors_ki)
    weight, known = tables.collaborative_r[strategy], tables.known_pdi[phase, day]
    if rule == _COLLABORATIVE:
        collaborate(
            score,
            weight,
            tables.factors_ki,
            tables.content_ki,
            tables.gram,
            constants.fold_in,
            known,
            state.recent[e],
            state.recent_count[e],
            scratch.matrix[slot],
            scratch.rest[slot],
            scratch.bound[slot],
        )
    elif rule == _NEIGHBOURS:
        neighbours(score, weight, tables.neighbours_ii, known, state.recent[e], state.recent_count[e])
    hidden, count = state.shown_items[e], state.shown_count[e]
    if exploration >= _LINUCB and exploration != _THOMPSON:
        user = _ZERO if exploration == _BERNOULLI else match * match / ((total + _ONE) * length * length)
        bound, spread = scratch.bound[slot], scratch.spread[slot]
        spread_of(
            spread,
            bound,
            tables.vectors_ki,
            tables.squares_ki,
            scratch.sample[slot],
            user,
            quality * quality,
            tables.prior_pdi[phase, day],
            state.precision[e],
        )
        for i in range(len(score)):
            bound[i] = score[i] + constants.bound_width * spread[i]
        select(bound, hidden, count, scratch.found[slot], scratch.chosen[slot])
    else:
        select(score, hidden, count, scratch.found[slot], scratch.chosen[slot])


@njit(cache=True, _nrt=False)
def _explore(
    state: State,
    constants: Constants,
    scratch: Scratch,
    slot: int,
    e: int,
    prior_i: Array,
    exploration: int,
    match: np.float32,
    quality: np.float32,
    total: np.float32,
    length: np.float32,
    taste: Array,
) -> None:
    """Turn means in ``scratch.relevance`` into bounds or samples, and make the second opinion."""
    key, step = state.key[e], state.step[e]
    relevance, second, deviation = scratch.relevance[slot], scratch.second[slot], scratch.deviation[slot]
    chosen, local, mean = scratch.chosen[slot], scratch.local[slot], scratch.sample[slot]
    normal = scratch.normal[slot]
    user = match * match / ((total + _ONE) * length * length)
    if exploration in (_BERNOULLI, _TOP_TWO):
        user = _ZERO
    uncertain(deviation, scratch.gain[slot], chosen, local, mean, user, quality * quality, prior_i, state.precision[e])
    n = len(chosen)
    if exploration == _LINUCB:
        for j in range(n):
            relevance[j] += constants.bound_width * deviation[j]
            second[j] = relevance[j]
    elif exploration == _BERNOULLI:
        normals(key, step, streams.ITEM, n, normal)
        for j in range(n):
            relevance[j] += deviation[j] * normal[j]
            second[j] = relevance[j]
    elif exploration == _TOP_TWO:
        again, linear = scratch.other[slot], scratch.linear[slot]
        normals(key, step, streams.TASTE_AGAIN, len(mean), normal)
        for k in range(len(mean)):
            linear[k] = taste[k]
        sample_taste(mean, total, length, normal, again)
        # Scores are linear in the taste: the second sample differs by the difference of the tastes.
        for k in range(len(mean)):
            linear[k] = match * (again[k] - linear[k])
        for j in range(n):
            second[j] = relevance[j]
        for k in range(len(mean)):
            for j in range(n):
                second[j] += linear[k] * local[k, j]
        normals(key, step, streams.ITEM, n, normal)
        for j in range(n):
            relevance[j] += deviation[j] * normal[j]
        normals(key, step, streams.ITEM_AGAIN, n, normal)
        for j in range(n):
            second[j] += deviation[j] * normal[j]
    else:
        for j in range(n):
            second[j] = deviation[j]


@njit(cache=True, _nrt=False)
def build_slate(
    state: State, constants: Constants, tables: Tables, scratch: Scratch, slot: int, e: int, action: int, phase: int
) -> None:
    """Retrieve, rank, explore, diversify: ten distinct items not shown in this session, into ``scratch.slate``."""
    strategy, preset = tables.parts_a[action, 0], tables.parts_a[action, 1]
    strength = tables.diversity[tables.parts_a[action, 2]]
    exploration = tables.exploration[tables.parts_a[action, 3]]
    segment, key, step = state.segment[e], state.key[e], state.step[e]
    day = int(state.clock[e] // 24.0) % constants.lifetime_days
    mean, direction = scratch.sample[slot], scratch.direction[slot]
    total, length = believe(tables.prior_sk[segment], state.evidence[e], mean, direction)
    if tables.rule_r[strategy] == _DEMOGRAPHIC:
        # All that counts is the segment, whatever the user has done.
        for k in range(len(mean)):
            scratch.linear[slot, k] = _ZERO
        total, length = believe(tables.prior_sk[segment], scratch.linear[slot], mean, direction)
    taste = direction
    if exploration in (_THOMPSON, _TOP_TWO):
        normals(key, step, streams.TASTE, len(mean), scratch.normal[slot])
        taste = scratch.other[slot]
        sample_taste(mean, total, length, scratch.normal[slot], taste)
    _retrieve(state, constants, tables, scratch, slot, e, phase, day, strategy, exploration, total, length, taste)

    chosen, local, relevance = scratch.chosen[slot], scratch.local[slot], scratch.relevance[slot]
    second, use_second = scratch.second[slot], scratch.use_second[slot]
    gather(chosen, tables.vectors_ik, local)
    if preset == 0:
        match, quality = tables.match_r[strategy], tables.quality_r[strategy]
        for j in range(len(chosen)):
            relevance[j] = scratch.score[slot, chosen[j]]
    else:
        match, quality = tables.match_m[preset - 1], tables.quality_m[preset - 1]
        linear = scratch.linear[slot]
        for k in range(len(linear)):
            linear[k] = match * taste[k] + tables.trend_m[preset - 1] * state.measured[e, k]
        price = tables.price_m[preset - 1] * tables.sensitivity_s[segment] * price_level(tables, state.stream_step[e])
        base = tables.ranking_pdmi[phase, day, preset - 1]
        rank(relevance, chosen, local, base, linear, quality, state.estimate[e], price, tables.dear_i)
    share = _ZERO
    if exploration >= _LINUCB and exploration != _THOMPSON:
        prior_i = tables.prior_pdi[phase, day]
        _explore(state, constants, scratch, slot, e, prior_i, exploration, match, quality, total, length, taste)
        if exploration == _TOP_TWO:
            share = constants.second_share
        elif exploration == _ACTIVE:
            share = constants.ask_share
        to_unit_range(second)
    else:
        for j in range(len(chosen)):
            second[j] = relevance[j]
    to_unit_range(relevance)
    for position in range(len(use_second)):
        use_second[position] = False
    if share > _ZERO:
        for block in range((len(use_second) + 3) // 4):
            coins = streams.draw(key, step, streams.COIN, block)
            for i in range(min(4, len(use_second) - 4 * block)):
                use_second[4 * block + i] = coins[i] < share

    taken, slate = scratch.taken[slot], scratch.slate[slot]
    if strength < _ZERO:
        determinantal(
            relevance,
            second,
            use_second,
            local,
            constants.determinant_trust,
            scratch.factor[slot],
            scratch.nearest[slot],
            scratch.gain[slot],
            taken,
        )
    else:
        marginal_relevance(
            relevance, second, use_second, local, strength, scratch.nearest[slot], scratch.gain[slot], taken
        )
    for position in range(len(slate)):
        slate[position] = chosen[taken[position]]
    if exploration == _UNIFORM:
        _replace(state, constants, e, slate)
