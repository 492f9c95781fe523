"""The catalogue: items with topics, quality, prices and costs, and what depends on the day alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import SEGMENTS, Reference

__all__ = ["Catalogue", "build_catalogue"]

FloatArray = NDArray[np.float64]

_SAMPLES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Items I, topics K, days D of an item's life, segments S. Frozen: the same for every environment.

    Attributes:
        topics_ik: topic shares of each item, summing to 1.
        vectors_ik: the same, scaled to unit length: *the* frozen item vectors of the diversity objective.
        quality_i: what users feel.
        observed_quality_di: what the platform believes: a noisy estimate, shrunk to the mean 0 while an item is new.
        price_i: price relative to the mean price.
        cost_i: serving and promotion cost per 1,000 impressions.
        log_cost_i: standardised logarithm of the cost.
        margin_i: share of the price that stays.
        freshness_di: 1 for a new item, decaying with age; items come back as new at the end of their life.
        popularity_di: standardised log popularity as observed: a new item has not had the time to become popular.
        popular_dk, fresh_dk, cheap_k: mean item vector of the 50 most popular, of fresh and of cheap items.
        topic_share_k: share of each topic in demand.
        segment_centre_sk: mean logits of the tastes of each segment.
        segment_mean_sk: mean tastes of each segment, summing to 1.
        release_i: day of an item's life cycle on which it is new.
        known_di: how much of an item the platform has had time to learn, 0 to 1.
        quality_variance_di: what the platform does not know of the quality, as a variance.
    """

    topics_ik: FloatArray
    vectors_ik: FloatArray
    quality_i: FloatArray
    observed_quality_di: FloatArray
    price_i: FloatArray
    cost_i: FloatArray
    log_cost_i: FloatArray
    margin_i: FloatArray
    freshness_di: FloatArray
    popularity_di: FloatArray
    popular_dk: FloatArray
    fresh_dk: FloatArray
    cheap_k: FloatArray
    topic_share_k: FloatArray
    segment_centre_sk: FloatArray
    segment_mean_sk: FloatArray
    release_i: NDArray[np.int64]
    known_di: FloatArray
    quality_variance_di: FloatArray

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.price_i)

    @property
    def topics(self) -> int:
        """Number of topics."""
        return int(self.topics_ik.shape[1])


def _standardised(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean()) / values.std())


def _mean_shares(centre: FloatArray, spread: float, rng: np.random.Generator) -> FloatArray:
    """Mean of the softmax of normal logits around each centre, by simulation: it has no closed form."""
    logits = centre[:, None, :] + spread * rng.standard_normal((1, _SAMPLES, centre.shape[1]))
    shares = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray((shares / shares.sum(axis=2, keepdims=True)).mean(axis=1))


def build_catalogue(reference: Reference, items: int, topics: int) -> Catalogue:
    """Draw the catalogue of ``items`` items over ``topics`` topics from the reference's seed."""
    c, u = reference.catalogue, reference.users
    rng = np.random.default_rng([c.seed, items, topics])
    topic_share = np.arange(1, topics + 1, dtype=np.float64) ** -c.topic_skew
    topic_share /= topic_share.sum()

    main = rng.choice(topics, size=items, p=topic_share)
    concentration = np.full((items, topics), c.topic_background)
    concentration[np.arange(items), main] += c.topic_focus
    weights = rng.standard_gamma(concentration) + 1e-9
    topic_ik = weights / weights.sum(axis=1, keepdims=True)
    vectors = topic_ik / np.sqrt((topic_ik**2).sum(axis=1, keepdims=True))

    quality = rng.standard_normal(items)
    noise = rng.standard_normal((4, items))
    in_demand = _standardised(np.log(topic_share)[main]) if topics > 1 else np.zeros(items)
    popularity = _standardised(
        c.popularity_of_quality * quality + c.popularity_of_topic * in_demand + c.popularity_noise * noise[1]
    )
    price = np.exp(c.price_spread * noise[2] + c.price_of_quality * quality)
    price /= price.mean()
    organic = c.cost_median * np.exp(c.cost_of_popularity * popularity + c.cost_spread * noise[3])
    odds = c.promotion_share / (1 - c.promotion_share) * np.exp(c.promotion_of_popularity * popularity)
    promoted = rng.random(items) < odds / (1 + odds)
    cost = organic + c.promotion_fee * promoted
    margin = rng.uniform(0.1, 0.5, items)
    release = rng.integers(c.lifetime_days, size=items)

    age_di = (np.arange(c.lifetime_days)[:, None] - release) % c.lifetime_days
    freshness = np.exp(-age_di / c.freshness_days)
    known_di = 1.0 - np.exp(-(age_di + 1) / c.build_up_days)
    popularity_di = popularity + np.log(known_di)
    observed_quality = known_di * (quality + c.quality_noise * noise[0])
    log_cost = _standardised(np.log(cost))

    top = np.argsort(-popularity_di, axis=1, kind="stable")[:, :50]
    segment_profile = rng.dirichlet(np.full(topics, u.segment_shape), size=SEGMENTS) + 1e-3
    segment_profile /= segment_profile.sum(axis=1, keepdims=True)
    mix = (1 - u.segment_weight) * topic_share + u.segment_weight * segment_profile
    centre = np.log(mix)
    return Catalogue(
        topics_ik=topic_ik,
        vectors_ik=vectors,
        quality_i=quality,
        observed_quality_di=observed_quality,
        price_i=price,
        cost_i=cost,
        log_cost_i=log_cost,
        margin_i=margin,
        freshness_di=freshness,
        popularity_di=popularity_di,
        popular_dk=vectors[top].mean(axis=1),
        fresh_dk=(freshness @ vectors) / freshness.sum(axis=1, keepdims=True),
        cheap_k=vectors[cost <= np.quantile(cost, 0.25)].mean(axis=0),
        topic_share_k=topic_share,
        segment_centre_sk=centre,
        segment_mean_sk=_mean_shares(centre, u.taste_spread, np.random.default_rng([c.seed, topics, 1])),
        release_i=release,
        known_di=known_di,
        quality_variance_di=(1.0 - known_di) ** 2 + (c.quality_noise * known_di) ** 2,
    )
