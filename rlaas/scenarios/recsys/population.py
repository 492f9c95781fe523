"""The hidden side: users with drifting interests and limited patience, and a world whose trends move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.choice import (
    choice_probabilities,
    click_satisfaction,
    conversion_probability,
    dot,
    exit_utility,
    pick,
    position_penalty,
    return_probability,
    slate_utility,
    unit,
)
from rlaas.scenarios.recsys.draws import Draws
from rlaas.scenarios.recsys.reference import SLATE, Reference

__all__ = ["Population", "Response"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the users did with a page.

    Attributes:
        position: clicked position, -1 for none [num_envs].
        item: clicked item, 0 where there was no click [num_envs].
        clicked, ordered: [num_envs].
        left: the user's patience ran out [num_envs].
        expected_clicks, expected_orders: their expectations given the slate [num_envs]. Hidden from the platform.
    """

    position: IntArray
    item: IntArray
    clicked: BoolArray
    ordered: BoolArray
    left: BoolArray
    expected_clicks: FloatArray
    expected_orders: FloatArray


class Population:
    """One user at a time per environment. What is kept here no controller sees, but for clock, device and segment.

    Attributes:
        user: running number of the present user within its environment [num_envs].
        visits: sessions of the present user so far, this one included [num_envs].
        segment: demographic segment [num_envs].
        mobile: small screen [num_envs].
        clock: hours [num_envs].
        taste: latent topic shares [num_envs, topics].
        trend: topic trends [num_envs, topics].
        satisfaction: 0 to 1 [num_envs].
        patience: pages left [num_envs].
    """

    def __init__(self, reference: Reference, catalogue: Catalogue, environments: int) -> None:
        self._reference, self._catalogue = reference, catalogue
        users = reference.users
        self._patience_s = np.array(users.patience_pages)
        self._sensitivity_s = np.array(users.price_sensitivity)
        n, k = environments, catalogue.topics
        self.user = np.full(n, -1, dtype=np.int64)
        self.visits = np.zeros(n, dtype=np.int64)
        self.segment = np.zeros(n, dtype=np.int64)
        self.mobile = np.zeros(n, dtype=bool)
        self.clock = np.zeros(n)
        self.taste = np.full((n, k), 1.0 / k)
        self.trend = np.zeros((n, k))
        self.price_sensitivity = np.ones(n)
        self.satisfaction = np.zeros(n)
        self.patience = np.zeros(n)
        self.satiation = np.zeros((n, k))

    @property
    def day(self) -> IntArray:
        """Day in the life of the catalogue [num_envs]."""
        return (self.clock // 24).astype(np.int64) % self._reference.catalogue.lifetime_days

    @property
    def hour(self) -> FloatArray:
        """Hour of the day, 0 to 24 [num_envs]."""
        return np.mod(self.clock, 24.0)

    def begin(self, draws: Draws) -> None:
        """A new world with a new user in every environment."""
        users = self._reference.users
        n = len(self.user)
        self.user = np.full(n, -1, dtype=np.int64)
        self.trend = draws.trend * users.trend_noise / np.sqrt(1 - users.trend_persistence**2)
        self.clock = 24.0 * np.floor(draws.shock * self._reference.catalogue.lifetime_days) + 24.0 * draws.hour
        self._admit(np.ones(n, dtype=bool), np.zeros(n, dtype=bool), draws)

    def arrive(self, where: BoolArray, draws: Draws) -> BoolArray:
        """The next session in the environments ``where``: the same user again, or a new one.

        A satisfied user is more likely to return, sooner and with more patience; a new one starts from nothing.

        Returns:
            Where it is a new user [num_envs].
        """
        s = self._reference.session
        returning = where & (draws.returns < return_probability(s, self.satisfaction))
        mean_gap = np.where(returning, s.return_gap_hours * (1.3 - self.satisfaction), s.arrival_gap_hours)
        self.clock = np.where(where, self.clock - np.log1p(-draws.gap) * mean_gap, self.clock)
        new = where & ~returning
        self._admit(new, returning, draws)
        return new

    def _admit(self, new: BoolArray, returning: BoolArray, draws: Draws) -> None:
        users, s = self._reference.users, self._reference.session
        where = new | returning
        self.user = self.user + new
        self.visits = np.where(new, 1, self.visits + returning)
        self.segment = np.where(new, draws.segment, self.segment)
        drifted = self._drift(self.taste, draws, users.session_drift)
        self.taste = np.where(new[:, None], draws.taste, np.where(returning[:, None], drifted, self.taste))
        sensitivity = self._sensitivity_s[self.segment] * draws.price
        self.price_sensitivity = np.where(new, sensitivity, self.price_sensitivity)
        goodwill = s.returning_patience_base + s.returning_patience_satisfaction * self.satisfaction
        patience = self._patience_s[self.segment] * draws.patience * np.where(returning, goodwill, 1.0)
        self.patience = np.where(where, patience, self.patience)
        self.satisfaction = np.where(new, s.satisfaction_start, self.satisfaction)
        self.mobile = np.where(where, draws.device < users.mobile_share, self.mobile)
        self.satiation = np.where(where[:, None], 0.0, self.satiation)

    def evolve(self, draws: Draws) -> None:
        """Let trends wander: an autoregression with rare shocks of one topic's popularity, whatever is done."""
        users = self._reference.users
        trend = users.trend_persistence * self.trend + users.trend_noise * draws.trend
        shocked = np.flatnonzero(draws.shock < users.shock_probability)
        topic = (draws.shock_topic[shocked] * trend.shape[1]).astype(np.int64)
        trend[shocked, topic] += users.shock_size
        self.trend = trend

    def probabilities(self, slate: IntArray) -> tuple[FloatArray, FloatArray]:
        """Click probability of each position [num_envs, SLATE] and match of each item with the latent taste."""
        c, cat = self._reference.choice, self._catalogue
        vectors = cat.vectors_ik[slate]
        match = dot(vectors, unit(self.taste)[:, None, :])
        utility = slate_utility(
            c,
            match=match,
            quality=cat.quality_i[slate],
            freshness=cat.freshness_di[self.day[:, None], slate],
            trend=dot(vectors, self.trend[:, None, :]),
            price=cat.price_i[slate],
            price_sensitivity=self.price_sensitivity,
            satiation=dot(vectors, self.satiation[:, None, :]),
        )
        utility -= position_penalty(c, self.mobile, SLATE)
        return choice_probabilities(utility, exit_utility(c, self.hour)), match

    def respond(self, slate: IntArray, live: BoolArray, draws: Draws) -> Response:
        """Show ``slate`` [num_envs, SLATE] where ``live``: choice, order, satisfaction, patience, drift."""
        s, cat, users = self._reference.session, self._catalogue, self._reference.users
        probability, match = self.probabilities(slate)
        position = np.where(live, pick(probability, draws.choice), -1)
        clicked = position >= 0
        rows = np.arange(len(slate))
        item = np.where(clicked, slate[rows, position], 0)
        converts = conversion_probability(
            self._reference.conversion,
            match,
            cat.quality_i[slate],
            cat.price_i[slate],
            self.price_sensitivity[:, None],
        )
        ordered = clicked & (draws.convert < converts[rows, position])
        pleased = click_satisfaction(
            s, match[rows, position], cat.quality_i[item], cat.price_i[item], self.price_sensitivity
        )
        # A page without a click is judged by how tempting it was.
        felt = np.where(clicked, pleased, probability.sum(axis=1))
        memory = s.satisfaction_memory
        satisfaction = memory * self.satisfaction + (1 - memory) * felt
        spent = s.page_cost - s.click_relief * pleased * clicked + s.boredom * (1 - satisfaction)
        self.satisfaction = np.where(live, satisfaction, self.satisfaction)
        self.patience = np.where(live, self.patience - np.maximum(spent, 0.1), self.patience)

        keep = self._reference.choice.satiation_memory
        seen = cat.vectors_ik[slate].sum(axis=1) / SLATE
        self.satiation = np.where(live[:, None], keep * self.satiation + (1 - keep) * seen, self.satiation)
        drifted = self._drift(self.taste, draws, users.page_drift)
        pull = (users.click_reinforcement * clicked)[:, None]
        drifted = (1 - pull) * drifted + pull * cat.topics_ik[item]
        self.taste = np.where(live[:, None], drifted, self.taste)
        return Response(
            position=position,
            item=item,
            clicked=clicked,
            ordered=ordered,
            left=live & (self.patience <= 0),
            expected_clicks=np.where(live, probability.sum(axis=1), 0.0),
            expected_orders=np.where(live, (probability * converts).sum(axis=1), 0.0),
        )

    @staticmethod
    def _drift(taste: FloatArray, draws: Draws, share: float) -> FloatArray:
        return (1 - share) * taste + share * draws.drift
