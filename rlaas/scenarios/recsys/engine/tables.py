"""What all environments share and nothing changes: constants as float32, tables by item, day and action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import SLATE

if TYPE_CHECKING:
    from rlaas.scenarios.recsys.catalogue import Catalogue
    from rlaas.scenarios.recsys.collaborative import Collaborative
    from rlaas.scenarios.recsys.events import Schedule
    from rlaas.scenarios.recsys.reference import CalibratedConstants, Reference

__all__ = ["EXPLORATIONS", "RULES", "Constants", "Tables", "constants_of", "tables_of"]

Array = NDArray[Any]

RULES = ("linear", "demographic", "collaborative", "neighbours")
"""How a retrieval strategy scores the user's part."""

EXPLORATIONS = ("none", "uniform", "linucb", "thompson", "bernoulli", "top_two", "active")
"""What a page does to learn; see :mod:`rlaas.scenarios.recsys.engine.page`."""


class Constants(NamedTuple):
    """Numbers of the reference that a step needs, by the reference's names where it has them."""

    choice_match: np.float32
    choice_quality: np.float32
    choice_freshness: np.float32
    choice_trend: np.float32
    choice_price: np.float32
    choice_satiation: np.float32
    satiation_memory: np.float32
    exit_utility: np.float32
    evening: np.float32
    evening_peak_hour: np.float32
    order_intercept: np.float32
    order_match: np.float32
    order_quality: np.float32
    order_price: np.float32
    order_delay: np.float32
    satisfaction_memory: np.float32
    satisfaction_start: np.float32
    satisfaction_base: np.float32
    satisfaction_match: np.float32
    satisfaction_quality: np.float32
    satisfaction_price: np.float32
    page_cost: np.float32
    click_relief: np.float32
    boredom: np.float32
    returning_patience_base: np.float32
    returning_patience_satisfaction: np.float32
    return_intercept: np.float32
    return_satisfaction: np.float32
    return_gap_hours: np.float32
    arrival_gap_hours: np.float32
    taste_spread: np.float32
    page_drift: np.float32
    session_drift: np.float32
    click_reinforcement: np.float32
    mobile_share: np.float32
    trend_persistence: np.float32
    trend_noise: np.float32
    shock_probability: np.float32
    shock_size: np.float32
    prior_strength: np.float32
    click_evidence: np.float32
    order_evidence: np.float32
    evidence_memory: np.float32
    trend_lag: np.float32
    bound_width: np.float32
    uniform_rate: np.float32
    second_share: np.float32
    ask_share: np.float32
    fold_in: np.float32
    determinant_trust: np.float32
    sensitivity_shape: np.int64
    patience_shape: np.int64
    coverage_pages: np.int64
    lifetime_days: np.int64
    episode_steps: np.int64
    attribution_pages: np.int64
    expected: np.bool_


class Tables(NamedTuple):
    """Items I, topics K, phases P of the schedule, days D, retrieval strategies R, ranking presets M, actions A.

    ``ranking`` is preset 1 and following: preset 0 keeps the order of retrieval. What depends on the price carries no
    user: the price sensitivity of the segment is multiplied in by the step.
    """

    vectors_ik: Array
    vectors_ki: Array
    squares_ki: Array
    topics_ik: Array
    quality_pi: Array
    dear_i: Array
    cost_i: Array
    freshness_pdi: Array
    observed_pdi: Array
    prior_pdi: Array
    known_pdi: Array
    born_start: Array
    born_items: Array
    retrieval_pdri: Array
    rule_r: Array
    match_r: Array
    trend_r: Array
    quality_r: Array
    collaborative_r: Array
    retrieval_cost_r: Array
    ranking_pdmi: Array
    match_m: Array
    trend_m: Array
    quality_m: Array
    price_m: Array
    parts_a: Array
    diversity: Array
    exploration: Array
    factors_ki: Array
    content_ki: Array
    gram: Array
    neighbours_ii: Array
    centre_sk: Array
    prior_sk: Array
    sensitivity_s: Array
    patience_s: Array
    segment_edge_s: Array
    position_j: Array
    popular_dk: Array
    fresh_dk: Array
    cheap_k: Array
    shocks: Array
    prices: Array
    phase_from_p: Array
    low: Array
    span: Array
    upward: Array
    levels: Array


def constants_of(
    reference: Reference, *, episode_steps: int, attribution_pages: int, expected: bool, exit_utility: float
) -> Constants:
    """The constants a step needs."""
    c, v, s = reference.choice, reference.conversion, reference.session
    u, p, x = reference.users, reference.platform, reference.actions.exploring
    real = {
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
    }
    for section in (s, u, p):
        for name in Constants._fields:
            if name not in real and isinstance(getattr(section, name, None), float):
                real[name] = getattr(section, name)
    whole = {
        "sensitivity_shape": u.price_sensitivity_shape,
        "patience_shape": u.patience_shape,
        "coverage_pages": p.coverage_pages,
        "lifetime_days": reference.catalogue.lifetime_days,
        "episode_steps": episode_steps,
        "attribution_pages": attribution_pages,
    }
    values: dict[str, Any] = {name: np.float32(value) for name, value in real.items()}
    values |= {name: np.int64(value) for name, value in whole.items()}
    return Constants(**values, expected=np.bool_(expected))


def tables_of(
    reference: Reference,
    catalogue: Catalogue,
    collaborative: Collaborative,
    schedule: Schedule,
    *,
    parts: NDArray[np.int64],
    calibrated: CalibratedConstants,
    low: Array,
    span: Array,
    upward: Array,
) -> Tables:
    """The tables a step needs, float32 but for money and rewards."""
    cat, actions, users, choice = catalogue, reference.actions, reference.users, reference.choice
    worlds = [cat, *schedule.catalogues]

    def real(values: Any) -> Array:
        return np.ascontiguousarray(values, dtype=np.float32)

    strategies, presets = list(actions.retrieval.values()), list(actions.ranking.values())[1:]
    v = reference.conversion
    margin = np.log(cat.margin_i * cat.price_i)
    by_position = choice.position * np.log1p(np.arange(SLATE, dtype=np.float64))
    released = np.argsort(cat.release_i, kind="stable")
    return Tables(
        vectors_ik=real(cat.vectors_ik),
        vectors_ki=real(cat.vectors_ik.T),
        squares_ki=real(cat.vectors_ik.T**2),
        topics_ik=real(cat.topics_ik),
        quality_pi=real([w.quality_i for w in worlds]),
        dear_i=real(cat.price_i - 1.0),
        cost_i=np.asarray(cat.cost_i, dtype=np.float64),
        freshness_pdi=real([w.freshness_di for w in worlds]),
        observed_pdi=real([w.observed_quality_di for w in worlds]),
        prior_pdi=real([w.quality_variance_di for w in worlds]),
        known_pdi=real([w.known_di for w in worlds]),
        born_start=np.searchsorted(cat.release_i[released], np.arange(reference.catalogue.lifetime_days + 1)),
        born_items=released.astype(np.int64),
        retrieval_pdri=real(
            [
                np.stack(
                    [
                        s["popularity"] * w.popularity_di
                        + s["quality"] * w.observed_quality_di
                        + s["freshness"] * w.freshness_di
                        - s["economy"] * w.log_cost_i
                        for s in strategies
                    ],
                    axis=1,
                )
                for w in worlds
            ]
        ),
        rule_r=np.array([RULES.index(s["rule"]) for s in strategies], dtype=np.int64),
        match_r=real([s["match"] for s in strategies]),
        trend_r=real([s["trend"] for s in strategies]),
        quality_r=real([s["quality"] for s in strategies]),
        collaborative_r=real(
            [s["collaborative"] * (collaborative.scale if s["rule"] == "collaborative" else 1.0) for s in strategies]
        ),
        retrieval_cost_r=np.array([s["cost"] for s in strategies]),
        ranking_pdmi=real(
            [
                np.stack(
                    [
                        (m["click"] * choice.quality + m["conversion"] * v.quality) * w.observed_quality_di
                        + m["click"] * choice.freshness * w.freshness_di
                        + m["margin"] * margin
                        - m["economy"] * w.log_cost_i
                        for m in presets
                    ],
                    axis=1,
                )
                for w in worlds
            ]
        ),
        match_m=real([m["click"] * choice.match + m["conversion"] * v.match for m in presets]),
        trend_m=real([m["click"] * choice.trend for m in presets]),
        quality_m=real([m["click"] * choice.quality + m["conversion"] * v.quality for m in presets]),
        price_m=real([m["click"] * choice.price + m["conversion"] * v.price for m in presets]),
        parts_a=parts,
        # The DPP is marked by a negative strength.
        diversity=real([-1.0 if d == "dpp" else d for d in actions.diversity]),
        exploration=np.array([EXPLORATIONS.index(name) for name in actions.exploration], dtype=np.int64),
        factors_ki=real(collaborative.factors_ki),
        content_ki=real(collaborative.content_ki),
        gram=real(collaborative.gram),
        neighbours_ii=real(collaborative.neighbours_ii),
        centre_sk=real(cat.segment_centre_sk),
        prior_sk=real(reference.platform.prior_strength * cat.segment_mean_sk),
        sensitivity_s=real(users.price_sensitivity),
        patience_s=real(users.patience_pages),
        segment_edge_s=real(np.cumsum(users.segment_shares)[:-1]),
        position_j=real([by_position, choice.mobile_position * by_position]),
        popular_dk=real(cat.popular_dk),
        fresh_dk=real(cat.fresh_dk),
        cheap_k=real(cat.cheap_k),
        shocks=schedule.shocks,
        prices=schedule.prices,
        phase_from_p=schedule.phase_from_p,
        low=np.asarray(low, dtype=np.float64),
        span=np.asarray(span, dtype=np.float64),
        upward=np.asarray(upward, dtype=np.bool_),
        levels=np.array([calibrated.cvr0, calibrated.clicks_per_page]),
    )
