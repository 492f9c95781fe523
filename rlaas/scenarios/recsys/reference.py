"""The frozen constants behind every result of the recommender, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

__all__ = [
    "SEGMENTS",
    "SLATE",
    "ActionConstants",
    "CalibratedConstants",
    "CatalogueConstants",
    "ChoiceConstants",
    "ConversionConstants",
    "PlatformConstants",
    "Reference",
    "SessionConstants",
    "UserConstants",
    "load_reference",
    "parse_reference",
    "reference_text",
]

SLATE = 10
"""Items on a page, fixed by the protocol."""

SEGMENTS = 4
"""Demographic segments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueConstants:
    """How the catalogue is drawn: topics, quality, popularity, prices relative to the mean, costs per 1,000."""

    seed: int
    lifetime_days: int
    topic_skew: float
    topic_focus: float
    topic_background: float
    popularity_of_quality: float
    popularity_of_topic: float
    popularity_noise: float
    build_up_days: float
    freshness_days: float
    quality_noise: float
    price_spread: float
    price_of_quality: float
    cost_median: float
    cost_of_popularity: float
    cost_spread: float
    promotion_share: float
    promotion_of_popularity: float
    promotion_fee: float
    offline_users: int
    offline_views: int
    offline_click_share: float
    factors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConstants:
    """Who arrives (per segment where a list) and how interests and trends drift, per page or session."""

    taste_spread: float
    segment_weight: float
    segment_shape: float
    segment_shares: tuple[float, ...]
    price_sensitivity: tuple[float, ...]
    price_sensitivity_shape: int
    patience_pages: tuple[float, ...]
    patience_shape: int
    mobile_share: float
    page_drift: float
    session_drift: float
    click_reinforcement: float
    trend_persistence: float
    trend_noise: float
    shock_probability: float
    shock_size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceConstants:
    """Utilities of the conditional logit."""

    match: float
    quality: float
    freshness: float
    trend: float
    price: float
    satiation: float
    satiation_memory: float
    position: float
    mobile_position: float
    evening: float
    evening_peak_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionConstants:
    """Log-odds of an order after a click, the wanted orders per click, and the share of orders that wait a page."""

    level: float
    intercept: float
    match: float
    quality: float
    price: float
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConstants:
    """How satisfaction moves patience (in pages) and the return (log-odds, hours)."""

    satisfaction_memory: float
    satisfaction_start: float
    satisfaction_base: float
    satisfaction_match: float
    satisfaction_quality: float
    satisfaction_price: float
    page_cost: float
    click_relief: float
    boredom: float
    returning_patience_base: float
    returning_patience_satisfaction: float
    return_intercept: float
    return_satisfaction: float
    return_gap_hours: float
    arrival_gap_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformConstants:
    """What the platform remembers of a user and how its coverage is counted."""

    prior_strength: float
    click_evidence: float
    order_evidence: float
    evidence_memory: float
    trend_lag: float
    coverage_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionConstants:
    """The four parts of an action.

    Attributes:
        retrieval: weights of each strategy, and the rule of its user part.
        ranking: weights of each preset; the first keeps the order of retrieval.
        diversity: strengths of maximal marginal relevance, and ``dpp``.
        exploration: names of what a page does to learn.
        exploring: its constants.
        determinant_trust: how much relevance counts against variety in the DPP.
    """

    retrieval: Mapping[str, Mapping[str, Any]]
    ranking: Mapping[str, Mapping[str, float]]
    diversity: tuple[float | str, ...]
    exploration: tuple[str, ...]
    exploring: Mapping[str, float]
    determinant_trust: float

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of choices of each part."""
        return len(self.retrieval), len(self.ranking), len(self.diversity), len(self.exploration)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedConstants:
    """What the calibration measured at one level of clicks.

    Attributes:
        ctr_level: wanted clicks per impression of the popularity baseline.
        exit_utility: utility of clicking nothing that brings it there.
        cvr0: the baseline's measured orders per click; the neutral point of the order reward.
        clicks_per_page: its measured clicks per page.
        best_mmr: diversity level that is best at equal weights with content retrieval ranked by clicks.
        ranges: low and high end of each objective.
    """

    ctr_level: float
    exit_utility: float
    cvr0: float
    clicks_per_page: float
    best_mmr: int
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Everything frozen. ``hash`` is the first 16 hex digits of the sha256 of its canonical JSON.

    ``calibrated`` holds the levels of clicks by name.
    """

    catalogue: CatalogueConstants
    users: UserConstants
    choice: ChoiceConstants
    conversion: ConversionConstants
    session: SessionConstants
    platform: PlatformConstants
    actions: ActionConstants
    calibrated: Mapping[str, CalibratedConstants]
    hash: str


def reference_text() -> str:
    """The reference file as it is shipped."""
    return resources.files(__package__).joinpath("reference.json").read_text(encoding="utf-8")


def parse_reference(document: Mapping[str, Any]) -> Reference:
    """The reference in a parsed JSON document.

    Raises:
        TypeError: a constant is missing or unknown.
    """
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    frozen: dict[str, dict[str, Any]] = {
        section: {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        for section, values in document.items()
    }
    calibrated = {
        level: CalibratedConstants(
            **{key: value for key, value in values.items() if key != "ranges"},
            ranges={name: (float(low), float(high)) for name, (low, high) in values["ranges"].items()},
        )
        for level, values in document["calibrated"].items()
    }
    return Reference(
        catalogue=CatalogueConstants(**frozen["catalogue"]),
        users=UserConstants(**frozen["users"]),
        choice=ChoiceConstants(**frozen["choice"]),
        conversion=ConversionConstants(**frozen["conversion"]),
        session=SessionConstants(**frozen["session"]),
        platform=PlatformConstants(**frozen["platform"]),
        actions=ActionConstants(**frozen["actions"]),
        calibrated=calibrated,
        hash=hashlib.sha256(canonical).hexdigest()[:16],
    )


@cache
def load_reference() -> Reference:
    """The shipped reference."""
    return parse_reference(json.loads(reference_text()))
