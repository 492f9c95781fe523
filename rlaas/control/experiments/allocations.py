"""Adaptive allocations as they are declared: shares that follow what the variants earn, alike for all or by context."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.experiments.allocation import BetaPrior, GaussianPrior
from rlaas.experiments.conditional import Feature
from rlaas.experiments.metrics import Metric, ProportionMetric
from rlaas.objectives import Objective, Preference

__all__ = ["AllocationRule", "LinearThompsonAllocation", "ObjectiveThompsonAllocation", "ThompsonAllocation"]


class _Adaptive(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_share: float = Field(default=0.05, gt=0, lt=0.5, description="that every variant keeps")
    batch_s: float = Field(
        default=3600.0, ge=1, le=30 * 86_400, allow_inf_nan=False, description="seconds between new shares, at least"
    )

    def check(self, metric: Metric, variants: int) -> None:
        """Raise ValueError where it cannot divide the units of so many variants by a metric."""
        if self.minimum_share * variants > 1:
            raise ValueError(f"minimum_share of {variants} variants must be at most {1 / variants:g} each")


class ThompsonAllocation(_Adaptive):
    """Thompson sampling over the primary metric, in batches; the weights of the variants are those of the first."""

    kind: Literal["thompson"]
    prior: Annotated[BetaPrior | GaussianPrior, Field(discriminator="kind")] | None = Field(
        default=None, description="of the variants' means: beta for a proportion (default), gaussian otherwise"
    )
    top_two: float | None = Field(
        default=None, gt=0, le=1, description="chance of the leader in top-two sampling; default: plain Thompson"
    )

    def check(self, metric: Metric, variants: int) -> None:
        """As of every adaptive allocation."""
        super().check(metric, variants)
        proportion = isinstance(metric, ProportionMetric)
        if self.prior is None and not proportion:
            raise ValueError("allocation.prior of kind 'gaussian' is needed: the scale of the primary metric's values")
        if isinstance(self.prior, BetaPrior) and not proportion:
            raise ValueError("allocation.prior of kind 'beta' is for a primary metric of kind 'proportion'")


class LinearThompsonAllocation(_Adaptive):
    """Thompson sampling where the better variant depends on features of the request: a regression for each variant.

    The primary metric's value of a unit is (1, x) beta + noise with the features x centred and scaled; the prior mean
    of beta is ``mean`` for the intercept and 0 for the slopes.
    """

    kind: Literal["linear_thompson"]
    features: tuple[Feature, ...] = Field(min_length=1, max_length=32, description="x, numbers of each request")
    mean: float | None = Field(
        default=None, allow_inf_nan=False, description="usual value of the primary metric; of a proportion 0.5"
    )
    variance: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="of a value around its regression; of a proportion 0.25"
    )
    precision: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="of a coefficient's prior: the ridge")
    degrees: float = Field(default=2.0, ge=1, allow_inf_nan=False, description="units that ``variance`` is worth")
    draws: int = Field(default=512, ge=100, le=10_000, strict=True, description="of coefficients, for each batch")

    @field_validator("features")
    @classmethod
    def _apart(cls, value: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if len({(one.source, one.name) for one in value}) != len(value):
            raise ValueError("features repeat a name")
        return value

    def check(self, metric: Metric, variants: int) -> None:
        """As of every adaptive allocation."""
        super().check(metric, variants)
        if not isinstance(metric, ProportionMetric) and (self.mean is None or self.variance is None):
            raise ValueError("allocation.mean and variance are needed: the scale of the primary metric's values")

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and variance of a value."""
        return 0.5 if self.mean is None else self.mean, 0.25 if self.variance is None else self.variance


class ObjectiveThompsonAllocation(_Adaptive):
    """Thompson sampling over the objective vector, which every request weighs by its mode or preference.

    For versions that do not act on the preference: their objective vector is the same in all modes.
    """

    kind: Literal["objective_thompson"]
    modes: dict[str, dict[str, float]] | None = Field(
        default=None, description="weights by mode that the page answers for; default: the modes of the policy"
    )
    objectives: tuple[Objective, ...] | None = Field(
        default=None, description="of the policy; filled in at the start, leave it out"
    )
    prior_mean: float = Field(default=0.5, allow_inf_nan=False, description="goodness expected before any outcome")
    prior_variance: float = Field(default=0.25, gt=0, allow_inf_nan=False, description="of a unit's goodness")
    prior_count: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="units that ``prior_mean`` is worth")
    prior_degrees: float = Field(
        default=2.0, gt=1, allow_inf_nan=False, description="units that ``prior_variance`` is worth"
    )
    draws: int = Field(default=2000, ge=100, le=10_000, strict=True, description="of mean vectors, for each batch")

    @model_validator(mode="after")
    def _weighed(self) -> ObjectiveThompsonAllocation:
        if self.modes is not None and not self.modes:
            raise ValueError("modes must name one or more")
        if self.objectives is not None:
            self.preferences()
        return self

    def preferences(self) -> dict[str, Preference]:
        """Preferences by mode, once the objectives are known.

        Raises:
            InvalidInputError: a mode of other objectives, or impossible weights.
        """
        objectives = self.objectives or ()
        return {
            mode: Preference.of(objectives, weights, field=f"allocation.modes.{mode}")
            for mode, weights in (self.modes or {}).items()
        }

    def options(self) -> dict[str, Any]:
        """Those of :class:`~rlaas.experiments.allocation.ObjectiveThompson`."""
        names = ("prior_mean", "prior_variance", "prior_count", "prior_degrees", "minimum_share")
        return {name: getattr(self, name) for name in names}


AllocationRule = Annotated[
    ThompsonAllocation | LinearThompsonAllocation | ObjectiveThompsonAllocation, Field(discriminator="kind")
]
"""An adaptive allocation of any kind."""
