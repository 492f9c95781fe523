"""Shares of the next batch from the rewards so far: fixed ones, Thompson sampling, and top-two Thompson sampling.

An allocator is a value: it holds what has been seen, :meth:`Thompson.allocation` says how the next batch is divided,
and :meth:`Thompson.updated` gives the allocator after a batch. The probabilities by which an arm would be drawn are
computed, not sampled, and then used as the division itself; so the propensity that is logged is the one that held.

A batch is a stretch of time in which the shares stand still. An arm is drawn anew in every batch (the batch number is
part of the salt), as the estimates of :mod:`~rlaas.experiments.allocation.adaptive` need: given everything before, the
chance of an arm must be its share. With one salt for all batches a unit that returns would keep its old arm, whatever
the share has become. Where units must keep their arm, count each in its first batch only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.allocation.moments import Count, Frozen, Moments, by_arm, checked_arms
from rlaas.experiments.allocation.priors import BetaPrior, GaussianPrior
from rlaas.experiments.allocation.quadrature import expected_loss, probability_best, top_two
from rlaas.experiments.assignment import Assignment, assign_unit

__all__ = ["Allocation", "Allocator", "Draws", "Fixed", "Thompson", "floors", "mixed"]

FloatArray = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Draws = Annotated[int, Field(ge=100, le=1_000_000)]


@dataclass(frozen=True, slots=True)
class Allocation:
    """How one batch is divided.

    Attributes:
        batch: number of the batch, from 0.
        shares: by arm; sums to 1.
    """

    batch: int
    shares: Mapping[str, float]

    def assign(self, unit: str, salt: str) -> Assignment:
        """The arm of a unit in this batch and its propensity; the same for the same unit, salt and batch."""
        return assign_unit(unit, f"{salt}/batch {self.batch}", self.shares)


class Allocator(Frozen):
    """What all allocators have.

    Attributes:
        arms: their names.
        minimum_share: that every arm keeps, or by arm (others 0): the shares are mixed with it, share = minimum +
            (1 - sum of minima) x probability. Without one the propensity of an arm may fall to 0, and then nothing can
            be said of it any more.
        batch: batches seen.
        schema_version: of the stored form.
    """

    schema_version: Literal[1] = 1
    arms: tuple[str, ...]
    minimum_share: Share | dict[str, Share] = 0.0
    batch: Count = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        checked_arms(self.arms)
        floors(self.minimum_share, self.arms)
        return self


class Fixed(Allocator):
    """The same shares in every batch.

    Attributes:
        weights: by arm, >= 0.
    """

    kind: Literal["fixed"] = "fixed"
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if set(self.weights) != set(self.arms) or not 0 < sum(self.weights.values()) < math.inf:
            raise InvalidInputError(
                f"weights are {shown(self.weights)}; expected one for each of {', '.join(self.arms)}, some positive",
                field="weights",
            )
        return self

    def shares(self) -> dict[str, float]:
        """The weights scaled to sum 1, mixed with the minimum."""
        weight = np.array([self.weights[arm] for arm in self.arms])
        return _named(self.arms, mixed(weight / weight.sum(), self.minimum_share, self.arms))

    def allocation(self) -> Allocation:
        """The next batch."""
        return Allocation(self.batch, self.shares())

    def updated(self, arm: ArrayLike, reward: ArrayLike) -> Fixed:
        """After a batch, which changes nothing but the count.

        Raises:
            InvalidInputError: rows that do not fit.
        """
        by_arm(self.arms, arm, reward)
        return self.model_copy(update={"batch": self.batch + 1})

    def updated_by_sums(self, sums: Mapping[str, tuple[int, float, float]]) -> Fixed:
        """As of :meth:`Thompson.updated_by_sums`."""
        _moments_of(sums, self.arms)
        return self.model_copy(update={"batch": self.batch + 1})


class Thompson(Allocator):
    """Each arm's share is the probability that it is the best one (Thompson 1933), or top-two Thompson's (Russo 2020).

    Attributes:
        prior: of the arms' means; says what rewards are.
        top_two: probability of playing the leader; None: plain Thompson sampling. Plain is for earning while testing,
            top-two (1/2) for finding the best arm soon: it goes on trying the rivals of a leader.
        draws: None: probabilities by quadrature. A number: the shares of that many seeded draws, for more than
            :data:`~rlaas.experiments.allocation.quadrature.MOST_ARMS` arms. They are then what is allocated, so that
            the propensity is exact either way.
        seed: of the draws.
        moments: of each arm's rewards, in the order of ``arms``.
    """

    kind: Literal["thompson"] = "thompson"
    prior: Annotated[BetaPrior | GaussianPrior, Field(discriminator="kind")] = BetaPrior()
    top_two: Annotated[float, Field(gt=0, le=1)] | None = None
    draws: Draws | None = None
    seed: Count = 0
    moments: tuple[Moments, ...] = ()

    @model_validator(mode="after")
    def _check_moments(self) -> Self:
        if not self.moments:
            object.__setattr__(self, "moments", (Moments.empty(),) * len(self.arms))
        if len(self.moments) != len(self.arms) or any(len(m.mean) != 1 or len(m.scatter) != 1 for m in self.moments):
            raise InvalidInputError(f"moments: expected those of {len(self.arms)} arms' rewards", field="moments")
        return self

    def probability_best(self) -> dict[str, float]:
        """Probability that an arm has the largest mean; sums to 1.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        return _named(self.arms, self._best())

    def expected_loss(self) -> dict[str, float]:
        """What deciding for an arm now is expected to cost, in the reward's unit, per decision.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        means = self.prior.means(self.moments)
        if self.draws is None:
            return _named(self.arms, expected_loss(means))
        drawn = means.draw(self._rng(), self.draws)
        return _named(self.arms, (drawn.max(axis=1, keepdims=True) - drawn).mean(axis=0))

    def shares(self) -> dict[str, float]:
        """Share of each arm in the next batch; sums to 1.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        best = self._best()
        chosen = best if self.top_two is None else top_two(best, self.top_two)
        return _named(self.arms, mixed(chosen, self.minimum_share, self.arms))

    def allocation(self) -> Allocation:
        """The next batch.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        return Allocation(self.batch, self.shares())

    def updated(self, arm: ArrayLike, reward: ArrayLike) -> Thompson:
        """After a batch.

        Args:
            arm: name of each row's arm [n].
            reward: of each row [n], the larger the better; within [0, 1] under a beta prior. One that comes late may
                come with a later batch.

        Raises:
            InvalidInputError: rows that do not fit, an unknown arm, or an impossible reward.
        """
        rows = by_arm(self.arms, arm, reward)
        if any(values.shape[1] != 1 for values in rows.values()):
            raise InvalidInputError("reward must be one number per row", field="reward")
        if isinstance(self.prior, BetaPrior) and any(((v < 0) | (v > 1)).any() for v in rows.values()):
            raise InvalidInputError("reward must lie within [0, 1] under a beta prior", field="reward")
        return self._with({one: Moments.of(values) for one, values in rows.items()})

    def updated_by_sums(self, sums: Mapping[str, tuple[int, float, float]]) -> Thompson:
        """After a batch, from counters: number, sum and sum of squares of the rewards by arm; others had none.

        Raises:
            InvalidInputError: an unknown arm, or sums that no rewards have.
        """
        moments = _moments_of(sums, self.arms)
        for one, seen in moments.items():
            if isinstance(self.prior, BetaPrior) and not -1e-9 <= seen.mean[0] <= 1 + 1e-9:
                raise InvalidInputError(
                    f"sums of {one!r}: mean reward {seen.mean[0]:g}; expected [0, 1] under a beta prior",
                    field=f"sums.{one}",
                )
        return self._with(moments)

    def _with(self, seen: Mapping[str, Moments]) -> Thompson:
        both = zip(self.arms, self.moments, strict=True)
        merged = tuple(old.merged(seen[arm]) if arm in seen else old for arm, old in both)
        return self.model_copy(update={"moments": merged, "batch": self.batch + 1})

    def _best(self) -> FloatArray:
        means = self.prior.means(self.moments)
        return probability_best(means) if self.draws is None else _best_of_draws(means.draw(self._rng(), self.draws))

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.batch])


def floors(minimum: float | Mapping[str, float], arms: tuple[str, ...]) -> FloatArray:
    """Minimum share of each arm [n_arms].

    Raises:
        InvalidInputError: of an arm there is not, or more than 1 together.
    """
    if isinstance(minimum, Mapping):
        unknown = set(minimum) - set(arms)
        if unknown:
            raise InvalidInputError(
                f"minimum_share of {shown(min(unknown))}; arms are {', '.join(arms)}", field="minimum_share"
            )
        found = np.array([minimum.get(arm, 0.0) for arm in arms])
    else:
        found = np.full(len(arms), minimum)
    if found.sum() > 1 + 1e-9:
        raise InvalidInputError(
            f"minimum_share is {shown(minimum)}; together those of {len(arms)} arms must be at most 1",
            field="minimum_share",
        )
    return found


def mixed(probability: FloatArray, minimum: float | Mapping[str, float], arms: tuple[str, ...]) -> FloatArray:
    """Shares [..., n_arms] from probabilities that sum to 1, every one at least its minimum."""
    least = floors(minimum, arms)
    return np.asarray(least + max(1.0 - float(least.sum()), 0.0) * probability)


def _best_of_draws(drawn: FloatArray) -> FloatArray:
    """Share of the draws [draws, n_arms] in which each arm was the largest [n_arms]."""
    return np.bincount(drawn.argmax(axis=1), minlength=drawn.shape[1]) / len(drawn)


def _moments_of(sums: Mapping[str, tuple[int, float, float]], arms: tuple[str, ...]) -> dict[str, Moments]:
    unknown = set(sums) - set(arms)
    if unknown:
        raise InvalidInputError(f"sums of {shown(min(unknown))}; arms are {', '.join(arms)}", field="sums")
    return {arm: Moments.from_sums(*triple, field=f"sums.{arm}") for arm, triple in sums.items()}


def _named(arms: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    return dict(zip(arms, values.tolist(), strict=True))
