"""What a run of the main job can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DemoOptions"]


class DemoOptions(BaseModel):
    """Options of ``rlaas demo``.

    The budgets are sized for six minutes on two cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str = "network5g"
    steps: int | None = Field(default=None, ge=1, description="training steps; default: the scenario's own")
    seed: int = Field(default=0, ge=0)
    output: Path = Path("demo")
    port: int = Field(default=8000, ge=1, le=65535)
    workers: int = Field(default=2, ge=1, description="actors that evaluate configurations")
    generations: int = Field(default=12, ge=1, description="NSGA-III generations per family of configurations")
    population: int = Field(default=32, ge=4)
    search_seeds: int = Field(default=2, ge=1)
    race_budget: int = Field(
        default=250,
        ge=0,
        description="evaluations of one candidate in one fresh world, where it is undecided who dominates; 0 for none",
    )
    traffic_steps: int | None = Field(default=None, ge=40, description="environment steps through HTTP")
    offline_epochs: int = Field(default=30, ge=1)
