"""What is live: the documents in which Control tells the Gateways which versions answer for a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaas.errors import InvalidInputError, RequestError
from rlaas.experiments.conditional import ConditionalSpec
from rlaas.experiments.layers import Buckets
from rlaas.experiments.targeting import TargetingRule
from rlaas.names import check_name
from rlaas.serving.shield_spec import ActionValue, Shield

__all__ = ["DeploymentRecord", "ExperimentSpec", "LiveAnswer", "Placement", "Variant", "validation_error"]


FeatureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}@[1-9][0-9]{0,8}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Document):
    """One version of a policy with its share of the decisions."""

    name: str = Field(description="plain name, for example champion")
    version: int = Field(ge=1, strict=True)
    weight: float = Field(ge=0, allow_inf_nan=False, description="share of the decisions; scaled to sum 1")
    explore: bool = Field(
        default=False, strict=True, description="sample from the policy's distribution instead of taking its mode"
    )
    epsilon: float = Field(
        default=0.0,
        ge=0,
        le=1,
        strict=True,
        allow_inf_nan=False,
        description="share of uniform actions while ``explore``",
    )
    shadow: bool = Field(
        default=False, strict=True, description="gets copies of the decisions and never answers; its weight is 0"
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")

    @model_validator(mode="after")
    def _silent(self) -> Variant:
        if self.shadow and self.weight != 0:
            raise ValueError(f"weight of the shadow {self.name!r} must be 0, got {self.weight:g}")
        return self


class Placement(_Document):
    """An experiment's part of a layer: experiments of one layer, of whatever policy, have no unit in common."""

    layer: str
    salt: str = Field(min_length=1, max_length=128, description="the layer's: draws the bucket of a unit")
    buckets: Buckets = Field(min_length=1, description="spans that the experiment has, first to last without last")
    holdout: Buckets = Field(default=(), description="spans of the layer that no experiment touches")

    @field_validator("layer")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="layer")

    @model_validator(mode="after")
    def _apart(self) -> Placement:
        for first, end in self.buckets:
            if any(first < other_end and other < end for other, other_end in self.holdout):
                raise ValueError(f"buckets {first} to {end} are partly in the holdout")
        return self


class ExperimentSpec(_Document):
    """How decisions are allocated to the variants.

    Units that it does not take in, by its placement or its targeting or since they lack a feature that shares depend
    on, are answered by the version of the record's first variant, and belong to no experiment.
    """

    name: str
    design: Literal["user", "switchback"] = Field(description="sticky by unit, or all in blocks of steps")
    salt: str = Field(min_length=1, max_length=128, description="names this allocation: another salt reshuffles it")
    block_steps: int | None = Field(default=None, ge=1, strict=True, description="steps per block of a switchback")
    targeting: TargetingRule | None = Field(
        default=None, description="which units it takes in, by the context of a request; default: everyone's"
    )
    placement: Placement | None = Field(default=None, description="its part of a layer; default: every unit")
    conditional: ConditionalSpec | None = Field(
        default=None, description="shares that depend on what a request brings; default: the weights of the variants"
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return check_name(value, field="name")

    @model_validator(mode="after")
    def _blocks(self) -> ExperimentSpec:
        if self.design == "switchback":
            if self.block_steps is None:
                raise ValueError("block_steps is needed by design 'switchback'")
            if self.selective:
                raise ValueError("targeting, placement and conditional are for design 'user': it treats all alike")
        return self

    @property
    def weighs(self) -> bool:
        """Whether the preference of a request has a say in the variant that it gets."""
        return self.conditional is not None and bool(self.conditional.objectives)

    @property
    def selective(self) -> bool:
        """Whether there may be units that it does not take in."""
        return self.targeting is not None or self.placement is not None or self.conditional is not None


class DeploymentRecord(_Document):
    """Which versions of a policy are live, with which weights: one generation of a deployment.

    A variant of weight 0 is loaded and warm, and decides nothing.
    """

    schema_version: Literal[1] = 1
    id: str
    tenant: str
    policy: str
    generation: int = Field(ge=1)
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=32)
    experiment: ExperimentSpec | None = None
    fallback: int | None = Field(
        default=None, ge=1, strict=True, description="version that answers while the one that should keeps failing"
    )
    shield: Shield | None = Field(default=None, description="what every answer keeps, whatever a version chose")
    safe_action: ActionValue | None = Field(default=None, description="answers when no version can")
    features: dict[str, FeatureName] | None = Field(
        default=None,
        max_length=10_000,
        description="numbers of the observation that requests with entities leave out, by name: the feature@version",
    )
    updated_us: int = Field(description="UTC, microseconds since the epoch")

    @field_validator("variants")
    @classmethod
    def _weighted(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants repeat a name: {', '.join(names)}")
        if not 0 < math.fsum(variant.weight for variant in variants) < math.inf:
            raise ValueError("weights of the variants must sum to a finite number > 0")
        return variants

    @model_validator(mode="after")
    def _fits_the_experiment(self) -> DeploymentRecord:
        first = self.variants[0]
        if self.experiment is not None and self.experiment.selective and first.shadow:
            raise ValueError(
                f"the first variant, {first.name}, answers the units outside the experiment and cannot be a shadow"
            )
        conditional = None if self.experiment is None else self.experiment.conditional
        if (
            conditional is not None
            and conditional.arms
            and sorted(arm.name for arm in conditional.arms)
            != sorted(variant.name for variant in self.variants if variant.weight > 0)
        ):
            raise ValueError("arms of the experiment's conditional must be the variants that have a weight")
        return self

    @property
    def etag(self) -> str:
        """Entity tag of this generation, for ``If-Match``."""
        return f'"{self.id}.{self.generation}"'

    def weights(self) -> dict[str, float]:
        """Share of each variant, summing to 1."""
        largest = max(variant.weight for variant in self.variants)
        scaled = {variant.name: variant.weight / largest for variant in self.variants}
        total = math.fsum(scaled.values())
        return {name: weight / total for name, weight in scaled.items()}


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What Control answers to a Gateway that asks what is live.

    Attributes:
        secret: key that signs decision ids.
        records: every live deployment of the tenant.
        paths: folder of the bundle by policy and version; one that cannot be had is left out. Under
            :func:`~rlaas.serving.served_front.front_key` the file with the front of a version that has one.
    """

    secret: bytes
    records: tuple[DeploymentRecord, ...]
    paths: Mapping[tuple[str, int], str]


def validation_error(
    problem: ValidationError, *, source: str = "", error: type[RequestError] = InvalidInputError
) -> RequestError:
    """The first complaint of pydantic as one line that names the field.

    Args:
        problem: what pydantic raised.
        source: put in front of the message, for example a file name.
        error: type of the error to build.
    """
    first = problem.errors()[0]
    path = ".".join(str(part) for part in first["loc"]) or "body"
    text = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        text = "unknown key"
    return error(f"{source + ': ' if source else ''}{path}: {text}", field=path)
