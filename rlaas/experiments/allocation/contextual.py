"""Thompson sampling where the best arm depends on the context: a Bayesian linear regression for each arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from scipy import linalg

from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation.moments import Count, Finite, Frozen, Positive, by_arm
from rlaas.experiments.allocation.quadrature import StudentMeans
from rlaas.experiments.allocation.thompson import Allocator, mixed
from rlaas.experiments.assignment import Assignment, assign_unit
from rlaas.experiments.comparison import numeric
from rlaas.experiments.conditional import ArmPosterior, draw_coefficients

__all__ = ["ContextualAllocation", "LinearThompson", "Regression"]

FloatArray = NDArray[np.float64]


class Regression(Frozen):
    """Sufficient statistics of one arm's rows, with an intercept in front of the features.

    Attributes:
        n: rows.
        gram: X'X [d, d].
        cross: X'y [d].
        squares: y'y.
    """

    n: Count = 0
    gram: tuple[tuple[Finite, ...], ...]
    cross: tuple[Finite, ...]
    squares: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @classmethod
    def empty(cls, d: int) -> Regression:
        """Of nothing."""
        return cls(gram=((0.0,) * d,) * d, cross=(0.0,) * d)

    def plus(self, x: FloatArray, y: FloatArray) -> Regression:
        """With more rows, x [n, d] and y [n]."""
        gram = np.array(self.gram) + x.T @ x
        return Regression(
            n=self.n + len(y),
            gram=tuple(tuple(row) for row in gram.tolist()),
            cross=tuple((np.array(self.cross) + x.T @ y).tolist()),
            squares=self.squares + float(y @ y),
        )


@dataclass(frozen=True, slots=True)
class ContextualAllocation:
    """How one batch is divided, by context.

    The share of an arm is that of the drawn coefficient vectors under which it has the largest expected reward, mixed
    with the minimum. Which draws were made is fixed for the batch, so this share is the exact propensity.

    Attributes:
        batch: number of the batch, from 0.
        arms: their names.
        coefficients: drawn from the posterior [draws, n_arms, d], the intercept first.
        minimum_share: as of the allocator.
    """

    batch: int
    arms: tuple[str, ...]
    coefficients: FloatArray
    minimum_share: float | dict[str, float]

    def shares(self, features: ArrayLike) -> FloatArray:
        """Shares [n, n_arms] at contexts ``features`` [n, n_features]; rows sum to 1.

        Raises:
            InvalidInputError: features of another width, or not finite.
        """
        x = _design(features, self.coefficients.shape[2] - 1)
        draws, arms, d = self.coefficients.shape
        flat = self.coefficients.reshape(draws * arms, d).T
        best = np.empty((len(x), arms))
        rows = max(1, 4_000_000 // (draws * arms))  # scores of a slice take 32 MB
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            winner = (part @ flat).reshape(len(part), draws, arms).argmax(axis=2)
            best[start : start + rows] = np.stack([(winner == arm).mean(axis=1) for arm in range(arms)], axis=1)
        return mixed(best, self.minimum_share, self.arms)

    def assign(self, unit: str, salt: str, features: ArrayLike) -> Assignment:
        """The arm of a unit with ``features`` [n_features] in this batch, and its propensity."""
        row = np.atleast_2d(numeric(features, "features"))
        shares = dict(zip(self.arms, self.shares(row)[0].tolist(), strict=True))
        return assign_unit(unit, f"{salt}/batch {self.batch}", shares)


class LinearThompson(Allocator):
    """Reward of arm a at context x: (1, x) beta_a + noise, with a normal-inverse-gamma prior (Agrawal & Goyal 2013).

    The noise variance of each arm is unknown and learned (as in Riquelme, Tucker & Snoek 2018), so that the posterior
    of an expected reward is Student's. The prior mean of all coefficients is 0: centre the rewards, scale the features.

    Attributes:
        n_features: of a context.
        precision: prior precision of a coefficient, relative to the noise: the ridge.
        variance: of the noise, expected before any reward.
        degrees: observations that ``variance`` is worth, >= 1.
        draws: coefficient vectors drawn for a batch; shares are multiples of 1 / draws but for the minimum.
        seed: of the draws.
        regressions: of each arm, in the order of ``arms``.
    """

    kind: Literal["linear_thompson"] = "linear_thompson"
    n_features: Annotated[int, Field(ge=1, le=1000)]
    precision: Positive = 1.0
    variance: Positive = 1.0
    degrees: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    draws: Annotated[int, Field(ge=100, le=100_000)] = 1000
    seed: Count = 0
    regressions: tuple[Regression, ...] = ()

    @model_validator(mode="after")
    def _check_regressions(self) -> Self:
        d = self.n_features + 1
        if not self.regressions:
            object.__setattr__(self, "regressions", (Regression.empty(d),) * len(self.arms))
        shapes = {(np.shape(r.cross), np.shape(r.gram)) for r in self.regressions}
        if len(self.regressions) != len(self.arms) or shapes != {((d,), (d, d))}:
            raise InvalidInputError(
                f"regressions: expected {len(self.arms)} with {d} coefficients", field="regressions"
            )
        return self

    def allocation(self) -> ContextualAllocation:
        """The next batch."""
        drawn = draw_coefficients(self.posteriors(), self.draws, [self.seed, self.batch])
        return ContextualAllocation(self.batch, self.arms, drawn, self.minimum_share)

    def posteriors(self) -> tuple[ArmPosterior, ...]:
        """Posterior of each arm's coefficients, the intercept first."""
        found = []
        for name, regression in zip(self.arms, self.regressions, strict=True):
            mean, factor, scale, degrees = self._posterior(regression)
            # With precision L L', z' L^-1 has its inverse as covariance.
            spread = np.sqrt(scale) * linalg.solve_triangular(factor, np.eye(len(mean)), lower=True)
            rows = tuple(tuple(row) for row in spread.tolist())
            found.append(ArmPosterior(name=name, location=tuple(mean.tolist()), spread=rows, degrees=degrees))
        return tuple(found)

    def means(self, features: ArrayLike) -> StudentMeans:
        """Posterior of each arm's expected reward at one context ``features`` [n_features].

        Raises:
            InvalidInputError: features of another width, or not finite.
        """
        x = _design(np.atleast_2d(numeric(features, "features")), self.n_features)[0]
        found = []
        for regression in self.regressions:
            mean, factor, scale, degrees = self._posterior(regression)
            reach = linalg.solve_triangular(factor, x, lower=True)
            found.append((float(x @ mean), float(np.sqrt(scale * (reach @ reach))), degrees))
        location, spread, freedom = (np.array(column) for column in zip(*found, strict=True))
        return StudentMeans(location, spread, freedom)

    def coefficients(self) -> dict[str, FloatArray]:
        """Posterior mean of each arm's coefficients [n_features + 1], the intercept first."""
        pairs = zip(self.arms, self.regressions, strict=True)
        return {arm: self._posterior(regression)[0] for arm, regression in pairs}

    def updated(self, arm: ArrayLike, features: ArrayLike, reward: ArrayLike) -> LinearThompson:
        """After a batch.

        Args:
            arm: name of each row's arm [n].
            features: context of each row [n, n_features].
            reward: of each row [n], the larger the better.

        Raises:
            InvalidInputError: rows that do not fit, an unknown arm, or numbers that are not finite.
        """
        x, y = _design(features, self.n_features), numeric(reward, "reward")
        if y.shape != (len(x),):
            raise InvalidInputError(f"reward has shape {y.shape}; expected ({len(x)},), one per row", field="reward")
        rows = by_arm(self.arms, arm, np.column_stack([y, x]))
        pairs = zip(self.arms, self.regressions, strict=True)
        updated = tuple(old.plus(rows[one][:, 1:], rows[one][:, 0]) for one, old in pairs)
        return self.model_copy(update={"regressions": updated, "batch": self.batch + 1})

    def _posterior(self, regression: Regression) -> tuple[FloatArray, FloatArray, float, float]:
        """Mean [d], Cholesky factor of the precision over the noise [d, d], noise variance, degrees of freedom."""
        precision = np.array(regression.gram) + self.precision * np.eye(self.n_features + 1)
        factor = np.asarray(linalg.cholesky(precision, lower=True))
        cross = np.array(regression.cross)
        mean = np.asarray(linalg.cho_solve((factor, True), cross))
        degrees = self.degrees + regression.n
        # y'y - mean' P mean: what the regression and its prior leave unexplained; rounding must not turn it negative.
        left = max(regression.squares - float(mean @ cross), 0.0)
        return mean, factor, (self.degrees * self.variance + left) / degrees, degrees


def _design(features: ArrayLike, width: int) -> FloatArray:
    x = numeric(features, "features")
    if x.ndim != 2 or x.shape[1] != width:
        raise InvalidInputError(f"features have shape {x.shape}; expected (n, {width})", field="features")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InvalidInputError(f"features[{row}] hold a number that is not finite", field="features")
    return np.column_stack([np.ones(len(x)), x])
