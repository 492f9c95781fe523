"""Priors of the arms' mean rewards, and the posteriors that they give."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rlaas.experiments.allocation.moments import Finite, Frozen, Moments, Positive
from rlaas.experiments.allocation.quadrature import BetaMeans, Means, StudentMeans

__all__ = ["BetaPrior", "GaussianPrior"]


class BetaPrior(Frozen):
    """Rewards 0 or 1, whose rate has a beta prior; uniform by default.

    Rewards between 0 and 1 are taken as that share of a success. Their posterior is then wider than it need be, never
    narrower, since no distribution on [0, 1] has a larger variance than the one on its ends.

    Attributes:
        successes, failures: parameters of the prior, >= 0.1.
    """

    kind: Literal["beta"] = "beta"
    successes: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 1.0
    failures: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = 1.0

    def means(self, moments: tuple[Moments, ...]) -> Means:
        """Posterior of the rates."""
        n = np.array([m.n for m in moments], dtype=np.float64)
        won = n * np.clip([m.mean[0] for m in moments], 0.0, 1.0)
        return BetaMeans(self.successes + won, self.failures + n - won)


class GaussianPrior(Frozen):
    """Normal rewards of unknown mean and variance under a normal-inverse-gamma prior (Gelman et al. 2013, section 3.3).

    The posterior of a mean is Student's with ``degrees`` + n degrees of freedom. The defaults suit rewards between 0
    and 1; give the prior the scale of other ones. A flat prior is no safe choice: with few observations an unlucky arm
    may never be tried again (Honda & Takemura 2014).

    Attributes:
        mean: expected before any reward.
        count: observations that ``mean`` is worth.
        variance: of a reward, expected before any.
        degrees: observations that ``variance`` is worth, >= 1; None: the variance is known, the posterior normal.
    """

    kind: Literal["gaussian"] = "gaussian"
    mean: Finite = 0.5
    count: Positive = 1.0
    variance: Positive = 0.25
    degrees: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = 2.0

    def means(self, moments: tuple[Moments, ...]) -> Means:
        """Posterior of the means."""
        n = np.array([m.n for m in moments], dtype=np.float64)
        seen = np.array([m.mean[0] for m in moments])
        count = self.count + n
        location = (self.count * self.mean + n * seen) / count
        if self.degrees is None:
            return StudentMeans(location, np.sqrt(self.variance / count), np.full(len(n), np.inf))
        scatter = np.array([m.scatter[0][0] for m in moments]) + self.count * n / count * (seen - self.mean) ** 2
        degrees = self.degrees + n
        variance = (self.degrees * self.variance + scatter) / degrees
        return StudentMeans(location, np.sqrt(variance / count), degrees)
