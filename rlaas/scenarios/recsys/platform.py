"""The platform's side: what it remembers of the present user, and the observation it makes of that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.choice import dot, unit
from rlaas.scenarios.recsys.population import Population, Response
from rlaas.scenarios.recsys.reference import SEGMENTS, SLATE, Reference
from rlaas.scenarios.recsys.slates import Beliefs

__all__ = ["OBSERVATION_BOUND", "Platform", "observation_names"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

OBSERVATION_BOUND = 5.0
"""Features are scaled to about one and clipped here."""

_TYPICAL_CTR = 0.4


def observation_names(topics: int) -> tuple[str, ...]:
    """Names of the observation's features, in order."""
    by_topic = [f"{{}}_{topic}" for topic in range(topics)]
    return (
        *(f"segment_{segment}" for segment in range(SEGMENTS)),
        "returning",
        "visits",
        "hour_sin",
        "hour_cos",
        "mobile",
        "page",
        "confidence",
        "session_click_rate",
        "session_order_rate",
        "last_click",
        "last_order",
        "pages_since_click",
        "price_level",
        "last_diversity",
        "popular_match",
        "fresh_match",
        "cheap_match",
        *(name.format("taste") for name in by_topic),
        *(name.format("shown") for name in by_topic),
        *(name.format("trend") for name in by_topic),
    )


class Platform:
    """Profile, behaviour of the session, estimated taste, measured trends, what was shown.

    Attributes:
        shown: items shown in this session [num_envs, items].
        covered: items shown in the present window of pages, by which coverage is counted [num_envs, items].
        page: pages of this session so far [num_envs].
    """

    def __init__(self, reference: Reference, catalogue: Catalogue, environments: int, episode_steps: int) -> None:
        self._reference, self._catalogue = reference, catalogue
        self._episode_steps = episode_steps
        self._sensitivity_s = np.array(reference.users.price_sensitivity)
        prior = catalogue.segment_prior_sk
        self._prior_sk = reference.platform.prior_strength * prior / prior.sum(axis=1, keepdims=True)
        n, k, items = environments, catalogue.topics, catalogue.items
        self.shown = np.zeros((n, items), dtype=bool)
        self.covered = np.zeros((n, items), dtype=bool)
        self.window_page = np.zeros(n, dtype=np.int64)
        self.page = np.zeros(n, dtype=np.int64)
        self.clicks = np.zeros(n)
        self.orders = np.zeros(n)
        self.last_click = np.zeros(n)
        self.last_order = np.zeros(n)
        self.idle_pages = np.zeros(n)
        self.price_level = np.zeros(n)
        self.last_diversity = np.zeros(n)
        self.exposure = np.zeros((n, k))
        self.evidence = np.zeros((n, k))
        self.trend = np.zeros((n, k))

    def begin(self, population: Population) -> None:
        """Forget everything; trends have been measured for long."""
        everywhere = np.ones(len(self.page), dtype=bool)
        self.covered = np.zeros_like(self.covered)
        self.window_page = np.zeros_like(self.window_page)
        self.trend = population.trend.copy()
        self.open(everywhere, everywhere)

    def open(self, where: BoolArray, new: BoolArray) -> None:
        """A session begins in ``where``; a ``new`` user is known by segment only."""
        # Whole rows are cleared in place: a fresh [num_envs, items] array for every step would cost more than the step.
        self.shown[where] = False
        self.page = np.where(where, 0, self.page)
        for name in ("clicks", "orders", "last_click", "last_order", "idle_pages", "last_diversity"):
            setattr(self, name, np.where(where, 0.0, getattr(self, name)))
        self.price_level = np.where(new, 0.0, self.price_level)
        self.exposure = np.where(where[:, None], 0.0, self.exposure)
        self.evidence = np.where(new[:, None], 0.0, self.evidence)

    def measure(self, population: Population) -> None:
        """Follow the trends, with a lag."""
        lag = self._reference.platform.trend_lag
        self.trend = lag * self.trend + (1 - lag) * population.trend

    def record(self, slate: IntArray, diversity: FloatArray, response: Response, live: BoolArray) -> FloatArray:
        """Take in a page where ``live``.

        Returns:
            Items of the slate that were not shown before in the present coverage window [num_envs].
        """
        cat, p = self._catalogue, self._reference.platform
        rows = np.flatnonzero(live)
        shown = slate[rows]
        self.shown[rows[:, None], shown] = True
        renewed = live & (self.window_page >= p.coverage_pages)
        self.covered[renewed] = False
        self.window_page = np.where(renewed, 0, self.window_page) + live
        fresh = np.zeros(len(slate))
        fresh[rows] = (~self.covered[rows[:, None], shown]).sum(axis=1)
        self.covered[rows[:, None], shown] = True

        clicked, ordered = response.clicked, response.ordered
        self.page = self.page + live
        self.clicks = self.clicks + clicked
        self.orders = self.orders + ordered
        self.last_click = np.where(live, clicked, self.last_click)
        self.last_order = np.where(live, ordered, self.last_order)
        self.idle_pages = np.where(clicked, 0.0, self.idle_pages + live)
        gap = cat.price_i[response.item] - 1.0
        self.price_level = np.where(clicked, 0.7 * self.price_level + 0.3 * gap, self.price_level)
        self.last_diversity = np.where(live, diversity, self.last_diversity)
        keep = self._reference.choice.satiation_memory
        seen = keep * self.exposure + (1 - keep) * (cat.vectors_ik[slate].sum(axis=1) / SLATE)
        self.exposure = np.where(live[:, None], seen, self.exposure)
        gained = (p.click_evidence * clicked + p.order_evidence * ordered)[:, None] * cat.topics_ik[response.item]
        self.evidence = np.where(live[:, None], p.evidence_memory * self.evidence + gained, self.evidence)
        return fresh

    def estimated_taste(self, segment: IntArray) -> FloatArray:
        """Posterior mean of the topic shares under the segment's Dirichlet prior and the clicks [num_envs, topics]."""
        weights = self._prior_sk[segment] + self.evidence
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def beliefs(self, population: Population) -> Beliefs:
        """What the next slate is built on."""
        return Beliefs(
            taste=unit(self.estimated_taste(population.segment)),
            trend=self.trend,
            price_sensitivity=self._sensitivity_s[population.segment],
            day=population.day,
        )

    def observe(self, population: Population) -> NDArray[np.float32]:
        """Features [num_envs, n_features] by :func:`observation_names`.

        Of the population only what a platform sees is used: segment, visits, clock and device.
        """
        cat = self._catalogue
        segment, day = population.segment, population.day
        taste = self.estimated_taste(segment)
        direction = unit(taste)
        angle = 2 * np.pi * population.hour / 24
        known = self.evidence.sum(axis=1)
        columns = np.stack(
            [
                *(segment == s for s in range(SEGMENTS)),
                population.visits > 1,
                np.log1p(population.visits - 1) / 2.0,
                np.sin(angle),
                np.cos(angle),
                population.mobile,
                self.page / self._episode_steps,
                known / (known + self._reference.platform.prior_strength),
                (self.clicks + _TYPICAL_CTR) / (self.page + 1.0),
                self.orders / (self.clicks + 1.0),
                self.last_click,
                self.last_order,
                self.idle_pages / 5.0,
                self.price_level,
                self.last_diversity,
                dot(direction, cat.popular_dk[day]),
                dot(direction, cat.fresh_dk[day]),
                dot(direction, np.broadcast_to(cat.cheap_k, direction.shape)),
            ],
            axis=1,
        )
        features = np.concatenate([columns, taste, self.exposure, self.trend], axis=1)
        return np.asarray(np.clip(features, -OBSERVATION_BOUND, OBSERVATION_BOUND), dtype=np.float32)
