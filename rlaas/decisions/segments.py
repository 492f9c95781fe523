"""Where the winner changes on straight ways through the simplex of weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_changes", "simplex_sample"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
Winners = Callable[[FloatArray], IndexArray]

# 24 passes of 4 parts: the border is known to 4^-24 = 4e-15 of a grid step. Few parts cost the fewest scorings, many
# the fewest calls.
PARTS = 4
PASSES = 24


def first_changes(
    winners: Winners, starts: FloatArray, ends: FloatArray, steps: int, passes: int = PASSES
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """The first point on every way at which another candidate wins than at its start.

    A grid finds the first step with another winner, repeated division of that step the border within it; a loss and
    return inside one step goes unseen.

    Args:
        winners: winner under each of k weight vectors [k, m].
        starts, ends: of d ways [d, m].
        steps: of the grid on each way.
        passes: divisions of the step found, each into 4; 0 leaves the whole step between ``holds`` and ``fails``.

    Returns:
        ``holds`` [d], the last point in [0, 1] known to have the winner of the start (1 where nothing changes);
        ``fails`` [d], a point just beyond with another one (1 where nothing changes); ``changed`` [d].
    """
    count = len(starts)
    holds, fails = np.ones(count), np.ones(count)
    if not count:
        return holds, fails, np.zeros(0, dtype=bool)
    own = winners(starts)
    grid = np.linspace(0.0, 1.0, steps + 1)[1:]
    lost = _winners_at(winners, starts, ends, np.broadcast_to(grid, (count, steps))) != own[:, None]
    changed = np.asarray(lost.any(axis=1))
    moving = np.flatnonzero(changed)
    at = lost[moving].argmax(axis=1)
    low, high = np.where(at > 0, grid[at - 1], 0.0), grid[at]
    share = np.arange(1, PARTS + 1) / PARTS
    for _ in range(passes if len(moving) else 0):
        points = low[:, None] + (high - low)[:, None] * share
        points[:, -1] = high
        lost = _winners_at(winners, starts[moving], ends[moving], points) != own[moving, None]
        lost[:, -1] = True
        at = lost.argmax(axis=1)
        rows = np.arange(len(moving))
        low, high = np.where(at > 0, points[rows, at - 1], low), points[rows, at]
    holds[moving], fails[moving] = low, high
    return holds, fails, changed


def _winners_at(winners: Winners, starts: FloatArray, ends: FloatArray, points: FloatArray) -> IndexArray:
    """Winners [d, p] at points [d, p] of d ways."""
    weights = starts[:, None] + points[:, :, None] * (ends - starts)[:, None]
    # Rounding may leave -1e-17, which is no weight.
    return winners(np.maximum(weights, 0.0).reshape(-1, starts.shape[1])).reshape(points.shape)


def simplex_sample(generator: np.random.Generator, count: int, size: int) -> FloatArray:
    """Weights [count, size] drawn evenly from the simplex (normalised exponentials)."""
    drawn = generator.exponential(size=(count, size))
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))
