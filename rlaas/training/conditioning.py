"""Preferences while training, and the running normalisation of observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlaas.objectives import Preference
from rlaas.scenarios import Scenario

__all__ = [
    "Focus",
    "RunningMoments",
    "anchors_of",
    "lattice",
    "reward_scale",
    "sample_preferences",
    "spread_preferences",
]

FloatArray = NDArray[np.float64]

ANCHOR_SHARE = 0.25
CORNER_SHARE = 0.1
FOCUS_SHARE = 0.5
SMALLEST_DEVIATION = 1e-3
CONSTANT = 1e-4
"""Deviation, as a share of the mean, below which a reward is a constant but for rounding."""

Focus = tuple[FloatArray, FloatArray]
"""Preferences [k, n_objectives] that deserve more attention, and the chances [k] with which they are drawn."""


def anchors_of(scenario: Scenario) -> FloatArray:
    """Preferences that are drawn more often than others: equal weights, then those of the modes [k, n_objectives]."""
    rows = [Preference.uniform(scenario.objectives).array()]
    rows += [mode.preference.array() for mode in scenario.modes.values()]
    return np.array(rows)


def sample_preferences(n: int, anchors: FloatArray, rng: np.random.Generator, focus: Focus | None = None) -> FloatArray:
    """Draw ``n`` preferences [n, n_objectives] from the simplex.

    Most are uniform over it (Dirichlet(1)); a tenth are corners and a quarter one of ``anchors``, because both have
    measure zero in the uniform draw and are what is asked for later. With a ``focus`` half of all come from there.
    """
    m = anchors.shape[1]
    drawn = rng.dirichlet(np.ones(m), size=n)
    kind = rng.random(n)
    corner = kind < CORNER_SHARE
    drawn[corner] = np.eye(m)[rng.integers(m, size=int(corner.sum()))]
    anchor = (kind >= CORNER_SHARE) & (kind < CORNER_SHARE + ANCHOR_SHARE)
    drawn[anchor] = anchors[rng.integers(len(anchors), size=int(anchor.sum()))]
    if focus is not None:
        points, chances = focus
        focused = rng.random(n) < FOCUS_SHARE
        drawn[focused] = points[rng.choice(len(points), size=int(focused.sum()), p=chances)]
    return np.asarray(drawn)


def spread_preferences(names: Sequence[str], n: int) -> list[Preference]:
    """``n`` distinct preferences over the simplex: equal weights, the corners, then ever finer lattice points.

    The lattice is that of Das and Dennis (1998): weights that are multiples of 1/h, taken for h = 2, 3, ...
    """
    m = len(names)
    if m == 1:
        return [Preference.uniform(names)]
    found: dict[tuple[float, ...], None] = {tuple([1.0 / m] * m): None}
    found |= {tuple(row): None for row in np.eye(m).tolist()}
    h = 2
    while len(found) < n:
        for cut in _lattice(m, h):
            found.setdefault(tuple(part / h for part in cut), None)
        h += 1
    return [Preference.of(names, list(weights)) for weights in list(found)[:n]]


def lattice(m: int, at_most: int) -> FloatArray:
    """The finest Das-Dennis lattice over the simplex of at most ``at_most`` points [k, m], the corners at least."""
    h = 1
    while math.comb(h + m, m - 1) <= at_most and m > 1:
        h += 1
    return np.array(_lattice(m, h), dtype=np.float64) / h


def _lattice(m: int, h: int) -> list[tuple[int, ...]]:
    """All m non-negative whole numbers that sum to h."""
    bars = combinations(range(h + m - 1), m - 1)
    return [tuple(b - a - 1 for a, b in pairwise((-1, *bar, h + m - 1))) for bar in bars]


def reward_scale(deviation: float, mean: float) -> float:
    """The factor that brings rewards to about unit deviation.

    Rewards that hardly vary are scaled by a hundredth of their mean instead, so that what they say is not blown up.
    A constant (one per step survived, or lost) becomes 1 or -1: all that it says is how long an episode lasts, and a
    hundred per step would be values that no critic reaches. Rewards that are all 0 so far stay as they are.
    """
    size = abs(mean) if deviation < CONSTANT * abs(mean) else max(deviation, 0.01 * abs(mean))
    return 1.0 / size if size > 1e-12 else 1.0


class RunningMoments:
    """Mean and deviation of every row seen so far (parallel form of Chan, Golub and LeVeque 1979), in float64."""

    def __init__(self, n_features: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(n_features)
        self._squares = np.zeros(n_features)

    def update(self, rows: NDArray[np.floating[Any]] | Tensor) -> None:
        """Take in rows [n, n_features]; none is fine."""
        n = len(rows)
        if n == 0:
            return
        mean, squares = _moments(rows)
        shift = mean - self.mean
        total = self.count + n
        self._squares += squares + shift**2 * (self.count * n / total)
        self.mean = self.mean + shift * (n / total)
        self.count = total

    def deviation(self) -> FloatArray:
        """Standard deviation [n_features], at least 0.001; ones before anything was seen."""
        if self.count < 2:
            return np.ones_like(self.mean)
        return np.asarray(np.maximum(np.sqrt(self._squares / self.count), SMALLEST_DEVIATION))

    def get_state(self) -> dict[str, Any]:
        """Everything, as copies."""
        return {"count": self.count, "mean": self.mean.copy(), "squares": self._squares.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.count = float(state["count"])
        self.mean, self._squares = np.array(state["mean"]), np.array(state["squares"])


def _moments(rows: NDArray[np.floating[Any]] | Tensor) -> tuple[FloatArray, FloatArray]:
    """Means and sums of squared deviations [n_features] of rows, computed where these are."""
    if isinstance(rows, Tensor):
        if rows.device.type != "cpu":
            deviation, mean = torch.var_mean(rows.double(), dim=0, correction=0)
            found = torch.stack((mean, deviation * len(rows))).cpu().numpy()
            return found[0], found[1]
        rows = rows.numpy()
    rows = np.asarray(rows, dtype=np.float64)
    mean = rows.mean(axis=0)
    return mean, ((rows - mean) ** 2).sum(axis=0)
