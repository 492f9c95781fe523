r"""Bayesian comparison of two arms: how probably the treatment is better, by how much, and what a wrong choice costs.

Posteriors are conjugate: Beta for proportions, Student's t (normal-inverse-gamma) for means. What needs both arms is an
integral in one dimension, taken by Gauss-Legendre quadrature between the quantiles of both posteriors, so the same data
gives the same bits:

    P(B > A) = integral of f_B F_A,      E[max(A - B, 0)] = integral of F_B (1 - F_A).

Posteriors do not depend on when one looks, but neither do they bound how often one is wrong when stopping at the first
convincing look; for that, see :mod:`~rlaas.experiments.inference.sequences`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.inference.checks import checked_counts, checked_level, checked_number
from rlaas.experiments.inference.moments import Moments

__all__ = ["BayesResult", "NormalPrior", "bayes_means", "bayes_proportions"]

FloatArray = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_LEVELS = np.array([1e-12, 1e-8, 1e-5, 1e-3, 0.01, 0.05, 0.2, 0.5])
"""Quantiles (and their mirrors) of both posteriors between which the quadrature is cut into panels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesResult:
    """Posterior of treatment minus control.

    Attributes:
        mean: of the difference.
        low, high: credible interval with equal tails.
        probability: that the treatment's quantity is the larger.
        loss_if_treatment: expected amount given up by choosing the treatment, E[max(control - treatment, 0)].
        loss_if_control: the same for staying with the control.
    """

    mean: float
    low: float
    high: float
    probability: float
    loss_if_treatment: float
    loss_if_control: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON types."""
        names = ("mean", "low", "high", "probability", "loss_if_treatment", "loss_if_control")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalPrior:
    """Normal-inverse-gamma: variance ~ InverseGamma(shape, scale), mean ~ Normal(mean, variance / observations).

    Attributes:
        mean: prior mean.
        observations: how many observations it is worth, > 0.
        shape, scale: of the variance, > 0; a guess v worth k observations is shape k / 2, scale v k / 2.
    """

    mean: float = 0.0
    observations: float = 1e-6
    shape: float = 0.5
    scale: float = 1e-9

    def __post_init__(self) -> None:
        checked_number(self.mean, "mean")
        for name in ("observations", "shape", "scale"):
            checked_number(getattr(self, name), name, above=0)

    def posterior(self, arm: Moments) -> Any:
        """Distribution of the mean (a frozen Student's t) after the observations (Murphy 2007, eqs. 86-89, 110)."""
        weight = self.observations + arm.n
        centre = (self.observations * self.mean + arm.n * arm.mean) / weight
        shape = self.shape + arm.n / 2
        shift = self.observations * arm.n * (arm.mean - self.mean) ** 2 / weight
        scale = self.scale + (arm.squares + shift) / 2
        return stats.t(2 * shape, loc=centre, scale=math.sqrt(scale / (shape * weight)))


def bayes_proportions(
    control: tuple[int, int],
    treatment: tuple[int, int],
    *,
    prior: tuple[float, float] = (1.0, 1.0),
    confidence: float = 0.95,
) -> BayesResult:
    """Two proportions from (successes, trials) of each arm, with a Beta(prior) prior on each.

    Raises:
        InvalidInputError: impossible counts or prior.
    """
    if np.shape(prior) != (2,):
        raise InvalidInputError(f"prior is {shown(prior)}; expected two numbers above 0", field="prior")
    a, b = (checked_number(value, "prior", above=0) for value in prior)
    posteriors = []
    for field, counts in (("control", control), ("treatment", treatment)):
        if np.shape(counts) != (2,):
            raise InvalidInputError(f"{field} is {shown(counts)}; expected (successes, trials)", field=field)
        x, n = checked_counts(np.array(counts), field, 2).tolist()
        if x > n:
            raise InvalidInputError(f"{field} has {x} successes in {n} trials", field=field)
        posteriors.append(stats.beta(a + x, b + n - x))
    return _compared(posteriors[0], posteriors[1], checked_level(confidence, "confidence"))


def bayes_means(
    control: Moments, treatment: Moments, *, prior: NormalPrior | None = None, confidence: float = 0.95
) -> BayesResult:
    """Two means of normal values with unknown variances, from moments; the default prior says next to nothing.

    Raises:
        InvalidInputError: fewer than 3 observations of an arm, whose posterior has no spread to speak of.
    """
    used = NormalPrior() if prior is None else prior
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n < 3:
            raise InvalidInputError(f"{name} has {arm.n} observations; expected at least 3", field=name)
    return _compared(used.posterior(control), used.posterior(treatment), checked_level(confidence, "confidence"))


def _compared(old: Any, new: Any, confidence: float) -> BayesResult:
    """From the posteriors of control and treatment."""
    mean = float(new.mean() - old.mean())

    def below(difference: float) -> float:
        """P(treatment - control <= difference)."""
        x, weights = _grid(old, new, difference)
        return float(weights @ (old.pdf(x) * new.cdf(x + difference)))

    tail = (1 - confidence) / 2
    reach = 20 * math.hypot(float(old.std()), float(new.std()))

    def quantile(level: float) -> float:
        return float(optimize.brentq(lambda d: below(d) - level, mean - reach, mean + reach, xtol=1e-13, rtol=1e-12))

    x, weights = _grid(old, new, 0.0)
    lost = float(weights @ (new.cdf(x) * old.sf(x)))
    return BayesResult(
        mean=mean,
        low=quantile(tail),
        high=quantile(1 - tail),
        probability=float(weights @ (new.pdf(x) * old.cdf(x))),
        loss_if_treatment=lost,
        # max(d, 0) - max(-d, 0) = d; but not by subtraction, which would lose what is small.
        loss_if_control=float(weights @ (old.cdf(x) * new.sf(x))),
    )


def _grid(old: Any, new: Any, difference: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of the quadrature over the control's scale."""
    levels = np.concatenate([_LEVELS, 1 - _LEVELS[-2::-1]])
    cuts = np.unique(np.concatenate([old.ppf(levels), new.ppf(levels) - difference]))
    half, middle = np.diff(cuts) / 2, (cuts[1:] + cuts[:-1]) / 2
    return (middle[:, None] + half[:, None] * _NODES).ravel(), (half[:, None] * _WEIGHTS).ravel()
