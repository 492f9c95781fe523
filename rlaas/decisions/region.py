"""The region of weights in which a choice stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.contest import Contest
from rlaas.decisions.methods import WeightedSum
from rlaas.decisions.segments import first_changes, simplex_sample

__all__ = ["HalfSpace", "Region", "holds_while", "weight_region", "wilson_interval"]

FloatArray = NDArray[np.float64]

# Steps to the end of the simplex; a method that scores many times for one weight vector gets a quarter of them.
GRID = 200
CHEAP = 2
SAMPLE = 2000
WAYS = 128
WAY_STEPS = 24
SEED = 1
CONFIDENCE_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfSpace:
    """Weights under which the choice is at least as good as one rival: ``coefficients . weights >= 0``.

    Attributes:
        rival: name of the other candidate.
        coefficients: by objective, goodness of the choice less that of the rival.
    """

    rival: str
    coefficients: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The half-space as plain JSON types."""
        return {"rival": self.rival, "coefficients": dict(self.coefficients)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """How far weights can move before the choice changes.

    Attributes:
        radius: the least share of the weight whose move between objectives changes the choice (half the L1 distance);
            None where no move does.
        radius_exact: true where ``radius`` is computed (weighted sum, or nobody else can win); false where it is the
            least found along the ways to the ends of the simplex and to sampled weights, so an upper bound.
        share: estimated share of all weights (uniform on the simplex) under which the choice stays.
        share_interval: its 95 % confidence interval (Wilson 1927).
        half_spaces: whose intersection with the simplex is the region, exactly; for the weighted sum only.
    """

    radius: float | None
    radius_exact: bool
    share: float
    share_interval: tuple[float, float]
    half_spaces: tuple[HalfSpace, ...]

    def to_dict(self) -> dict[str, Any]:
        """The region as plain JSON types."""
        return {
            "radius": self.radius,
            "radius_exact": self.radius_exact,
            "share": self.share,
            "share_interval": list(self.share_interval),
            "half_spaces": [half_space.to_dict() for half_space in self.half_spaces],
        }


def holds_while(contest: Contest, weights: FloatArray) -> dict[str, tuple[float, float]]:
    """By objective, the range of its weight around the present one in which the winner stays.

    The other weights keep their proportions, and the sum stays 1. A loss and return within one grid step (0.5 % of
    the way to the end, 2 % by the knee) goes unseen.
    """
    size = len(weights)
    if size == 1:  # there is nothing to move its weight to
        return {contest.matrix.objectives[0].name: (1.0, 1.0)}
    ends = np.concatenate([_moved(weights, np.zeros(size)), np.eye(size)])
    holds, _, changed = first_changes(
        contest.winners, np.broadcast_to(weights, ends.shape), ends, _steps(contest, GRID)
    )
    result: dict[str, tuple[float, float]] = {}
    for j, objective in enumerate(contest.matrix.objectives):
        own = float(weights[j])
        low = own * (1.0 - float(holds[j])) if changed[j] else 0.0
        high = own + float(holds[size + j]) * (1.0 - own) if changed[size + j] else 1.0
        result[objective.name] = (low, high)
    return result


def weight_region(contest: Contest, weights: FloatArray) -> Region:
    """The region of weights around ``weights`` [m] in which their winner stays; the same bits on every call."""
    winner = contest.winner(weights)
    generator = np.random.default_rng(SEED)
    sample = simplex_sample(generator, max(SAMPLE // contest.method.work, WAYS), len(weights))
    wins = contest.winners(sample) == winner
    share, interval = float(wins.mean()), wilson_interval(int(wins.sum()), len(wins))
    rivals = contest.members[contest.eligible]
    rivals = rivals[rivals != winner]
    if not len(rivals):
        return Region(radius=None, radius_exact=True, share=1.0, share_interval=(1.0, 1.0), half_spaces=())
    if isinstance(contest.method, WeightedSum):
        ahead = contest.matrix.goodness[winner] - contest.matrix.goodness[rivals]
        radius, exact = _linear_radius(ahead, weights), True
        half_spaces = tuple(_half_space(contest, int(r), row) for r, row in zip(rivals, ahead, strict=True))
    else:
        radius, exact = _found_radius(contest, weights, sample[~wins]), False
        half_spaces = ()
    return Region(radius=radius, radius_exact=exact, share=share, share_interval=interval, half_spaces=half_spaces)


def _half_space(contest: Contest, rival: int, ahead: FloatArray) -> HalfSpace:
    names = [objective.name for objective in contest.matrix.objectives]
    return HalfSpace(
        rival=contest.matrix.candidates[rival].name,
        coefficients={name: float(value) for name, value in zip(names, ahead, strict=True)},
    )


def _linear_radius(ahead: FloatArray, weights: FloatArray) -> float | None:
    """Least weight that has to move until some rival draws level, for leads [r, m] that weights [m] multiply.

    The cheapest move takes weight from where the lead is largest to where it is smallest, as a fractional knapsack
    does: each unit moved off objective j lowers the lead by ``lead_j - min(lead)``.
    """
    order = np.argsort(-ahead, axis=1)
    falls = np.take_along_axis(ahead, order, axis=1) - ahead.min(axis=1, keepdims=True)
    held = weights[order]
    lead = np.maximum(ahead @ weights, 0.0)
    gone = np.cumsum(falls * held, axis=1)
    # All weight on the objective where the lead is smallest is as far as it goes. Said so, not by the sum of the moves
    # on the way there, which rounds.
    reached = ahead.min(axis=1) <= 0
    if not reached.any():
        return None
    moves = []
    for fall, mass, total, target in zip(falls[reached], held[reached], gone[reached], lead[reached], strict=True):
        last = min(int(np.searchsorted(total, target)), len(total) - 1)
        before = float(total[last - 1]) if last else 0.0
        step = (target - before) / fall[last] if fall[last] > 0 else 0.0
        moves.append(float(mass[:last].sum()) + float(step))
    return min(moves)


def _found_radius(contest: Contest, weights: FloatArray, losing: FloatArray) -> float | None:
    """Least weight moved at the first change on the ways to vertices, between two objectives, and to lost samples."""
    size = len(weights)
    pairs = [_shifted(weights, i, j) for i in range(size) for j in range(size) if i != j and weights[i] > 0]
    ends = np.concatenate([np.reshape(pairs, (-1, size)), np.eye(size), losing[:WAYS]])
    starts = np.broadcast_to(weights, ends.shape)
    lengths = 0.5 * np.abs(ends - weights).sum(axis=1)
    steps = _steps(contest, WAY_STEPS)
    holds, fails, changed = first_changes(contest.winners, starts, ends, steps, passes=0)
    if not changed.any():
        return None
    # Only ways whose step with the change begins before the nearest one ends can hold the least.
    near = changed & (holds * lengths <= (fails * lengths)[changed].min())
    _, fails, _ = first_changes(contest.winners, starts[near], ends[near], steps)
    return float((fails * lengths[near]).min())


def _steps(contest: Contest, steps: int) -> int:
    return steps if contest.method.work <= CHEAP else steps // 4


def _shifted(weights: FloatArray, source: int, target: int) -> FloatArray:
    """Weights with all of one objective's weight moved to another."""
    moved = weights.copy()
    moved[target] += moved[source]
    moved[source] = 0.0
    return moved


def _moved(weights: FloatArray, targets: FloatArray) -> FloatArray:
    """Weights [m, m]: in row j the j-th is ``targets[j]`` and the others keep their proportions, sum 1."""
    size = len(weights)
    others = np.where(np.eye(size, dtype=bool), 0.0, weights)
    total = others.sum(axis=1, keepdims=True)
    # All weight on one: what is taken from it is shared equally.
    equal = (1.0 - np.eye(size)) / max(size - 1, 1)
    shares = np.where(total > 0, others / np.where(total > 0, total, 1.0), equal)
    moved = (1.0 - targets)[:, None] * shares
    moved[np.diag_indices(size)] = targets
    return np.asarray(moved)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927, Journal of the American Statistical Association 22)."""
    z2 = CONFIDENCE_Z**2
    centre = (hits + z2 / 2) / (count + z2)
    half = CONFIDENCE_Z * math.sqrt(hits * (count - hits) / count + z2 / 4) / (count + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
