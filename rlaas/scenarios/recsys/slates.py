"""The platform: from an action to a slate of ten distinct items, for all environments at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.choice import dot
from rlaas.scenarios.recsys.reference import SLATE, Reference

__all__ = ["ActionTable", "Beliefs", "SlateBuilder", "diversify", "explore", "intra_list_diversity"]

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]


class ActionTable:
    """The discrete actions: retrieval strategy x ranking preset x diversity factor x exploration rate.

    Attributes:
        sizes: number of choices of each part.
        n: number of actions.
        parts: choice of each part by action [n, 4].
    """

    def __init__(self, sizes: tuple[int, int, int, int]) -> None:
        self.sizes = sizes
        self.n = int(np.prod(sizes))
        self.parts: IntArray = np.stack(np.unravel_index(np.arange(self.n), sizes), axis=1).astype(np.int64)

    def index(self, retrieval: int, ranking: int, diversity: int, exploration: int) -> int:
        """The action with these parts."""
        return int(np.ravel_multi_index((retrieval, ranking, diversity, exploration), self.sizes))

    def check(self, actions: Any, rows: int) -> IntArray:
        """Actions [rows] as whole numbers.

        Raises:
            InvalidInputError: wrong shape, no whole numbers, or out of range; names ``action`` and what is allowed.
        """
        array = np.asarray(actions)
        allowed = f"whole numbers from 0 to {self.n - 1}"
        if array.shape != (rows,):
            raise InvalidInputError(f"action has shape {array.shape}; expected ({rows},) {allowed}", field="action")
        if not np.issubdtype(array.dtype, np.integer):
            raise InvalidInputError(
                f"action must be {allowed}, got {array.dtype} {str(array.ravel()[0])[:40]}", field="action"
            )
        wrong = np.flatnonzero((array < 0) | (array >= self.n))
        if len(wrong):
            raise InvalidInputError(
                f"action must be {allowed}, got {array[wrong[0]]} in row {wrong[0]}", field="action"
            )
        return array.astype(np.int64)


def diversify(
    relevance: Float32Array, candidates: IntArray, similarity: Float32Array, strength: Float32Array
) -> IntArray:
    """Maximal marginal relevance: columns of the chosen candidates [num_envs, SLATE], in order.

    Takes again and again the candidate with the largest ``(1 - s) * relevance - s * (largest cosine to those taken)``
    (Carbonell and Goldstein 1998, with lambda = 1 - s); ties go to the earlier column.

    Args:
        relevance: of each candidate, 0 to 1 [num_envs, shortlist].
        candidates: their items [num_envs, shortlist].
        similarity: cosines between items [items, items].
        strength: s of each environment, 0 (relevance alone) to 1 [num_envs].
    """
    n, _ = relevance.shape
    rows = np.arange(n)
    score = (1.0 - strength)[:, None] * relevance
    # The largest cosine so far; cosines of non-negative vectors are at least 0, so 0 is "nothing taken yet".
    nearest = np.zeros_like(score)
    weight = strength[:, None]
    taken = np.empty((n, SLATE), dtype=np.int64)
    flat = similarity.ravel()
    items = similarity.shape[1]
    for position in range(SLATE):
        column = np.argmax(score - weight * nearest, axis=1)
        taken[:, position] = column
        score[rows, column] = -np.inf
        if position + 1 < SLATE:
            offset = candidates[rows, column] * items
            np.maximum(nearest, flat.take(candidates + offset[:, None]), out=nearest)
    return taken


def explore(
    slate: IntArray, rate: FloatArray, coin: FloatArray, ticket: FloatArray, shown: NDArray[np.bool_]
) -> IntArray:
    """Replace each position with probability ``rate`` by an item drawn from the whole catalogue.

    A drawn item that is in the slate already, was drawn for an earlier position or was shown in this session does
    not replace anything, so that the items of a slate stay distinct.

    Args:
        slate: items [num_envs, SLATE].
        rate: of each environment [num_envs].
        coin, ticket: uniform numbers in [0, 1) [num_envs, SLATE].
        shown: items shown in this session [num_envs, items].
    """
    items = shown.shape[1]
    drawn = (ticket * items).astype(np.int64)
    known = (drawn[:, :, None] == slate[:, None, :]).any(axis=2)
    earlier = np.tril(np.ones((SLATE, SLATE), dtype=bool), k=-1)
    repeated = ((drawn[:, :, None] == drawn[:, None, :]) & earlier).any(axis=2)
    seen = np.take_along_axis(shown, drawn, axis=1)
    return np.where((coin < rate[:, None]) & ~known & ~repeated & ~seen, drawn, slate)


def intra_list_diversity(slate: IntArray, similarity: Float32Array) -> FloatArray:
    """Mean over the pairs of a slate of 1 - cosine [num_envs]."""
    k = slate.shape[1]
    first, second = np.triu_indices(k, 1)
    pairs = slate[:, first] * similarity.shape[1] + slate[:, second]
    return np.asarray(1.0 - similarity.ravel().take(pairs).astype(np.float64).sum(axis=1) / len(first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beliefs:
    """What the platform believes of each environment's user and day.

    Attributes:
        taste: estimated taste, unit length [num_envs, topics].
        trend: topic trends as the platform measures them [num_envs, topics].
        price_sensitivity: mean of the user's segment [num_envs].
        day: of an item's life [num_envs].
    """

    taste: FloatArray
    trend: FloatArray
    price_sensitivity: FloatArray
    day: IntArray


class SlateBuilder:
    """Retrieves a shortlist, ranks it, diversifies it.

    The click and order models have the true coefficients, as models fitted to a large log would; what they lack is
    the user: they work on the *estimated* taste, the segment's price sensitivity and the observed quality, and they
    know neither position nor satiation.
    """

    def __init__(self, reference: Reference, catalogue: Catalogue, table: ActionTable, shortlist: int) -> None:
        actions = reference.actions
        self.catalogue = catalogue
        self.table = table
        self.shortlist = shortlist
        self._choice, self._conversion = reference.choice, reference.conversion
        self._match_r = np.array([w["match"] for w in actions.retrieval.values()])
        self._trend_r = np.array([w["trend"] for w in actions.retrieval.values()])
        self.retrieval_cost_r = np.array([w["cost"] for w in actions.retrieval.values()])
        names = ("popularity", "click", "conversion", "margin", "economy")
        self._weights_pw = np.array([[w[name] for name in names] for w in actions.ranking.values()])
        self._diversity = np.array(actions.diversity, dtype=np.float32)
        self.exploration = np.array(actions.exploration)
        self._vectors_ki = np.ascontiguousarray(catalogue.vectors_ik.T, dtype=np.float32)

    def retrieve(self, retrieval: IntArray, beliefs: Beliefs, shown: NDArray[np.bool_]) -> IntArray:
        """The best ``shortlist`` items not shown yet by each environment's strategy [num_envs, shortlist], unordered.

        Args:
            retrieval: strategy [num_envs].
            beliefs: see :class:`Beliefs`.
            shown: items shown in this session [num_envs, items].
        """
        linear = self._match_r[retrieval][:, None] * beliefs.taste + self._trend_r[retrieval][:, None] * beliefs.trend
        score = self.catalogue.retrieval_dri[beliefs.day, retrieval]
        # Topic by topic rather than one matrix product: BLAS rounds differently for different batch sizes.
        by_topic = linear.astype(np.float32)
        product = np.empty_like(score)
        for topic, row in enumerate(self._vectors_ki):
            np.multiply(by_topic[:, topic, None], row, out=product)
            score += product
        score[shown] = -np.inf
        cut = score.shape[1] - self.shortlist
        return np.argpartition(score, cut, axis=1)[:, cut:]

    def rank(self, ranking: IntArray, beliefs: Beliefs, candidates: IntArray) -> Float32Array:
        """Relevance of each candidate under each environment's preset, 0 to 1 [num_envs, shortlist].

        Args:
            ranking: preset [num_envs].
            beliefs: see :class:`Beliefs`.
            candidates: items [num_envs, shortlist].
        """
        cat, c, v = self.catalogue, self._choice, self._conversion
        vectors = cat.vectors_ik[candidates]
        match = dot(vectors, beliefs.taste[:, None, :])
        trend = dot(vectors, beliefs.trend[:, None, :])
        day = beliefs.day[:, None]
        quality = cat.observed_quality_di[day, candidates]
        dearness = beliefs.price_sensitivity[:, None] * (cat.price_i[candidates] - 1.0)
        click = c.match * match + c.quality * quality + c.trend * trend - c.price * dearness
        click += c.freshness * cat.freshness_di[day, candidates]
        conversion = v.match * match + v.quality * quality - v.price * dearness
        margin = np.log(cat.margin_i * cat.price_i)[candidates]
        popularity = cat.popularity_di[day, candidates] + trend
        w = self._weights_pw[ranking][:, :, None]
        score = w[:, 0] * popularity + w[:, 1] * click + w[:, 2] * conversion + w[:, 3] * margin
        score -= w[:, 4] * cat.log_cost_i[candidates]
        low = score.min(axis=1, keepdims=True)
        span = score.max(axis=1, keepdims=True) - low
        return np.asarray((score - low) / np.maximum(span, 1e-9), dtype=np.float32)

    def build(
        self, actions: IntArray, beliefs: Beliefs, shown: NDArray[np.bool_], coin: FloatArray, ticket: FloatArray
    ) -> IntArray:
        """The slates of ``actions`` [num_envs]: ten distinct items each, best first [num_envs, SLATE]."""
        retrieval, ranking, diversity, exploration = self.table.parts[actions].T
        candidates = self.retrieve(retrieval, beliefs, shown)
        relevance = self.rank(ranking, beliefs, candidates)
        taken = diversify(relevance, candidates, self.catalogue.similarity_ii, self._diversity[diversity])
        slate = np.take_along_axis(candidates, taken, axis=1)
        return explore(slate, self.exploration[exploration], coin, ticket, shown)
