"""The arrays a step works on: state by environment, buffers by thread, what a step returns.

What belongs to one environment stands together, scalars in a record and vectors as rows of one array, so that a kernel
touches few cache lines and passes few pointers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import separate
from rlaas.scenarios.recsys.reference import SLATE

__all__ = [
    "COVERED",
    "ESTIMATE",
    "EVIDENCE",
    "EXPOSURE",
    "LOGITS",
    "MEASURED",
    "PRECISION",
    "RECENT",
    "SHOWN",
    "SPACING",
    "STREAM",
    "TASTE",
    "TREND",
    "WIDTH",
    "WORD",
    "Outputs",
    "Scratch",
    "State",
    "state_bytes",
]

RECENT = 8
"""Clicks of a user that collaborative retrieval looks at."""

WORD = 64
"""Items in a word of a bitset."""

WIDTH = 16
"""A slate's place in a buffer: its ten items and room that fills whole vectors."""

BY_TOPIC = ("logits", "taste", "trend", "exposure", "evidence", "measured")
LOGITS, TASTE, TREND, EXPOSURE, EVIDENCE, MEASURED = range(6)
"""Rows of ``State.by_topic``: hidden interests as logits and as topic shares; trends; decayed mean vector of what was
shown; decayed topic counts of clicks and orders; trends as the platform measures them."""

BY_ITEM = ("estimate", "precision")
ESTIMATE, PRECISION = range(2)
"""Rows of ``State.by_item``: what feedback adds to the platform's idea of an item's quality; the information behind it,
that of the prior not included."""

SETS = ("shown", "covered")
SHOWN, COVERED = range(2)
"""Rows of ``State.sets``: items shown in the session, and in the window of coverage."""

Array = NDArray[Any]

STREAM = np.dtype(
    [
        ("key", "u8"),  # of the random numbers
        ("clock", "f8"),  # hours
        ("step", "i8"),  # of the random numbers; counts for ever, a reset without a seed included
        ("stream_step", "i8"),  # since the last reset; events are scheduled by it
        ("user", "i8"),  # running number
        ("visits", "i4"),  # sessions of the user, this one included
        ("segment", "i4"),
        ("page", "i4"),  # pages shown in the session
        ("shown_count", "i4"),  # items shown in the session
        ("window_page", "i4"),  # pages in the window of coverage
        ("recent_count", "i4"),  # clicks that went into ``recent``
        ("sensitivity", "f4"),  # hidden: to prices
        ("satisfaction", "f4"),  # hidden
        ("patience", "f4"),  # hidden: pages left
        ("clicks", "f4"),  # of the session, as the rest
        ("orders", "f4"),
        ("last_click", "f4"),
        ("last_order", "f4"),
        ("idle", "f4"),  # pages since a click
        ("price_level", "f4"),  # of the user's clicks
        ("last_diversity", "f4"),
        ("mobile", "u1"),
        ("ended", "u1"),  # in the last step
        ("recent", "i2", (RECENT,)),  # the user's last clicks, a ring
    ],
    align=True,
)

# Rows of working memory per thread, of which the first is used: neighbours would share cache lines with each other.
SPACING = 4


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


class State(NamedTuple):
    """Everything the next steps depend on, one row per environment.

    Attributes:
        streams: records, see :data:`STREAM` [n].
        by_topic: see :data:`LOGITS` [n, 6, topics].
        by_item: see :data:`ESTIMATE` [n, 2, items].
        sets: bitsets, see :data:`SHOWN` [n, 2, words].
        shown_items: items shown in the session, in order [n, slate * pages].
        pending: by page of the session modulo the window: the item that will be ordered or -1, and on which page
            [n, attribution_pages + 1, 2].
    """

    streams: Array
    by_topic: Array
    by_item: Array
    sets: Array
    shown_items: Array
    pending: Array

    @classmethod
    def empty(cls, environments: int, *, items: int, topics: int, episode_steps: int, attribution_pages: int) -> State:
        """State of ``environments`` environments before their first reset."""
        n = environments
        return cls(
            streams=separate(n, STREAM),
            by_topic=separate((n, len(BY_TOPIC), topics), np.float32),
            by_item=separate((n, len(BY_ITEM), items), np.float32),
            sets=separate((n, len(SETS), -(-items // WORD)), np.uint64),
            shown_items=separate((n, SLATE * episode_steps), np.int16),
            pending=separate((n, attribution_pages + 1, 2), np.int16, -1),
        )

    def views(self) -> dict[str, Array]:
        """Every quantity by its name, one row per environment, as views."""
        views: dict[str, Array] = {name: self.streams[name] for name in STREAM.names or ()}
        views |= {name: self.by_topic[:, row] for row, name in enumerate(BY_TOPIC)}
        views |= {name: self.by_item[:, row] for row, name in enumerate(BY_ITEM)}
        views |= {name: self.sets[:, row] for row, name in enumerate(SETS)}
        return views | {"shown_items": self.shown_items, "pending": self.pending}


def state_bytes(state: State) -> int:
    """Bytes per environment."""
    return sum(array.nbytes for array in state) // len(state.streams)


class Outputs(NamedTuple):
    """What a step returns, one row per environment; see :class:`RecommenderVectorEnv`.

    The last two are for pictures: utilities and click probabilities of the page [n, 2, slate], and the patience before
    the session and after each of its pages [n, pages + 1].
    """

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
    page: Array
    patience: Array

    @classmethod
    def empty(cls, environments: int, *, features: int, objectives: int, parts: int, episode_steps: int) -> Outputs:
        """Buffers for ``environments`` environments."""
        n = environments
        return cls(
            observation=separate((n, features), np.float32),
            reward=separate((n, objectives)),
            terminated=separate(n, np.bool_),
            truncated=separate(n, np.bool_),
            numerators=separate((n, parts)),
            denominators=separate((n, parts)),
            slate=separate((n, SLATE), np.int64, -1),
            click=separate(n, np.int64, -1),
            order=separate(n, np.bool_),
            user=separate(n, np.int64),
            session=separate(n, np.int64),
            day=separate(n, np.int64),
            page=separate((n, 2, SLATE), np.float32),
            patience=separate((n, episode_steps + 1), np.float32),
        )


class Scratch(NamedTuple):
    """Working memory of one thread; nothing in it outlives a step. First axis: threads.

    Attributes:
        items: scores and more of the items that are scored, see ``page`` [6, items and room].
        best: largest score of four items, then the scores found [2, items and room].
        found: columns, then items that may be among the best [2, items and room].
        chosen: the shortlist [shortlist].
        short: of the shortlist, see ``page`` [5, shortlist and room].
        local: its vectors [topics, shortlist and room].
        factor: rows of the Cholesky factor of the DPP [SLATE, shortlist and room].
        topics: by topic, see ``page`` [5, topics].
        normal: standard normal numbers, enough for topics or a shortlist.
        matrix: of the fold-in [factors, factors]; rest: its right side and answer [2, factors].
        page: see ``response`` [8, WIDTH].
        page_vectors: of the slate's items [topics, WIDTH].
        slate: items, their columns, and where the second opinion decides [3, SLATE].
    """

    items: Array
    best: Array
    found: Array
    chosen: Array
    short: Array
    local: Array
    factor: Array
    topics: Array
    normal: Array
    matrix: Array
    rest: Array
    page: Array
    page_vectors: Array
    slate: Array

    @classmethod
    def empty(cls, workers: int, *, items: int, topics: int, shortlist: int, factors: int) -> Scratch:
        """Buffers for threads that step environments side by side."""
        threads = workers * SPACING
        # Whole vectors, so that loops have no remainder.
        wide, short = _up(items, 4 * WORD), _up(shortlist, WORD)

        def real(*shape: int) -> Array:
            return separate((threads, *shape), np.float32)

        return cls(
            items=real(6, wide),
            best=real(2, wide),
            found=separate((threads, 2, wide + 1), np.int32),
            chosen=separate((threads, shortlist), np.int32),
            short=real(5, short),
            local=real(topics, short),
            factor=real(SLATE, short),
            topics=real(5, topics),
            normal=real(max(topics, shortlist) + 4),
            matrix=real(factors, factors),
            rest=real(2, factors),
            page=real(8, WIDTH),
            page_vectors=real(topics, WIDTH),
            slate=separate((threads, 3, SLATE), np.int64),
        )
