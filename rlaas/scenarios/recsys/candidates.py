"""Candidate lists made beforehand, so that a page scores some hundred items instead of the whole catalogue.

A list holds the items that were most often among the best for simulated believed tastes, as many of the best as a
session may come to. For each retrieval strategy
there is a list for each day of the catalogue's life, or one for each topic that a user may like best, whichever held
more of the best items in the simulation: what is popular, new or cheap depends on the day, what matches on the user.

Measured with the default options, where a list holds 384 of 1,000 items: over 2,000 states met under random actions,
the list of popularity held 98 % of the 50 best items that full scoring finds, those of the other listed strategies more
than 99.8 %. Clicks per impression changed by -0.6 to +0.6 % in seven strategies (10 seeds of 19,200 steps, 95 %
half-widths 0.3 to 1.8 %; ``python -m benchmarks.scenarios_recsys`` repeats this), none of it significant. Diversity and
cost are not untouched: popularity became 2.4 % less diverse and 1.6 % dearer, Thompson sampling 5 % more diverse, as a
list follows the believed taste and not the sampled one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import SEGMENTS, Reference

__all__ = ["Candidates", "candidates_of", "no_candidates"]

_LISTED = ("linear", "demographic")
"""Rules whose lists can be made beforehand: the others go by what a user clicked."""

_SAMPLES = 192
_CLICKS = 8.0
_RESERVE = 1.5
_WORD = 64

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Lists by phase, strategy and key, which is a day or a topic.

    Attributes:
        listed: by strategy: 0 for none (the whole catalogue), 1 for a list by day, 2 for one by topic.
        items: items of each list [phases, strategies, keys, candidates].
        places: where each item is in a list, or -1 [phases, strategies, keys, items].
        vectors: of the listed items [phases, strategies, keys, topics, candidates].
    """

    listed: IntArray
    items: NDArray[np.int16]
    places: NDArray[np.int16]
    vectors: NDArray[np.float32]


def no_candidates(strategies: int) -> Candidates:
    """No lists: the whole catalogue is scored."""
    return Candidates(
        listed=np.zeros(strategies, dtype=np.int64),
        items=np.zeros((1, 1, 1, 1), dtype=np.int16),
        places=np.zeros((1, 1, 1, 1), dtype=np.int16),
        vectors=np.zeros((1, 1, 1, 1, 1), dtype=np.float32),
    )


def candidates_of(
    reference: Reference,
    strategies: Sequence[Mapping[str, Any]],
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    prior: NDArray[np.float32],
    centre: NDArray[np.float32],
    *,
    room: int,
) -> Candidates:
    """The lists.

    Args:
        reference: how tastes and trends spread.
        strategies: retrieval strategies.
        scores: what an item's score owes to the day alone [phases, days, strategies, items].
        vectors: of the items [topics, items].
        prior: the platform's prior counts by segment [segments, topics].
        centre: logits of the mean taste by segment [segments, topics].
        room: how many of the best items a session may come to: those it may have shown already, and the shortlist.
            A list is half as long again.
    """
    phases, days, _, items = scores.shape
    topics = len(vectors)
    length = min(-(-int(_RESERVE * room) // _WORD) * _WORD, items)
    if length == items:
        return no_candidates(len(strategies))
    keys = max(days, topics)
    listed = np.zeros(len(strategies), dtype=np.int64)
    lists = np.zeros((phases, len(strategies), keys, length), dtype=np.int16)
    for r, strategy in enumerate(strategies):
        if strategy["rule"] not in _LISTED:
            continue
        rng = np.random.default_rng([reference.catalogue.seed, items, topics, 11, r])
        for phase in range(phases):
            found = _counts(reference, strategy, scores[phase, :, r], vectors, prior, centre, room, rng)
            by_day, by_topic = (_longest(counts, length) for counts in found)
            if phase == 0:
                listed[r] = 1 + int(_held(found[1], by_topic) > _held(found[0], by_day))
            chosen = by_topic if listed[r] == 2 else by_day
            lists[phase, r, : len(chosen)] = chosen
    places = np.full((phases, len(strategies), keys, items), -1, dtype=np.int16)
    np.put_along_axis(places, lists.astype(np.int64), np.arange(length, dtype=np.int16), axis=3)
    return Candidates(
        listed=listed,
        items=lists,
        places=places,
        vectors=np.ascontiguousarray(np.moveaxis(vectors[:, lists.astype(np.int64)], 0, 3)),
    )


def _counts(
    reference: Reference,
    strategy: Mapping[str, Any],
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    prior: NDArray[np.float32],
    centre: NDArray[np.float32],
    room: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each item was among the best, by day and by the topic believed to be liked best [keys, items]."""
    users, (topics, items) = reference.users, vectors.shape
    variance = users.trend_noise**2 + users.shock_probability / topics * users.shock_size**2
    trend_spread = np.sqrt(variance / (1.0 - users.trend_persistence**2))
    by_day, by_topic = np.zeros((len(scores), items)), np.zeros((topics, items))
    depth = min(room, items - 1)
    for day, base in enumerate(scores):
        segment = rng.choice(SEGMENTS, _SAMPLES, p=users.segment_shares)
        logits = centre[segment] + users.taste_spread * rng.standard_normal((_SAMPLES, topics))
        taste = np.exp(logits - logits.max(axis=1, keepdims=True))
        taste /= taste.sum(axis=1, keepdims=True)
        known = 0.0 if strategy["rule"] == "demographic" else rng.exponential(_CLICKS, (_SAMPLES, 1))
        believed = prior[segment] + known * taste
        believed /= np.linalg.norm(believed, axis=1, keepdims=True)
        trend = trend_spread * rng.standard_normal((_SAMPLES, topics))
        weights = strategy["match"] * believed + strategy["trend"] * trend
        # No matrix product: its rounding depends on the machine, and with it which of two equals is listed.
        score = base + np.einsum("sk,ki->si", weights.astype(np.float32), vectors)
        best = np.argpartition(-score, depth, axis=1)[:, :depth]
        by_day[day] = np.bincount(best.ravel(), minlength=items)
        liked = believed.argmax(axis=1)[:, None] * items
        by_topic += np.bincount((liked + best).ravel(), minlength=topics * items).reshape(topics, items)
        # Among equals, the item that does best at all.
        by_day[day] += 1e-6 * score.max(axis=0)
    return by_day, by_topic + 1e-6 * by_topic.sum(axis=0)


def _longest(counts: NDArray[np.float64], length: int) -> IntArray:
    """The items with the largest counts, in the order of the catalogue [keys, length]."""
    return np.sort(np.argsort(-counts, axis=1, kind="stable")[:, :length], axis=1)


def _held(counts: NDArray[np.float64], lists: IntArray) -> float:
    """Share of the best items that the lists hold."""
    return float(np.take_along_axis(counts, lists, axis=1).sum() / counts.sum())
