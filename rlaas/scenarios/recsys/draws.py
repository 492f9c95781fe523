"""Random numbers by environment and step, drawn ahead and independent of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.reference import SLATE, UserConstants

__all__ = ["Draws", "RandomBlocks"]

FloatArray = NDArray[np.float64]

BLOCK = 32
"""Steps drawn at a time: the loop over generators costs little per step, the buffer stays small."""

_SCALARS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """One step's random numbers of every environment: for the page, and for a user who may arrive.

    Attributes:
        choice, convert, returns, device, gap, shock, shock_topic, hour: uniform [num_envs].
        segment: of an arriving user [num_envs].
        coin, ticket: uniform, for exploration [num_envs, SLATE].
        taste: Dirichlet taste of an arriving user of that segment [num_envs, topics].
        drift: Dirichlet direction into which interests drift [num_envs, topics].
        patience, price: gamma with mean 1 [num_envs].
        trend: standard normal [num_envs, topics].
    """

    choice: FloatArray
    convert: FloatArray
    returns: FloatArray
    device: FloatArray
    gap: FloatArray
    shock: FloatArray
    shock_topic: FloatArray
    hour: FloatArray
    segment: NDArray[np.int64]
    coin: FloatArray
    ticket: FloatArray
    taste: FloatArray
    drift: FloatArray
    patience: FloatArray
    price: FloatArray
    trend: FloatArray


class RandomBlocks:
    """One generator per environment, the same count of draws in every step (common random numbers).

    Attributes:
        generators: one per environment.
        block: numbers drawn ahead [steps, num_envs, numbers].
        segment: of the users who may arrive [steps, num_envs].
        at: next step within the block.
    """

    def __init__(self, users: UserConstants, segment_prior_sk: FloatArray, environments: int) -> None:
        self._users = users
        self._prior_sk = segment_prior_sk
        self._thresholds = np.cumsum(users.segment_shares)[:-1]
        self._topics = segment_prior_sk.shape[1]
        width = _SCALARS + 2 * SLATE + 3 * self._topics + 2
        self.block = np.empty((BLOCK, environments, width))
        self.segment = np.empty((BLOCK, environments), dtype=np.int64)
        self.at = BLOCK
        self.generators: list[np.random.Generator] = []

    def seed(self, seeds: Sequence[int]) -> None:
        """Start the stream of each environment anew."""
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.at = BLOCK

    def next(self) -> Draws:
        """The numbers of the next step."""
        if self.at == BLOCK:
            self._fill()
            self.at = 0
        # Copied: a view would change when the block is filled again, and slices of it are strided.
        row = np.ascontiguousarray(self.block[self.at].T)
        segment = self.segment[self.at].copy()
        self.at += 1
        k, s = self._topics, _SCALARS
        parts = np.split(row[s:], np.cumsum([SLATE, SLATE, k, k, k]))
        coin, ticket, taste, drift, trend = (np.ascontiguousarray(part.T) for part in parts[:5])
        patience, price = parts[5]
        return Draws(
            choice=row[0],
            convert=row[1],
            returns=row[2],
            device=row[3],
            gap=row[4],
            shock=row[5],
            shock_topic=row[6],
            hour=row[7],
            segment=segment,
            coin=coin,
            ticket=ticket,
            taste=taste,
            drift=drift,
            trend=trend,
            patience=patience,
            price=price,
        )

    def _fill(self) -> None:
        users, k = self._users, self._topics
        uniform = _SCALARS + 2 * SLATE
        shapes = np.empty((BLOCK, 2 * k + 2))
        shapes[:, k : 2 * k] = users.drift_concentration
        shapes[:, 2 * k] = users.patience_shape
        shapes[:, 2 * k + 1] = users.price_sensitivity_shape
        for index, rng in enumerate(self.generators):
            numbers = rng.random((BLOCK, uniform))
            segment = np.searchsorted(self._thresholds, numbers[:, _SCALARS - 1], side="right")
            shapes[:, :k] = self._prior_sk[segment]
            gamma = rng.standard_gamma(shapes) + 1e-12
            block = self.block[:, index]
            block[:, :uniform] = numbers
            for start in (0, k):
                weights = gamma[:, start : start + k]
                block[:, uniform + start : uniform + start + k] = weights / weights.sum(axis=1, keepdims=True)
            block[:, uniform + 2 * k : uniform + 3 * k] = rng.standard_normal((BLOCK, k))
            block[:, -2] = gamma[:, 2 * k] / users.patience_shape
            block[:, -1] = gamma[:, 2 * k + 1] / users.price_sensitivity_shape
            self.segment[:, index] = segment
