"""What a pipeline is told: one frozen document, from Python or YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError, check_choice
from rlaas.lake import TABLES
from rlaas.lake.validation import ContractConfig
from rlaas.optimization import OptimizationConfig
from rlaas.registry import CHAMPION, check_alias
from rlaas.scenarios import Scenario
from rlaas.training import TrainingConfig
from rlaas.training.offline import FitSettings

__all__ = [
    "STAGES",
    "ContractConfig",
    "DataConfig",
    "FrontRaceConfig",
    "PipelineConfig",
    "StageName",
    "check_against",
    "load_pipeline_config",
]

StageName = Literal["data", "validate", "train", "tune", "search", "evaluate", "register"]
STAGES: tuple[StageName, ...] = get_args(StageName)

TRANSITIONS = "silver.transitions"
DECISIONS = "bronze.decisions"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_among(value: str, allowed: Iterable[str], what: str) -> None:
    """As :func:`rlaas.errors.check_choice`, for validators: the reader of the file knows the key."""
    choices = sorted(allowed)
    if value not in choices:
        raise ValueError(f"unknown {what} {value[:80]!r}; allowed: {', '.join(choices) or '(none)'}")


class DataConfig(_Document):
    """Which tables of the lake a pipeline reads; none for one that only simulates."""

    tables: tuple[str, ...] = Field(default=(), description=f"for example {TRANSITIONS}, {DECISIONS}")
    versions: dict[str, int] = Field(default_factory=dict, description="Delta version by table; default the newest")
    datasets: dict[str, str] = Field(default_factory=dict, description="or a named dataset of a table, by table")
    last_days: int | None = Field(default=None, ge=1, description="only the newest days of what there is")

    @field_validator("tables")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for table in value:
            _check_among(table, TABLES, "table")
        if len(set(value)) < len(value):
            raise ValueError(f"a table is named twice: {', '.join(value)}")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _pinned(self) -> DataConfig:
        for table in self.versions:
            _check_among(table, self.tables, "table in versions")
        for table, name in self.datasets.items():
            _check_among(table, self.tables, "table in datasets")
            if table in self.versions:
                raise ValueError(f"{table} is pinned twice: by version {self.versions[table]} and by dataset {name}")
        return self


class FrontRaceConfig(_Document):
    """How the candidates of the front are told apart: further evaluations where it is undecided who dominates whom."""

    budget: int | None = Field(
        default=None,
        ge=0,
        description="evaluations of one candidate in one fresh world; default as many as in the common worlds, 0 none",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="that nobody is wrongly called dominated")
    tolerance: float = Field(
        default=0.01, ge=0, lt=1, description="difference that does not count, in shares of the objectives' ranges"
    )


class EvaluationConfig(_Document):
    """How the front is judged, and a candidate held against the champion."""

    mode: str | None = Field(default=None, description="mode that decides; default the scenario's primary one")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
    guardrails: dict[str, float] = Field(
        default_factory=dict,
        description="by objective, how much worse than the champion it may be, in shares of its range; must be shown",
    )
    other_modes: bool = Field(default=True, description="refuse a candidate that is shown worse in another mode")
    trials: int = Field(
        default=3, ge=0, description="best trials of a tuning search whose policies become candidates of the front"
    )
    race: FrontRaceConfig = Field(default_factory=FrontRaceConfig)

    @field_validator("guardrails")
    @classmethod
    def _margins(cls, value: dict[str, float]) -> dict[str, float]:
        for name, margin in value.items():
            if not 0 <= margin <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {margin}")
        return value


class PipelineConfig(_Document):
    """From data to a registered policy of one scenario.

    Attributes:
        training: the policy to train.
        data, contract: the tables that are read, and what they must be like.
        warm_start: begin with the champion's networks, or with ones fitted to the pinned transitions (``logs``), not
            with fresh ones.
        fit: how they are fitted; widths, algorithm and discount are the training's.
        tune: a tuning configuration (see ``rlaas.tuning``) whose best configuration is trained as a second candidate.
        searches: configurations searched beside the policies.
        protocol: evaluation protocol of the scenario: ``short`` or ``full``.
        evaluation: how the verdict is reached.
        alias: what the policy gets in the registry; ``champion`` also makes it live.
        force: register whatever the verdict says (a failed contract still refuses).
        retries: further attempts by stage; one for a stage that is not named.
        retry_wait_s: pause before the first further attempt, doubled before each one after it.
        keep: newest results of each stage that stay on disk.
    """

    training: TrainingConfig
    data: DataConfig = Field(default_factory=DataConfig)
    contract: ContractConfig = Field(default_factory=ContractConfig)
    warm_start: Literal["champion", "logs"] | None = None
    fit: FitSettings = Field(default_factory=FitSettings)
    tune: dict[str, Any] | None = None
    searches: tuple[OptimizationConfig, ...] = ()
    protocol: str = "short"
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    alias: str = "candidate"
    force: Literal["never", "always"] = "never"
    retries: dict[StageName, int] = Field(default_factory=dict)
    retry_wait_s: float = Field(default=5.0, ge=0, le=3600)
    keep: int = Field(default=10, ge=1)

    @field_validator("alias")
    @classmethod
    def _usable(cls, value: str) -> str:
        return check_alias(value)

    @field_validator("retries")
    @classmethod
    def _counts(cls, value: Mapping[StageName, int]) -> Mapping[StageName, int]:
        for name, count in value.items():
            if not 0 <= count <= 100:
                raise ValueError(f"{name} must be between 0 and 100, got {count}")
        return value

    @model_validator(mode="after")
    def _one_scenario(self) -> PipelineConfig:
        if self.training.scenario is None:
            raise ConfigurationError(
                "training.scenario is missing: a pipeline is about a scenario", field="training.scenario"
            )
        if self.warm_start is not None and self.training.warm_start is not None:
            raise ConfigurationError(
                "training.warm_start names a folder and warm_start says where to begin; give one of them",
                field="warm_start",
            )
        if self.warm_start == "logs" and TRANSITIONS not in self.data.tables:
            raise ConfigurationError(f"warm_start: logs needs {TRANSITIONS} in data.tables", field="data.tables")
        tunables = [search.tunable for search in self.searches]
        if len(set(tunables)) < len(tunables):
            raise ConfigurationError(f"searches name a tunable twice: {', '.join(tunables)}", field="searches")
        for index, search in enumerate(self.searches):
            # Options may differ: a scenario may offer some for training alone.
            if search.scenario != self.training.scenario:
                raise ConfigurationError(
                    f"searches.{index} is about {search.scenario!r}; expected the training's "
                    f"{self.training.scenario!r}",
                    field=f"searches.{index}.scenario",
                )
        return self

    @property
    def scenario_name(self) -> str:
        """Name of the scenario, or ``module:attribute``."""
        return str(self.training.scenario)

    @property
    def promotes(self) -> bool:
        """Whether a registered policy goes live."""
        return self.alias == CHAMPION

    def attempts(self, stage: StageName) -> int:
        """Attempts that a stage has."""
        return 1 + self.retries.get(stage, 1)


def load_pipeline_config(path: str | Path) -> PipelineConfig:
    """Read a YAML file.

    Raises:
        ConfigurationError: see :func:`rlaas.configfiles.read_config`; also a search over another scenario than the
            training's.
    """
    return read_config(path, PipelineConfig)


def check_against(config: PipelineConfig, scenario: Scenario) -> None:
    """Refuse what the scenario does not have, before anything starts.

    Raises:
        ConfigurationError: names the field and the choices.
    """
    check_choice(config.protocol, scenario.protocols, field="protocol")
    for index, search in enumerate(config.searches):
        check_choice(search.tunable, scenario.tunables, field=f"searches.{index}.tunable")
    if config.evaluation.mode is not None:
        check_choice(config.evaluation.mode, scenario.modes, field="evaluation.mode")
    for name in config.evaluation.guardrails:
        check_choice(name, (o.name for o in scenario.objectives), field="evaluation.guardrails")
