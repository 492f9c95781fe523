"""How a version comes to be served: the documents in which an operator says it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaas.errors import InvalidInputError, check_choice
from rlaas.experiments.canary import CanaryBounds
from rlaas.serving.live import validation_error

__all__ = ["Analysis", "BlueGreen", "Canary", "Judged", "ReplicaBounds", "Shadow", "Strategy", "parse_strategy"]

Metric = Literal["errors", "latency", "reward"]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Analysis(_Document):
    """How much worse a version may be, and how sure one wants to be: :class:`rlaas.experiments.canary.CanaryBounds`."""

    metrics: tuple[Metric, ...] = Field(default=("errors", "latency", "reward"), min_length=1)
    alpha: float = Field(default=0.05, gt=0, le=0.5, description="probability of a rollback without cause")
    beta: float = Field(default=0.05, gt=0, le=0.5, description="probability of passing a step with harm in it")
    errors: float = Field(default=0.02, gt=0, le=0.5, description="margin of the share of errors")
    latency: float = Field(
        default=0.05, gt=0, le=0.5, description="margin of the share slower than the stable version's 95th percentile"
    )
    reward: float = Field(
        default=0.25, gt=0, le=10, description="margin of the mean utility, in the stable version's standard deviations"
    )

    @field_validator("metrics")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"metrics repeats one: {', '.join(value)}")
        return value

    def bounds(self) -> CanaryBounds:
        """As the judge wants them."""
        return CanaryBounds(**self.model_dump())


class Judged(_Document):
    """What the strategies that judge by evidence share."""

    step_s: Seconds = Field(default=60.0, description="shortest time at a step")
    max_step_s: Seconds = Field(default=900.0, description="after it a step that is still undecided times out")
    min_decisions: int = Field(default=100, ge=1, le=10**9, strict=True, description="of the new version at each step")
    on_timeout: Literal["hold", "rollback"] = Field(
        default="hold", description="stay at the step and go on judging, or give up"
    )
    analysis: Analysis = Analysis()

    @model_validator(mode="after")
    def _times(self) -> Judged:
        if self.max_step_s < self.step_s:
            raise ValueError(f"max_step_s must be >= step_s ({self.step_s:g}), got {self.max_step_s:g}")
        return self


class Canary(Judged):
    """A growing share of the decisions, as long as no harm is seen."""

    kind: Literal["canary"]
    steps: tuple[float, ...] = Field(default=(0.05, 0.25, 0.5), min_length=1, max_length=32)

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in value) or any(b <= a for a, b in pairwise(value)):
            raise ValueError("steps must be shares > 0 and < 1, each larger than the one before")
        return value


class Shadow(Judged):
    """Copies of the decisions, no answers; ends with a verdict and leaves what is served as it was."""

    kind: Literal["shadow"]
    # Nobody acts on what a shadow decides, so nothing comes back.
    analysis: Analysis = Analysis(metrics=("errors", "latency"))

    @field_validator("analysis")
    @classmethod
    def _without_reward(cls, value: Analysis) -> Analysis:
        if "reward" in value.metrics:
            raise ValueError("metrics of a shadow cannot hold reward, as nothing comes of its decisions")
        return value


class BlueGreen(_Document):
    """Both versions warm, one of them answering; switched at once, back and forth."""

    kind: Literal["blue_green"]
    auto_switch: bool = Field(default=True, strict=True, description="switch as soon as every Gateway has loaded it")
    warm_s: Seconds = Field(default=600.0, description="to load the new version everywhere; after it: given up")
    keep_s: Seconds = Field(default=3600.0, description="for which the old version stays warm after the switch")


Strategy = Canary | BlueGreen | Shadow
_KINDS: dict[str, type[Canary] | type[BlueGreen] | type[Shadow]] = {
    "canary": Canary,
    "blue_green": BlueGreen,
    "shadow": Shadow,
}


def parse_strategy(document: Any) -> Strategy:
    """A strategy from its JSON document.

    Raises:
        InvalidInputError: names the field and what is allowed.
    """
    if not isinstance(document, dict):
        raise InvalidInputError("strategy must be an object with a kind", field="strategy")
    model = _KINDS[check_choice(document.get("kind", ""), _KINDS, field="strategy.kind", error=InvalidInputError)]
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        found = validation_error(problem)
        message = found.message.removeprefix("body: ")
        if problem.errors()[0]["type"] == "extra_forbidden" and len(problem.errors()[0]["loc"]) == 1:
            message += f"; allowed: {', '.join(sorted(model.model_fields))}"
        raise InvalidInputError(
            f"strategy: {message}", field=f"strategy.{found.field}".removesuffix(".body")
        ) from problem


class ReplicaBounds(_Document):
    """Between how many Gateways the pool may grow and shrink for a deployment."""

    min_replicas: int = Field(default=1, ge=1, le=1000, strict=True)
    max_replicas: int = Field(default=1, ge=1, le=1000, strict=True)

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaBounds:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be >= min_replicas ({self.min_replicas}), got {self.max_replicas}")
        return self
