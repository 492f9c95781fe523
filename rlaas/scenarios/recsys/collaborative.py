"""What a platform learns offline from a click log: item factors, their regression on content, item neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.reference import Reference

__all__ = ["Collaborative", "als", "cosine_neighbours", "fit_collaborative", "simulated_log"]

FloatArray = NDArray[np.float64]

_RIDGE = 1.0
_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaborative:
    """Models of the log over items I with F factors.

    Attributes:
        factors_ki: item factors [F, I].
        content_ki: what the items' content says about their factors [F, I].
        gram: ``Y'Y + ridge`` of the fold-in of a user [F, F].
        scale: factor that gives scores unit spread over items for a typical user.
        neighbours_ii: co-click cosines [I, I], 0 on the diagonal, scaled to unit spread.
    """

    factors_ki: FloatArray
    content_ki: FloatArray
    gram: FloatArray
    scale: float
    neighbours_ii: NDArray[np.float32]


def simulated_log(reference: Reference, catalogue: Catalogue) -> NDArray[np.bool_]:
    """Clicks [users, items] of users who saw random items, by the scenario's own utilities without context."""
    c, rng = reference.catalogue, np.random.default_rng([reference.catalogue.seed, catalogue.items, 3])
    users, items = c.offline_users, catalogue.items
    segment = rng.choice(len(reference.users.segment_shares), size=users, p=reference.users.segment_shares)
    logits = catalogue.segment_centre_sk[segment]
    logits = logits + reference.users.taste_spread * rng.standard_normal(logits.shape)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    taste = shares / np.sqrt((shares**2).sum(axis=1, keepdims=True))
    utility = reference.choice.match * taste @ catalogue.vectors_ik.T + reference.choice.quality * catalogue.quality_i
    seen = rng.random((users, items)) < c.offline_views / items
    # One level for everyone: the share of clicks among what was seen is about the wanted one.
    level = np.quantile(utility, 1.0 - c.offline_click_share)
    clicked = rng.random((users, items)) < 1.0 / (1.0 + np.exp(-2.0 * (utility - level)))
    return np.asarray(seen & clicked)


def als(clicks: NDArray[np.bool_], factors: int, confidence: float, seed: int) -> tuple[FloatArray, FloatArray]:
    """Alternating least squares for implicit feedback: user and item factors ([users, F], [items, F]).

    Hu, Koren and Volinsky 2008: minimises ``sum c_ui (p_ui - x_u y_i)^2 + ridge (|x|^2 + |y|^2)`` with c = 1 +
    ``confidence`` for a click and 1 otherwise.
    """
    rng = np.random.default_rng(seed)
    y = 0.1 * rng.standard_normal((clicks.shape[1], factors))
    x = np.zeros((clicks.shape[0], factors))
    for _ in range(_ROUNDS):
        x = _half(clicks, y, confidence)
        y = _half(clicks.T, x, confidence)
    return x, y


def _half(clicks: NDArray[np.bool_], other: FloatArray, confidence: float) -> FloatArray:
    factors = other.shape[1]
    outer = (other[:, :, None] * other[:, None, :]).reshape(len(other), -1)
    own = clicks.astype(np.float64)
    gram = other.T @ other + _RIDGE * np.eye(factors)
    left = gram + confidence * (own @ outer).reshape(-1, factors, factors)
    right = (1.0 + confidence) * (own @ other)
    return np.asarray(np.linalg.solve(left, right[:, :, None])[:, :, 0])


def cosine_neighbours(clicks: NDArray[np.bool_]) -> FloatArray:
    """Share of users two items have in common [items, items]: ``n_ij / sqrt(n_i n_j)``, 0 on the diagonal."""
    counts = clicks.astype(np.float64)
    together = counts.T @ counts
    alone = np.maximum(np.diag(together), 1.0)
    similarity = together / np.sqrt(np.outer(alone, alone))
    np.fill_diagonal(similarity, 0.0)
    return np.asarray(similarity)


def fit_collaborative(reference: Reference, catalogue: Catalogue) -> Collaborative:
    """Fit both models to the simulated log, and the regression of item factors on content by ridge regression."""
    confidence = reference.actions.exploring["fold_in_confidence"]
    clicks = simulated_log(reference, catalogue)
    users, items = als(clicks, reference.catalogue.factors, confidence, reference.catalogue.seed)
    content = np.column_stack([np.ones(len(items)), catalogue.vectors_ik])
    gram = content.T @ content + _RIDGE * np.eye(content.shape[1])
    regressed = content @ np.linalg.solve(gram, content.T @ items)
    spread = float((users[:200] @ items.T).std(axis=1).mean())
    neighbours = cosine_neighbours(clicks)
    return Collaborative(
        factors_ki=items.T,
        content_ki=regressed.T,
        gram=items.T @ items + _RIDGE * np.eye(items.shape[1]),
        scale=1.0 / max(spread, 1e-9),
        neighbours_ii=(neighbours / max(float(neighbours.std()), 1e-9)).astype(np.float32),
    )
