"""What a training run is told: one frozen document, from Python or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError

__all__ = ["Algorithm", "PPOSettings", "SACSettings", "TrainingConfig", "load_config"]

Algorithm = Literal["sac", "ppo"]

_DEFAULT_LEARNING_RATE: Mapping[str, float] = {"sac": 1e-3, "ppo": 1e-3}
# Control of queues and sessions answers within some ten steps: a short horizon learns in a fraction of the updates.
_DEFAULT_GAMMA: Mapping[str, float] = {"sac": 0.9, "ppo": 0.98}
# One step of a full outage can cost a hundred ranges: left in, it would be all that a critic learns about.
_SCENARIO_REWARD_CLIP = 20.0


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SACSettings(_Document):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905)."""

    updates_per_step: float = Field(default=0.125, gt=0, le=20, description="gradient updates per decision")
    tau: float = Field(default=0.01, gt=0, le=1, description="Polyak step of the target critics")
    learning_starts: int | None = Field(
        default=None,
        ge=1,
        description="decisions of the half-random warm-up; None: a 20th, at most 10,000",
    )
    buffer_size: int = Field(default=200_000, ge=1, description="decisions kept for replay")
    actor_learning_rate: float | None = Field(default=None, gt=0, description="None for a third of the critics'")
    head_start: int | None = Field(
        default=None, ge=0, description="updates of the critics before the actor moves; None: a tenth, at most 1,000"
    )
    relabel: float = Field(default=0.5, ge=0, le=1, description="share of a batch given a fresh preference")
    target_entropy: float | None = Field(default=None, description="nats; None for minus the action dimensions")


class PPOSettings(_Document):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347)."""

    rollout_length: int = Field(default=64, ge=2, description="steps per environment and iteration")
    minibatch: int = Field(default=512, ge=2, description="decisions per gradient update")
    epochs: int = Field(default=4, ge=1, description="passes over each rollout")
    clip: float = Field(default=0.2, gt=0, lt=1, description="bound on the probability ratio's change")
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    entropy: float = Field(default=0.003, ge=0, description="weight of the entropy bonus")
    value_coefficient: float = Field(default=0.5, gt=0)
    max_grad_norm: float = Field(default=0.5, gt=0)


class TrainingConfig(_Document):
    """One training run. Name either a ``scenario`` or any Gymnasium ``environment``.

    Attributes:
        scenario: entry-point name or ``module:attribute`` of a scenario.
        environment: Gymnasium id with a flat box observation; one objective, ``return``.
        options: keyword options of the scenario (or of ``gymnasium.make``).
        algorithm: ``sac`` (box actions) or ``ppo`` (box or discrete); None takes what fits the problem.
        steps: decisions to take: rows of the vector environment times its steps.
        seed: seed of everything random in the run.
        num_envs: environments stepped together; each may hold several decision makers.
        hidden: widths of the hidden layers of policy and critic.
        learning_rate, gamma: None takes the algorithm's default (sac: 1e-3, 0.9; ppo: 1e-3, 0.98).
        batch_size: rows of a SAC batch (PPO: ``ppo.minibatch``).
        reward_clip: bound on each objective's step reward, for learning only (figures stay unclipped); None takes 20
            for a scenario, whose rewards are normalised, and no bound for an environment.
        preference_hold: steps after which a running environment gets a fresh preference.
        warm_start: folder of an offline fit, a checkpoint or a bundle: the networks and the normaliser to begin with.
        evaluation_seeds: seeds the finished policy is evaluated on; empty skips the front.
        evaluation_preferences: number of preferences evaluated: modes first, then points spread over the simplex.
        evaluation_steps, evaluation_warmup, evaluation_replicas: see :func:`rlaas.scenarios.evaluate`.
        threads: torch threads while training. Networks this small are slower on more than one.

    Raises:
        ConfigurationError: an unknown key, a wrong type, or a value out of range, naming the key.
    """

    scenario: str | None = None
    environment: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    algorithm: Algorithm | None = None
    steps: int = Field(default=60_000, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**31)
    num_envs: int = Field(default=16, ge=1)
    hidden: tuple[int, ...] = Field(default=(64, 64), min_length=1)
    learning_rate: float | None = Field(default=None, gt=0)
    gamma: float | None = Field(default=None, ge=0, lt=1)
    batch_size: int = Field(default=256, ge=2)
    reward_clip: float | None = Field(default=None, gt=0)
    preference_hold: int = Field(default=100, ge=1)
    sac: SACSettings = Field(default_factory=SACSettings)
    ppo: PPOSettings = Field(default_factory=PPOSettings)
    warm_start: str | None = None
    evaluation_seeds: tuple[int, ...] = ()
    evaluation_preferences: int = Field(default=8, ge=1)
    evaluation_steps: int = Field(default=200, ge=1)
    evaluation_warmup: int = Field(default=20, ge=0)
    evaluation_replicas: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as problem:
            raise _translate(problem, type(self)) from problem

    @model_validator(mode="after")
    def _one_problem(self) -> TrainingConfig:
        if (self.scenario is None) == (self.environment is None):
            raise ValueError("give exactly one of scenario and environment")
        if any(width < 1 for width in self.hidden):
            raise ValueError("hidden: each width must be at least 1")
        if self.sac.buffer_size < self.batch_size:
            raise ValueError(
                f"sac.buffer_size {self.sac.buffer_size} is below batch_size {self.batch_size}; raise the former"
            )
        return self

    @property
    def problem_name(self) -> str:
        """Name of the scenario or id of the environment."""
        return self.scenario or self.environment or ""

    def resolved_learning_rate(self, algorithm: Algorithm) -> float:
        """The learning rate, or the algorithm's default."""
        return self.learning_rate if self.learning_rate is not None else _DEFAULT_LEARNING_RATE[algorithm]

    def resolved_gamma(self, algorithm: Algorithm) -> float:
        """The discount factor, or the algorithm's default."""
        return self.gamma if self.gamma is not None else _DEFAULT_GAMMA[algorithm]

    def resolved_learning_starts(self) -> int:
        """Decisions of SAC's warm-up."""
        if self.sac.learning_starts is not None:
            return self.sac.learning_starts
        return max(1, min(self.steps // 20, 10_000))

    def resolved_head_start(self) -> int:
        """Gradient updates of SAC's critics before its actor moves."""
        if self.sac.head_start is not None:
            return self.sac.head_start
        return int(min((self.steps - self.resolved_learning_starts()) * self.sac.updates_per_step / 10, 1_000))

    def resolved_reward_clip(self) -> float | None:
        """The bound on step rewards, or None for no bound."""
        if self.reward_clip is None and self.scenario is not None:
            return _SCENARIO_REWARD_CLIP
        return self.reward_clip


def load_config(path: Path | str) -> TrainingConfig:
    """Read a training configuration from YAML.

    Raises:
        ConfigurationError: the file is missing, not YAML, or wrong; names the file, the key and what is allowed.
    """
    return read_config(path, TrainingConfig)


def _translate(problem: ValidationError, model: type[BaseModel]) -> ConfigurationError:
    """The first complaint of pydantic as one line with the key and the allowed values."""
    first = problem.errors()[0]
    location = [str(part) for part in first["loc"]]
    field = ".".join(location) or "training config"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
        return ConfigurationError(
            f"unknown key {field!r}; allowed: {', '.join(sorted(model.model_fields))}", field=field
        )
    given = "" if not location else f" (got {str(first['input'])[:60]!r})"
    return ConfigurationError(f"{field}: {message}{given}", field=field)
