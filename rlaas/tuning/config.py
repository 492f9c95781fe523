"""What a search is told: one frozen document, from Python or YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaas.configfiles import complaint, read_config
from rlaas.errors import ConfigurationError, check_choice
from rlaas.training import TrainingConfig
from rlaas.tuning.searchers import SEARCHERS
from rlaas.tuning.space import SHAPES, Choice, Parameter, check_space

__all__ = [
    "Asha",
    "Confirmation",
    "Pbt",
    "RunToTheEnd",
    "TuningConfig",
    "TuningObjective",
    "load_tuning_config",
]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TuningObjective(_Document):
    """A figure that the search improves."""

    metric: str
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None, description="None takes the metric's own: an objective's, or maximize (seconds: minimize)"
    )


class RunToTheEnd(_Document):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


class Asha(_Document):
    """Stop trials that fall behind others at the same age (Li et al. 2020, arXiv 1810.05934)."""

    kind: Literal["asha"]
    metric: str | None = Field(default=None, description="what trials are compared by; None: the only objective")
    grace: int = Field(default=1, ge=1, description="reports before a trial may be stopped")
    reduction: float = Field(default=3.0, gt=1, description="one in so many goes on at each rung")


class Pbt(_Document):
    """A population in which the weak take over the strong (Jaderberg et al. 2017, arXiv 1711.09846)."""

    kind: Literal["pbt"]
    interval: int = Field(default=1, ge=1, description="reports between two comparisons")
    quantile: float = Field(default=0.25, gt=0, le=0.5, description="share that takes over, and is taken over")
    resample: float = Field(default=0.25, ge=0, le=1, description="probability of a fresh value instead of a nudge")


class Confirmation(_Document):
    """Train the best configurations and the base anew, and judge both on seeds that the search has not seen.

    The best of many noisy figures is too good to be true; these are the ones to quote.
    """

    training_seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (7101, 7102)
    evaluation_seeds: tuple[Annotated[int, Field(ge=0)], ...] = (7201, 7202, 7203)
    most: int = Field(default=4, ge=1, description="configurations of a Pareto front that are confirmed")


class TuningConfig(_Document):
    """One search for a training configuration.

    Attributes:
        training: where the search starts; what ``space`` leaves out stays as it is here.
        space: dotted names into the training configuration, each with a range.
        objectives: one metric, or several for a Pareto front.
        search: name of a searcher; None takes ``tpe`` for one objective, ``nsga3`` for several (``nsga2`` with
            ``asha``, whose stopped trials tell ``nsga3`` nothing), and ``random`` for ``pbt``.
        scheduler: whether trials run to their end (``none``), are stopped early (``asha``) or take over others
            (``pbt``).
        trials: configurations tried; the population's size for ``pbt``. None takes the whole of a grid, else 20.
        concurrency: trials at the same time. With ``pbt`` on a running cluster it is the free CPUs that decide.
        cpus_per_trial: CPUs reserved for each.
        report_every: decisions between two reports of a trial; None for a tenth of ``training.steps``.
        seed: seed of the search.
        failures_allowed: crashes after which a trial is continued from its checkpoint. A configuration that cannot
            work (a NaN loss) is not tried again.
        confirmation: None leaves it out.

    Raises:
        ConfigurationError: an unknown key, a wrong type, or what cannot work together, naming the key.
    """

    training: TrainingConfig
    space: dict[str, Parameter] = Field(min_length=1)
    objectives: tuple[TuningObjective, ...] = Field(min_length=1)
    search: str | None = None
    scheduler: Annotated[RunToTheEnd | Asha | Pbt, Field(discriminator="kind")] = Field(default_factory=RunToTheEnd)
    trials: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=1, ge=1)
    cpus_per_trial: float = Field(default=1.0, gt=0)
    report_every: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**31)
    failures_allowed: int = Field(default=2, ge=0)
    confirmation: Confirmation | None = Field(default_factory=Confirmation)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as problem:
            raise _translate(problem, type(self)) from problem

    @field_validator("objectives", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """A metric's bare name is enough."""
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list | tuple):
            return given
        return [{"metric": one} if isinstance(one, str) else one for one in given]

    @field_validator("scheduler", mode="before")
    @classmethod
    def _kind(cls, given: Any) -> Any:
        """So is a scheduler's."""
        return {"kind": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _works_together(self) -> TuningConfig:
        check_space(self.space, self.training)
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"objectives name a metric twice: {', '.join(names)}", field="objectives")
        kind = SEARCHERS[check_choice(self.searcher, SEARCHERS, field="search")]
        if self.several and not kind.several:
            raise ConfigurationError(
                f"search {self.searcher} follows one objective, but {len(names)} are given; use nsga3, tpe or random",
                field="search",
            )
        if kind.front and not self.several:
            raise ConfigurationError(
                f"search {self.searcher} follows a front and needs at least 2 objectives, but {len(names)} is given; "
                "use tpe or random",
                field="search",
            )
        if isinstance(self.scheduler, Pbt):
            self._check_population()
        if isinstance(self.scheduler, Asha):
            self._check_halving()
        if kind.grid:
            self._check_grid()
        if (self.report_every or 1) > self.training.steps:
            raise ConfigurationError(
                f"report_every {self.report_every} exceeds training.steps {self.training.steps}: no trial would report",
                field="report_every",
            )
        self._check_seeds()
        return self

    @property
    def searcher(self) -> str:
        """Name of the searcher that is used."""
        if self.search is not None:
            return self.search
        if isinstance(self.scheduler, Pbt):
            return "random"
        if not self.several:
            return "tpe"
        return "nsga2" if isinstance(self.scheduler, Asha) else "nsga3"

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.objectives) > 1

    @property
    def number_of_trials(self) -> int:
        """Configurations to try."""
        if self.trials is not None:
            return self.trials
        return self._grid_size() if SEARCHERS[self.searcher].grid else 20

    @property
    def interval(self) -> int:
        """Decisions between two reports."""
        return self.report_every or max(1, self.training.steps // 10)

    @property
    def reports(self) -> int:
        """Reports of a trial that runs to its end."""
        return math.ceil(self.training.steps / self.interval)

    def _grid_size(self) -> int:
        return math.prod(len(p.values) for p in self.space.values() if isinstance(p, Choice))

    def _check_grid(self) -> None:
        for name, parameter in self.space.items():
            if not isinstance(parameter, Choice):
                raise ConfigurationError(
                    f"space.{name}: search grid tries every combination, so each range must be of kind choice, "
                    f"not {parameter.kind}",
                    field=f"space.{name}",
                )
        if (self.trials or 0) > self._grid_size():
            raise ConfigurationError(
                f"trials {self.trials} exceeds the {self._grid_size()} combinations of the grid", field="trials"
            )

    def _check_population(self) -> None:
        if self.several:
            raise ConfigurationError(
                f"scheduler pbt ranks a population by one figure, but {len(self.objectives)} objectives are given; "
                "give one (such as hypervolume) or use asha or none",
                field="scheduler",
            )
        if self.searcher != "random":
            raise ConfigurationError(
                f"scheduler pbt draws its first population at random and moves it by itself; search {self.searcher} "
                "has no part in that: leave search out",
                field="search",
            )
        shapes = sorted(SHAPES & set(self.space))
        if shapes:
            raise ConfigurationError(
                f"space.{shapes[0]}: scheduler pbt hands checkpoints on, and one of another {shapes[0]} does not fit; "
                "fix it in training, or use asha or none",
                field=f"space.{shapes[0]}",
            )
        if self.number_of_trials < 2:
            raise ConfigurationError("trials must be at least 2 for scheduler pbt: a population", field="trials")

    def _check_halving(self) -> None:
        assert isinstance(self.scheduler, Asha)
        if self.several and self.scheduler.metric is None:
            raise ConfigurationError(
                "scheduler.metric is missing: with several objectives asha has to be told which figure to stop trials "
                "by; hypervolume is one that speaks for all",
                field="scheduler.metric",
            )
        if self.scheduler.grace > self.reports:
            raise ConfigurationError(
                f"scheduler.grace {self.scheduler.grace} exceeds the {self.reports} reports of a trial; "
                "lower it or report_every",
                field="scheduler.grace",
            )

    def _check_seeds(self) -> None:
        if self.confirmation is None:
            return
        for key in ("training_seeds", "evaluation_seeds"):
            seeds = getattr(self.confirmation, key)
            if not seeds:
                raise ConfigurationError(
                    f"confirmation.{key} is empty; give at least one, or confirmation: null",
                    field=f"confirmation.{key}",
                )
            seen = {self.training.seed} if key == "training_seeds" else set(self.training.evaluation_seeds)
            stale = sorted(seen & set(seeds))
            if stale or len(set(seeds)) < len(seeds):
                raise ConfigurationError(
                    f"confirmation.{key}: each must be given once and be new to the search"
                    + (f", but it has seen {stale[0]}" if stale else ""),
                    field=f"confirmation.{key}",
                )


def load_tuning_config(path: Path | str) -> TuningConfig:
    """Read a search's configuration from YAML.

    Raises:
        ConfigurationError: the file is missing, not YAML, or wrong; names the file, the key and what is allowed.
    """
    return read_config(path, TuningConfig)


def _translate(problem: ValidationError, model: type[BaseModel]) -> ConfigurationError:
    """The first complaint of pydantic as one line with the key and the allowed values."""
    first = problem.errors()[0]
    cause = first.get("ctx", {}).get("error")
    # The members of a union are named after their kinds, which no file holds.
    location = [str(part) for part in first["loc"] if str(part) not in _KINDS]
    field = ".".join(location)
    if isinstance(cause, ConfigurationError):
        inner = ".".join([*location, *([cause.field] if cause.field else [])])
        return ConfigurationError(f"{field}: {cause.message}" if field else cause.message, field=inner or None)
    if first["type"] == "extra_forbidden":
        hint = f"; allowed: {', '.join(sorted(model.model_fields))}" if len(location) == 1 else ""
        return ConfigurationError(f"unknown key {field!r}{hint}", field=field)
    return ConfigurationError(f"{field}: {complaint(first)}", field=field)


_KINDS = {"uniform", "loguniform", "int", "logint", "choice", "none", "asha", "pbt"}
