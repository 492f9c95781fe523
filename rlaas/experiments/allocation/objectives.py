"""One experiment for several modes: arms return objective vectors, and each mode has its own best arm.

Every outcome is a vector, whatever the mode it was decided in, so every mode learns from all of them. This takes the
objective vector of an arm to be the same in all modes, as it is for policies that do not see the preference and for
configurations of a front; a policy that acts on the preference is one arm per mode, in an experiment of its own.

The posterior of an arm's mean vector is normal-inverse-Wishart (Gelman et al. 2013, section 3.6): the objectives of one
outcome may depend on each other in any way. Then w' mean is Student's for every preference w, so that probabilities
and losses of a mode come by quadrature as for single rewards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator, Field, model_validator

from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.experiments.allocation.moments import Finite, Moments, Positive, by_arm
from rlaas.experiments.allocation.quadrature import StudentMeans, expected_loss, probability_best, top_two
from rlaas.experiments.allocation.thompson import Allocation, Allocator, mixed
from rlaas.experiments.conditional import ArmPosterior
from rlaas.objectives import Mode, Objective, Preference, normalise

__all__ = ["ModeVerdict", "ObjectiveThompson"]

FloatArray = NDArray[np.float64]


def _objective(value: Any) -> Any:
    """An objective from its stored form."""
    if not isinstance(value, Mapping):
        return value
    try:
        return Objective(**value)
    except TypeError as problem:  # a key that an objective does not have, or one too few
        raise InvalidInputError(f"objectives: {problem}", field="objectives") from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeVerdict:
    """What the experiment says in one mode.

    Attributes:
        mode: its name.
        best: arm that is most likely the best one.
        probability_best: by arm.
        expected_loss: of deciding for an arm now, in utility (1 is the whole range of every objective), by arm.
        utility: posterior mean of the preference-weighted goodness, by arm.
    """

    mode: str
    best: str
    probability_best: Mapping[str, float]
    expected_loss: Mapping[str, float]
    utility: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON types."""
        return {
            "mode": self.mode,
            "best": self.best,
            "probability_best": dict(self.probability_best),
            "expected_loss": dict(self.expected_loss),
            "utility": dict(self.utility),
        }


class ObjectiveThompson(Allocator):
    """Thompson sampling over preference-weighted objective vectors, for a mix of modes.

    Attributes:
        objectives: of an outcome.
        modes: weights by mode, in the order of ``objectives``; sum to 1.
        traffic: share of the decisions in each mode; sums to 1.
        prior_mean, prior_variance: of every objective in goodness (0 the worse end of its range, 1 the better one),
            expected before any outcome.
        prior_count: outcomes that ``prior_mean`` is worth.
        prior_degrees: outcomes that ``prior_variance`` is worth in every direction, > 1.
        top_two: as of :class:`~rlaas.experiments.allocation.thompson.Thompson`, in every mode.
        moments: of each arm's outcomes in goodness, in the order of ``arms``.
    """

    kind: Literal["objective_thompson"] = "objective_thompson"
    objectives: tuple[Annotated[Objective, BeforeValidator(_objective)], ...]
    modes: dict[str, tuple[Annotated[float, Field(ge=0, le=1)], ...]]
    traffic: dict[str, Annotated[float, Field(ge=0, le=1)]]
    prior_mean: Finite = 0.5
    prior_count: Positive = 1.0
    prior_variance: Positive = 0.25
    prior_degrees: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    top_two: Annotated[float, Field(gt=0, le=1)] | None = None
    moments: tuple[Moments, ...] = ()

    @classmethod
    def of(
        cls,
        arms: Sequence[str],
        objectives: Sequence[Objective],
        modes: Mapping[str, Mode | Preference],
        traffic: Mapping[str, float],
        **options: Any,
    ) -> ObjectiveThompson:
        """Before any outcome.

        Args:
            arms: names.
            objectives: of an outcome, such as a scenario's.
            modes: by name; a mode's rules bind the choice from a front, not this experiment.
            traffic: how much of the decisions each mode has, >= 0, in any unit.
            options: other attributes.

        Raises:
            InvalidInputError: modes of other objectives, traffic of other modes, or an impossible option.
        """
        names = tuple(o.name for o in objectives)
        weights = {}
        for name, mode in modes.items():
            preference = mode.preference if isinstance(mode, Mode) else mode
            if preference.names != names:
                raise InvalidInputError(
                    f"modes.{name} weighs {', '.join(preference.names)}; expected {', '.join(names)}",
                    field=f"modes.{name}",
                )
            weights[name] = preference.weights
        # A preference over the modes: the same checks, the same scaling.
        shares = Preference.of(tuple(modes), traffic, field="traffic").to_dict()
        return cls(arms=tuple(arms), objectives=tuple(objectives), modes=weights, traffic=shares, **options)

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        d = len(self.objectives)
        if d < 1:
            raise InvalidInputError("objectives: expected one or more", field="objectives")
        for name, weights in self.modes.items():
            if len(weights) != d or not math.isclose(math.fsum(weights), 1, abs_tol=1e-9):
                raise InvalidInputError(
                    f"modes.{name} is {shown(weights)}; expected {d} weights that sum to 1", field=f"modes.{name}"
                )
        if set(self.traffic) != set(self.modes) or not math.isclose(math.fsum(self.traffic.values()), 1, abs_tol=1e-9):
            raise InvalidInputError(
                f"traffic is {shown(self.traffic)}; expected shares of {', '.join(self.modes)} that sum to 1",
                field="traffic",
            )
        if not self.moments:
            object.__setattr__(self, "moments", (Moments.empty(d),) * len(self.arms))
        shapes = {(np.shape(m.mean), np.shape(m.scatter)) for m in self.moments}
        if len(self.moments) != len(self.arms) or shapes != {((d,), (d, d))}:
            raise InvalidInputError(f"moments: expected {len(self.arms)} of {d} objectives", field="moments")
        return self

    def means(self, mode: str) -> StudentMeans:
        """Posterior of each arm's utility in a mode.

        Raises:
            InvalidInputError: an unknown mode.
        """
        check_choice(mode, self.modes, field="mode", error=InvalidInputError)
        return self.means_at(self.modes[mode])

    def means_at(self, weights: Sequence[float]) -> StudentMeans:
        """The same under any weights of the objectives [n_objectives]."""
        w = np.array(weights)
        n = np.array([m.n for m in self.moments], dtype=np.float64)
        seen = np.array([m.mean for m in self.moments]) @ w
        # Along w the posterior is that of single rewards w'y: its prior mean, scatter and degrees are projections.
        scatter = np.array([w @ np.array(m.scatter) @ w for m in self.moments])
        prior = self.prior_mean * w.sum()
        count = self.prior_count + n
        degrees = self.prior_degrees + n
        scatter = scatter + self.prior_count * n / count * (seen - prior) ** 2
        variance = (self.prior_degrees * self.prior_variance * float(w @ w) + scatter) / degrees
        location = (self.prior_count * prior + n * seen) / count
        return StudentMeans(location, np.sqrt(variance / count), degrees)

    def posteriors(self) -> tuple[ArmPosterior, ...]:
        """Posterior of each arm's mean vector in goodness, of which :meth:`means` is a projection."""
        found, eye = [], np.eye(len(self.objectives))
        for name, seen in zip(self.arms, self.moments, strict=True):
            count, degrees = self.prior_count + seen.n, self.prior_degrees + seen.n
            gap = np.array(seen.mean) - self.prior_mean
            scatter = np.array(seen.scatter) + self.prior_count * seen.n / count * np.outer(gap, gap)
            covariance = (self.prior_degrees * self.prior_variance * eye + scatter) / (degrees * count)
            location = (self.prior_count * self.prior_mean + seen.n * np.array(seen.mean)) / count
            spread = tuple(tuple(row) for row in np.linalg.cholesky(covariance).T.tolist())
            found.append(ArmPosterior(name=name, location=tuple(location.tolist()), spread=spread, degrees=degrees))
        return tuple(found)

    def verdicts(self) -> dict[str, ModeVerdict]:
        """Which arm is the best one by mode, how surely, and what deciding for it may cost.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        found = {}
        for mode in self.modes:
            means = self.means(mode)
            best, loss = probability_best(means), expected_loss(means)
            found[mode] = ModeVerdict(
                mode=mode,
                best=self.arms[int(best.argmax())],
                probability_best=self._named(best),
                expected_loss=self._named(loss),
                utility=self._named(means.location),
            )
        return found

    def shares_by_mode(self) -> dict[str, dict[str, float]]:
        """Share of each arm by mode, where decisions can be divided by their mode; each sums to 1.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        return {mode: self._named(self._shares(mode)) for mode in self.modes}

    def shares(self) -> dict[str, float]:
        """Share of each arm in the next batch, the same in all modes: their shares in the mix of the traffic.

        Raises:
            ConfigurationError: too many arms for quadrature.
        """
        parts = [share * self._shares(mode) for mode, share in self.traffic.items() if share > 0]
        return self._named(np.sum(parts, axis=0))

    def allocation(self, mode: str | None = None) -> Allocation:
        """The next batch, of one mode's decisions or (None) of all alike.

        Raises:
            InvalidInputError: an unknown mode.
            ConfigurationError: too many arms for quadrature.
        """
        return Allocation(self.batch, self.shares() if mode is None else self._named(self._shares(mode)))

    def updated(self, arm: ArrayLike, outcome: ArrayLike) -> ObjectiveThompson:
        """After a batch.

        Args:
            arm: name of each row's arm [n].
            outcome: objective vector of each row [n, n_objectives], in the objectives' units.

        Raises:
            InvalidInputError: rows that do not fit, an unknown arm, or a value that is not finite.
        """
        rows = by_arm(self.arms, arm, outcome, "outcome")
        if any(values.shape[1] != len(self.objectives) for values in rows.values()):
            raise InvalidInputError(
                f"outcome needs {len(self.objectives)} values per row: {', '.join(o.name for o in self.objectives)}",
                field="outcome",
            )
        pairs = zip(self.arms, self.moments, strict=True)
        merged = tuple(old.merged(Moments.of(normalise(self.objectives, rows[one]))) for one, old in pairs)
        return self.model_copy(update={"moments": merged, "batch": self.batch + 1})

    def _shares(self, mode: str) -> FloatArray:
        best = probability_best(self.means(mode))
        return mixed(best if self.top_two is None else top_two(best, self.top_two), self.minimum_share, self.arms)

    def _named(self, values: FloatArray) -> dict[str, float]:
        return dict(zip(self.arms, values.tolist(), strict=True))
