"""Rules to compare a policy with: random, a switching rule, and LinUCB over the same actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.controllers import Controller
from rlaas.scenarios.recsys.actions import ActionTable

__all__ = ["LinUCBController", "RandomController", "ReactiveController", "ReactiveRule"]

FloatArray = NDArray[np.floating[Any]]


class RandomController(Controller):
    """Uniformly random actions."""

    def __init__(self, n_actions: int) -> None:
        self._n_actions = n_actions
        self._rows = 1
        self._rng = np.random.default_rng(0)

    def reset(self, num_rows: int, seed: int) -> None:
        """Start the random stream of ``seed``."""
        self._rows = num_rows
        self._rng = np.random.default_rng(seed)

    def act(self, observation: FloatArray) -> NDArray[Any]:
        """A random action for every row."""
        return self._rng.integers(self._n_actions, size=self._rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactiveRule:
    """Thresholds of the switching rule.

    Attributes:
        confidence: below it a user counts as unknown, 0 to 1 (share of evidence in the estimated taste).
        idle_pages: pages without a click from which a user counts as bored.
        unknown_retrieval, known_retrieval: strategy for each.
        ranking: preset.
        interested_diversity, bored_diversity: diversity factor (number of the level) for each.
        exploration: exploration (its number) for unknown users; 0 for known ones.
    """

    confidence: float
    idle_pages: float
    unknown_retrieval: int
    known_retrieval: int
    ranking: int
    interested_diversity: int
    bored_diversity: int
    exploration: int


class ReactiveController(Controller):
    """Retrieves by how well the user is known, diversifies by how long nothing was clicked."""

    def __init__(self, rule: ReactiveRule, table: ActionTable, features: Mapping[str, int]) -> None:
        self.rule = rule
        self._table = table
        self._confidence = features["confidence"]
        self._idle = features["pages_since_click"]

    def act(self, observation: FloatArray) -> NDArray[Any]:
        """Actions [num_rows] by the rule."""
        rule = self.rule
        unknown = observation[:, self._confidence] < rule.confidence
        # The feature counts in units of five pages.
        bored = observation[:, self._idle] * 5.0 >= rule.idle_pages
        parts = (
            np.where(unknown, rule.unknown_retrieval, rule.known_retrieval),
            np.full(len(observation), rule.ranking),
            np.where(bored, rule.bored_diversity, rule.interested_diversity),
            np.where(unknown, rule.exploration, 0),
        )
        return np.ravel_multi_index(parts, self._table.sizes)


class LinUCBController(Controller):
    """Contextual LinUCB (Li et al. 2010, arXiv 1003.0146) over the same actions, learning while it acts.

    One linear model of the mean of the rewards (equal weights) on features of context and action: retrieval x ranking,
    diversity and exploration (one-hot), each crossed with a summary of the context. Every row follows the action with
    the largest ``theta.x + alpha * sqrt(x' A^-1 x)``; all rows teach the same model.

    Args:
        table: actions.
        features: column of each observation feature.
        alpha: width of the confidence bound, in units of reward.
        ridge: initial diagonal of A.
    """

    CONTEXT = ("confidence", "page", "pages_since_click", "session_click_rate", "popular_match", "shown_spread")

    def __init__(self, table: ActionTable, features: Mapping[str, int], alpha: float = 1.0, ridge: float = 1.0) -> None:
        self.alpha, self.ridge = alpha, ridge
        self._columns = [features[name] for name in self.CONTEXT[:-1]]
        self._shown = [column for name, column in features.items() if name.startswith("shown_")]
        pairs = table.sizes[0] * table.sizes[1]
        retrieval, ranking, diversity, exploration = table.parts.T
        one_hot = [
            np.eye(pairs)[retrieval * table.sizes[1] + ranking],
            np.eye(table.sizes[2])[diversity],
            np.eye(table.sizes[3])[exploration],
        ]
        self._actions = np.concatenate(one_hot, axis=1)
        self._active = np.stack([np.flatnonzero(row) for row in self._actions])
        self._width = 1 + len(self.CONTEXT)
        self._start()

    def _start(self) -> None:
        size = self._actions.shape[1] * self._width
        self._gram = self.ridge * np.eye(size)
        self._moment = np.zeros(size)

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget everything learned."""
        self._start()

    def _context(self, observation: FloatArray) -> NDArray[np.float64]:
        rows = observation.astype(np.float64)
        # How much of the same was shown: the length of the exposure, large when it points into few topics.
        spread = np.sqrt((rows[:, self._shown] ** 2).sum(axis=1))
        return np.column_stack([np.ones(len(rows)), rows[:, self._columns], spread])

    def act(self, observation: FloatArray) -> NDArray[Any]:
        """Actions [num_rows] with the largest upper confidence bound."""
        context = self._context(observation)
        n_parts, width = self._actions.shape[1], self._width
        inverse = np.linalg.inv(self._gram)
        theta = (inverse @ self._moment).reshape(n_parts, width)
        mean = context @ (self._actions @ theta).T
        # x is an outer product, so x' A^-1 x is a quadratic form of the context with a matrix per action.
        blocks = inverse.reshape(n_parts, width, n_parts, width)
        on = self._active
        forms = sum(blocks[on[:, i], :, on[:, j]] for i in range(on.shape[1]) for j in range(on.shape[1]))
        products = (context[:, :, None] * context[:, None, :]).reshape(len(context), -1)
        spread = products @ np.asarray(forms).reshape(len(on), -1).T
        return np.asarray(np.argmax(mean + self.alpha * np.sqrt(np.maximum(spread, 0.0)), axis=1))

    def learn(self, observation: FloatArray, action: NDArray[Any], reward: FloatArray) -> None:
        """Add the rows' rewards [num_rows, n_objectives]; rows that showed no page (all rewards 0) teach nothing."""
        shown = np.asarray(reward).any(axis=1)
        context = self._context(observation[shown])
        x = self._actions[np.asarray(action)[shown]][:, :, None] * context[:, None, :]
        x = x.reshape(len(context), len(self._moment))
        self._gram += x.T @ x
        self._moment += x.T @ np.asarray(reward)[shown].mean(axis=1)
