"""The arrays a step works on: constants and tables shared by all environments, state by environment, buffers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import SLATE

__all__ = ["RECENT", "WORD", "Outputs", "Scratch", "State", "state_bytes"]

RECENT = 8
"""Clicks of a user that collaborative retrieval looks at."""

WORD = 64
"""Items in a word of a bitset."""

Array = NDArray[Any]

# Rows of working memory per thread, of which the first is used: neighbours would share cache lines with each other.
_SPACING = 16


class State(NamedTuple):
    """Everything the next steps depend on, one row per environment.

    Attributes:
        key, step: of the random numbers; ``step`` counts for ever, a reset without a seed included.
        stream_step: steps since the last reset, by which events are scheduled.
        user, visits, segment, mobile, clock: who is there, and when (hours).
        logits, taste: hidden interests as logits and as topic shares [n, topics].
        trend: of topics [n, topics].
        sensitivity, satisfaction, patience: hidden, of the user [n].
        pending: orders that will be placed so many pages from now, a ring [n, attribution_pages + 1].
        page, clicks, orders, last_click, last_order, idle, price_level, last_diversity: of the session [n].
        exposure: decayed mean vector of what was shown [n, topics].
        evidence: decayed topic counts of clicks and orders [n, topics].
        measured: trends as the platform measures them [n, topics].
        shown, shown_items, shown_count: items shown in the session, as a bitset and as a list.
        covered, window_page: items shown in the window of coverage, a bitset, and the pages of that window.
        recent, recent_count: the user's last clicks, a ring [n, RECENT].
        estimate: what feedback adds to the platform's idea of an item's quality [n, items].
        precision: the information behind it, that of the prior not included [n, items].
        ended: the session ended in the last step [n].
    """

    key: Array
    step: Array
    stream_step: Array
    user: Array
    visits: Array
    segment: Array
    mobile: Array
    clock: Array
    logits: Array
    taste: Array
    trend: Array
    sensitivity: Array
    satisfaction: Array
    patience: Array
    pending: Array
    page: Array
    clicks: Array
    orders: Array
    last_click: Array
    last_order: Array
    idle: Array
    price_level: Array
    last_diversity: Array
    exposure: Array
    evidence: Array
    measured: Array
    shown: Array
    shown_items: Array
    shown_count: Array
    covered: Array
    window_page: Array
    recent: Array
    recent_count: Array
    estimate: Array
    precision: Array
    ended: Array

    @classmethod
    def empty(cls, environments: int, *, items: int, topics: int, episode_steps: int, attribution_pages: int) -> State:
        """State of ``environments`` environments before their first reset."""
        n, words = environments, -(-items // WORD)
        whole, real = np.int32, np.float32
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "key": (np.uint64, ()),
            "clock": (np.float64, ()),
            "mobile": (np.bool_, ()),
            "ended": (np.bool_, ()),
            "pending": (np.int8, (attribution_pages + 1,)),
            "shown": (np.uint64, (words,)),
            "shown_items": (np.int16, (SLATE * episode_steps,)),
            "covered": (np.uint64, (words,)),
            "recent": (np.int16, (RECENT,)),
            "estimate": (real, (items,)),
            "precision": (real, (items,)),
        }
        shapes |= dict.fromkeys(("step", "stream_step", "user"), (np.int64, ()))
        shapes |= dict.fromkeys(
            ("visits", "segment", "page", "shown_count", "window_page", "recent_count"), (whole, ())
        )
        by_topic = ("logits", "taste", "trend", "exposure", "evidence", "measured")
        shapes |= dict.fromkeys(by_topic, (real, (topics,)))
        arrays = {}
        for name in cls._fields:
            kind, shape = shapes.get(name, (real, ()))
            arrays[name] = np.zeros((n, *shape), dtype=kind)
        return cls(**arrays)


def state_bytes(state: State) -> int:
    """Bytes per environment."""
    return sum(array.nbytes for array in state) // len(state.key)


class Outputs(NamedTuple):
    """What a step returns, one row per environment; see :class:`RecommenderVectorEnv`."""

    observation: Array
    reward: Array
    terminated: Array
    truncated: Array
    numerators: Array
    denominators: Array
    slate: Array
    click: Array
    order: Array
    user: Array
    session: Array
    day: Array

    @classmethod
    def empty(cls, environments: int, *, features: int, objectives: int, parts: int) -> Outputs:
        """Buffers for ``environments`` environments."""
        n = environments
        return cls(
            observation=np.zeros((n, features), dtype=np.float32),
            reward=np.zeros((n, objectives)),
            terminated=np.zeros(n, dtype=np.bool_),
            truncated=np.zeros(n, dtype=np.bool_),
            numerators=np.zeros((n, parts)),
            denominators=np.zeros((n, parts)),
            slate=np.full((n, SLATE), -1, dtype=np.int64),
            click=np.full(n, -1, dtype=np.int64),
            order=np.zeros(n, dtype=np.bool_),
            user=np.zeros(n, dtype=np.int64),
            session=np.zeros(n, dtype=np.int64),
            day=np.zeros(n, dtype=np.int64),
        )


class Scratch(NamedTuple):
    """Working memory of one thread; nothing in it outlives a step.

    Attributes:
        slot: row of the others that belongs to a chunk, by its first environment [n].
        score, spread, bound: of all items [threads, items].
        found: items that may be among the best [threads, items + 1].
        chosen: the shortlist [threads, shortlist].
        local: its vectors [threads, topics, shortlist].
        relevance, second, deviation, nearest, gain: of the shortlist [threads, shortlist].
        factor: rows of the Cholesky factor of the DPP [threads, SLATE, shortlist].
        linear, direction, sample, other: by topic [threads, topics].
        normal: standard normal numbers, enough for topics or a shortlist [threads, ...].
        matrix: of the fold-in [threads, factors, factors].
        rest: the right side and the answer of the fold-in [threads, 2, factors].
        page: utilities, probabilities, matches, burdens, believed utilities and probabilities [threads, 6, SLATE].
        slate, taken, use_second: the items, their columns, and where the second opinion decides [threads, SLATE].
    """

    slot: Array
    score: Array
    spread: Array
    bound: Array
    found: Array
    chosen: Array
    local: Array
    relevance: Array
    second: Array
    deviation: Array
    nearest: Array
    gain: Array
    factor: Array
    linear: Array
    direction: Array
    sample: Array
    other: Array
    normal: Array
    matrix: Array
    rest: Array
    page: Array
    slate: Array
    taken: Array
    use_second: Array

    @classmethod
    def empty(
        cls, chunks: tuple[tuple[int, int], ...], *, items: int, topics: int, shortlist: int, factors: int
    ) -> Scratch:
        """Buffers for the chunks of environments that run side by side."""
        threads = len(chunks) * _SPACING
        slot = np.zeros(chunks[-1][1], dtype=np.int64)
        for number, (first, _) in enumerate(chunks):
            slot[first] = number * _SPACING

        def real(*shape: int) -> Array:
            return np.zeros((threads, *shape), dtype=np.float32)

        return cls(
            slot=slot,
            score=real(items),
            spread=real(items),
            bound=real(items),
            found=np.zeros((threads, items + 1), dtype=np.int32),
            chosen=np.zeros((threads, shortlist), dtype=np.int32),
            local=real(topics, shortlist),
            relevance=real(shortlist),
            second=real(shortlist),
            deviation=real(shortlist),
            nearest=real(shortlist),
            gain=real(shortlist),
            factor=real(SLATE, shortlist),
            linear=real(topics),
            direction=real(topics),
            sample=real(topics),
            other=real(topics),
            normal=real(max(topics, shortlist) + 4),
            matrix=real(factors, factors),
            rest=real(2, factors),
            page=real(6, SLATE),
            slate=np.zeros((threads, SLATE), dtype=np.int64),
            taken=np.zeros((threads, SLATE), dtype=np.int64),
            use_second=np.zeros((threads, SLATE), dtype=np.bool_),
        )
