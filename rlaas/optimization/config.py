"""The configuration of a search over a scenario's tunables, as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rlaas.configfiles import read_config

__all__ = ["OptimizationConfig", "load_optimization_config"]

Seed = Annotated[int, Field(ge=0)]


class OptimizationConfig(BaseModel):
    """A search over the configurations of one scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str = Field(description="name of the scenario, or module:attribute")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the scenario")
    tunable: str = Field(default="static", description="family of controllers whose parameters are searched")
    generations: int = Field(default=30, ge=1)
    population: int | None = Field(default=None, ge=2, description="default: one member per reference direction")
    seeds: tuple[Seed, ...] = Field(default=(101, 102, 103), min_length=1, description="worlds of each evaluation")
    steps: int = Field(default=200, ge=1, description="counted steps of each evaluation")
    warmup: int = Field(default=20, ge=0, description="steps run first and left out")
    replicas: int = Field(default=1, ge=1, description="environments per seed")
    workers: int = Field(default=2, ge=1, description="Ray actors that evaluate")
    seed: Seed = Field(default=0, description="of the search itself")


def load_optimization_config(path: str | Path) -> OptimizationConfig:
    """Read a YAML file.

    Raises:
        ConfigurationError: no such file, not YAML, or a wrong key or value; names the file, the key and what is allowed
            there.
    """
    return read_config(path, OptimizationConfig)
