"""The configuration of a search over a scenario's tunables, as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaas.configfiles import read_config
from rlaas.optimization.termination import DistanceStall, HypervolumeStall, Seconds, Stop, TargetHypervolume

__all__ = ["OptimizationConfig", "RaceConfig", "StallConfig", "StopConfig", "load_optimization_config"]

Seed = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StallConfig(BaseModel):
    """Nothing gained any more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: int = Field(default=30, ge=1, description="window")
    tolerance: Finite = Field(default=1e-3, description="least gain over it that counts, see `by`")
    by: Literal["hypervolume", "distance"] = Field(
        default="hypervolume",
        description="relative growth of the hypervolume, or how far the front moves in shares of its extent",
    )


class StopConfig(BaseModel):
    """Reasons to end before the generations are over; the first that holds ends the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Finite | None = Field(default=None, description="wall time")
    hypervolume: Finite | None = Field(
        default=None, description="of the front, in normalised goodness: 1 is the better end of every range"
    )
    stall: StallConfig | None = None

    def stops(self, ranges: float) -> list[Stop]:
        """As a search takes them.

        Args:
            ranges: product of the objectives' ranges, by which a search in their units counts hypervolume.
        """
        found: list[Stop] = []
        if self.seconds is not None:
            found.append(Seconds(self.seconds))
        if self.hypervolume is not None:
            found.append(TargetHypervolume(self.hypervolume * ranges))
        if self.stall is not None:
            kind = HypervolumeStall if self.stall.by == "hypervolume" else DistanceStall
            found.append(kind(self.stall.generations, self.stall.tolerance))
        return found


class RaceConfig(BaseModel):
    """How the found configurations are compared on fresh seeds: more evaluations where it is undecided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds_per_round: int = Field(default=5, ge=2, description="fresh worlds in each round, the same for all")
    budget: int | None = Field(
        default=None,
        ge=0,
        description="evaluations of one candidate in one world, after the first round; default: ten for each",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="that nobody is wrongly called dominated")
    tolerance: float = Field(
        default=0.01, ge=0.0, lt=1.0, description="difference that does not count, in the objectives' ranges"
    )


class OptimizationConfig(BaseModel):
    """A search over the configurations of one scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str = Field(description="name of the scenario, or module:attribute")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the scenario")
    tunable: str = Field(default="static", description="family of controllers whose parameters are searched")
    algorithm: Literal["nsga3", "unsga3", "moead-pbi", "moead-tchebycheff"] = "nsga3"
    directions: Literal["das-dennis", "layered", "energy"] = Field(
        default="das-dennis", description="reference directions; energy gives exactly `population` of them"
    )
    generations: int = Field(default=30, ge=1, description="at most")
    population: int | None = Field(default=None, ge=2, description="default: one member per reference direction")
    stop: StopConfig = Field(default_factory=StopConfig)
    warm_start: Path | None = Field(default=None, description="front (JSON) whose configurations come first")
    seeds: tuple[Seed, ...] = Field(default=(101, 102, 103), min_length=1, description="worlds of each evaluation")
    steps: int = Field(default=200, ge=1, description="counted steps of each evaluation")
    warmup: int = Field(default=20, ge=0, description="steps run first and left out")
    replicas: int = Field(default=1, ge=1, description="environments per seed")
    way: Literal["auto", "serial", "batched", "asynchronous", "islands"] = Field(
        default="auto",
        description="auto measures evaluations and stays in one process, or spreads each generation, as it pays",
    )
    workers: int = Field(default=2, ge=1, description="Ray actors that evaluate, at most")
    deadline_seconds: Finite = Field(default=300.0, description="longest that one call may take")
    race: RaceConfig = Field(default_factory=RaceConfig)
    seed: Seed = Field(default=0, description="of the search itself")


def load_optimization_config(path: str | Path) -> OptimizationConfig:
    """Read a YAML file.

    Raises:
        ConfigurationError: no such file, not YAML, or a wrong key or value; names the file, the key and what is allowed
            there.
    """
    return read_config(path, OptimizationConfig)
