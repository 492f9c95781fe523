"""How likely each arm is the best one, and what choosing it would cost, under independent posteriors: by quadrature.

With densities f and distribution functions F of the arms' means,

    P(arm i is best) = integral of f_i(x) prod_{j != i} F_j(x) dx
    E[max_j mean_j - mean_i] = integral of F_i(x) (1 - prod_{j != i} F_j(x)) dx

The second has no difference of large numbers in it, so that a loss of 1e-12 comes out as such. Both are sums over
Gauss-Legendre nodes between edges that are set around every posterior, so that a sharp one next to a wide one is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rlaas.errors import ConfigurationError

__all__ = ["MOST_ARMS", "BetaMeans", "Means", "StudentMeans", "expected_loss", "probability_best", "top_two"]

FloatArray = NDArray[np.float64]

MOST_ARMS = 50
"""Arms up to which quadrature is worth its time, which grows with their square; beyond, draws are declared."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_STEPS = np.array([0.0, 0.4, 0.8, 1.2, 1.7, 2.2, 2.8, 3.5, 4.3, 5.3, 6.5, 8.0, 10.0, 12.5, 16.0, 20.0, 26.0, 34.0])
"""Distances of the edges from a posterior's centre, in its spreads; light tails are over by the last."""

_TINY = float(np.finfo(np.float64).tiny)


class Means(Protocol):
    """Independent posteriors of the means of ``n_arms`` arms, on an axis z that may be another one than the mean's."""

    def edges(self) -> FloatArray:
        """Points on the axis between which every density is smooth [n_edges], unsorted."""

    def density(self, z: FloatArray) -> FloatArray:
        """Density on the axis [n_arms, n]."""

    def below(self, z: FloatArray) -> FloatArray:
        """Distribution function [n_arms, n]."""

    def above(self, z: FloatArray) -> FloatArray:
        """1 - distribution function [n_arms, n], exact where it is small."""

    def slope(self, z: FloatArray) -> FloatArray:
        """Change of the mean along the axis [n]."""

    def centre(self) -> FloatArray:
        """Posterior mean of each arm's mean [n_arms]."""

    def draw(self, rng: np.random.Generator, draws: int) -> FloatArray:
        """Means drawn from the posteriors [draws, n_arms]."""


@dataclass(frozen=True, slots=True)
class BetaMeans:
    """Beta posteriors, on the axis z = logit(mean), where their densities have no poles.

    Attributes:
        a, b: parameters [n_arms], > 0.
    """

    a: FloatArray
    b: FloatArray

    def edges(self) -> FloatArray:
        """Around the mean of the logit, in its standard deviations (digamma and trigamma functions)."""
        centre = special.digamma(self.a) - special.digamma(self.b)
        spread = np.sqrt(special.polygamma(1, self.a) + special.polygamma(1, self.b))
        # A tail of exp(-a |z|) is over after 70 / a; with few successes that is further than 34 spreads.
        reach = np.array([0.15, 0.3, 0.6, 1.0])
        left, right = (centre[:, None] + side * 70 / p[:, None] * reach for side, p in ((-1, self.a), (1, self.b)))
        near = centre[:, None] + spread[:, None] * np.concatenate([-_STEPS[:0:-1], _STEPS])
        return np.asarray(np.clip(np.concatenate([near.ravel(), left.ravel(), right.ravel()]), -700.0, 700.0))

    def density(self, z: FloatArray) -> FloatArray:
        """x^a (1 - x)^b / B(a, b), by logarithms."""
        a, b = self.a[:, None], self.b[:, None]
        log_x, log_rest = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        return np.asarray(np.exp(a * log_x + b * log_rest - special.betaln(a, b)))

    def below(self, z: FloatArray) -> FloatArray:
        """Regularised incomplete beta function."""
        return np.asarray(special.betainc(self.a[:, None], self.b[:, None], special.expit(z)))

    def above(self, z: FloatArray) -> FloatArray:
        """The same from the other end."""
        return np.asarray(special.betainc(self.b[:, None], self.a[:, None], special.expit(-z)))

    def slope(self, z: FloatArray) -> FloatArray:
        """By the derivative of the logistic function, x (1 - x)."""
        return np.asarray(special.expit(z) * special.expit(-z))

    def centre(self) -> FloatArray:
        """Of a beta distribution: a / (a + b)."""
        return self.a / (self.a + self.b)

    def draw(self, rng: np.random.Generator, draws: int) -> FloatArray:
        """From numpy's generator."""
        return rng.beta(self.a, self.b, size=(draws, len(self.a)))


@dataclass(frozen=True, slots=True)
class StudentMeans:
    """Shifted and scaled Student posteriors, on the axis z = mean - largest location.

    Attributes:
        location, scale: [n_arms]; scale > 0.
        degrees: of freedom [n_arms], >= 1; infinite ones are of a normal posterior.
    """

    location: FloatArray
    scale: FloatArray
    degrees: FloatArray

    def edges(self) -> FloatArray:
        """Around the location in scales, geometrically further for heavy tails."""
        # P(|T| > x) falls as x^-degrees: 1e-26 is reached at 10^(26 / degrees).
        far = 10.0 ** min(26.0 / float(self.degrees.min()), 18.0)
        more = _STEPS[-1] * 1.6 ** np.arange(1, 1 + math.ceil(math.log(max(far / _STEPS[-1], 1.0), 1.6)))
        steps = np.concatenate([_STEPS, more])
        edges = self._ahead()[:, None] + self.scale[:, None] * np.concatenate([-steps[:0:-1], steps])
        return np.asarray(edges.ravel())

    def density(self, z: FloatArray) -> FloatArray:
        """By logarithms, so that many degrees of freedom do not overflow."""
        t, df = self._scaled(z), np.where(np.isinf(self.degrees), 1.0, self.degrees)[:, None]
        student = (
            special.gammaln((df + 1) / 2)
            - special.gammaln(df / 2)
            - 0.5 * np.log(np.pi * df)
            - (df + 1) / 2 * np.log1p(t * t / df)
        )
        normal = -0.5 * t * t - 0.5 * math.log(2 * math.pi)
        return np.asarray(np.exp(np.where(np.isinf(self.degrees)[:, None], normal, student)) / self.scale[:, None])

    def below(self, z: FloatArray) -> FloatArray:
        """Student's distribution function."""
        return self._tail(self._scaled(z))

    def above(self, z: FloatArray) -> FloatArray:
        """The same from the other end, by symmetry."""
        return self._tail(-self._scaled(z))

    def slope(self, z: FloatArray) -> FloatArray:
        """1: the axis is the mean's own, shifted."""
        return np.ones_like(z)

    def centre(self) -> FloatArray:
        """The location."""
        return self.location

    def draw(self, rng: np.random.Generator, draws: int) -> FloatArray:
        """A normal over the root of a gamma."""
        shape = (draws, len(self.location))
        normal = self.scale * rng.standard_normal(shape)
        endless = np.isinf(self.degrees)
        if endless.all():
            return np.asarray(self.location + normal)
        half = np.where(endless, 1.0, self.degrees / 2)
        mixing = np.where(endless, 1.0, rng.gamma(half, 1.0 / half, shape))
        return np.asarray(self.location + normal / np.sqrt(mixing))

    def _scaled(self, z: FloatArray) -> FloatArray:
        return (z - self._ahead()[:, None]) / self.scale[:, None]

    def _ahead(self) -> FloatArray:
        # From the best location on: far from 0 the axis would have no digits left for a small scale.
        return np.asarray(self.location - self.location.max())

    def _tail(self, t: FloatArray) -> FloatArray:
        endless = np.isinf(self.degrees)[:, None]
        df = np.where(endless, 1.0, self.degrees[:, None])
        return np.asarray(np.where(endless, special.ndtr(t), special.stdtr(df, t)))


def probability_best(means: Means) -> FloatArray:
    """Probability that each arm has the largest mean [n_arms]; sums to 1.

    Raises:
        ConfigurationError: more than :data:`MOST_ARMS` arms.
    """
    z, weight = _nodes(means)
    logs = np.log(np.maximum(means.below(z), _TINY))
    best = (means.density(z) * np.exp(logs.sum(axis=0) - logs)) @ weight
    # The integrals sum to 1 but for the error of the rule; what is divided out here is of that size.
    return np.asarray(best / best.sum())


def expected_loss(means: Means) -> FloatArray:
    """What choosing each arm is expected to cost against the best one, in the mean's unit [n_arms].

    Raises:
        ConfigurationError: more than :data:`MOST_ARMS` arms.
    """
    z, weight = _nodes(means)
    below = means.below(z)
    above = means.above(z)
    # log F from the side where F keeps its digits.
    logs = np.where(below < 0.5, np.log(np.maximum(below, _TINY)), np.log1p(-np.minimum(above, 0.5)))
    return np.asarray((below * -np.expm1(logs.sum(axis=0) - logs)) @ (weight * means.slope(z)))


def top_two(best: FloatArray, leader: float) -> FloatArray:
    """Shares of top-two Thompson sampling from the probabilities of being best [n_arms] (Russo 2020, section 3.4).

    With probability ``leader`` the best arm of a draw is played; otherwise draws are repeated until another one is
    best, which is played: share_i = p_i (leader + (1 - leader) sum_{j != i} p_j / (1 - p_j)).
    """
    rest = np.array([np.delete(best, i).sum() for i in range(len(best))])  # 1 - p without its rounding
    # An arm that is best for certain leaves no second one to be drawn: the others share its place evenly.
    sure = rest <= 0
    odds = np.divide(best, rest, out=np.zeros_like(best), where=~sure)
    second = best * np.array([np.delete(odds, i).sum() for i in range(len(best))])
    if sure.any():
        second = np.where(sure, 0.0, 1.0 / (len(best) - 1))
    share = leader * best + (1 - leader) * second
    return np.asarray(share / share.sum())


def _nodes(means: Means) -> tuple[FloatArray, FloatArray]:
    """Points on the axis and their weights [n] of a Gauss-Legendre rule between all edges."""
    count = len(means.centre())
    if count > MOST_ARMS:
        raise ConfigurationError(
            f"{count} arms; probabilities by quadrature are of at most {MOST_ARMS}, set draws for more", field="draws"
        )
    edges = np.unique(means.edges())
    half = np.diff(edges) / 2
    z = (edges[:-1] + half)[:, None] + half[:, None] * _NODES
    return z.ravel(), (half[:, None] * _WEIGHTS).ravel()
