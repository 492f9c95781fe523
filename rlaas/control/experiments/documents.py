"""What an experiment is: the document that says beforehand what will be compared, how, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaas.configfiles import complaint
from rlaas.control.experiments.allocations import (
    AllocationRule,
    LinearThompsonAllocation,
    ObjectiveThompsonAllocation,
)
from rlaas.control.variant_names import HOLDOUT, check_variant_names
from rlaas.errors import InvalidInputError
from rlaas.experiments.layers import WeightedVariant
from rlaas.experiments.metrics import (
    CountMetric,
    Guardrail,
    MeanMetric,
    Metric,
    ObjectivesMetric,
    QuantileMetric,
    RatioMetric,
)
from rlaas.experiments.targeting import TargetingRule
from rlaas.names import check_name

__all__ = [
    "HOLDOUT",
    "LATEST_US",
    "ExperimentDocument",
    "ExperimentVariant",
    "FixedHorizon",
    "LayerShare",
    "SequentialRule",
    "StoppingRule",
    "parse_document",
]

OBJECTIVES = "(objectives)"
"""Name under which the objective vectors of units are kept; no metric has it, since it is no plain name."""

LATEST_US = 253_402_300_799_999_999
"""End of the year 9999, up to which the lake has dates."""

_LONGEST_BATCHED = 100
"""Of a salt, to which the number of a batch is added."""

_OF_BLOCKS = (MeanMetric, CountMetric, RatioMetric)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExperimentVariant(WeightedVariant):
    """A version of the policy with its share of the units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="share of the units; scaled to sum 1")
    version: int = Field(ge=1, strict=True)
    explore: bool = Field(default=False, strict=True, description="sample from the policy's distribution")
    epsilon: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False, description="share of uniform actions")


class _Rule(_Document):
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="probability of seeing a difference where none is")
    effect: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="smallest difference worth finding, in the metric's unit"
    )


class SequentialRule(_Rule):
    """May be looked at, and stopped, at any time."""

    kind: Literal["sequential"]
    planned: int = Field(ge=100, le=10**9, strict=True, description="units per variant at which it is sharpest")
    start: int = Field(default=500, ge=100, strict=True, description="units per variant before which nothing is said")

    @model_validator(mode="after")
    def _in_time(self) -> SequentialRule:
        if self.planned < self.start:
            raise ValueError(f"planned must be >= start ({self.start}), got {self.planned}")
        return self

    @property
    def size(self) -> int:
        """Units per variant that are planned."""
        return self.planned


class FixedHorizon(_Rule):
    """Judged once, when every variant has so many units, or a switchback so many pairs of blocks."""

    kind: Literal["fixed"]
    horizon: int = Field(ge=2, le=10**9, strict=True, description="units per variant; pairs of blocks of a switchback")

    @property
    def size(self) -> int:
        """Units per variant that are planned."""
        return self.horizon


StoppingRule = Annotated[SequentialRule | FixedHorizon, Field(discriminator="kind")]


class LayerShare(_Document):
    """A part of a layer: no unit is in two experiments of one layer, whatever their policies."""

    layer: str
    share: float = Field(gt=0, le=1, allow_inf_nan=False, description="of the layer's units, in steps of 0.0001")
    holdout: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        allow_inf_nan=False,
        description="of the layer's units, which none of its experiments touches; default: as the layer has it",
    )

    @field_validator("layer")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="layer")


class ExperimentDocument(_Document):
    """An experiment, as it is declared before it begins. The first variant is the control."""

    schema_version: Literal[1] = 1
    id: str
    policy: str
    description: str = Field(default="", max_length=2_000)
    variants: tuple[ExperimentVariant, ...] = Field(min_length=2, max_length=8)
    design: Literal["user", "switchback"] = "user"
    block_steps: int | None = Field(default=None, ge=1, strict=True, description="steps per block of a switchback")
    washout_steps: int = Field(default=0, ge=0, strict=True, description="steps left out at the start of each block")
    primary: Metric
    secondary: tuple[Metric, ...] = Field(default=(), max_length=20)
    guardrails: tuple[Guardrail, ...] = Field(default=(), max_length=20)
    layer: str | None = Field(default=None, description="held as a whole: at most one experiment of it runs at a time")
    placement: LayerShare | None = Field(
        default=None, description="runs beside the others of a layer, on units of its own; default: every unit"
    )
    targeting: TargetingRule | None = Field(
        default=None, description="which units it takes in, by the context of a request; default: everyone's"
    )
    holdout: float = Field(
        default=0.0, ge=0, le=0.9, description="share of the units kept out, at the control's version"
    )
    allocation: AllocationRule | None = Field(
        default=None, description="moves the weights to what earns most; default: they stay as declared"
    )
    stopping: StoppingRule
    split_alpha: float = Field(default=0.001, gt=0, lt=0.5, description="probability of a false alarm about the split")
    salt: str | None = Field(default=None, min_length=1, max_length=128, description="default: the id")
    start_us: int | None = Field(
        default=None,
        ge=0,
        le=LATEST_US,
        strict=True,
        description="UTC microseconds; decisions before do not count. Default: now",
    )

    @field_validator("id", "policy", "layer")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        return None if value is None else check_name(value, field="name")

    @field_validator("variants")
    @classmethod
    def _apart(cls, value: tuple[ExperimentVariant, ...]) -> tuple[ExperimentVariant, ...]:
        names = [variant.name for variant in value]
        if len(set(names)) != len(names):
            raise ValueError(f"variants repeat a name: {', '.join(names)}")
        return value

    @model_validator(mode="after")
    def _metrics_apart(self) -> ExperimentDocument:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"metrics repeat a name: {', '.join(names)}")
        for guardrail in self.guardrails:
            if isinstance(guardrail.metric, QuantileMetric) and not guardrail.relative:
                raise ValueError(f"the margin of guardrail {guardrail.metric.name}, a quantile, must be relative")
        return self

    @model_validator(mode="after")
    def _fits_the_design(self) -> ExperimentDocument:
        if self.layer is not None and self.placement is not None:
            raise ValueError("layer and placement exclude each other: hold the whole layer, or a share of one")
        if self.design == "user":
            if self.block_steps is not None or self.washout_steps:
                raise ValueError("block_steps and washout_steps are for design 'switchback'; leave them out")
            return self
        if self.block_steps is None:
            raise ValueError("block_steps is needed by design 'switchback'")
        if self.washout_steps >= self.block_steps:
            raise ValueError(f"washout_steps must be below block_steps ({self.block_steps}), got {self.washout_steps}")
        if self.stopping.kind != "fixed":
            raise ValueError("stopping of a switchback must be of kind 'fixed': its few blocks are judged once")
        if self.holdout or self.targeting is not None or self.placement is not None or self.guardrails:
            raise ValueError(
                "holdout, targeting, placement and guardrails are for design 'user': a switchback treats all alike"
            )
        if len(self.variants) != 2 or self.variants[0].weight != self.variants[1].weight:
            raise ValueError("variants of a switchback must be two of equal weight: they are compared in pairs")
        for metric in self.metrics:
            if not isinstance(metric, _OF_BLOCKS) or metric.cuped or metric.winsorise or metric.segments:
                raise ValueError(
                    f"metric {metric.name} of a switchback must be a mean, count or ratio of a block, without cuped, "
                    "winsorise and segments"
                )
        return self

    @model_validator(mode="after")
    def _fits_the_allocation(self) -> ExperimentDocument:
        if self.allocation is None:
            return self
        if self.design != "user" or self.stopping.kind != "fixed":
            raise ValueError("allocation is for design 'user' and stopping of kind 'fixed': it is judged once")
        if len(self.salt or self.id) > _LONGEST_BATCHED:
            raise ValueError(f"salt, by default the id, has at most {_LONGEST_BATCHED} characters beside allocation")
        if self.holdout or self.guardrails:
            raise ValueError("holdout and guardrails are for fixed weights; leave them out beside allocation")
        for metric in self.metrics:
            if isinstance(metric, RatioMetric | QuantileMetric):
                raise ValueError(f"metric {metric.name} beside allocation must be a mean, count or proportion")
            if metric.cuped or metric.segments or getattr(metric, "winsorise", None):
                raise ValueError(f"metric {metric.name} beside allocation has no cuped, winsorise and segments")
        self.allocation.check(self.primary, len(self.variants))
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The primary metric, the secondary ones and those of the guardrails."""
        return (self.primary, *self.secondary, *(guardrail.metric for guardrail in self.guardrails))

    @property
    def objectives_metric(self) -> ObjectivesMetric | None:
        """What an allocation by objectives learns from, over the window of the primary metric; None: another one."""
        rule = self.allocation
        if not isinstance(rule, ObjectiveThompsonAllocation):
            return None
        window, lateness = self.primary.window_s, self.primary.lateness_s
        # Not validated: its name must be none that an analyst may choose.
        return ObjectivesMetric.model_construct(
            name=OBJECTIVES,
            kind="objectives",
            objectives=rule.objectives or (),
            window_s=window,
            lateness_s=lateness,
            better="higher",
            segments=(),
        )

    @property
    def learnt_from(self) -> str:
        """Name of the metric whose units an adaptive allocation learns from."""
        return self.primary.name if self.objectives_metric is None else OBJECTIVES

    @property
    def control(self) -> str:
        """Name of the variant that the others are compared with."""
        return self.variants[0].name

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the others."""
        return tuple(variant.name for variant in self.variants[1:])

    @property
    def wait_us(self) -> int:
        """Longest time from a unit's first exposure until its value is final, microseconds."""
        return max(metric.window_us + metric.lateness_us for metric in self.metrics)

    def shares(self) -> dict[str, float]:
        """Share of each variant, the holdout included, summing to 1."""
        total = sum(variant.weight for variant in self.variants)
        found = {variant.name: (1 - self.holdout) * variant.weight / total for variant in self.variants}
        return {**found, HOLDOUT: self.holdout} if self.holdout else found

    def version_of(self, variant: str) -> int:
        """Version of a variant, which must be there."""
        return next(one.version for one in self.variants if one.name == variant)

    def live_variants(self, shares: Mapping[str, float] | None = None) -> list[dict[str, object]]:
        """Documents of :class:`rlaas.serving.live.Variant` that serve the experiment, by default as declared."""
        shares = shares or self.shares()
        found: list[dict[str, object]] = [
            {
                "name": one.name,
                "version": one.version,
                "weight": shares[one.name],
                "explore": one.explore,
                "epsilon": one.epsilon,
            }
            for one in self.variants
        ]
        if self.holdout:
            found.append({**found[0], "name": HOLDOUT, "weight": self.holdout})
        return found

    def live_salt(self, batch: int = 0) -> str:
        """Salt under which units are assigned; another in each batch of an adaptive allocation, which draws anew."""
        salt = self.salt or self.id
        return salt if self.allocation is None else f"{salt}/batch {batch}"

    def conditional_spec(self) -> dict[str, Any] | None:
        """Document of the :class:`rlaas.experiments.conditional.ConditionalSpec` of the first batch, without posterior.

        None: shares do not depend on the context.
        """
        rule = self.allocation
        if isinstance(rule, LinearThompsonAllocation):
            by: dict[str, Any] = {"features": [one.model_dump(mode="json") for one in rule.features]}
        elif isinstance(rule, ObjectiveThompsonAllocation):
            by = {"objectives": [one.name for one in rule.objectives or ()]}
        else:
            return None
        return {**by, "minimum_share": rule.minimum_share, "draws": rule.draws, "seed": 0}

    def live_spec(
        self,
        placement: Mapping[str, object] | None = None,
        batch: int = 0,
        conditional: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Document of :class:`rlaas.serving.live.ExperimentSpec`.

        Args:
            placement: document of the :class:`rlaas.serving.live.Placement` that it was given; None: every unit.
            batch: of an adaptive allocation.
            conditional: of the batch, where shares depend on the context; default: that of the first.
        """
        return {
            "name": self.id,
            "design": self.design,
            "salt": self.live_salt(batch),
            "block_steps": self.block_steps,
            "targeting": None if self.targeting is None else self.targeting.model_dump(mode="json"),
            "placement": placement,
            "conditional": conditional or self.conditional_spec(),
        }


_METRICS = ("mean", "count", "proportion", "ratio", "quantile")
_ALLOCATIONS = ("thompson", "linear_thompson", "objective_thompson")
_TAGS = (*_METRICS, *_ALLOCATIONS, "sequential", "fixed", "condition", "all", "any", "beta", "gaussian")
"""What pydantic puts into a path to say which kind of a union it took the document for."""


def parse_document(document: Any) -> ExperimentDocument:
    """An experiment from its JSON document.

    Raises:
        InvalidInputError: names the field and what is allowed.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError("an experiment must be an object with keys id, policy, variants, ...", field="body")
    try:
        found = ExperimentDocument.model_validate(document)
    except ValidationError as problem:
        first = problem.errors()[0]
        path = _path_in(document, first["loc"])
        field = ".".join(path) or "experiment"
        if first["type"] == "extra_forbidden":
            keys = f"; allowed: {', '.join(ExperimentDocument.model_fields)}" if len(path) == 1 else ""
            raise InvalidInputError(f"{field}: unknown key{keys}", field=field) from problem
        raise InvalidInputError(f"{field}: {complaint(first)}", field=field) from problem
    # Not of the model, by which documents are read again that were kept before a name was reserved.
    check_variant_names([variant.name for variant in found.variants])
    return found


def _path_in(document: Any, location: Sequence[int | str]) -> list[str]:
    """The path of a value in the document as its author wrote it."""
    path, at = [], document
    for part in location:
        inside = part < len(at) if isinstance(part, int) and isinstance(at, Sequence) else False
        if inside or (isinstance(at, Mapping) and part in at):
            at = at[part]
        elif part in _TAGS:
            continue
        else:
            at = None
        path.append(str(part))
    return path
