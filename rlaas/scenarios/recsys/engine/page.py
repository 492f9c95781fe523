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
from numpy.typing import NDArray

from rlaas.scenarios.compiled import inner
from rlaas.scenarios.recsys.engine import streams
from rlaas.scenarios.recsys.engine.diversity import OUT, determinantal, first_largest, marginal_relevance
from rlaas.scenarios.recsys.engine.evolution import calendar, price_level
from rlaas.scenarios.recsys.engine.ranking import believe, gather, rank, sample_taste, to_unit_range, uncertain
from rlaas.scenarios.recsys.engine.retrieval import HIDDEN, add_linear, collaborate, neighbours, select, spread_of
from rlaas.scenarios.recsys.engine.state import ESTIMATE, EVIDENCE, MEASURED, PRECISION, SHOWN, Scratch, State
from rlaas.scenarios.recsys.engine.tables import (
    BY_TOPIC,
    EXPLORATIONS,
    KNOWN,
    PRIOR,
    PRIOR_TASTE,
    RULES,
    STRATEGIES,
    Tables,
)

__all__ = ["DIRECTION", "LINEAR", "MEAN", "OTHER", "SAMPLE", "build_slate", "in_set"]

Array = NDArray[Any]

_UNIFORM, _LINUCB, _THOMPSON, _BERNOULLI, _TOP_TWO, _ACTIVE = (
    EXPLORATIONS.index(name) for name in ("uniform", "linucb", "thompson", "bernoulli", "top_two", "active")
)
_DEMOGRAPHIC, _COLLABORATIVE, _NEIGHBOURS = (
    RULES.index(name) for name in ("demographic", "collaborative", "neighbours")
)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

MEAN, DIRECTION, LINEAR, SAMPLE, OTHER = range(5)
"""Rows of ``Scratch.topics``: mean of the believed taste, the same with unit length, weights of a score, samples."""

_SCORE, _SPREAD, _BOUND, _WORK, _PRIOR, _PRECISION = range(6)  # rows of Scratch.items
_RELEVANCE, _SECOND, _DEVIATION, _NEAREST, _GAIN = range(5)  # rows of Scratch.short


@inner
def in_set(words: Array, item: int) -> bool:
    """Whether a bitset holds the item."""
    return bool((words[item >> 6] >> np.uint64(item & 63)) & np.uint64(1))


@inner
def _replace(state: State, tables: Tables, e: int, slate: Array) -> None:
    """Uniform exploration: an item that is in the slate or was shown in this session replaces nothing."""
    items, stream, rate = state.by_item.shape[2], state.streams[e], tables.constants[0].uniform_rate
    for block in range((len(slate) + 3) // 4):
        coins = streams.draw(stream.key, stream.step, streams.COIN, block)
        tickets = streams.draw(stream.key, stream.step, streams.TICKET, block)
        for i in range(4):
            position = 4 * block + i
            if position >= len(slate) or coins[i] >= rate:
                continue
            item = min(int(tickets[i] * np.float32(items)), items - 1)
            if in_set(state.sets[e, SHOWN], item):
                continue
            known = False
            for other in slate:
                known |= other == item
            if not known:
                slate[position] = item


@inner
def _retrieve(
    state: State,
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
    """Fill ``scratch.chosen`` with the best items, and the relevance with their scores."""
    chosen_by, stream, items = tables.strategies[strategy], state.streams[e], scratch.items[slot]
    linear, daily, by_item = scratch.topics[slot, LINEAR], tables.daily[phase, day], state.by_item[e]
    match, quality, listed = chosen_by.match, chosen_by.quality, chosen_by.listed
    for k in range(len(linear)):
        linear[k] = match * taste[k] + chosen_by.trend * state.by_topic[e, MEASURED, k]
    base, estimate, score = daily[STRATEGIES + strategy], by_item[ESTIMATE], items[_SCORE]
    prior, precision, vectors = daily[PRIOR], by_item[PRECISION], tables.vectors_ki
    key = day
    if listed == BY_TOPIC:
        key = first_largest(scratch.topics[slot, MEAN])
    if listed:
        vectors = tables.candidate_vectors[phase, strategy, key]
        for place in range(vectors.shape[1]):
            item = tables.candidates[phase, strategy, key, place]
            score[place] = base[item] + quality * estimate[item]
    else:
        for i in range(len(base)):
            score[i] = base[i] + quality * estimate[i]
    n = vectors.shape[1]
    add_linear(score, linear, vectors)
    if chosen_by.rule == _COLLABORATIVE:
        collaborate(
            score,
            chosen_by.collaborative,
            tables.factors,
            tables.gram,
            tables.constants[0].fold_in,
            daily[KNOWN],
            stream.recent,
            stream.recent_count,
            scratch.matrix[slot],
            scratch.rest[slot],
            items[_SPREAD:],
        )
    elif chosen_by.rule == _NEIGHBOURS:
        similar, weight = tables.neighbours, chosen_by.collaborative
        neighbours(score, weight, similar, daily[KNOWN], stream.recent, stream.recent_count)
    wanted = score
    if exploration >= _LINUCB and exploration != _THOMPSON:
        user = _ZERO if exploration == _BERNOULLI else match * match / ((total + _ONE) * length * length)
        wanted, spread, width = items[_BOUND], items[_SPREAD], tables.constants[0].bound_width
        if listed:
            for place in range(n):
                item = tables.candidates[phase, strategy, key, place]
                items[_PRIOR, place] = prior[item]
                items[_PRECISION, place] = precision[item]
            prior, precision = items[_PRIOR], items[_PRECISION]
        mean, work = scratch.topics[slot, MEAN], items[_BOUND : _WORK + 1]
        spread_of(spread, work, vectors, mean, user, quality * quality, prior, precision)
        for i in range(n):
            wanted[i] = score[i] + width * spread[i]
    for number in range(stream.shown_count):
        item = state.shown_items[e, number]
        place = tables.places[phase, strategy, key, item] if listed else item
        if place >= 0:
            wanted[place] = HIDDEN
    room = n if listed else len(wanted)
    for i in range(n, room):
        wanted[i] = HIDDEN
    chosen, relevance = scratch.chosen[slot], scratch.short[slot, _RELEVANCE]
    select(wanted[:room], scratch.best[slot], scratch.found[slot], chosen)
    for j in range(len(chosen)):
        relevance[j] = score[chosen[j]]
        if listed:
            chosen[j] = tables.candidates[phase, strategy, key, chosen[j]]


@inner
def _explore(
    state: State,
    tables: Tables,
    scratch: Scratch,
    slot: int,
    e: int,
    prior: Array,
    exploration: int,
    match: np.float32,
    quality: np.float32,
    total: np.float32,
    length: np.float32,
) -> None:
    """Turn means in the relevance into bounds or samples, and make the second opinion."""
    stream, short, topics = state.streams[e], scratch.short[slot], scratch.topics[slot]
    key, step = stream.key, stream.step
    relevance, second, deviation = short[_RELEVANCE], short[_SECOND], short[_DEVIATION]
    chosen, local, mean = scratch.chosen[slot], scratch.local[slot], topics[MEAN]
    normal, precision = scratch.normal[slot], state.by_item[e, PRECISION]
    user = match * match / ((total + _ONE) * length * length)
    if exploration in (_BERNOULLI, _TOP_TWO):
        user = _ZERO
    uncertain(deviation, short[_GAIN], chosen, local, mean, user, quality * quality, prior, precision)
    n = len(chosen)
    if exploration == _LINUCB:
        width = tables.constants[0].bound_width
        for j in range(n):
            relevance[j] += width * deviation[j]
    elif exploration == _BERNOULLI:
        streams.normals(key, step, streams.ITEM, n, normal)
        for j in range(n):
            relevance[j] += deviation[j] * normal[j]
    elif exploration == _TOP_TWO:
        sample, linear = topics[SAMPLE], topics[LINEAR]
        streams.normals(key, step, streams.TASTE_AGAIN, len(mean), normal)
        sample_taste(mean, total, length, normal, topics[OTHER])
        # Scores are linear in the taste: the second sample differs by the difference of the tastes.
        for k in range(len(mean)):
            linear[k] = match * (topics[OTHER, k] - sample[k])
        for j in range(n):
            second[j] = relevance[j]
        add_linear(second, linear, local)
        streams.normals(key, step, streams.ITEM, n, normal)
        for j in range(n):
            relevance[j] += deviation[j] * normal[j]
        streams.normals(key, step, streams.ITEM_AGAIN, n, normal)
        for j in range(n):
            second[j] += deviation[j] * normal[j]
    else:
        for j in range(n):
            second[j] = deviation[j]


@inner
def build_slate(state: State, tables: Tables, scratch: Scratch, slot: int, e: int, action: int, phase: int) -> None:
    """Retrieve, rank, explore, diversify: ten distinct items not shown in this session, into ``scratch.slate``."""
    strategy, preset = tables.parts[action, 0], tables.parts[action, 1]
    strength = tables.diversity[tables.parts[action, 2]]
    exploration = tables.exploration[tables.parts[action, 3]]
    constants, stream, by_topic = tables.constants[0], state.streams[e], state.by_topic[e]
    key, step, segment = stream.key, stream.step, stream.segment
    day, _ = calendar(stream.clock, constants.lifetime_days)
    daily, topics = tables.daily[phase, day], scratch.topics[slot]
    mean, taste = topics[MEAN], topics[DIRECTION]
    # Where all that counts is the segment, what the user has done has no share in the belief.
    share = _ZERO if tables.strategies[strategy].rule == _DEMOGRAPHIC else _ONE
    prior = tables.interests[PRIOR_TASTE, segment]
    total, length = believe(prior, by_topic[EVIDENCE], share, mean, taste)
    if exploration in (_THOMPSON, _TOP_TWO):
        streams.normals(key, step, streams.TASTE, len(mean), scratch.normal[slot])
        taste = topics[SAMPLE]
        sample_taste(mean, total, length, scratch.normal[slot], taste)
    _retrieve(state, tables, scratch, slot, e, phase, day, strategy, exploration, total, length, taste)

    chosen, local, short = scratch.chosen[slot], scratch.local[slot], scratch.short[slot]
    relevance, second, count = short[_RELEVANCE], short[_SECOND], len(scratch.chosen[slot])
    gather(chosen, tables.vectors_ik, local)
    if preset == 0:
        match, quality = tables.strategies[strategy].match, tables.strategies[strategy].quality
    else:
        rule, linear = tables.presets[preset - 1], topics[LINEAR]
        match, quality = rule.match, rule.quality
        for k in range(len(linear)):
            linear[k] = match * taste[k] + rule.trend * by_topic[MEASURED, k]
        price = rule.price * tables.segments[segment].sensitivity * price_level(tables, stream.stream_step)
        base = daily[STRATEGIES + len(tables.strategies) + preset - 1]
        rank(relevance, chosen, local, base, linear, quality, state.by_item[e, ESTIMATE], price, tables.dear)
    share = _ZERO
    if exploration >= _LINUCB and exploration != _THOMPSON:
        _explore(state, tables, scratch, slot, e, daily[PRIOR], exploration, match, quality, total, length)
        if exploration == _TOP_TWO:
            share = constants.second_share
        elif exploration == _ACTIVE:
            share = constants.ask_share
    to_unit_range(relevance, count, OUT)
    use_second = scratch.slate[slot, 2]
    for position in range(len(use_second)):
        use_second[position] = 0
    if share > _ZERO:
        to_unit_range(second, count, OUT)
        for block in range((len(use_second) + 3) // 4):
            coins = streams.draw(key, step, streams.COIN, block)
            for i in range(min(4, len(use_second) - 4 * block)):
                use_second[4 * block + i] = 1 if coins[i] < share else 0
    else:
        for j in range(len(second)):
            second[j] = relevance[j]

    slate, taken = scratch.slate[slot, 0], scratch.slate[slot, 1]
    if strength < _ZERO:
        trust = constants.determinant_trust
        determinantal(
            relevance, second, use_second, local, trust, scratch.factor[slot], short[_NEAREST], short[_GAIN], taken
        )
    else:
        marginal_relevance(relevance, second, use_second, local, strength, short[_NEAREST], short[_GAIN], taken)
    for position in range(len(slate)):
        slate[position] = chosen[taken[position]]
    if exploration == _UNIFORM:
        _replace(state, tables, e, slate)
