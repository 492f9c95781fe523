"""What a fit from logs is told: one frozen document, from Python or YAML."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.training.config import Algorithm

__all__ = ["FitSettings", "Method", "OfflineConfig", "RewardSettings", "SourceSettings", "load_offline_config"]

Method = Literal["cloning", "advantage_weighted", "iql", "cql"]

# What a layer of the lake is called; bronze holds decisions without their outcomes.
_TABLE = r"^(silver|gold)\.[a-z0-9_]+$"
_FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as problem:
            first = problem.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, ConfigurationError):
                # A part that checked itself: its own words, under its own name.
                joint = "." if cause.field and cause.message.startswith(f"{cause.field}:") else ": "
                message = f"{field}{joint}{cause.message}"
            elif first["type"] == "extra_forbidden":
                allowed = ", ".join(sorted(type(self).model_fields))
                message = f"unknown key {field!r}; allowed: {allowed}"
            elif field:
                message = f"{field}: {message} (got {str(first['input'])[:60]!r})"
            raise ConfigurationError(message, field=field or None) from problem


class SourceSettings(_Document):
    """Which rows of which table are read.

    Attributes:
        table: ``silver.transitions``, or a ``gold`` table with the same columns.
        version: Delta version of the table; None takes the newest.
        policy: only decisions of this registered policy.
        policy_versions: only decisions of these versions of it; empty for all.
        first_date, last_date: only decisions of these UTC days, both included.
    """

    table: str = Field(default="silver.transitions", pattern=_TABLE)
    version: int | None = Field(default=None, ge=0)
    policy: str | None = None
    policy_versions: tuple[int, ...] = ()
    first_date: datetime.date | None = None
    last_date: datetime.date | None = None

    @model_validator(mode="after")
    def _in_order(self) -> SourceSettings:
        if self.first_date is not None and self.last_date is not None and self.first_date > self.last_date:
            raise ValueError(f"first_date {self.first_date} is after last_date {self.last_date}")
        if self.policy_versions and self.policy is None:
            raise ValueError("policy_versions need a policy: versions count up within one")
        return self

    def describe(self) -> dict[str, Any]:
        """The filter alone, without what is open."""
        chosen = self.model_dump(mode="json", exclude={"table", "version"}, exclude_none=True)
        return {key: value for key, value in chosen.items() if value != []}


class RewardSettings(_Document):
    """What a logged outcome is worth, decided when it is read.

    Attributes:
        weights: factor on each objective's normalised reward by name; 1 where an objective is not named.
        clip: bound on each objective's reward after that; None for no bound.
        function: ``module:function`` in place of the normalised objectives. It is called with the scenario and a
            mapping of outcome field (objectives and measures) to values [n], NaN where a row has none, and returns
            rewards [n, n_objectives], larger is better, or [n], and then no preference applies.
    """

    weights: dict[str, float] = Field(default_factory=dict)
    clip: float | None = Field(default=None, gt=0)
    function: str | None = Field(default=None, pattern=_FUNCTION)


class AdvantageSettings(_Document):
    """Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177)."""

    temperature: float = Field(default=1.0, gt=0, description="deviations of the advantage per factor e of weight")
    largest_weight: float = Field(default=20.0, ge=1)


class IQLSettings(_Document):
    """Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169)."""

    expectile: float = Field(default=0.7, gt=0.5, lt=1, description="0.5 would be the behaviour's own value")
    temperature: float = Field(default=0.33, gt=0, description="deviations of the advantage per factor e of weight")
    largest_weight: float = Field(default=100.0, ge=1)
    tau: float = Field(default=0.01, gt=0, le=1, description="Polyak step of the target critics")


class CQLSettings(_Document):
    """Conservative Q-learning, the variant CQL(H) (Kumar et al. 2020, arXiv 2006.04779)."""

    alpha: float = Field(default=0.5, ge=0, description="weight of the penalty on actions that the log did not take")
    tau: float = Field(default=0.01, gt=0, le=1, description="Polyak step of the target critics")
    action_samples: int = Field(default=8, ge=1, description="box: actions drawn from each of three proposals")
    temperature: float = Field(default=0.1, gt=0, description="choices: of the policy, in deviations of a reward")
    target_entropy: float | None = Field(default=None, description="box: nats; None for minus the action dimensions")


class FitSettings(_Document):
    """How a policy is fitted to rows.

    Attributes:
        method: ``cloning``, ``advantage_weighted``, ``iql`` or ``cql``; each for box and discrete actions.
        algorithm: what the policy is to be fine-tuned with: decides the networks' activation. None takes what fits the
            scenario.
        epochs: passes over the rows (``advantage_weighted``: one such number for its values, another for its policy).
        seed: of the networks' first weights, the order of the rows and the preferences; the same seed gives the same
            bits.
        gamma: discount factor.
        hidden: widths of the hidden layers.
        learning_rate: of Adam, for all networks.
        batch_size: rows per gradient update.
        inverse_propensity: weigh the cloned actions by the inverse of their logged propensity, so that what the
            served policies seldom took counts as much as what they took all the time (``advantage_weighted``, ``iql``).
        largest_inverse: bound on that inverse, relative to its median.
        memory_rows: rows held in memory; more are spooled to a file and mapped.
    """

    method: Method = "iql"
    algorithm: Algorithm | None = None
    epochs: int = Field(default=30, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**31)
    gamma: float = Field(default=0.9, ge=0, lt=1)
    hidden: tuple[int, ...] = Field(default=(64, 64), min_length=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=256, ge=2)
    inverse_propensity: bool = False
    largest_inverse: float = Field(default=10.0, ge=1)
    memory_rows: int = Field(default=2_000_000, ge=1)
    advantage_weighted: AdvantageSettings = Field(default_factory=AdvantageSettings)
    iql: IQLSettings = Field(default_factory=IQLSettings)
    cql: CQLSettings = Field(default_factory=CQLSettings)

    @model_validator(mode="after")
    def _possible(self) -> FitSettings:
        if any(width < 1 for width in self.hidden):
            raise ValueError("hidden: each width must be at least 1")
        if self.inverse_propensity and self.method in ("cloning", "cql"):
            raise ValueError(f"inverse_propensity has no meaning for method {self.method}; use advantage_weighted, iql")
        return self


class OfflineConfig(_Document):
    """A fit from the lake: rows, reward, preference, method.

    Attributes:
        scenario: entry-point name or ``module:attribute`` of the scenario that was controlled.
        options: keyword options of the scenario.
        source: which rows.
        reward: what their outcomes are worth.
        preference: weights by objective to fit for; or ``mode``, the preference of that mode; or ``conditioned``.
        mode: see ``preference``.
        conditioned: fit one policy for all preferences: rows are relabelled with preferences drawn from the simplex.
        fit: the method and its settings.
    """

    scenario: str
    options: dict[str, Any] = Field(default_factory=dict)
    source: SourceSettings = Field(default_factory=SourceSettings)
    reward: RewardSettings = Field(default_factory=RewardSettings)
    preference: dict[str, float] | None = None
    mode: str | None = None
    conditioned: bool = False
    fit: FitSettings = Field(default_factory=FitSettings)

    @model_validator(mode="after")
    def _one_preference(self) -> OfflineConfig:
        given = [self.preference is not None, self.mode is not None, self.conditioned]
        if sum(given) != 1:
            raise ValueError("give exactly one of preference, mode and conditioned: true")
        return self


def load_offline_config(path: Path | str) -> OfflineConfig:
    """Read the configuration of a fit from YAML.

    Raises:
        ConfigurationError: the file is missing, not YAML, or wrong; names the file, the key and what is allowed.
    """
    return read_config(path, OfflineConfig)
