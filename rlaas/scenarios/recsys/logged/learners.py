"""Bandits that learn while a log is replayed: which item to show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, shown
from rlaas.scenarios.checks import is_number, is_whole

__all__ = ["LinUcbItems", "ThompsonItems"]

FloatArray = NDArray[np.float64]


class ThompsonItems:
    """Bernoulli Thompson sampling over the items, blind to the user (Chapelle & Li 2011).

    Args:
        n_items: items to choose from.
        clicks, skips: parameters of the Beta prior of every item's click rate; their sum is the prior's weight in
            impressions.

    Raises:
        ConfigurationError: no item, or a prior that is not positive.
    """

    def __init__(self, n_items: int, *, clicks: float = 1.0, skips: float = 1.0) -> None:
        if not is_whole(n_items) or n_items < 1 or not all(is_number(x) and 0 < x < np.inf for x in (clicks, skips)):
            raise ConfigurationError(
                f"n_items >= 1, clicks and skips > 0 expected; got {shown((n_items, clicks, skips))}",
                field="n_items",
            )
        self._clicks = np.full(n_items, float(clicks))
        self._skips = np.full(n_items, float(skips))

    def choose(self, features: FloatArray, position: int, rng: np.random.Generator) -> int:
        """The item whose click rate, drawn from its posterior, is highest."""
        return int(np.argmax(rng.beta(self._clicks, self._skips)))

    def learn(self, features: FloatArray, position: int, item: int, click: int) -> None:
        """Count the outcome of a shown item."""
        self._clicks[item] += click
        self._skips[item] += 1 - click


class LinUcbItems:
    """LinUCB with one linear model per item (Li, Chu, Langford & Schapire 2010, algorithm 1).

    Args:
        n_items: items to choose from.
        n_features: of the user; an intercept is added.
        alpha: width of the confidence bound, >= 0.
        ridge: precision of the prior, > 0.

    Raises:
        ConfigurationError: no item, a negative size, alpha < 0 or ridge <= 0.
    """

    def __init__(self, n_items: int, n_features: int, *, alpha: float = 1.0, ridge: float = 1.0) -> None:
        if not is_whole(n_items) or n_items < 1 or not is_whole(n_features) or n_features < 0:
            raise ConfigurationError(
                f"n_items >= 1 and n_features >= 0 expected; got {shown((n_items, n_features))}", field="n_items"
            )
        if not (is_number(alpha) and is_number(ridge) and 0 <= alpha < np.inf and 0 < ridge < np.inf):
            raise ConfigurationError(f"alpha >= 0 and ridge > 0 expected; got {shown((alpha, ridge))}", field="alpha")
        size = n_features + 1
        self._alpha = alpha
        self._inverse = np.tile(np.eye(size) / ridge, (n_items, 1, 1))  # [n_items, size, size]
        self._target = np.zeros((n_items, size))
        self._theta = np.zeros((n_items, size))

    def choose(self, features: FloatArray, position: int, rng: np.random.Generator) -> int:
        """The item with the highest upper confidence bound; ties fall at random."""
        x = np.append(1.0, features)
        variance = (self._inverse @ x) @ x
        bound = self._theta @ x + self._alpha * np.sqrt(np.maximum(variance, 0.0))
        return int(rng.choice(np.flatnonzero(bound >= bound.max() - 1e-12)))

    def learn(self, features: FloatArray, position: int, item: int, click: int) -> None:
        """Update the shown item's model (Sherman-Morrison)."""
        x = np.append(1.0, features)
        inverse = self._inverse[item]
        gain = inverse @ x
        inverse -= np.outer(gain, gain) / (1.0 + x @ gain)
        self._target[item] += click * x
        self._theta[item] = inverse @ self._target[item]
