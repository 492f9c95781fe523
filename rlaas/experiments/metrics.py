"""What an experiment measures: documents that say how the outcomes of a unit become its value, and what is guarded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.names import check_name
from rlaas.objectives import Objective

__all__ = [
    "CountMetric",
    "Guardrail",
    "MeanMetric",
    "Metric",
    "MetricBase",
    "ObjectivesMetric",
    "ProportionMetric",
    "QuantileMetric",
    "RatioMetric",
    "Winsorising",
]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Winsorising(_Document):
    """Values beyond two quantiles of the pooled data, all arms together, are pulled in to them."""

    lower: Share = Field(default=0.0, description="quantile of the low end; 0 leaves it as it is")
    upper: Share = Field(default=1.0, description="quantile of the high end; 1 leaves it as it is")

    @model_validator(mode="after")
    def _ordered(self) -> Winsorising:
        if self.lower >= self.upper:
            raise ValueError(f"lower must be below upper, got {self.lower:g} and {self.upper:g}")
        return self


class MetricBase(_Document):
    """What every metric has.

    A unit's outcomes count from its first exposure for as long as the window lasts. A unit without an outcome counts
    with 0: leaving it out would compare only those who came back.
    """

    name: str
    window_s: float = Field(gt=0, le=366 * 86_400, allow_inf_nan=False, description="seconds after the first exposure")
    lateness_s: float = Field(
        default=0.0, ge=0, le=366 * 86_400, allow_inf_nan=False, description="seconds waited for outcomes in transit"
    )
    better: Literal["higher", "lower"] = "higher"
    segments: tuple[str, ...] = Field(
        default=(), max_length=20, description="attributes by whose values it is also told apart"
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")

    @field_validator("segments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or "" in value:
            raise ValueError("segments must be different, non-empty names of attributes")
        return value

    @property
    def window_us(self) -> int:
        """Microseconds."""
        return round(self.window_s * 1e6)

    @property
    def lateness_us(self) -> int:
        """Microseconds."""
        return round(self.lateness_s * 1e6)


class _Adjustable(MetricBase):
    winsorise: Winsorising | None = None
    cuped: str | None = Field(
        default=None, min_length=1, description="covariate from before the exposure that explains part of the spread"
    )


class MeanMetric(_Adjustable):
    """Mean over units of the sum of one value over the window, such as revenue per user."""

    kind: Literal["mean"] = "mean"
    value: str = Field(min_length=1, description="name in the outcomes")


class CountMetric(_Adjustable):
    """Mean over units of the number of outcomes within the window that have a value."""

    kind: Literal["count"] = "count"
    value: str = Field(min_length=1, description="name in the outcomes")


class ProportionMetric(MetricBase):
    """Share of the units with at least one value above a threshold within the window."""

    kind: Literal["proportion"] = "proportion"
    value: str = Field(min_length=1, description="name in the outcomes")
    above: float = Field(default=0.0, allow_inf_nan=False)
    cuped: str | None = Field(default=None, min_length=1, description="covariate from before the exposure")


class RatioMetric(_Adjustable):
    """Sum of one value over the sum of another, such as clicks per view; the spread by the delta method."""

    kind: Literal["ratio"] = "ratio"
    numerator: str = Field(min_length=1, description="name in the outcomes")
    denominator: str = Field(min_length=1, description="name in the outcomes, of values >= 0")


class QuantileMetric(MetricBase):
    """Quantile of single values, such as the 95th percentile of latency; values of one unit may depend on each other.

    A unit without an outcome adds nothing here: a latency of 0 that nobody saw is no latency.
    """

    kind: Literal["quantile"] = "quantile"
    value: str = Field(min_length=1, description="name in the outcomes")
    quantile: float = Field(gt=0, lt=1)


class ObjectivesMetric(MetricBase):
    """Mean of a unit's outcomes in every objective, as goodness: 1 at the better end of its range, 0 at the worse.

    No metric that an analyst declares: what an experiment learns that answers for several modes. A unit without an
    outcome, or whose outcomes lack an objective, has goodness 0 in it.
    """

    kind: Literal["objectives"] = "objectives"
    objectives: tuple[Objective, ...]


Metric = Annotated[
    MeanMetric | CountMetric | ProportionMetric | RatioMetric | QuantileMetric, Field(discriminator="kind")
]
"""A metric of any kind, told apart by ``kind``."""


class Guardrail(_Document):
    """A metric that a variant must not make worse by as much as a margin (non-inferiority)."""

    metric: Metric
    margin: float = Field(gt=0, allow_inf_nan=False, description="loss that is too much")
    relative: bool = Field(default=True, strict=True, description="margin as a share of the control's value")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="one-sided chance of passing a loss of the margin")

    @model_validator(mode="after")
    def _testable(self) -> Guardrail:
        if self.relative and self.margin >= 1:
            raise ValueError(f"a relative margin must be below 1, got {self.margin:g}; is it in per cent?")
        return self
