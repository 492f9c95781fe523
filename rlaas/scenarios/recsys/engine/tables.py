"""What all environments share and nothing changes: constants as float32, tables by item, day and action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.candidates import candidates_of, no_candidates
from rlaas.scenarios.recsys.reference import SLATE

if TYPE_CHECKING:
    from rlaas.objectives import Objective
    from rlaas.scenarios.recsys.catalogue import Catalogue
    from rlaas.scenarios.recsys.collaborative import Collaborative
    from rlaas.scenarios.recsys.events import Schedule
    from rlaas.scenarios.recsys.reference import CalibratedConstants, Reference

__all__ = [
    "BY_TOPIC",
    "CENTRE",
    "CHEAP",
    "CONSTANTS",
    "CONTENT",
    "EXPLORATIONS",
    "FRESH",
    "FRESHNESS",
    "KNOWN",
    "OBSERVED",
    "OWN",
    "POPULAR",
    "PRIOR",
    "PRIOR_TASTE",
    "RULES",
    "STRATEGIES",
    "Tables",
    "constants_of",
    "tables_of",
]

Array = NDArray[Any]

RULES = ("linear", "demographic", "collaborative", "neighbours")
"""How a retrieval strategy scores the user's part."""

EXPLORATIONS = ("none", "uniform", "linucb", "thompson", "bernoulli", "top_two", "active")
"""What a page does to learn; see :mod:`rlaas.scenarios.recsys.engine.page`."""


_REAL = (
    *("choice_match", "choice_quality", "choice_freshness", "choice_trend", "choice_price", "choice_satiation"),
    *("satiation_memory", "exit_utility", "evening", "evening_peak_hour"),
    *("order_intercept", "order_match", "order_quality", "order_price", "order_delay"),
    *("satisfaction_memory", "satisfaction_start"),
    *("satisfaction_base", "satisfaction_match", "satisfaction_quality", "satisfaction_price"),
    *("page_cost", "click_relief", "boredom", "returning_patience_base", "returning_patience_satisfaction"),
    *("return_intercept", "return_satisfaction", "return_gap_hours", "arrival_gap_hours"),
    *("taste_spread", "page_drift", "session_drift", "click_reinforcement", "mobile_share"),
    *("trend_persistence", "trend_noise", "shock_probability", "shock_size"),
    *("prior_strength", "click_evidence", "order_evidence", "evidence_memory", "trend_lag"),
    *("bound_width", "uniform_rate", "second_share", "ask_share", "fold_in", "determinant_trust"),
)
_WHOLE = (
    *("sensitivity_shape", "patience_shape", "coverage_pages", "lifetime_days"),
    *("episode_steps", "attribution_pages"),
)
CONSTANTS = np.dtype(
    [*((name, "f4") for name in _REAL), *((name, "i8") for name in _WHOLE), ("expected", "u1")], align=True
)
"""Numbers of the reference that a step needs, by the reference's names where it has them."""

STRATEGY = np.dtype(
    [
        ("rule", "i8"),  # index in RULES
        ("listed", "i8"),  # 0 scores all items; 1 those of a list by day, 2 by the topic liked best
        ("match", "f4"),
        ("trend", "f4"),
        ("quality", "f4"),
        ("collaborative", "f4"),
        ("cost", "f8"),  # EUR per 1,000 impressions
    ],
    align=True,
)
BY_TOPIC = 2
"""Value of ``listed`` for a list by topic."""

PRESET = np.dtype([("match", "f4"), ("trend", "f4"), ("quality", "f4"), ("price", "f4")], align=True)
SEGMENT = np.dtype([("sensitivity", "f4"), ("patience", "f4"), ("edge", "f4")], align=True)
"""``edge`` is the share of users in the segments up to this one."""

OBJECTIVE = np.dtype([("low", "f8"), ("span", "f8"), ("upward", "u1")], align=True)

FRESHNESS, OBSERVED, PRIOR, KNOWN, STRATEGIES = range(5)
"""Rows of ``Tables.daily``; a row for each retrieval strategy follows, then one for each ranking preset but the first.
"""

POPULAR, FRESH, CHEAP = range(3)
"""Rows of ``Tables.pools``."""

OWN, CONTENT = range(2)
"""Rows of ``Tables.factors``."""

CENTRE, PRIOR_TASTE = range(2)
"""Rows of ``Tables.interests``."""


class Tables(NamedTuple):
    """Items I, topics K, phases P of the schedule, days D, retrieval strategies R, ranking presets M, segments S.

    Attributes:
        constants: one record, see :data:`CONSTANTS`.
        strategies [R], presets [M - 1], segments [S], objectives [4]: records, see above. Preset 0 keeps the order of
            retrieval and has no record.
        parts: choices of each action [A, 4].
        diversity: strength of MMR, or -1 for the DPP.
        exploration: index in EXPLORATIONS.
        vectors_ik, vectors_ki, topics_ik: of the items.
        dear: price relative to the mean, minus 1 [I]; cost: EUR per 1,000 impressions [I].
        quality: what users feel [P, I].
        daily: what an item's score owes to the day alone [P, D, 4 + R + M - 1, I]; see :data:`FRESHNESS`. What depends
            on the price is not in it: the sensitivity of the segment is multiplied in by the step.
        born_start, born_items: items by the day on which they are new.
        factors [2, F, I], gram [F, F], neighbours [I, I]: see :class:`~rlaas.scenarios.recsys.collaborative`.
        interests: by segment, logits of the mean taste and the prior's counts [2, S, K].
        position: penalty of a position on a large screen and on a small one [2, slate].
        pools: mean vectors of the popular, fresh and cheap items [D, 3, K].
        shocks, prices, phase_from: see :class:`~rlaas.scenarios.recsys.events.Schedule`.
        levels: orders per click and clicks per page of the default baseline.
        candidates, places, candidate_vectors: see :class:`~rlaas.scenarios.recsys.candidates.Candidates`.
    """

    constants: Array
    strategies: Array
    presets: Array
    segments: Array
    objectives: Array
    parts: Array
    diversity: Array
    exploration: Array
    vectors_ik: Array
    vectors_ki: Array
    topics_ik: Array
    dear: Array
    cost: Array
    quality: Array
    daily: Array
    born_start: Array
    born_items: Array
    factors: Array
    gram: Array
    neighbours: Array
    interests: Array
    position: Array
    pools: Array
    shocks: Array
    prices: Array
    phase_from: Array
    levels: Array
    candidates: Array
    places: Array
    candidate_vectors: Array


def constants_of(
    reference: Reference, *, episode_steps: int, attribution_pages: int, expected: bool, exit_utility: float
) -> Array:
    """The constants a step needs, one record of :data:`CONSTANTS`."""
    c, v, x = reference.choice, reference.conversion, reference.actions.exploring
    values: dict[str, Any] = {
        "choice_match": c.match,
        "choice_quality": c.quality,
        "choice_freshness": c.freshness,
        "choice_trend": c.trend,
        "choice_price": c.price,
        "choice_satiation": c.satiation,
        "satiation_memory": c.satiation_memory,
        "exit_utility": exit_utility,
        "evening": c.evening,
        "evening_peak_hour": c.evening_peak_hour,
        "order_intercept": v.intercept,
        "order_match": v.match,
        "order_quality": v.quality,
        "order_price": v.price,
        "order_delay": v.delay,
        "bound_width": x["bound_width"],
        "uniform_rate": x["uniform_rate"],
        "second_share": x["second_share"],
        "ask_share": x["ask_share"],
        "fold_in": x["fold_in_confidence"],
        "determinant_trust": reference.actions.determinant_trust,
        "sensitivity_shape": reference.users.price_sensitivity_shape,
        "lifetime_days": reference.catalogue.lifetime_days,
        "episode_steps": episode_steps,
        "attribution_pages": attribution_pages,
        "expected": expected,
    }
    for section in (reference.session, reference.users, reference.platform):
        values |= {name: getattr(section, name) for name in CONSTANTS.names or () if hasattr(section, name)}
    record = np.zeros(1, dtype=CONSTANTS)
    for name in CONSTANTS.names or ():
        record[name] = values[name]
    return record


def _records(kind: np.dtype[Any], **columns: Any) -> Array:
    records = np.zeros(len(next(iter(columns.values()))), dtype=kind)
    for name, values in columns.items():
        records[name] = values
    return records


def tables_of(
    reference: Reference,
    catalogue: Catalogue,
    collaborative: Collaborative,
    schedule: Schedule,
    *,
    constants: Array,
    parts: NDArray[np.int64],
    calibrated: CalibratedConstants,
    objectives: Sequence[Objective],
    room: int,
) -> Tables:
    """The tables a step needs, float32 but for money and rewards.

    ``room`` is for :func:`~rlaas.scenarios.recsys.candidates.candidates_of`; 0 makes no lists.
    """
    cat, actions, users, choice = catalogue, reference.actions, reference.users, reference.choice
    worlds = [cat, *schedule.catalogues]

    def real(values: Any) -> Array:
        return np.ascontiguousarray(values, dtype=np.float32)

    strategies, presets = list(actions.retrieval.values()), list(actions.ranking.values())[1:]
    v = reference.conversion
    by_position = choice.position * np.log1p(np.arange(SLATE, dtype=np.float64))
    released = np.argsort(cat.release_i, kind="stable")
    daily = real([_daily(w, strategies, presets, reference) for w in worlds])
    interests = real([cat.segment_centre_sk, reference.platform.prior_strength * cat.segment_mean_sk])
    lists = no_candidates(len(strategies))
    if room:
        lists = candidates_of(
            reference,
            strategies,
            daily[:, :, STRATEGIES : STRATEGIES + len(strategies)],
            real(cat.vectors_ik.T),
            interests[PRIOR_TASTE],
            interests[CENTRE],
            room=room,
        )
    return Tables(
        constants=constants,
        strategies=_records(
            STRATEGY,
            rule=[RULES.index(s["rule"]) for s in strategies],
            listed=lists.listed,
            collaborative=[
                s["collaborative"] * (collaborative.scale if s["rule"] == "collaborative" else 1.0) for s in strategies
            ],
            **{name: [s[name] for s in strategies] for name in ("match", "trend", "quality", "cost")},
        ),
        presets=_records(
            PRESET,
            match=[m["click"] * choice.match + m["conversion"] * v.match for m in presets],
            trend=[m["click"] * choice.trend for m in presets],
            quality=[m["click"] * choice.quality + m["conversion"] * v.quality for m in presets],
            price=[m["click"] * choice.price + m["conversion"] * v.price for m in presets],
        ),
        segments=_records(
            SEGMENT,
            sensitivity=users.price_sensitivity,
            patience=users.patience_pages,
            edge=np.cumsum(users.segment_shares),
        ),
        objectives=_records(
            OBJECTIVE,
            low=[o.low for o in objectives],
            span=[o.high - o.low for o in objectives],
            upward=[o.direction == "maximize" for o in objectives],
        ),
        parts=parts,
        diversity=real([-1.0 if d == "dpp" else d for d in actions.diversity]),
        exploration=np.array([EXPLORATIONS.index(name) for name in actions.exploration], dtype=np.int64),
        vectors_ik=real(cat.vectors_ik),
        vectors_ki=real(cat.vectors_ik.T),
        topics_ik=real(cat.topics_ik),
        dear=real(cat.price_i - 1.0),
        cost=np.asarray(cat.cost_i, dtype=np.float64),
        quality=real([w.quality_i for w in worlds]),
        daily=daily,
        born_start=np.searchsorted(cat.release_i[released], np.arange(reference.catalogue.lifetime_days + 1)),
        born_items=released.astype(np.int64),
        factors=real([collaborative.factors_ki, collaborative.content_ki]),
        gram=real(collaborative.gram),
        neighbours=real(collaborative.neighbours_ii),
        interests=interests,
        position=real([by_position, choice.mobile_position * by_position]),
        pools=real(np.stack([cat.popular_dk, cat.fresh_dk, np.broadcast_to(cat.cheap_k, cat.fresh_dk.shape)], axis=1)),
        shocks=schedule.shocks,
        prices=schedule.prices,
        phase_from=schedule.phase_from_p,
        levels=np.array([calibrated.cvr0, calibrated.clicks_per_page]),
        candidates=lists.items,
        places=lists.places,
        candidate_vectors=lists.vectors,
    )


def _daily(
    world: Catalogue,
    strategies: Sequence[Mapping[str, Any]],
    presets: Sequence[Mapping[str, float]],
    reference: Reference,
) -> Array:
    """Rows of ``Tables.daily`` [D, rows, I]."""
    w, choice, conversion = world, reference.choice, reference.conversion
    margin = np.log(w.margin_i * w.price_i)
    retrieval = [
        s["popularity"] * w.popularity_di
        + s["quality"] * w.observed_quality_di
        + s["freshness"] * w.freshness_di
        - s["economy"] * w.log_cost_i
        for s in strategies
    ]
    ranking = [
        (m["click"] * choice.quality + m["conversion"] * conversion.quality) * w.observed_quality_di
        + m["click"] * choice.freshness * w.freshness_di
        + m["margin"] * margin
        - m["economy"] * w.log_cost_i
        for m in presets
    ]
    known = [w.freshness_di, w.observed_quality_di, w.quality_variance_di, w.known_di]
    return np.stack([*known, *retrieval, *ranking], axis=1)
