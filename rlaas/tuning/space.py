"""The search space: dotted names into a training configuration, each with the values it may take.

A *point* gives every name a value as searchers know them: numbers as they are, choices as JSON text, because searchers
want plain labels and a choice may be a list (``hidden``). :func:`values_of` turns a point into what a configuration
takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.errors import ConfigurationError
from rlaas.training import TrainingConfig

__all__ = [
    "Choice",
    "Int",
    "LogInt",
    "LogUniform",
    "Parameter",
    "Uniform",
    "check_space",
    "distributions",
    "domains",
    "encoded",
    "extremes",
    "known_names",
    "training_document",
    "values_of",
    "with_values",
    "within",
]

# They say what is solved, how long, and how it is judged: trials that differ in them do not compare.
FIXED = frozenset(
    {
        "scenario",
        "environment",
        "options",
        "steps",
        "seed",
        "threads",
        "num_env_runners",
        "num_learners",
        "num_gpus_per_learner",
        "device",
        "evaluation_seeds",
        "evaluation_preferences",
        "evaluation_steps",
        "evaluation_warmup",
        "evaluation_replicas",
    }
)
# They give networks, buffers and environments their shapes: a checkpoint of another shape cannot be taken over.
SHAPES = frozenset({"hidden", "num_envs", "algorithm", "sac.buffer_size"})


class _Range(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Numbers(_Range):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _Numbers:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}, and both finite")
        if self.logarithmic and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a logarithmic scale")
        return self

    @property
    def logarithmic(self) -> bool:
        """Whether values are drawn evenly by their logarithm."""
        return False


class Uniform(_Numbers):
    """A number from ``low`` to ``high``."""

    kind: Literal["uniform"]


class LogUniform(_Numbers):
    """A positive number from ``low`` to ``high``, drawn evenly by its logarithm."""

    kind: Literal["loguniform"]

    @property
    def logarithmic(self) -> bool:
        """True."""
        return True


class Int(_Numbers):
    """A whole number from ``low`` to ``high``, both included."""

    kind: Literal["int"]
    low: int
    high: int


class LogInt(_Numbers):
    """A positive whole number from ``low`` to ``high``, both included, drawn evenly by its logarithm."""

    kind: Literal["logint"]
    low: int
    high: int

    @property
    def logarithmic(self) -> bool:
        """True."""
        return True


class Choice(_Range):
    """One of some values, of any type that YAML knows."""

    kind: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        labels = self.labels()
        if len(set(labels)) < len(labels):
            raise ValueError(f"values name one twice: {', '.join(labels)}")
        return self

    def labels(self) -> list[str]:
        """The values as searchers know them."""
        return [json.dumps(value, sort_keys=True) for value in self.values]


Parameter = Annotated[Uniform | LogUniform | Int | LogInt | Choice, Field(discriminator="kind")]
Space = Mapping[str, Any]


def known_names() -> list[str]:
    """Dotted names of everything in a training configuration that may be searched."""
    names = []
    for name, field in TrainingConfig.model_fields.items():
        nested = field.annotation
        if name in FIXED:
            continue
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += [f"{name}.{inner}" for inner in nested.model_fields]
        else:
            names.append(name)
    return sorted(names)


def check_space(space: Space, base: TrainingConfig) -> None:
    """Refuse names that cannot be searched and values that a training configuration would refuse.

    Raises:
        ConfigurationError: naming the key.
    """
    names = known_names()
    for name in space:
        if name in FIXED:
            raise ConfigurationError(
                f"space.{name}: cannot be searched, since trials that differ in it do not compare; "
                f"set training.{name} instead",
                field=f"space.{name}",
            )
        if name not in names:
            raise ConfigurationError(
                f"space.{name}: no such field of a training configuration; allowed: {', '.join(names)}",
                field=f"space.{name}",
            )
    for name, value in extremes(space):
        try:
            with_values(base, {name: value})
        except ConfigurationError as problem:
            raise ConfigurationError(f"space.{name}: {problem.message}", field=f"space.{name}") from problem


def extremes(space: Space) -> Iterator[tuple[str, Any]]:
    """Each name with both ends of its range, or with each of its choices."""
    for name, parameter in space.items():
        for value in parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high):
            yield name, value


def distributions(space: Space, prefix: str = "point/") -> dict[str, Any]:
    """The space for Optuna, its names as paths into a trial's configuration."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, parameter in space.items():
        if isinstance(parameter, Choice):
            found[prefix + name] = CategoricalDistribution(parameter.labels())
        elif isinstance(parameter, Int | LogInt):
            found[prefix + name] = IntDistribution(parameter.low, parameter.high, log=parameter.logarithmic)
        else:
            found[prefix + name] = FloatDistribution(parameter.low, parameter.high, log=parameter.logarithmic)
    return found


def domains(space: Space) -> dict[str, Any]:
    """The space as domains of Ray Tune."""
    from ray import tune

    found: dict[str, Any] = {}
    for name, parameter in space.items():
        if isinstance(parameter, Choice):
            found[name] = tune.choice(parameter.labels())
        elif isinstance(parameter, Int | LogInt):
            # Tune leaves the upper end of whole numbers out.
            draw = tune.lograndint if parameter.logarithmic else tune.randint
            found[name] = draw(parameter.low, parameter.high + 1)
        else:
            found[name] = (tune.loguniform if parameter.logarithmic else tune.uniform)(parameter.low, parameter.high)
    return found


def encoded(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name as a point; the inverse of :func:`values_of`."""
    return {
        name: json.dumps(value, sort_keys=True) if isinstance(space[name], Choice) else value
        for name, value in values.items()
    }


def values_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a point: choices decoded."""
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in point.items()}


def within(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """The point with each number moved into its range, whole ones rounded; choices stay."""
    moved = dict(point)
    for name, parameter in space.items():
        if isinstance(parameter, Choice):
            continue
        bounded = min(max(moved[name], parameter.low), parameter.high)
        moved[name] = round(bounded) if isinstance(parameter, Int | LogInt) else float(bounded)
    return moved


def training_document(base: TrainingConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``base`` was given, with ``values`` by dotted name on top, as plain types for YAML."""
    document: dict[str, Any] = base.model_dump(mode="json", exclude_unset=True)
    for name, value in values.items():
        head, _, inner = name.partition(".")
        if inner:
            document[head] = {**document.get(head, {}), inner: value}
        else:
            document[head] = value
    return document


def with_values(base: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    """The training configuration with ``values`` by dotted name on top of ``base``.

    Raises:
        ConfigurationError: a value is refused.
    """
    return TrainingConfig(**training_document(base, values))
