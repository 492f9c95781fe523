"""What to recommend under weights that are known in part, and which pair to ask about next."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.elicitation.region import WeightRegion

__all__ = ["Standing", "next_pair", "possible", "standing"]

FloatArray = NDArray[np.float64]

MOST_PAIRS = 2000
CLEAR = 1e-9
AHEAD = 1e-7
"""Leads below are within what a linear program leaves open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a region of weights says about candidates.

    Attributes:
        best: position of the candidate with the least largest regret (Boutilier, Patrascu, Poupart & Schuurmans 2006);
            with more objectives than vertices are enumerated for, the least over a sample of the region.
        adversary: position of the candidate that causes the largest regret of ``best``.
        max_regret: how much goodness ``best`` lacks at most, whatever the weights in the region; exact.
        winners: positions of candidates that are best at a point of the sample.
    """

    best: int
    adversary: int
    max_regret: float
    winners: tuple[int, ...]


def standing(goodness: FloatArray, region: WeightRegion, sample: FloatArray) -> Standing:
    """The recommendation among candidates of ``goodness`` [n, m], given a ``sample`` [s, m] of the region."""
    corners = sample if region.vertices is None else region.vertices
    utility = corners @ goodness.T
    # Regret is convex in the weights, so that its largest value lies at a corner.
    best = int((utility.max(axis=1, keepdims=True) - utility).max(axis=0).argmin())
    regret = region.highest(goodness - goodness[best])
    seen = sample @ goodness.T
    winning = (seen >= seen.max(axis=1, keepdims=True) - CLEAR).any(axis=0)
    return Standing(
        best=best,
        adversary=int(regret.argmax()),
        max_regret=max(0.0, float(regret.max())),
        winners=tuple(int(i) for i in np.flatnonzero(winning)),
    )


def possible(goodness: FloatArray, region: WeightRegion, now: Standing) -> tuple[int, ...]:
    """Positions of candidates that are ahead of all others somewhere in the region; a linear program where in doubt.

    A tie at the border does not count: after "A over B" both are equally good there. Of equal candidates all count.
    """
    found = np.zeros(len(goodness), dtype=bool)
    found[[*now.winners, now.best]] = True
    utility = None if region.vertices is None else region.vertices @ goodness.T
    for i in np.flatnonzero(~found):
        others = (goodness != goodness[i]).any(axis=1)
        if utility is not None and (utility[:, others] >= utility[:, [i]]).all(axis=0).any():
            continue  # one other candidate is at least as good at every corner, so everywhere
        found[i] = region.lead(goodness[i] - goodness[others]) > AHEAD
    return tuple(int(i) for i in np.flatnonzero(found))


def next_pair(
    goodness: FloatArray,
    region: WeightRegion,
    sample: FloatArray,
    now: Standing,
    *,
    tolerance: float,
    asked: Set[tuple[int, int]],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """The two candidates whose comparison tells most, or None where no comparison would tell anything.

    The answer's information about the weights plus its information about which candidate is best (Lindley 1956), both
    over the sample: the first halves the region, the second separates the candidates that matter. Once the sample holds
    no regret above ``tolerance`` only corners do, and the recommendation is put against its adversary (the current
    solution strategy of Boutilier et al. 2006).

    Args:
        goodness: of the candidates [n, m].
        region: weights that are left.
        sample: of the region [s, m].
        now: the standing of the candidates.
        tolerance: regret that is accepted.
        asked: pairs (i, j), i < j, that were compared already.
        rng: which pairs are looked at, where there are more than :data:`MOST_PAIRS`.
    """
    utility = sample @ goodness.T
    loss = utility.max(axis=1, keepdims=True) - utility
    rivals = (min(now.best, now.adversary), max(now.best, now.adversary))
    if float(loss[:, now.best].max()) <= tolerance and rivals not in asked and _splits(goodness, region, rivals):
        return rivals
    rated = np.array(sorted({*now.winners, *rivals}))
    first, second = (rated[side] for side in np.triu_indices(len(rated), 1))
    fresh = np.array([pair not in asked for pair in zip(first, second, strict=True)], dtype=bool)
    first, second = first[fresh], second[fresh]
    if len(first) > MOST_PAIRS:
        chosen = np.sort(rng.choice(len(first), MOST_PAIRS, replace=False))
        first, second = first[chosen], second[chosen]
    score = _information(utility[:, first] > utility[:, second], loss.argmin(axis=1))
    for k in np.argsort(-score, kind="stable"):
        pair = int(first[k]), int(second[k])
        if _splits(goodness, region, pair):
            return pair
    return None


def _splits(goodness: FloatArray, region: WeightRegion, pair: tuple[int, int]) -> bool:
    """Whether either answer leaves weights, so that no answer to a question can be a contradiction."""
    difference = goodness[pair[0]] - goodness[pair[1]]
    return not region.cut(difference, 0.0).empty and not region.cut(-difference, 0.0).empty


def _information(preferred: NDArray[np.bool_], winner: NDArray[np.intp]) -> FloatArray:
    """Information in nats of each of k answers ``preferred`` [s, k] about the weights plus about the ``winner`` [s]."""
    present = np.unique(winner)
    wins = (winner[:, None] == present).astype(np.float64)
    agreeing = preferred.T.astype(np.float64) @ wins / len(winner)
    prior = wins.mean(axis=0)
    left = _entropy(agreeing) + _entropy(prior - agreeing)
    share = preferred.mean(axis=0)
    answer = _entropy(np.column_stack([share, 1.0 - share]))
    # Of joint probabilities: H(best | answer) = H(best, answer) - H(answer).
    about_best = float(_entropy(prior)) - (left - answer)
    return np.asarray(answer + about_best)


def _entropy(probability: FloatArray) -> FloatArray:
    positive = np.where(probability > 0, probability, 1.0)
    return np.asarray(-(positive * np.log(positive)).sum(axis=-1))
